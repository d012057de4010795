// The ticker: chips of the latest gifts drift by; the ones that have left make room for the newest.

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
  made.append(quote("name", gift.name || texts.anonymous), element("span", "money", figures.money(gift.amount)));
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
