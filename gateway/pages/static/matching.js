// Sponsors that match gifts now, with what is left of each one's pool. Nothing is shown without an open pool.
// A pool that is used up while the page shows it is celebrated.

import { celebrate } from "./milestones.js";
import { decimalsOf, isMoney, localised, share, toMinor, toValue } from "./money.js";
import { $, element, figures, lang, page, quote, texts } from "./overlay_page.js";

const SHOWN = 2;

let drawn = "";
let openBefore = new Set();

export function showMatching(totals) {
  const panel = $(".matching");
  if (!panel) return;
  const pools = (totals.matching ?? []).filter(isForThis);
  const key = JSON.stringify(pools);
  if (key === drawn) return;
  drawn = key;
  const open = pools.filter(isOpen).slice(0, SHOWN);
  celebrateUsedUp(pools);
  panel.hidden = open.length === 0;
  panel.replaceChildren(...open.map(pool));
}

function celebrateUsedUp(pools) {
  const usedUp = ({ id, cap, used }) => openBefore.has(id) && isMoney(cap) && used?.value === cap.value;
  for (const { sponsor, cap } of pools.filter(usedUp)) celebrate({ title: sponsor, amount: cap, heading: "match_met" });
  openBefore = new Set(pools.filter(isOpen).map(({ id }) => id));
}

/** Whether the pool matches all gifts, or those of the creator whose overlay this is. */
const isForThis = ({ creator }) => !creator || creator === page.creator;

function isOpen({ cap, used, ratio }) {
  const readable = isMoney(cap) && isMoney(used) && /^\d+(\.\d+)?$/.test(ratio) && toMinor(ratio) > 0n;
  return readable && cap.currency === used.currency && toMinor(used.value) < toMinor(cap.value);
}

function pool({ sponsor, cap, used, ratio }) {
  const one = 10n ** BigInt(decimalsOf(ratio));
  const doubles = toMinor(ratio) === one;
  const percent = figures.percentOf(toMinor(ratio), one);
  const [before, after] = (doubles ? texts.match_double : texts.match_share)
    .replace("{percent}", percent)
    .split("{sponsor}");
  const who = element("p", "match-who");
  who.append(before, quote("sponsor", localised(sponsor, lang)), after);
  const left = toMinor(cap.value) - toMinor(used.value);
  const money = figures.money({ currency: cap.currency, value: toValue(left, decimalsOf(cap.value)) });
  const fill = element("i", "");
  fill.style.inlineSize = `${share(left, toMinor(cap.value)) * 100}%`;
  const track = element("div", "match-track");
  track.append(fill);
  const made = element("div", "pool");
  made.append(who, track, element("p", "match-left", figures.format(texts.match_left, { money })));
  return made;
}
