// A drive's live figures: from the event stream while it works, else from polled totals.
//
// A feed runs in the hub (hub.js), or in a page that has no hub. It forwards raw text without parsing it per
// page; each frame is one message. Each message has `kind`:
//
//   figures  `text` (the totals, or null where they are unchanged)
//   gift     `text` (a donation frame, or null for a log row that is not announced)
//   unknown  there is no such drive
//
// and a position in the log of `drive` (an id): the message covers every donation of `epoch` with a sequence in
// (`after`, `upto`]. A page whose position is before `after` has missed the rows in between and reads them itself
// (donation_log.js). `confirmed` is when the server last answered, `sent` when the message was sent, both by this
// machine's clock.

const STREAM_QUIET_MS = 12_000; // totals arrive at least every 5 s, unless the connection is dead or a proxy buffers
const FIRST_FRAME_MS = 8_000; // a stream without a frame for this long is closed, and retried later
const POLL_MS = 2_500;
const POLL_TIMEOUT_MS = 8_000;
const BACKOFF_MS = [500, 1_000, 2_000, 4_000, 8_000, 15_000, 30_000];
const DRAIN_SPREAD_MS = 1_500;

const spread = (ms) => ms * (0.5 + Math.random());

/**
 * Whether `next` replaces `held`. Within an epoch figures never go back, although another gateway may be slightly
 * behind. A different drive id under the same slug means that the installation was created again.
 */
export function isNewer(next, held) {
  if (!held || next.drive !== held.drive || next.epoch > held.epoch) return true;
  if (next.epoch < held.epoch) return false;
  return next.sequence > held.sequence || (next.sequence === held.sequence && next.as_of >= held.as_of);
}

export function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null; // a truncated frame must not stop the others
  }
}

export class Feed {
  #source = null;
  #streaming = false;
  #failures = 0;
  #unknown = false;
  #stopped = false;
  #etag = "";
  #lastFrameAt = 0; // the last frame of the stream
  #confirmed = 0;
  #timer = 0;
  #totals = null;
  #text = null;
  #drive = "";
  #epoch = 0;
  #upto = null; // the messages so far cover the log up to here; null before the first totals
  #gapped = false;

  /** `emit(message)` receives the messages. `slots.free` is how many more streams may be opened; at 0 it polls. */
  constructor(drive, emit, slots = { free: 0 }) {
    this.base = `/v1/drives/${encodeURIComponent(drive)}`;
    this.emit = emit;
    this.slots = slots;
  }

  start() {
    this.#run();
    return this;
  }

  stop() {
    this.#stopped = true;
    this.#close();
  }

  /** The message for a page that has just connected. */
  state() {
    return this.#message("figures", this.#text, this.#upto);
  }

  async #run() {
    while (!this.#stopped) {
      await this.#look();
      await new Promise((done) => setTimeout(done, spread(POLL_MS)));
    }
  }

  async #look() {
    if (this.#streaming && performance.now() - this.#lastFrameAt < STREAM_QUIET_MS) return;
    if (this.#streaming) this.#lose();
    await this.#poll();
    if (!this.#source && !this.#timer && !this.#unknown) this.#connect();
  }

  // --- the stream ---

  #connect() {
    this.#timer = 0;
    if (this.#stopped || this.slots.free < 1 || typeof EventSource !== "function") return;
    this.slots.free -= 1;
    // After a `gap` nothing is to be replayed: the edge ends a stream with it (docs/operations/edge.md).
    const from = this.#upto === null || this.#gapped ? "" : `?last_event_id=${this.#upto}`;
    const source = (this.#source = new EventSource(`${this.base}/live${from}`));
    this.#timer = setTimeout(() => this.#lose(), FIRST_FRAME_MS);
    const on = (kind, take) => source.addEventListener(kind, (event) => this.#framed() && take(event));
    on("totals", (event) => this.#takeTotals(event.data));
    on("donation", (event) => this.#takeRow(Number(event.lastEventId), event.data));
    on("milestone", (event) => this.#takeRow(Number(event.lastEventId), null));
    on("gap", () => (this.#gapped = true));
    on("drain", () => this.#leave(Math.random() * DRAIN_SPREAD_MS)); // not all clients at once
    source.onerror = () => this.#lose();
  }

  #framed() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    this.#streaming = true;
    this.#failures = 0;
    this.#lastFrameAt = performance.now();
    this.#confirmed = Date.now();
    return true;
  }

  #lose() {
    const step = Math.min(this.#failures, BACKOFF_MS.length - 1);
    this.#failures += 1;
    this.#leave(spread(BACKOFF_MS[step]));
  }

  #leave(delay) {
    this.#close();
    this.#timer = setTimeout(() => this.#connect(), delay);
  }

  #close() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    this.#streaming = false;
    if (!this.#source) return;
    this.#source.close();
    this.#source = null;
    this.slots.free += 1;
  }

  // --- received frames ---

  /** Totals advance the position only while no stream sends the rows one by one. */
  #takeTotals(text) {
    const next = parse(text);
    if (!next || !Number.isInteger(next.epoch) || !Number.isInteger(next.sequence)) return;
    if (isNewer(next, this.#totals)) {
      this.#totals = next;
      this.#text = text;
    }
    if (next.drive !== this.#drive || next.epoch > this.#epoch) {
      this.#drive = next.drive; // a new log: its sequences are unrelated to the old ones
      this.#epoch = next.epoch;
      this.#upto = next.sequence;
    } else if (next.epoch === this.#epoch && (this.#gapped || !this.#streaming)) {
      this.#upto = Math.max(this.#upto, next.sequence);
    }
    this.#gapped = false;
    this.#unknown = false;
    this.emit(this.#message("figures", text, this.#upto));
  }

  /** Rows arrive in order and without missing sequences, except after a `gap`. */
  #takeRow(sequence, text) {
    if (!Number.isInteger(sequence) || (this.#upto !== null && sequence <= this.#upto)) return;
    const after = this.#gapped || this.#upto === null ? sequence - 1 : this.#upto;
    this.#gapped = false;
    this.#upto = sequence;
    this.emit(this.#message("gift", text, after));
  }

  #message(kind, text, after) {
    const position = { drive: this.#drive, epoch: this.#epoch, after, upto: this.#upto };
    const health = { streaming: this.#streaming, confirmed: this.#confirmed, sent: Date.now() };
    return { kind, text, ...position, ...health };
  }

  /** One conditional read of the totals. */
  async #poll() {
    try {
      const headers = this.#etag ? { "If-None-Match": this.#etag } : {};
      const limit = AbortSignal.timeout(POLL_TIMEOUT_MS);
      const reply = await fetch(`${this.base}/totals`, { headers, cache: "no-store", signal: limit });
      const text = reply.status === 200 ? await reply.text() : null;
      if (this.#stopped) return;
      if (text !== null || reply.status === 304) this.#confirmed = Date.now();
      if (text !== null) {
        this.#etag = reply.headers.get("ETag") ?? "";
        this.#takeTotals(text);
      } else if (reply.status === 304) {
        this.emit(this.#message("figures", null, this.#upto));
      } else if (reply.status === 404) {
        this.#unknown = true;
        this.emit({ kind: "unknown" });
      }
    } catch {
      return; // no connection: `confirmed` stays old, which the pages show, and the next round tries again
    }
  }
}
