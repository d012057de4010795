// "Your gift is doubled": the sponsor that matches a gift to the form's creator now, and what its pool has left.

import { creator } from "./form_fields.js";
import { $, figures, page, texts } from "./form_page.js";
import { decimalsOf, isMoney, localised, toMinor, toValue } from "./money.js";

function isOpen(pool) {
  const { cap, used, ratio } = pool;
  const readable = isMoney(cap) && isMoney(used) && /^\d+(\.\d+)?$/.test(ratio);
  const matches = !pool.creator || pool.creator === creator();
  return readable && matches && cap.currency === used.currency && toMinor(used.value) < toMinor(cap.value);
}

export function showDoubling({ matching = [] }) {
  show(matching);
  if ($("creator")) $("creator").onchange = () => show(matching);
}

function show(pools) {
  const line = $("doubled");
  const open = line && pools.find(isOpen);
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
