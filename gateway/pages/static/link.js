// A page's connection to the hub (hub.js). While the hub does not answer, the page polls by itself and tries to
// start a new hub. In a browser that cannot have a hub the page always polls, and in a local file it reads a stream of
// its own.

import { Feed } from "./feed.js";
import { Candidate, NAME, channelOf } from "./hub.js";
import { inLocalFile } from "./local_file.js";

const CHECK_MS = 1_000;
const QUIET_MS = 5_000; // a hub sends a roll call every 3 s
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

  /** `take(message)` receives the messages of feed.js, some of them possibly twice. */
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
    this.#asked += Math.random() * CHECK_MS; // pages that lost the hub together must not seize the lock together
  }

  #poll() {
    const slots = { free: inLocalFile ? 1 : 0 };
    this.#own ??= new Feed(this.#drive, this.#take, slots).start();
  }

  /** Starts the worker. If no hub answers, the pages queue for the lock; if that fails too, one seizes it. */
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

/** Returns false if there is no SharedWorker; `failed` is called if its script cannot run. */
function startWorker(failed) {
  try {
    const worker = new SharedWorker(new URL("./hub_worker.js", import.meta.url), { type: "module", name: NAME });
    worker.onerror = failed;
    return true;
  } catch {
    return false;
  }
}
