// The figures of a drive in the console, read again every two seconds while the page is visible.

import { Figures, isMoney } from "./money.js";

const page = JSON.parse(document.getElementById("page").textContent);
const figures = new Figures(page.lang, page.digits);
const list = document.querySelector("[data-drive]");
const EVERY_MS = 2000;

const valueAt = (totals, path) => path.split(".").reduce((found, name) => found?.[name], totals);

function show(totals) {
  for (const place of list.querySelectorAll("[data-money]")) {
    const money = valueAt(totals, place.dataset.money);
    if (isMoney(money)) place.textContent = figures.money(money);
  }
  for (const place of list.querySelectorAll("[data-count]")) {
    place.textContent = figures.count(valueAt(totals, place.dataset.count));
  }
  const time = document.querySelector("#as-of time");
  time.dateTime = totals.as_of;
  time.textContent = `${totals.as_of.slice(0, 10)} ${totals.as_of.slice(11, 19)}`;
}

async function refresh() {
  try {
    const reply = document.hidden ? null : await fetch(`/v1/drives/${list.dataset.drive}/totals`);
    if (reply?.ok) show(await reply.json());
  } catch {
    // Without a connection the moment of the figures stays as it is, and tells their age.
  }
  setTimeout(refresh, EVERY_MS);
}

if (list) refresh();
