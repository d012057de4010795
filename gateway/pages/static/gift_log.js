// Which gifts of the drive's log this page has dealt with: each once, none passed over.
//
// Gifts come in messages that name the rows they cover (feed.js). Rows that no message covered, after a
// reconnect or a reload, are a hole; holes are read from `/events` in the background, so that new gifts
// never wait for old ones.

import { parse } from "./feed.js";

const REMEMBERED_MS = 10 * 60_000; // a page hidden for longer starts anew
const PAGE_ROWS = 100;
const MOST_ROWS = 10_000; // of a larger hole the newest are counted
const MOST_SHORT = 5; // rows that the log, asked so often, does not have: it was restored from a backup
const READ_TIMEOUT_MS = 8_000;
const BACKOFF_MS = [500, 1_000, 2_000, 4_000, 8_000, 15_000, 30_000];

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** What was written for this page, or null: nothing, too old, or not readable. */
function recall(key) {
  try {
    const kept = parse(localStorage.getItem(key));
    return kept && Date.now() - kept.at < REMEMBERED_MS ? kept : null;
  } catch {
    return null; // a frame of another site may have no storage
  }
}

export class GiftLog {
  #base;
  #key;
  #position = null;
  #holes = [];
  #filling = false;
  /** True while missed gifts are being read, so that their number is not known yet. */
  counting = false;

  /** `told(rows, over)`: counted gifts of a hole; `over` is true where there were more than could be read. */
  constructor(drive, key, told) {
    this.#base = `/v1/drives/${encodeURIComponent(drive)}/events`;
    this.#key = key;
    this.told = told;
    const kept = recall(key);
    this.#position = kept?.position ?? null;
    this.#holes = kept?.holes ?? [];
    /** Gifts that the page before this one knew of and did not show. */
    this.unshown = kept?.unshown ?? 0;
  }

  /** Takes note of what a message covers; true where its gift is new. */
  follow({ drive, epoch, after, upto }) {
    if (!Number.isInteger(upto)) return false;
    if (drive !== this.#position?.drive || epoch > this.#position.epoch) {
      this.#position = { drive, epoch, sequence: after };
      this.#holes = [];
    }
    const { sequence } = this.#position;
    if (epoch < this.#position.epoch) return false;
    if (after > sequence) this.#holes.push({ from: sequence, to: after });
    if (upto > sequence) this.#position.sequence = upto;
    this.#fill();
    return upto > sequence && upto > after;
  }

  /** Keeps the position for a reload; `unshown` gifts were taken and are not shown yet. */
  remember(unshown) {
    if (!this.#position) return;
    const kept = { at: Date.now(), position: this.#position, holes: this.#holes, unshown };
    try {
      localStorage.setItem(this.#key, JSON.stringify(kept));
    } catch {
      // Without storage a reload begins anew.
    }
  }

  async #fill() {
    if (this.#filling || !this.#holes.length) return;
    this.#filling = this.counting = true;
    let tries = 0;
    while (this.#holes.length) {
      const whole = await this.#readInto(this.#holes[0], tries);
      this.counting = whole; // a number that cannot be completed now is shown as it is
      tries = whole ? 0 : tries + 1;
      if (!whole) await pause(BACKOFF_MS[Math.min(tries, BACKOFF_MS.length) - 1]);
    }
    this.#filling = this.counting = false;
    this.told([], false);
  }

  /** Reads a page of a hole; false where the log could not be read or does not have the rows (yet). */
  async #readInto(hole, tries) {
    const over = hole.to - hole.from > MOST_ROWS;
    if (over) hole.from = hole.to - MOST_ROWS;
    const rows = await this.#read(hole.from);
    if (hole !== this.#holes[0]) return true; // the log began anew meanwhile
    if (!rows) return false;
    const within = rows.filter((row) => row.sequence <= hole.to);
    hole.from = rows.length > within.length ? hole.to : (within[within.length - 1]?.sequence ?? hole.from);
    const gone = tries >= MOST_SHORT && within.length === 0;
    if (hole.from >= hole.to || gone) this.#holes.shift();
    this.told(within.filter((row) => row.type === "donation.counted"), over);
    return within.length > 0 || hole !== this.#holes[0];
  }

  async #read(after) {
    try {
      const limit = AbortSignal.timeout(READ_TIMEOUT_MS);
      const address = `${this.#base}?after=${after}&limit=${PAGE_ROWS}`;
      const reply = await fetch(address, { cache: "no-store", signal: limit });
      return reply.status === 200 ? (await reply.json()).data : null;
    } catch {
      return null;
    }
  }
}
