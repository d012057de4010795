// The overlay: frames come in at any rate, the picture is drawn at most once an animation frame.
// What people wrote reaches the page through textContent alone.

import { AlertQueue, Seen } from "./alerts.js";
import { Feed } from "./feed.js";
import { Figures, decimalsOf, isMoney, localised, share, toMinor, toValue } from "./money.js";

const page = JSON.parse(document.getElementById("page").textContent);
const { words, lang } = page;
const figures = new Figures(lang, page.digits);
const $ = (selector) => document.querySelector(selector);
const calm = matchMedia("(prefers-reduced-motion: reduce)");

const ROLL_MS = 900;
const STREAM_TRUSTED_MS = 20_000; // longer than the feed takes to ask after a silent stream
const BROKEN_TRUSTED_MS = 5_000;
const DONATIONS_HELD = 4_000; // between two animation frames; a hidden source draws none
const DONATIONS_A_FRAME = 250;
const CARDS = 3;
const CARD_MS = 6_500;
const CARD_LEAST_MS = 1_400;
const LEADERS = 5;
const RECENT = 12;
const DRIFT_LEAST = 6;

function element(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

/** Names and messages stand in their own direction, whatever surrounds them. */
function quote(className, text) {
  const made = element("bdi", className, text);
  made.dir = "auto";
  return made;
}

const KINDS = { currency: "sign", integer: "whole", group: "whole", decimal: "cents", fraction: "cents" };

/** Writes an amount with its sign and cents set apart, reusing the spans of the last time. */
function writeMoney(place, money, short = false) {
  const runs = [];
  for (const { type, value } of figures.parts(money, short)) {
    const kind = KINDS[type] ?? "gap";
    if (runs.length && runs[runs.length - 1][0] === kind) runs[runs.length - 1][1] += value;
    else runs.push([kind, value]);
  }
  while (place.children.length > runs.length) place.lastChild.remove();
  runs.forEach(([kind, value], i) => {
    const span = place.children[i] ?? place.appendChild(document.createElement("span"));
    if (span.className !== kind) span.className = kind;
    if (span.textContent !== value) span.textContent = value;
  });
}

/** A number that runs to its new value and stands, at the end, on exactly that. */
class Roll {
  constructor(place) {
    this.place = place;
    this.shown = null;
    this.target = null;
  }

  aim(money) {
    if (this.target && money.value === this.target.value && money.currency === this.target.currency) return;
    const first = this.target === null || money.currency !== this.target.currency;
    this.target = money;
    this.from = first || calm.matches ? toMinor(money.value) : this.shown;
    this.began = performance.now();
  }

  /** Draws one frame; true while there is more to run. */
  draw(now) {
    if (!this.target || this.shown === toMinor(this.target.value)) return false;
    const to = toMinor(this.target.value);
    const t = Math.max(0, Math.min(1, (now - this.began) / ROLL_MS));
    const eased = BigInt(Math.round((1 - (1 - t) ** 3) * 1e6));
    this.shown = t === 1 ? to : this.from + ((to - this.from) * eased) / 1_000_000n;
    const value = toValue(this.shown, decimalsOf(this.target.value));
    writeMoney(this.place, { currency: this.target.currency, value });
    if (this.shown === to) this.place.dataset.value = value;
    return this.shown !== to;
  }
}

// --- what has come in ---

let totals = null;
let totalsText = null;
let donationTexts = [];
let unknown = false;
let drawing = false;
const seen = new Seen();
const queue = new AlertQueue();

const feed = new Feed(page.drive, (kind, text) => {
  unknown = kind === "unknown";
  if (kind === "totals") totalsText = text;
  else if (kind === "donation" && donationTexts.length < DONATIONS_HELD) donationTexts.push(text);
  wake();
});

function wake() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(draw);
}

