// Cards that announce donations. A hidden or paused page shows none. When it becomes visible again, it shows new
// donations first and then the missed ones as one number.

import { AlertQueue, amountOf, isGrand } from "./alert_queue.js";
import { AlertControls, KEYS } from "./alert_controls.js";
import { parse } from "./feed.js";
import { DonationLog } from "./donation_log.js";
import { isMoney } from "./money.js";
import { $, element, figures, page, quote, texts, writeMoney } from "./overlay_page.js";

const CARDS = 3;
const CARD_MS = 6_500;
const CARD_LEAST_MS = 1_400;
const HELD = 4_000; // most frames kept between two animation frames
const TAKEN_AT_ONCE = 250;
const LATE_MS = 10_000; // messages queue up while the browser has frozen the page
const OLD_MS = 60_000;
const REMEMBER_MS = 1_000;
const BURST_CARD_MS = 9_500;
const IDLE_MS = 500; // donations wait for the next burst

export class Alerts {
  #place = $(".alerts");
  #queue = new AlertQueue();
  #frames = [];
  #newest;
  #pumping = 0;
  #lastCard = 0;
  #lastDonation = null; // of the last card, for a replay
  #shown = new WeakMap(); // what the cards on the screen show
  #controls;
  #paused;
  #log;

  /** `newest()` returns the newest totals, or null. */
  constructor(newest) {
    this.#newest = newest;
    const key = `ataa-alerts:${location.pathname}${location.search}`;
    this.#log = new DonationLog(page.drive, key, (rows, over) => this.#meetRows(rows, over));
    this.#queue.miss(this.#log.unshown);
    this.#controls = new AlertControls(page.drive, (command, donation) => this.#obey(command, donation));
    this.#paused = this.#controls.paused;
    addEventListener("keydown", (event) => {
      const command = event.ctrlKey || event.metaKey || event.altKey ? null : KEYS[event.key.toLowerCase()];
      if (command && !event.repeat) this.#controls.send(command);
    });
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

  /** What moderators did, in new totals: their commands, and names and messages as they are shown now. */
  follow(totals) {
    this.#controls.follow(totals);
    const cards = [...this.#place.children].filter((card) => this.#shown.has(card));
    const shown = cards.map((card) => this.#shown.get(card));
    const changed = moderate([...shown.flatMap(donationsOf), ...this.#queue.donations, this.#lastDonation], totals);
    shown.forEach((next, i) => {
      if (donationsOf(next).some((one) => changed.has(one))) cards[i].replaceChildren(...this.#contents(next));
    });
  }

  /** Shows a donation that is in no log: the setup page's test. */
  test(donation) {
    if (!document.hidden && isMoney(donation?.amount)) this.#show(donation);
  }

  #obey(command, donation) {
    this.#paused = command === "pause" || (this.#paused && command !== "resume");
    if (command === "skip") [...this.#place.children].forEach(dismiss);
    const again = donation ?? this.#lastDonation ?? this.#newest()?.recent?.[0];
    if (command === "replay" && isMoney(again?.amount) && !document.hidden) this.#show(again);
    this.#pump();
  }

  #offer(donation) {
    if (!donation || !isMoney(donation.amount) || !isMoney(amountOf(donation))) return;
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

  #pump(least = 0) {
    if (this.#pumping || this.#paused || document.hidden || !this.#queue.unshown) return;
    const hurry = this.#queue.length > 2 ? CARD_LEAST_MS / 2 : CARD_LEAST_MS;
    const wait = Math.max(least, this.#lastCard + hurry - performance.now());
    this.#pumping = setTimeout(() => {
      this.#pumping = 0;
      if (this.#paused || document.hidden) return;
      const next = this.#queue.next(this.#log.counting);
      if (!next) return this.#queue.length ? this.#pump(IDLE_MS) : undefined;
      this.#lastCard = performance.now();
      this.#show(next);
      this.#pump();
    }, wait);
  }

  #show(next) {
    if (next.amount) this.#lastDonation = next;
    moderate(donationsOf(next), this.#newest());
    const card = element("article", next.amount ? "card" : next.burst ? "card burst" : "card missed");
    card.classList.toggle("grand", Boolean(next.amount) && isGrand(next));
    card.append(...this.#contents(next));
    this.#shown.set(card, next);
    this.#place.append(card);
    const staying = [...this.#place.children].filter((one) => !one.classList.contains("leaving"));
    const topOf = (one) => one.getBoundingClientRect().top;
    const clipped = (one) => one !== card && topOf(one) < topOf(this.#place) - 1; // a lone card needs no layout here
    staying.forEach((one, i) => (i < staying.length - CARDS || clipped(one)) && dismiss(one));
    setTimeout(() => dismiss(card), next.burst ? BURST_CARD_MS : CARD_MS);
  }

  #contents(next) {
    return next.amount ? this.#ofDonation(next) : next.burst ? ofBurst(next) : ofMissed(next);
  }

  #ofDonation(donation) {
    const amount = element("p", "money");
    writeMoney(amount, donation.amount, true);
    const who = element("p", "who");
    who.append(quote("name", donation.name || texts.anonymous));
    const leaders = donation.creator ? (this.#newest()?.leaders ?? []) : [];
    const creator = leaders.find((l) => [l.creator, l.slug].includes(donation.creator));
    if (creator) who.append(" ", withCreator(creator.name || creator.slug));
    return donation.message ? [amount, who, quote("message", donation.message)] : [amount, who];
  }
}

/** The donations that a card shows by name. */
const donationsOf = (next) => next.top ?? (next.amount ? [next] : []);

const same = (one, other) => (one || "") === (other || "");

/** Gives donations the name and message that `recent` of the newest totals shows; returns those that changed. */
function moderate(donations, totals) {
  const recent = new Map((totals?.recent ?? []).map((donation) => [donation.id, donation]));
  const changed = new Set();
  for (const donation of donations) {
    const now = recent.get(donation?.id);
    if (!now || (same(now.name, donation.name) && same(now.message, donation.message))) continue;
    donation.name = now.name;
    donation.message = now.message;
    changed.add(donation);
  }
  return changed;
}

function ofMissed({ missed, over }) {
  const phrase = over ? texts.missed_gifts_over : texts.missed_gifts;
  return [figures.format(phrase, {}, missed)];
}

/** All donations of some seconds in one number, with the largest by name. */
function ofBurst({ burst, seconds, top }) {
  const minutes = Math.round(seconds / 60);
  const time = figures.format(minutes < 2 ? texts.burst_seconds : texts.burst_minutes, {}, minutes < 2 ? seconds : minutes);
  const lines = top.map((donation) => {
    const line = element("p", "burst-line");
    line.append(quote("name", donation.name || texts.anonymous), element("span", "money", figures.money(donation.amount)));
    return line;
  });
  return [element("p", "burst-count", figures.format(texts.burst, { time }, burst)), ...lines];
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
