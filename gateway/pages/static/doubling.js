// "Your gift is doubled": the sponsor that matches gifts now, and what its pool has left. The line goes with the pool.
// A pool that matches one creator's gifts is named only while the form credits that creator.

import { creator } from "./form_fields.js";
import { $, figures, page, texts } from "./form_page.js";
import { decimalsOf, isMoney, localised, toMinor, toValue } from "./money.js";

function isOpen({ cap, used, ratio }) {
  const readable = isMoney(cap) && isMoney(used) && /^\d+(\.\d+)?$/.test(ratio);
  return readable && cap.currency === used.currency && toMinor(used.value) < toMinor(cap.value);
}

const matchesThis = (pool) => !pool.creator || pool.creator === creator();

let pools = [];

export function showDoubling(totals) {
  pools = totals.matching ?? [];
  showLine();
}

$("creator")?.addEventListener("change", showLine);

function showLine() {
  const line = $("doubled");
  const open = line && pools.find((pool) => matchesThis(pool) && isOpen(pool));
  if (!line || (line.hidden = !open)) return;
  const { sponsor, cap, used, ratio } = open;
  const one = 10n ** BigInt(decimalsOf(ratio));
  const percent = figures.percentOf(toMinor(ratio), one);
  const money = figures.money({ ...cap, value: toValue(toMinor(cap.value) - toMinor(used.value), decimalsOf(cap.value)) });
  const text = toMinor(ratio) === one ? texts.doubled : texts.doubled_share.replace("{percent}", percent);
  const [before, after] = text.split("{sponsor}");
  const who = document.createElement("bdi");
  who.textContent = localised(sponsor, page.lang);
  line.replaceChildren(before, who, `${after} ${figures.format(texts.doubled_left, { money })}`);
}
