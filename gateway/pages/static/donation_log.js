// The page's position in the drive's log, so that each donation is announced exactly once.
//
// Donations arrive in messages that state which rows they cover (feed.js). Rows that no message covered, for
// example after a reconnect or a reload, are a hole. Holes are read from `/events` in the background, so that
// new donations do not wait for old ones.

import { parse } from "./feed.js";

const REMEMBERED_MS = 10 * 60_000; // a position older than this is discarded
const RENEWED_MS = 30_000; // an unchanged position is stored again
const PAGE_ROWS = 100;
const MOST_ROWS = 10_000; // in a larger hole only the newest rows are counted
const MOST_SHORT = 5; // after so many reads without the missing rows, the log was restored from a backup
const READ_TIMEOUT_MS = 8_000;
const BACKOFF_MS = [500, 1_000, 2_000, 4_000, 8_000, 15_000, 30_000];

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** What `remember` stored for this page; null if there is nothing, or it is too old or unreadable. */
function recall(key) {
  try {
    const kept = parse(localStorage.getItem(key));
    return kept && Date.now() - kept.at < REMEMBERED_MS ? kept : null;
  } catch {
    return null; // an iframe on another site may have no storage
  }
}

export class DonationLog {
  #base;
  #key;
  #position = null;
  #holes = [];
  #filling = false;
  #stored = "";
  #storedAt = 0;
  /** True while missed donations are being read, so that their number is not known yet. */
  counting = false;

  /** `onRows(rows, over)` receives the counted donations of a hole; `over`: there were more than could be read. */
  constructor(drive, key, onRows) {
    this.#base = `/v1/drives/${encodeURIComponent(drive)}/events`;
    this.#key = key;
    this.onRows = onRows;
    const kept = recall(key);
    this.#position = kept?.position ?? null;
    this.#holes = kept?.holes ?? [];
    /** Donations that this page had received and not shown before it was reloaded. */
    this.unshown = kept?.unshown ?? 0;
  }

  /** Advances the position by what a message covers; returns true if its donation is new. */
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

  /** Stores the position for a reload; `unshown` donations were received and are not shown yet. */
  remember(unshown) {
    if (!this.#position) return;
    const state = JSON.stringify({ position: this.#position, holes: this.#holes, unshown });
    const now = Date.now();
    if (state === this.#stored && now - this.#storedAt < RENEWED_MS) return;
    [this.#stored, this.#storedAt] = [state, now];
    try {
      localStorage.setItem(this.#key, JSON.stringify({ at: now, ...JSON.parse(state) }));
    } catch {
      // Without storage a reload starts without a position.
    }
  }

  async #fill() {
    if (this.#filling || !this.#holes.length) return;
    this.#filling = this.counting = true;
    let tries = 0;
    while (this.#holes.length) {
      const whole = await this.#readInto(this.#holes[0], tries);
      this.counting = whole; // if the log cannot be read now, the number known so far is shown
      tries = whole ? 0 : tries + 1;
      if (!whole) await pause(BACKOFF_MS[Math.min(tries, BACKOFF_MS.length) - 1]);
    }
    this.#filling = this.counting = false;
    this.onRows([], false);
  }

  /** Reads a page of a hole; returns false if the log cannot be read or does not have the rows (yet). */
  async #readInto(hole, tries) {
    const over = hole.to - hole.from > MOST_ROWS;
    if (over) hole.from = hole.to - MOST_ROWS;
    const rows = await this.#read(hole.from);
    if (hole !== this.#holes[0]) return true; // a new log began meanwhile
    if (!rows) return false;
    const within = rows.filter((row) => row.sequence <= hole.to);
    hole.from = rows.length > within.length ? hole.to : (within[within.length - 1]?.sequence ?? hole.from);
    const gone = tries >= MOST_SHORT && within.length === 0;
    if (hole.from >= hole.to || gone) this.#holes.shift();
    this.onRows(within.filter((row) => row.type === "donation.counted"), over);
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
