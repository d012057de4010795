// Gifts waiting to be announced, in order and bounded: in a burst the smallest are told as a number.

import { toMinor } from "./money.js";

export class AlertQueue {
  constructor(limit = 30) {
    this.limit = limit;
    this.gifts = [];
    this.more = 0;
  }

  get length() {
    return this.gifts.length;
  }

  offer(gift) {
    this.gifts.push({ ...gift, minor: toMinor(gift.amount.value) });
    if (this.gifts.length <= this.limit) return;
    let least = 0;
    for (let i = 1; i < this.gifts.length; i++) if (this.gifts[i].minor < this.gifts[least].minor) least = i;
    this.gifts.splice(least, 1);
    this.more += 1;
  }

  /** The next gift, or `{ more: n }` for those passed over once the queue is empty, or null. */
  next() {
    const gift = this.gifts.shift();
    if (gift) return gift;
    if (!this.more) return null;
    const more = this.more;
    this.more = 0;
    return { more };
  }
}

/** Ids met before, oldest forgotten first. */
export class Seen {
  constructor(limit = 5_000) {
    this.limit = limit;
    this.ids = new Set();
  }

  /** True the first time an id is met. */
  add(id) {
    if (this.ids.has(id)) return false;
    this.ids.add(id);
    if (this.ids.size > this.limit) this.ids.delete(this.ids.values().next().value);
    return true;
  }
}
