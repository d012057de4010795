// Cards that announce donations. A hidden page shows none. When it becomes visible again, it shows new donations
// first and then the missed ones as one number.

import { AlertQueue } from "./alert_queue.js";
import { parse } from "./feed.js";
import { DonationLog } from "./donation_log.js";
import { decimalsOf, isMoney, toMinor } from "./money.js";
import { $, element, figures, page, quote, texts, writeMoney } from "./overlay_page.js";

const CARDS = 3;
const CARD_MS = 6_500;
const CARD_LEAST_MS = 1_400;
const HELD = 4_000; // most frames kept between two animation frames
const TAKEN_AT_ONCE = 250;
const LATE_MS = 10_000; // messages queue up while the browser has frozen the page
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
    this.#log = new DonationLog(page.drive, key, (rows, over) => this.#meetRows(rows, over));
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

  /** Moves received frames into the queue; returns true while some are left. */
  draw() {
    for (const text of this.#frames.splice(0, TAKEN_AT_ONCE)) this.#offer(parse(text));
    this.#pump();
    return this.#frames.length > 0;
  }

  #offer(donation) {
    if (!donation || !isMoney(donation.amount)) return;
    if ((donation.type ?? "donation.counted") !== "donation.counted") return;
    if (this.#isOld(donation)) this.#queue.miss(1);
    else this.#queue.offer(donation);
  }

  /** Compares two times of the server, so that this machine's clock does not matter. */
  #isOld(donation) {
    return Date.parse(this.#newest()?.as_of) - Date.parse(donation.at) > OLD_MS;
  }

  /** Rows of the log have no names. Recent rows whose donation is in `recent` are shown; the others are counted. */
  #meetRows(rows, over) {
    const recent = new Map((this.#newest()?.recent ?? []).map((donation) => [donation.id, donation]));
    for (const row of rows) {
      const donation = recent.get(`don_${String(row.payment).split("_")[1]}`);
      if (donation && !document.hidden) this.#offer({ ...row, ...donation });
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
    this.#lastCard = performance.now(); // wait one interval, so that new donations are queued first
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
    const card = next.amount ? this.#donationCard(next) : numberCard(next);
    this.#place.append(card);
    const staying = [...this.#place.children].filter((one) => !one.classList.contains("leaving"));
    staying.slice(0, -CARDS).forEach(dismiss);
    setTimeout(() => dismiss(card), CARD_MS);
  }

  #donationCard(donation) {
    const card = element("article", "card");
    const { value } = donation.amount;
    card.classList.toggle("grand", toMinor(value) >= 500n * 10n ** BigInt(decimalsOf(value)));
    const amount = element("p", "money");
    writeMoney(amount, donation.amount, true);
    const who = element("p", "who");
    who.append(quote("name", donation.name || texts.anonymous));
    const leaders = donation.creator ? (this.#newest()?.leaders ?? []) : [];
    const creator = leaders.find((l) => [l.creator, l.slug].includes(donation.creator));
    if (creator) who.append(" ", withCreator(creator.name || creator.slug));
    card.append(amount, who);
    if (donation.message) card.append(quote("message", donation.message));
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
