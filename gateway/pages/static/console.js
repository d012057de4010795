// The figures of a drive in the console, from its live stream, or from polls while there is none.

import { Feed, isNewer, parse } from "./feed.js";
import { Figures, isMoney } from "./money.js";

const page = JSON.parse(document.getElementById("page").textContent);
const figures = new Figures(page.lang, page.digits);
const list = document.querySelector("[data-drive]");
let shown = null;
let feed = null;

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
  time.textContent = figures.digitsOf(`${totals.as_of.slice(0, 10)} ${totals.as_of.slice(11, 19)}`);
}

/** Without a connection the moment of the figures stays as it is, and tells their age. */
function take(message) {
  const totals = message.kind === "figures" && message.text !== null ? parse(message.text) : null;
  if (!totals || !isNewer(totals, shown)) return;
  shown = totals;
  show(totals);
}

/** Only a visible page holds a stream: a browser opens six connections to a host that has no HTTP/2. */
function follow() {
  feed?.stop();
  feed = document.hidden ? null : new Feed(list.dataset.drive, take, { free: 1 }).start();
}

if (list) {
  document.addEventListener("visibilitychange", follow);
  follow();
}