function draw(now) {
  takeDonations();
  takeTotals();
  const rolling = roll?.draw(now) ?? false;
  drawing = rolling || donationTexts.length > 0;
  if (drawing) requestAnimationFrame(draw);
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null; // a cut frame is no reason to stop showing the rest
  }
}

/** Another gateway may be a moment behind: figures never step back within an epoch. */
function isNewer(next) {
  if (!totals || next.epoch > totals.epoch) return true;
  if (next.epoch < totals.epoch) return false;
  return next.sequence > totals.sequence || (next.sequence === totals.sequence && next.as_of >= totals.as_of);
}

function takeTotals() {
  if (totalsText === null) return;
  const next = parse(totalsText);
  totalsText = null;
  if (!next || !isMoney(next.raised) || !isNewer(next)) return;
  const first = totals === null;
  totals = next;
  for (const gift of [...(totals.recent ?? [])].reverse()) meet(gift, !first);
  show();
  document.body.dataset.sequence = totals.sequence;
}

function takeDonations() {
  for (const text of donationTexts.splice(0, DONATIONS_A_FRAME)) {
    const gift = parse(text);
    if (gift && (gift.type ?? "donation.counted") === "donation.counted") meet(gift, true);
  }
}

/** A gift is announced once, whether its own frame or the list of recent ones told of it first. */
function meet(gift, announce) {
  if (!isMoney(gift.amount) || !seen.add(gift.id ?? gift.sequence) || !announce || !$(".alerts")) return;
  queue.offer(gift);
  pump();
}

// --- bar, goal, freshness ---

const roll = $(".raised") && new Roll($(".raised"));
const set = (place, text) => place && place.textContent !== text && (place.textContent = text);

function show() {
  set($(".title"), localised(totals.title, lang) || page.drive);
  roll?.aim(totals.raised);
  showBar();
  showGoal();
  showLeaders();
  showRecent();
  showFreshness();
}

function showBar() {
  if (!$(".bar")) return;
  const goal = isMoney(totals.goal) && toMinor(totals.goal.value) > 0n ? totals.goal : null;
  $(".bar").classList.toggle("no-goal", !goal);
  set($(".percent"), goal && typeof totals.percent === "number" ? figures.percent(totals.percent) : "");
  set($(".gifts"), figures.say(words.gifts, {}, totals.donations ?? 0));
  const pace = totals.per_minute?.donations ?? 0;
  set($(".pace"), pace > 0 ? figures.say(words.a_minute, {}, pace) : "");
  set($(".of-goal"), goal ? figures.say(words.of_goal, { goal: figures.money(goal) }) : "");
  if (goal) drawTrack(toMinor(totals.raised.value), toMinor(goal.value));
}

/** Past the goal the track stands for what was raised, and the goal becomes a mark on it. */
function drawTrack(raised, goal) {
  const scale = raised > goal ? raised : goal;
  $(".bar").classList.toggle("reached", raised >= goal);
  const missing = (1 - share(raised, scale)) * 100;
  $(".fill").style.transform = `translateX(${lang === "ar" ? missing : -missing}%)`;
  const marks = (totals.milestones ?? []).filter((m) => isMoney(m.amount)).map((m) => toMinor(m.amount.value));
  if (raised > goal) marks.push(goal);
  const places = [...new Set(marks.filter((m) => m > 0n && m < scale))].slice(0, 24);
  const ticks = $(".ticks");
  while (ticks.children.length > places.length) ticks.lastChild.remove();
  places.forEach((mark, i) => {
    const tick = ticks.children[i] ?? ticks.appendChild(element("i", "tick"));
    tick.style.insetInlineStart = `${share(mark, scale) * 100}%`;
    tick.classList.toggle("passed", mark <= raised);
  });
}

