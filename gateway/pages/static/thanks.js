// Back from payment: what became of the gift, as soon as it is known.

import { Figures, isMoney } from "./money.js";
import { Memory, watchPledge } from "./pledge.js";

const page = JSON.parse(document.getElementById("page").textContent);
const { texts } = page;
const figures = new Figures(page.lang, page.digits);
const memory = new Memory(page.drive);
const $ = (id) => document.getElementById(id);
const WATCH_MS = 10 * 60 * 1000;
const SHOWN = { open: "waiting", partly_refunded: "refunded", cancelled: "lapsed" };

function show(outcome, money = "") {
  $("outcome").dataset.status = outcome;
  $("headline").textContent = texts[outcome];
  $("amount").textContent = money;
  $("more").textContent = texts[`${outcome}_more`] ?? "";
}

/** The pledge named in the address, else the one this tab made. */
function pledgeToWatch() {
  const query = new URLSearchParams(location.search);
  const [id, token] = [query.get("pledge"), query.get("token")];
  return id && token ? { id, token } : (memory.read()?.pledge ?? null);
}

function showPledge(pledge) {
  const outcome = SHOWN[pledge.status] ?? pledge.status;
  const known = texts[outcome] ? outcome : "unknown";
  const money = isMoney(pledge.amount) ? figures.money(pledge.amount) : "";
  show(known, known === "paid" ? figures.format(texts.paid_amount, { money }) : money);
  return pledge.status;
}

async function watch({ id, token }) {
  show("waiting");
  for await (const pledge of watchPledge(id, token, WATCH_MS)) {
    if (pledge === "gone") return show("unknown");
    if (pledge === null) {
      $("more").textContent = texts.offline;
      continue;
    }
    if (showPledge(pledge) === "open") continue;
    memory.write(null); // this gift is settled: the form starts anew
    return undefined;
  }
  return show("slow");
}

const pledge = pledgeToWatch();
if (pledge) watch(pledge);
else show("unknown");
