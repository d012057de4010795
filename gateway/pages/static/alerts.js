// Cards that announce gifts. A page that nobody sees shows none: when it is seen again, new gifts come
// first, and the missed ones as one number.

import { AlertQueue } from "./alert_queue.js";
import { parse } from "./feed.js";
import { GiftLog } from "./gift_log.js";
import { decimalsOf, isMoney, toMinor } from "./money.js";
import { $, element, figures, page, quote, texts, writeMoney } from "./overlay_page.js";

const CARDS = 3;
const CARD_MS = 6_500;
const CARD_LEAST_MS = 1_400;
const HELD = 4_000; // frames between two drawings
const TAKEN_AT_ONCE = 250;
const LATE_MS = 10_000; // messages wait while a page is frozen
const OLD_MS = 60_000;
const REMEMBER_MS = 1_000;

export class Alerts {
  #place = $(".alerts");
  #queue = new AlertQueue();
  #frames = [];
  #newest;
  #pumping = 0;
  #lastCard = 0;
  #log;

  /** `newest()` returns the newest totals, or null. */
  constructor(newest) {
    this.#newest = newest;
    const key = `ataa-alerts:${location.pathname}${location.search}`;
    this.#log = new GiftLog(page.drive, key, (rows, over) => this.#meetRows(rows, over));
    this.#queue.miss(this.#log.unshown);
    document.addEventListener("visibilitychange", () => this.#seen());
    addEventListener("pagehide", () => this.#remember());
    setInterval(() => this.#remember(), REMEMBER_MS);
  }

  /** A message of the feed. */
  take(message) {
    const isNew = this.#log.follow(message);
    if (!isNew || message.kind !== "gift" || message.text === null) return;
    if (document.hidden || Date.now() - message.sent > LATE_MS) this.#queue.miss(1);
    else if (this.#frames.length < HELD) this.#frames.push(message.text);
    else this.#queue.more += 1;
  }

  /** Offers the frames that came in to the queue; true while there are more. */
  draw() {
    for (const text of this.#frames.splice(0, TAKEN_AT_ONCE)) this.#offer(parse(text));
    this.#pump();
    return this.#frames.length > 0;
  }

  #offer(gift) {
    if (!gift || !isMoney(gift.amount) || (gift.type ?? "donation.counted") !== "donation.counted") return;
    if (this.#isOld(gift)) this.#queue.miss(1);
    else this.#queue.offer(gift);
  }

  /** Both times are the server's. */
  #isOld(gift) {
    return Date.parse(this.#newest()?.as_of) - Date.parse(gift.at) > OLD_MS;
  }

  /** Rows of the log have no names: of those whose names are known the new ones are shown, the others counted. */
  #meetRows(rows, over) {
    const recent = new Map((this.#newest()?.recent ?? []).map((gift) => [gift.id, gift]));
    for (const row of rows) {
      const gift = recent.get(`don_${String(row.payment).split("_")[1]}`);
      if (gift && !document.hidden) this.#offer({ ...row, ...gift });
      else this.#queue.miss(1);
    }
    if (over) this.#queue.miss(0, true);
    this.#pump();
  }

  #seen() {
    if (document.hidden) {
      this.#queue.miss(this.#frames.length);
      this.#frames = [];
      this.#queue.missAll();
      return;
    }
    this.#lastCard = performance.now(); // a moment for the gifts that come now to be the first
    this.#pump();
  }

  #remember() {
    this.#log.remember(this.#queue.unshown + this.#frames.length);
  }

  #pump() {
    if (this.#pumping || document.hidden || !this.#queue.unshown) return;
    const hurry = this.#queue.length > 2 ? CARD_LEAST_MS / 2 : CARD_LEAST_MS;
    const wait = Math.max(0, this.#lastCard + hurry - performance.now());
    this.#pumping = setTimeout(() => {
      this.#pumping = 0;
      const next = document.hidden ? null : this.#queue.next(this.#log.counting);
      if (!next) return;
      this.#lastCard = performance.now();
      this.#show(next);
      this.#pump();
    }, wait);
  }

  #show(next) {
    const card = next.amount ? this.#giftCard(next) : numberCard(next);
    this.#place.append(card);
    const staying = [...this.#place.children].filter((one) => !one.classList.contains("leaving"));
    staying.slice(0, -CARDS).forEach(dismiss);
    setTimeout(() => dismiss(card), CARD_MS);
  }

  #giftCard(gift) {
    const card = element("article", "card");
    card.classList.toggle("grand", toMinor(gift.amount.value) >= 500n * 10n ** BigInt(decimalsOf(gift.amount.value)));
    const amount = element("p", "money");
    writeMoney(amount, gift.amount, true);
    const who = element("p", "who");
    who.append(quote("name", gift.name || texts.anonymous));
    const creator = (this.#newest()?.leaders ?? []).find((l) => gift.creator && [l.creator, l.slug].includes(gift.creator));
    if (creator) who.append(" ", withCreator(creator.name || creator.slug));
    card.append(amount, who);
    if (gift.message) card.append(quote("message", gift.message));
    return card;
  }
}

function numberCard({ more, missed, over }) {
  if (more) return element("article", "card more", figures.format(texts.more_gifts, {}, more));
  const phrase = over ? texts.missed_gifts_over : texts.missed_gifts;
  return element("article", "card missed", figures.format(phrase, {}, missed));
}

function dismiss(card) {
  if (card.classList.contains("leaving")) return;
  card.classList.add("leaving");
  setTimeout(() => card.remove(), 450);
}

function withCreator(name) {
  const [before, after] = texts.with_creator.split("{name}");
  const made = element("span", "with");
  made.append(before, quote("", name), after);
  return made;
}
