// The ticker: chips of the latest donations scroll by; chips that have left the window are removed.

import { isMoney } from "./money.js";
import { $, calm, element, figures, lang, quote, texts } from "./overlay_page.js";

const RECENT = 12;
const DRIFT_LEAST = 6;

let recent = [];
let nextChip = 0;
let drift = 0;
let lastDrift = 0;
let drifting = false;

export function showRecent(totals) {
  const panel = $(".ticker");
  if (!panel) return;
  const donations = (totals.recent ?? []).filter((donation) => isMoney(donation.amount)).slice(0, RECENT);
  const fresh = donations.length > 0 && donations[0].id !== recent[0]?.id;
  recent = donations;
  panel.hidden = recent.length === 0;
  if (!fresh) return;
  nextChip = 0; // the newest is appended next
  drifting = recent.length >= DRIFT_LEAST && !calm.matches;
  if (!drifting) standStill();
  else if (!lastDrift) requestAnimationFrame(driftBy);
}

/** Too few donations to fill the window: they stand still, newest first. */
function standStill() {
  const list = $(".window ul");
  list.style.transform = "none";
  list.replaceChildren(...recent.map(chip));
  drift = 0;
}

function chip(donation) {
  const made = element("li", "chip");
  const amount = element("span", "money", figures.money(donation.amount));
  made.append(quote("name", donation.name || texts.anonymous), amount);
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
