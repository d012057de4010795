// The ticker: chips of the latest donations scroll by. Each step moves the row by its first chips, which are then
// removed. The browser animates a step by itself; this script runs once a step, about every ten seconds.

import { isMoney } from "./money.js";
import { $, calm, element, figures, lang, quote, texts } from "./overlay_page.js";

const RECENT = 12;
const DRIFT_LEAST = 6;
const MOST_CHIPS = 40;
const APPENDED = 3; // chips, before their widths are read
const STEP = 0.4; // of the window's width, at least
const CROSSING_MS = 24_000; // a chip's way through the window
const LATE_MS = 1_000; // a step that begins later, as after the page was hidden, does not catch up

let recent = [];
let known = "[]"; // the donations of the newest totals, as JSON
let nextChip = 0;
let step = null;
let moving = 0; // how many chips the step moves out
const shown = new WeakMap(); // what each chip shows

export function showRecent(totals) {
  const panel = $(".ticker");
  if (!panel) return;
  const donations = (totals.recent ?? []).filter((donation) => isMoney(donation.amount)).slice(0, RECENT);
  const text = JSON.stringify(donations);
  if (text === known) return;
  known = text;
  if (donations[0]?.id !== recent[0]?.id) nextChip = 0; // the newest is appended next
  recent = donations;
  panel.hidden = recent.length === 0;
  if (recent.length < DRIFT_LEAST || calm.matches) standStill();
  else if (step) rewrite(totals.recent);
  else drift(document.timeline.currentTime);
}

/** Too few donations to fill the window: they stand still, newest first. */
function standStill() {
  step?.cancel();
  step = null;
  $(".window ul").replaceChildren(...recent.map(chip));
}

function chip(donation) {
  const made = element("li", "chip");
  fillChip(made, donation);
  return made;
}

function fillChip(made, donation) {
  const amount = element("span", "money", figures.money(donation.amount));
  made.replaceChildren(quote("name", donation.name || texts.anonymous), amount);
  shown.set(made, donation);
}

/** Has chips follow what moderators decided. Those that the step moves out keep their width: the row would jump. */
function rewrite(donations) {
  const newest = new Map(donations.map((donation) => [donation.id, donation]));
  [...$(".window ul").children].forEach((made, place) => {
    const before = shown.get(made);
    const now = newest.get(before.id);
    if (!now || (now.name === before.name && now.amount.value === before.amount.value)) return;
    if (place < moving) made.style.width = `${made.getBoundingClientRect().width}px`;
    fillChip(made, now);
  });
}

/** Moves the row by its first chips, from `began` on, a time of the animations' clock. */
function drift(began) {
  const list = $(".window ul");
  const { clientWidth } = list.parentElement;
  const [count, width] = fill(list, clientWidth);
  if (!width) return void (step = null); // not shown
  const end = `translateX(${lang === "ar" ? width : -width}px)`;
  const duration = (width / clientWidth) * CROSSING_MS;
  const last = step;
  moving = count;
  step = list.animate([{ transform: "none" }, { transform: end }], { duration, fill: "forwards" });
  step.startTime = began;
  last?.cancel();
  step.onfinish = () => {
    for (let n = 0; n < count; n++) list.firstElementChild.remove();
    append(list, count);
    drift(Math.max(began + duration, document.timeline.currentTime - LATE_MS));
  };
}

/** Appends chips until they cover the window also at the end of the step; returns how many the step moves, and by what. */
function fill(list, window) {
  for (;;) {
    const widths = [...list.children].map((one) => one.getBoundingClientRect().width);
    const sums = widths.map(((sum) => (width) => (sum += width))(0));
    const count = 1 + sums.findIndex((sum) => sum >= window * STEP);
    const moved = sums[count - 1] ?? 0;
    const covered = (sums[sums.length - 1] ?? 0) - moved >= window;
    if ((count && covered) || !recent.length || widths.length >= MOST_CHIPS) return [count, moved];
    append(list, APPENDED);
  }
}

function append(list, count) {
  if (!recent.length) return;
  for (let n = 0; n < count; n++, nextChip++) list.append(chip(recent[nextChip % recent.length]));
}