function showGoal() {
  if (!$(".goal") || !isMoney(totals.goal)) return;
  $(".goal").hidden = false;
  writeMoney($(".goal-money"), totals.goal, true);
  const left = toMinor(totals.goal.value) - toMinor(totals.raised.value);
  const money = { currency: totals.goal.currency, value: toValue(left, decimalsOf(totals.goal.value)) };
  set($(".to-go"), left > 0n ? figures.say(words.to_go, { money: figures.money(money) }) : words.goal_reached);
  $(".goal").classList.toggle("reached", left <= 0n);
  $(".milestones").replaceChildren(...milestonesAround().map(milestone));
}

/** The last milestone reached and the next two: what is there to be proud of, and what is ahead. */
function milestonesAround() {
  const raised = toMinor(totals.raised.value);
  const all = (totals.milestones ?? []).filter((m) => isMoney(m.amount));
  all.sort((a, b) => (toMinor(a.amount.value) < toMinor(b.amount.value) ? -1 : 1));
  const next = all.findIndex((m) => toMinor(m.amount.value) > raised);
  const from = next < 0 ? all.length - 3 : next - 1;
  return all.slice(Math.max(0, from), Math.max(0, from) + 3);
}

function milestone(stone) {
  const reached = toMinor(stone.amount.value) <= toMinor(totals.raised.value);
  const item = element("li", reached ? "reached" : "");
  item.append(quote("what", localised(stone.title, lang)), element("span", "money", figures.money(stone.amount)));
  return item;
}

function freshness() {
  if (!totals) return "starting";
  const trusted = feed.streaming ? STREAM_TRUSTED_MS : BROKEN_TRUSTED_MS;
  if (performance.now() - feed.proven > trusted) return "offline";
  return ["live", "catching_up", "frozen"].includes(totals.state) ? totals.state : "frozen";
}

function showFreshness() {
  const state = unknown ? "offline" : freshness();
  const place = $(".freshness");
  place.dataset.state = state;
  const late = totals && state !== "live" && state !== "starting";
  const time = late ? figures.time(totals.as_of) : "";
  set($(".state"), words[state] + (time ? ` · ${figures.say(words.as_of, { time })}` : ""));
}

// --- leaders ---

function showLeaders() {
  const panel = $(".leaders");
  if (!panel) return;
  const leaders = (totals.leaders ?? []).filter((l) => isMoney(l.raised)).slice(0, LEADERS);
  panel.hidden = leaders.length === 0;
  const list = panel.querySelector("ol");
  const rows = new Map([...list.children].map((row) => [row.dataset.id, row]));
  const before = new Map([...rows].map(([id, row]) => [id, row.offsetTop]));
  const top = leaders.length ? toMinor(leaders[0].raised.value) : 0n;
  const now = leaders.map((leader) => leaderRow(rows.get(leader.creator) ?? emptyLeader(leader), leader, top));
  if (now.length !== list.children.length || now.some((row, i) => row !== list.children[i])) {
    list.replaceChildren(...now);
    if (!calm.matches) now.forEach((row) => slide(row, before.get(row.dataset.id)));
  }
}

function emptyLeader(leader) {
  const row = element("li", "leader");
  row.dataset.id = leader.creator;
  row.append(element("span", "rank"), quote("name", ""), element("span", "money"), element("span", "share"));
  return row;
}

function leaderRow(row, leader, top) {
  const [rank, name, money, bar] = row.children;
  set(rank, figures.count(leader.rank));
  set(name, leader.name || leader.slug || "");
  set(money, figures.money(leader.raised));
  bar.style.transform = `scaleX(${share(toMinor(leader.raised.value), top)})`;
  row.classList.toggle("first", leader.rank === 1);
  return row;
}

function slide(row, from) {
  const shift = from === undefined ? 24 : from - row.offsetTop;
  if (shift) row.animate([{ transform: `translateY(${shift}px)` }, { transform: "none" }], { duration: 500, easing: "ease-out" });
}

// --- alerts ---

let pumping = 0;
let lastCard = 0;

