// One hub per origin reads the live streams for all pages of the origin: browsers open at most six HTTP/1.1
// connections per origin, and an OBS scene collection may have a dozen overlays.
//
// The hub runs in a SharedWorker (hub_worker.js), or in one of the pages if there is none. Where Web Locks exist,
// only the holder of the lock is the hub, so that a hub that hangs can be replaced (`seize`).
//
// Channel NAME: the hub sends { rollCall }, pages send { watch: drive, ask, visible }. Channel NAME/drive:
// the feed's messages (feed.js).

import { Feed } from "./feed.js";

export const NAME = "ataa-feed-1"; // increment the number for a change that pages already open cannot read
const MOST_STREAMS = 3; // of six connections: pages, assets and polls use the others
const MOST_DRIVES = 50;
const ROLL_CALL_MS = 3_000;
const MISSED_CALLS = 5; // a drive is dropped after so many roll calls without an answer from a page

export const channelOf = (drive) => new BroadcastChannel(`${NAME}/${drive}`);

export class Hub {
  #control = new BroadcastChannel(NAME);
  #watched = new Map();
  #slots = { free: MOST_STREAMS };
  #timer = 0;

  /** `onVisiblePage()` is called when a visible page watches: a hub in a hidden page then gives way to it. */
  constructor(onVisiblePage = () => {}) {
    this.onVisiblePage = onVisiblePage;
  }

  start() {
    this.#control.onmessage = ({ data }) => data.watch && this.#watch(data);
    this.#timer = setInterval(() => this.#call(), ROLL_CALL_MS);
    this.#call();
  }

  stop() {
    clearInterval(this.#timer);
    this.#control.close();
    for (const drive of [...this.#watched.keys()]) this.#drop(drive);
  }

  #call() {
    for (const [drive, watched] of [...this.#watched]) {
      watched.unanswered += 1;
      if (watched.unanswered > MISSED_CALLS) this.#drop(drive);
    }
    this.#control.postMessage({ rollCall: true });
  }

  #watch({ watch: drive, ask, visible }) {
    const known = this.#watched.get(drive);
    const watched = known ?? (this.#watched.size < MOST_DRIVES ? this.#add(drive) : null);
    if (!watched) return;
    watched.unanswered = 0;
    if (ask && known) watched.channel.postMessage(watched.feed.state());
    if (visible) this.onVisiblePage();
  }

  #add(drive) {
    const channel = channelOf(drive);
    const feed = new Feed(drive, (message) => channel.postMessage(message), this.#slots).start();
    const watched = { channel, feed, unanswered: 0 };
    this.#watched.set(drive, watched);
    return watched;
  }

  #drop(drive) {
    const { channel, feed } = this.#watched.get(drive);
    this.#watched.delete(drive);
    feed.stop();
    channel.close();
  }
}

/** Makes this page or worker the hub once it holds the lock. */
export class Candidate {
  #queued = null;
  #release = () => {};

  /** Queue for the lock. */
  async stand() {
    if (this.#queued) return;
    this.#queued = new AbortController();
    await this.#request({ signal: this.#queued.signal });
  }

  /** Take the lock from a hub that does not answer. */
  async seize() {
    this.#queued?.abort();
    this.#queued = new AbortController();
    await this.#request({ steal: true });
  }

  async #request(options) {
    const turn = this.#queued;
    let hub = null;
    const hold = () => {
      hub = new Hub(() => this.#yieldWhenHidden());
      hub.start();
      return new Promise((release) => (this.#release = release));
    };
    // Rejected if another candidate seized the lock, or if this request was aborted.
    await navigator.locks.request(NAME, options, hold).catch(() => {});
    hub?.stop();
    if (turn !== this.#queued) return;
    this.#queued = null;
    this.stand();
  }

  /** Browsers run timers of hidden pages once a minute, so a visible page should be the hub. */
  #yieldWhenHidden() {
    if (globalThis.document?.hidden) this.#release();
  }
}
