// A bounded queue of donations to announce, in order. In a burst the smallest are announced as one number, and
// so are the donations that were missed.

import { toMinor } from "./money.js";

const MISSED_WAITS = 8; // so many new donations are shown before the number of missed ones

export class AlertQueue {
  constructor(limit = 30) {
    this.limit = limit;
    this.donations = [];
    this.more = 0;
    this.missed = 0;
    this.over = false; // more donations were missed than `missed`
    this.since = 0; // cards shown since the last number of missed donations
  }

  /** Donations that wait for a card of their own. */
  get length() {
    return this.donations.length;
  }

  /** All donations not shown yet, with a card of their own or as part of a number. */
  get unshown() {
    return this.donations.length + this.more + this.missed;
  }

  offer(donation) {
    this.donations.push({ ...donation, minor: toMinor(donation.amount.value) });
    if (this.donations.length <= this.limit) return;
    let least = 0;
    this.donations.forEach((one, i) => {
      if (one.minor < this.donations[least].minor) least = i;
    });
    this.donations.splice(least, 1);
    this.more += 1;
  }

  /** Count `n` donations that arrived while the page was not visible; `over`: there were more than `n`. */
  miss(n, over = false) {
    this.missed += n;
    this.over ||= over;
  }

  /** The page is hidden: count all waiting donations as missed. */
  missAll() {
    this.miss(this.donations.length + this.more);
    this.donations = [];
    this.more = 0;
  }

  /**
   * The next card: a donation, `{ missed: n, over }`, `{ more: n }` for donations dropped in a burst, or null.
   * While `counting`, the number of missed donations is incomplete and is not returned.
   */
  next(counting = false) {
    const due = this.missed > 0 && !counting;
    if (this.donations.length && !(due && this.since >= MISSED_WAITS)) {
      this.since += 1;
      return this.donations.shift();
    }
    if (due) return this.#take("missed", { over: this.over });
    return this.more ? this.#take("more") : null;
  }

  #take(kind, extra = {}) {
    const card = { [kind]: this[kind], ...extra };
    this[kind] = 0;
    if (kind === "missed") {
      this.over = false;
      this.since = 0;
    }
    return card;
  }
}
