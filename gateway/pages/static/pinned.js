// The donation whose message a moderator pinned, until it is unpinned or hidden.

import { isMoney } from "./money.js";
import { $, element, figures, quote, texts } from "./overlay_page.js";

let drawn = "";

export function showPinned(totals) {
  const panel = $(".pinned");
  if (!panel) return;
  const pinned = isMoney(totals.pinned?.amount) ? totals.pinned : null;
  const key = JSON.stringify(pinned);
  if (key === drawn) return;
  drawn = key;
  panel.hidden = !pinned;
  panel.replaceChildren(...(pinned ? contents(pinned) : []));
}

function contents({ name, message, amount }) {
  const label = element("h2", "", message ? texts.pinned_message : texts.pinned_gift);
  const who = element("p", "pinned-who");
  who.append(quote("name", name || texts.anonymous), element("span", "money", figures.money(amount)));
  return message ? [label, quote("pinned-message", message), who] : [label, who];
}
