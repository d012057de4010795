// A drive's live figures: the event stream while it works, polled totals while it does not.
//
// Everything it hands on is raw text, so that a burst costs a push a frame and nothing more. `proven` is
// when the drive's figures were last confirmed: by a frame, or by a poll that answered (304 included).

const STREAM_QUIET_MS = 12_000; // a silent stream is asked after by a poll: a dead line sends no error
const POLL_MS = 2_500;
const POLL_TIMEOUT_MS = 8_000;
const BACKOFF_MS = [500, 1_000, 2_000, 4_000, 8_000, 15_000, 30_000];
const DRAIN_SPREAD_MS = 1_500;

const spread = (ms) => ms * (0.5 + Math.random());

export class Feed {
  #source = null;
  #failures = 0;
  #etag = "";
  #polling = false;
  #heard = 0;
  #connectTimer = 0;

  /** `hear(kind, text)` gets "totals" and "donation" frames, and "unknown" when there is no such drive. */
  constructor(drive, hear) {
    this.base = `/v1/drives/${encodeURIComponent(drive)}`;
    this.hear = hear;
    this.proven = 0;
    this.streaming = false;
  }

  start() {
    this.#connect();
    setInterval(() => this.#askAfterSilence(), STREAM_QUIET_MS / 4);
  }

  #connect() {
    clearTimeout(this.#connectTimer);
    this.#source?.close();
    const source = (this.#source = new EventSource(`${this.base}/live`));
    const take = (kind) => (event) => {
      this.#confirm();
      this.streaming = true;
      this.#failures = 0;
      this.hear(kind, event.data);
    };
    source.addEventListener("totals", take("totals"));
    source.addEventListener("donation", take("donation"));
    source.addEventListener("milestone", () => this.#confirm());
    source.addEventListener("gap", () => this.#poll());
    source.addEventListener("drain", () => this.#leave(Math.random() * DRAIN_SPREAD_MS));
    source.onerror = () => this.#lose();
  }

  /** The server is going away on purpose: others must not all return in the same moment. */
  #leave(delay) {
    this.streaming = false;
    this.#source?.close();
    clearTimeout(this.#connectTimer);
    this.#connectTimer = setTimeout(() => this.#connect(), delay);
  }

  #lose() {
    const step = Math.min(this.#failures, BACKOFF_MS.length - 1);
    this.#failures += 1;
    this.#leave(spread(BACKOFF_MS[step]));
    this.#pollUntilStreaming();
  }

  async #pollUntilStreaming() {
    if (this.#polling) return;
    this.#polling = true;
    while (!this.streaming) {
      await this.#poll();
      await new Promise((done) => setTimeout(done, spread(POLL_MS)));
    }
    this.#polling = false;
  }

  /** One conditional read of the totals; true when it answered. */
  async #poll() {
    try {
      const headers = this.#etag ? { "If-None-Match": this.#etag } : {};
      const limit = AbortSignal.timeout(POLL_TIMEOUT_MS);
      const reply = await fetch(`${this.base}/totals`, { headers, cache: "no-store", signal: limit });
      if (reply.status === 200) {
        const text = await reply.text();
        this.#etag = reply.headers.get("ETag") ?? "";
        this.hear("totals", text);
      } else if (reply.status === 404) this.hear("unknown", "");
      else if (reply.status !== 304) return false;
      this.#confirm();
      return true;
    } catch {
      return false;
    }
  }

  async #askAfterSilence() {
    if (!this.streaming || performance.now() - this.#heard < STREAM_QUIET_MS) return;
    if (!(await this.#poll())) this.#lose();
  }

  #confirm() {
    this.#heard = this.proven = performance.now();
  }
}