function pump() {
  if (pumping) return;
  const hurry = queue.length > 2 ? CARD_LEAST_MS / 2 : CARD_LEAST_MS;
  const wait = Math.max(0, lastCard + hurry - performance.now());
  pumping = setTimeout(() => {
    pumping = 0;
    const gift = queue.next();
    if (!gift) return;
    lastCard = performance.now();
    showCard(gift);
    pump();
  }, wait);
}

function showCard(gift) {
  const place = $(".alerts");
  const card = gift.more ? moreCard(gift.more) : giftCard(gift);
  place.append(card);
  const staying = [...place.children].filter((one) => !one.classList.contains("leaving"));
  staying.slice(0, -CARDS).forEach(dismiss);
  setTimeout(() => dismiss(card), CARD_MS);
}

function dismiss(card) {
  if (card.classList.contains("leaving")) return;
  card.classList.add("leaving");
  setTimeout(() => card.remove(), 450);
}

function moreCard(more) {
  return element("article", "card more", figures.say(words.more_gifts, {}, more));
}

function giftCard(gift) {
  const card = element("article", "card");
  card.classList.toggle("grand", toMinor(gift.amount.value) >= 500n * 10n ** BigInt(decimalsOf(gift.amount.value)));
  const amount = element("p", "money");
  writeMoney(amount, gift.amount, true);
  const who = element("p", "who");
  who.append(quote("name", gift.name || words.anonymous));
  const creator = (totals?.leaders ?? []).find((l) => gift.creator && [l.creator, l.slug].includes(gift.creator));
  if (creator) who.append(" ", withCreator(creator.name || creator.slug));
  card.append(amount, who);
  if (gift.message) card.append(quote("message", gift.message));
  return card;
}

function withCreator(name) {
  const [before, after] = words.with_creator.split("{name}");
  const made = element("span", "with");
  made.append(before, quote("", name), after);
  return made;
}

// --- ticker: chips drift by; the ones that have left make room for the newest ---

let recent = [];
let nextChip = 0;
let drift = 0;
let lastDrift = 0;
let drifting = false;

function showRecent() {
  const panel = $(".ticker");
  if (!panel) return;
  const gifts = (totals.recent ?? []).filter((gift) => isMoney(gift.amount)).slice(0, RECENT);
  const fresh = gifts.length > 0 && gifts[0].id !== recent[0]?.id;
  recent = gifts;
  panel.hidden = recent.length === 0;
  if (!fresh) return;
  nextChip = 0; // the newest comes in next
  drifting = recent.length >= DRIFT_LEAST && !calm.matches;
  if (!drifting) standStill();
  else if (!lastDrift) requestAnimationFrame(driftBy);
}

/** Too few gifts to go round: they stand, newest first. */
function standStill() {
  const list = $(".window ul");
  list.style.transform = "none";
  list.replaceChildren(...recent.map(chip));
  drift = 0;
}

function chip(gift) {
  const made = element("li", "chip");
  made.append(quote("name", gift.name || words.anonymous), element("span", "money", figures.money(gift.amount)));
  return made;
}

function driftBy(now) {
  if (!drifting) {
    lastDrift = 0;
    return;
  }
  const frame = $(".window");
  const list = frame.firstElementChild;
  const elapsed = Math.min(100, now - (lastDrift || now));
  lastDrift = now;
  drift += (elapsed / 1000) * (frame.clientWidth / 24);
  while (list.firstElementChild && list.firstElementChild.offsetWidth < drift) {
    drift -= list.firstElementChild.offsetWidth;
    list.firstElementChild.remove();
  }
  while (recent.length && list.children.length < 40 && widthOf(list) - drift < frame.clientWidth) {
    list.append(chip(recent[nextChip % recent.length]));
    nextChip += 1;
  }
  list.style.transform = `translateX(${(lang === "ar" ? 1 : -1) * drift}px)`;
  requestAnimationFrame(driftBy);
}

function widthOf(list) {
  let width = 0;
  for (const one of list.children) width += one.offsetWidth;
  return width;
}

setInterval(showFreshness, 1_000);
feed.start();
