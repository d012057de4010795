// The milestones around the total, and the celebration of each one when it is reached.
//
// A milestone is celebrated once by each source. What a source has celebrated is kept over a reload; milestones
// that were reached before its first load are not celebrated.

import { parse } from "./feed.js";
import { isMoney, localised, toMinor } from "./money.js";
import { $, calm, element, figures, lang, quote, texts, writeMoney } from "./overlay_page.js";

const SHOWN = 4;
const CELEBRATE_MS = 9_000;
const OLD_MS = 10 * 60_000; // reached longer ago than this: no celebration by a page that was closed or hidden
const MOST_WAITING = 5;
const PIECES = 36;
const KEY = `ataa-milestones:${location.pathname}${location.search}`;

let drawn = "";
let known = null; // { drive, seen: values of the milestones that need no celebration any more }
let showing = false;
const waiting = [];

const ofDrive = (totals) => (totals.milestones ?? []).filter((stone) => isMoney(stone.amount));

export function showMilestones(totals) {
  const panel = $(".milestones");
  if (!panel) return;
  const stones = around(ofDrive(totals), toMinor(totals.raised.value));
  const key = JSON.stringify(stones);
  if (key !== drawn) {
    drawn = key;
    panel.hidden = stones.length === 0;
    panel.querySelector("ol").replaceChildren(...stones.map(row));
  }
  notice(totals);
}

/** The last milestone reached and the next ones, each with whether it is `passed`. */
function around(stones, raised) {
  const all = stones.map(({ title, amount }) => ({ title, amount, passed: toMinor(amount.value) <= raised }));
  all.sort((a, b) => (toMinor(a.amount.value) < toMinor(b.amount.value) ? -1 : 1));
  const next = all.findIndex((stone) => !stone.passed);
  const from = Math.max(0, Math.min(next < 0 ? all.length : next - 1, all.length - SHOWN));
  return all.slice(from, from + SHOWN);
}

function row({ title, amount, passed }) {
  const item = element("li", passed ? "reached" : "");
  item.append(quote("what", localised(title, lang)), element("span", "money", figures.money(amount)));
  return item;
}

// --- celebrations ---

function notice(totals) {
  const reached = ofDrive(totals).filter((stone) => stone.reached_at);
  if (known?.drive !== totals.drive) known = recall(totals.drive);
  if (!known) {
    known = { drive: totals.drive, seen: reached.map((stone) => stone.amount.value) };
    remember();
  }
  for (const stone of reached) {
    const { value } = stone.amount;
    if (known.seen.includes(value) || waiting.some((one) => one.amount.value === value)) continue;
    const old = Date.parse(totals.as_of) - Date.parse(stone.reached_at) > OLD_MS;
    if (old || waiting.length >= MOST_WAITING) see(value);
    else waiting.push(stone);
  }
  celebrateNext();
}

/** Shows a celebration that is not remembered: the setup page's test, or what its `heading` says. */
export function celebrate(stone) {
  if (!$(".milestones") || waiting.length >= MOST_WAITING) return;
  waiting.push({ ...stone, test: true });
  celebrateNext();
}

function celebrateNext() {
  if (showing || document.hidden || !waiting.length) return;
  const stone = waiting.shift();
  if (!stone.test) see(stone.amount.value);
  showing = true;
  const banner = $(".celebration");
  const amount = element("p", "money");
  writeMoney(amount, stone.amount, true);
  const title = element("p", "reached-title");
  title.append(quote("", localised(stone.title, lang)));
  const panel = element("div", "panel");
  panel.append(element("p", "reached-what", texts[stone.heading ?? "milestone_reached"]), title, amount);
  banner.replaceChildren(...(calm.matches ? [] : confetti()), panel);
  banner.hidden = false;
  setTimeout(() => {
    banner.hidden = true;
    banner.replaceChildren();
    showing = false;
    celebrateNext();
  }, CELEBRATE_MS);
}

function confetti() {
  return Array.from({ length: PIECES }, (_, i) => {
    const piece = element("i", "piece");
    const place = { "--x": `${(i / PIECES) * 100}%`, "--wait": `${(i * 7) % 10}`, "--turn": `${(i * 5) % 9}` };
    for (const [name, value] of Object.entries(place)) piece.style.setProperty(name, value);
    return piece;
  });
}

function see(value) {
  known.seen.push(value);
  remember();
}

function recall(drive) {
  try {
    const kept = parse(localStorage.getItem(KEY));
    return kept?.drive === drive && Array.isArray(kept.seen) ? kept : null;
  } catch {
    return null; // an iframe on another site may have no storage
  }
}

function remember() {
  try {
    localStorage.setItem(KEY, JSON.stringify(known));
  } catch {
    // Without storage the page remembers until it is reloaded.
  }
}

document.addEventListener("visibilitychange", celebrateNext);
