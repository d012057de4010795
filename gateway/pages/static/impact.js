// What the total pays for, such as "= 368,439 winter kits". A drive with several kinds shows them in turn.

import { decimalsOf, isMoney, localised, toMinor } from "./money.js";
import { $, figures, lang, page, quote, set } from "./overlay_page.js";

const TURN_MS = 8_000;

const place = $(".impact");
const kinds = (page.impact ?? []).filter((kind) => isMoney(kind.cost) && toMinor(kind.cost.value) > 0n);
let raised = null;

/** How many of `kind` the total pays for in full; 0 where the two amounts are not of one currency. */
function countOf({ cost }, money) {
  const comparable = cost.currency === money.currency && decimalsOf(cost.value) === decimalsOf(money.value);
  const total = comparable ? toMinor(money.value) : 0n;
  return total > 0n ? total / toMinor(cost.value) : 0n;
}

export function showImpact(totals) {
  raised = totals.raised;
  draw();
}

function draw() {
  const paid = raised ? kinds.filter((kind) => countOf(kind, raised) > 0n) : [];
  place.hidden = paid.length === 0;
  if (!paid.length) return;
  const kind = paid[Math.floor(Date.now() / TURN_MS) % paid.length];
  if (!place.children.length) place.append("=\u00a0", quote("count", ""), " ", quote("label", ""));
  set(place.children[0], figures.count(countOf(kind, raised)));
  set(place.children[1], localised(kind.label, lang));
}

if (place && kinds.length > 1) setInterval(draw, 1_000);
