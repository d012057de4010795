// A page's link to the hub (hub.js). Where the hub does not answer, the page polls by itself, and helps to get a
// new one; where there cannot be a hub it polls for good.

import { Feed } from "./feed.js";
import { Candidate, NAME, channelOf } from "./hub.js";

const CHECK_MS = 1_000;
const QUIET_MS = 5_000; // a hub calls every 3 s
const ANSWER_MS = 1_500;

export class Link {
  #drive;
  #take;
  #control = null;
  #lastMessageAt = -Infinity;
  #asked = 0;
  #losses = 0;
  #own = null;
  #candidate = null;

  /** `take(message)` gets the messages of feed.js; some may come twice. */
  constructor(drive, take) {
    this.#drive = drive;
    this.#take = take;
  }

  start() {
    const shared = typeof SharedWorker === "function" || navigator.locks;
    if (typeof BroadcastChannel !== "function" || !shared) {
      this.#poll();
      return;
    }
    channelOf(this.#drive).onmessage = ({ data }) => {
      this.#noteMessage();
      this.#take(data);
    };
    this.#control = new BroadcastChannel(NAME);
    this.#control.onmessage = ({ data }) => data.rollCall && this.#answer();
    document.addEventListener("visibilitychange", () => this.#announce(false));
    this.#ask();
    this.#raise();
    setInterval(() => this.#check(), CHECK_MS);
  }

  #noteMessage() {
    this.#lastMessageAt = performance.now();
    this.#asked = 0;
    this.#losses = 0;
    this.#own?.stop();
    this.#own = null;
  }

  #answer() {
    this.#noteMessage();
    this.#announce(false);
  }

  #ask() {
    this.#asked = performance.now();
    this.#announce(true);
  }

  #announce(ask) {
    this.#control.postMessage({ watch: this.#drive, ask, visible: !document.hidden });
  }

  #check() {
    const now = performance.now();
    if (now - this.#lastMessageAt < QUIET_MS) return;
    if (!this.#asked) this.#ask();
    else if (now - this.#asked > ANSWER_MS) this.#lose();
  }

  #lose() {
    this.#losses += 1;
    this.#poll();
    this.#raise();
    this.#ask();
    this.#asked += Math.random() * CHECK_MS; // pages that lost it together do not seize it together
  }

  #poll() {
    this.#own ??= new Feed(this.#drive, this.#take).start();
  }

  /** The worker first; if it does not come, an election among the pages; then by force. */
  #raise() {
    const worker = startWorker(() => this.#stand());
    if (!worker && this.#losses < 2) this.#stand();
    else if (this.#losses >= 4 || (!worker && this.#losses >= 2)) this.#seize();
    else if (this.#losses >= 2) this.#stand();
  }

  #stand() {
    if (navigator.locks) (this.#candidate ??= new Candidate()).stand();
  }

  #seize() {
    if (navigator.locks) (this.#candidate ??= new Candidate()).seize();
  }
}

/** False where there is no SharedWorker; `failed` is called where its script does not run. */
function startWorker(failed) {
  try {
    const worker = new SharedWorker(new URL("./hub_worker.js", import.meta.url), { type: "module", name: NAME });
    worker.onerror = failed;
    return true;
  } catch {
    return false;
  }
}
