// Sponsors that match gifts now, with what is left of each one's pool. Nothing is shown without an open pool.

import { decimalsOf, isMoney, localised, share, toMinor, toValue } from "./money.js";
import { $, element, figures, lang, quote, texts } from "./overlay_page.js";

const SHOWN = 2;

let drawn = "";

export function showMatching(totals) {
  const panel = $(".matching");
  if (!panel) return;
  const key = JSON.stringify(totals.matching ?? []);
  if (key === drawn) return;
  drawn = key;
  const open = (totals.matching ?? []).filter(isOpen).slice(0, SHOWN);
  panel.hidden = open.length === 0;
  panel.replaceChildren(...open.map(pool));
}

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
