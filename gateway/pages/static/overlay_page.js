// Shared by the parts of the overlay: the page's data, its texts and formats, and functions that set text.
// Texts written by users are set through textContent only.

import { Figures } from "./money.js";

export const page = JSON.parse(document.getElementById("page").textContent);
export const { texts, lang } = page;
export const figures = new Figures(lang, page.digits);
export const calm = matchMedia("(prefers-reduced-motion: reduce)");
export const $ = (selector) => document.querySelector(selector);

export const set = (place, text) => place && place.textContent !== text && (place.textContent = text);

export function element(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

/** An element for a name or message, whose direction is independent of the text around it. */
export function quote(className, text) {
  const made = element("bdi", className, text);
  made.dir = "auto";
  return made;
}

const KINDS = { currency: "sign", integer: "whole", group: "whole", decimal: "cents", fraction: "cents" };

/** Writes an amount, with sign and cents in spans of their own, reusing the spans already in place. */
export function writeMoney(place, money, short = false) {
  const runs = [];
  for (const { type, value } of figures.parts(money, short)) {
    const kind = KINDS[type] ?? "gap";
    if (runs.length && runs[runs.length - 1][0] === kind) runs[runs.length - 1][1] += value;
    else runs.push([kind, value]);
  }
  while (place.children.length > runs.length) place.lastChild.remove();
  runs.forEach(([kind, value], i) => {
    const span = place.children[i] ?? place.appendChild(document.createElement("span"));
    if (span.className !== kind) span.className = kind;
    if (span.textContent !== value) span.textContent = value;
  });
}
