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
  #paused;
  #log;

  /** `newest()` returns the newest totals, or null. */
  constructor(newest) {
    this.#newest = newest;
    const key = `ataa-alerts:${location.pathname}${location.search}`;
    this.#log = new DonationLog(page.drive, key, (rows, over) => this.#meetRows(rows, over));
    this.#queue.miss(this.#log.unshown);
    const controls = new AlertControls(page.drive, (command) => this.#obey(command));
    this.#paused = controls.paused;
    addEventListener("keydown", (event) => {
      const command = event.ctrlKey || event.metaKey || event.altKey ? null : KEYS[event.key.toLowerCase()];
      if (command && !event.repeat) controls.send(command);
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

  /** Shows a donation that is in no log: the setup page's test. */
  test(donation) {
    if (!document.hidden && isMoney(donation?.amount)) this.#show(donation);
  }

  #obey(command) {
    this.#paused = command === "pause" || (this.#paused && command !== "resume");
    if (command === "skip") [...this.#place.children].forEach(dismiss);
    if (command === "replay" && this.#lastDonation && !document.hidden) this.#show(this.#lastDonation);
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
    const card = next.amount ? this.#donationCard(next) : next.burst ? burstCard(next) : missedCard(next);
    this.#place.append(card);
    const staying = [...this.#place.children].filter((one) => !one.classList.contains("leaving"));
    const topOf = (one) => one.getBoundingClientRect().top;
    const clipped = (one) => one !== card && topOf(one) < topOf(this.#place) - 1; // a lone card needs no layout here
    staying.forEach((one, i) => (i < staying.length - CARDS || clipped(one)) && dismiss(one));
    setTimeout(() => dismiss(card), next.burst ? BURST_CARD_MS : CARD_MS);
  }

  #donationCard(donation) {
    const card = element("article", "card");
    card.classList.toggle("grand", isGrand(donation));
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

function missedCard({ missed, over }) {
  const phrase = over ? texts.missed_gifts_over : texts.missed_gifts;
  return element("article", "card missed", figures.format(phrase, {}, missed));
}

/** All donations of some seconds in one number, with the largest by name. */
function burstCard({ burst, seconds, top }) {
  const card = element("article", "card burst");
  const minutes = Math.round(seconds / 60);
  const time = figures.format(minutes < 2 ? texts.burst_seconds : texts.burst_minutes, {}, minutes < 2 ? seconds : minutes);
  card.append(element("p", "burst-count", figures.format(texts.burst, { time }, burst)));
  for (const donation of top) {
    const line = element("p", "burst-line");
    line.append(quote("name", donation.name || texts.anonymous), element("span", "money", figures.money(donation.amount)));
    card.append(line);
  }
  return card;
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
