// A bounded queue of donations to announce, in order. While more arrive than can be shown, one card announces all
// donations of some seconds, with the largest by name; donations of at least `grand` keep a card of their own.

import { decimalsOf, toMinor } from "./money.js";

const MISSED_WAITS = 8; // so many new donations are shown before the number of missed ones
const CROWD = 8; // more waiting donations than this are announced together
const BURST_MS = 10_000;
const NAMED = 3;
const GRAND = 500n; // in the major unit of the donation's currency
const GRAND_CARDS = 3; // cards of their own between two bursts

/** The amount that counts: in the drive's currency, where the donation was given in another. */
export const amountOf = (donation) => donation.reporting_amount ?? donation.amount;

export const isGrand = ({ amount }) => toMinor(amount.value) >= GRAND * 10n ** BigInt(decimalsOf(amount.value));

export class AlertQueue {
  constructor(limit = 30) {
    this.limit = limit;
    this.donations = [];
    this.more = 0; // donations of the next burst that are not in `donations`
    this.missed = 0;
    this.over = false; // more donations were missed than `missed`
    this.since = 0; // cards shown since the last number of missed donations
    this.began = 0; // when the first donation of the next burst arrived
    this.quietUntil = -Infinity; // the last burst covers the time until here
    this.grandLeft = GRAND_CARDS;
  }

  /** Donations that wait for a card of their own, or for their name on a burst's. */
  get length() {
    return this.donations.length;
  }

  /** All donations not shown yet, with a card of their own or as part of a number. */
  get unshown() {
    return this.donations.length + this.more + this.missed;
  }

  offer(donation, now = performance.now()) {
    if (!this.donations.length && !this.more) this.began = now;
    this.donations.push({ ...donation, minor: toMinor(amountOf(donation).value) });
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
   * The next card, or null if there is none now: a donation, `{ missed: n, over }`, or `{ burst: n, seconds, top }`
   * with the largest donations in `top`. While `counting`, the number of missed donations is incomplete and is not
   * returned.
   */
  next(counting = false, now = performance.now()) {
    const due = this.missed > 0 && !counting;
    if (due && (this.since >= MISSED_WAITS || !(this.length + this.more))) return this.#takeMissed();
    const crowded = this.length + this.more > CROWD;
    if (crowded || now < this.quietUntil) {
      const grand = this.#takeGrand();
      if (grand || now < this.quietUntil) return grand;
      return this.#takeBurst(now);
    }
    this.grandLeft = GRAND_CARDS;
    if (!this.length) return this.more ? this.#takeBurst(now) : null;
    this.since += 1;
    return this.donations.shift();
  }

  #takeGrand() {
    const first = this.grandLeft > 0 ? this.donations.findIndex(isGrand) : -1;
    if (first < 0) return null;
    this.grandLeft -= 1;
    this.since += 1;
    return this.donations.splice(first, 1)[0];
  }

  #takeBurst(now) {
    const top = this.donations.sort((a, b) => (a.minor < b.minor ? 1 : a.minor > b.minor ? -1 : 0)).slice(0, NAMED);
    const seconds = Math.max(1, Math.round((now - this.began) / 1_000));
    const card = { burst: this.length + this.more, seconds, top };
    this.donations = [];
    this.more = 0;
    this.since += MISSED_WAITS;
    this.quietUntil = now + BURST_MS;
    this.grandLeft = GRAND_CARDS;
    return card;
  }

  #takeMissed() {
    const card = { missed: this.missed, over: this.over };
    this.missed = 0;
    this.over = false;
    this.since = 0;
    return card;
  }
}
