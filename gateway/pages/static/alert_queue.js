// Gifts waiting to be announced, in order and bounded: in a burst the smallest are told as a number, and so
// are those that were missed.

import { toMinor } from "./money.js";

const MISSED_WAITS = 8; // new gifts go before the number of the missed, but not for ever

export class AlertQueue {
  constructor(limit = 30) {
    this.limit = limit;
    this.gifts = [];
    this.more = 0;
    this.missed = 0;
    this.over = false; // there were more missed than were counted
    this.since = 0;
  }

  /** Gifts that wait alone for their card. */
  get length() {
    return this.gifts.length;
  }

  /** All gifts not shown yet, alone or as a number. */
  get unshown() {
    return this.gifts.length + this.more + this.missed;
  }

  offer(gift) {
    this.gifts.push({ ...gift, minor: toMinor(gift.amount.value) });
    if (this.gifts.length <= this.limit) return;
    let least = 0;
    for (let i = 1; i < this.gifts.length; i++) if (this.gifts[i].minor < this.gifts[least].minor) least = i;
    this.gifts.splice(least, 1);
    this.more += 1;
  }

  /** `n` gifts that came while nobody could see them. */
  miss(n, over = false) {
    this.missed += n;
    this.over ||= over;
  }

  /** Nobody sees the cards any more: what waits is missed. */
  missAll() {
    this.miss(this.gifts.length + this.more);
    this.gifts = [];
    this.more = 0;
  }

  /**
   * The next gift, or `{ missed: n, over }`, or `{ more: n }` for those passed over, or null. While `counting`
   * the number of the missed is not complete, and waits.
   */
  next(counting = false) {
    const due = this.missed > 0 && !counting;
    if (this.gifts.length && !(due && this.since >= MISSED_WAITS)) {
      this.since += 1;
      return this.gifts.shift();
    }
    if (due) return this.#take("missed", { over: this.over });
    return this.more ? this.#take("more") : null;
  }

  #take(kind, besides = {}) {
    const card = { [kind]: this[kind], ...besides };
    this[kind] = 0;
    if (kind === "missed") {
      this.over = false;
      this.since = 0;
    }
    return card;
  }
}
