// The page after payment: shows the donation's status and follows its changes.

import { $, around, figures, memory, page, texts } from "./form_page.js";
import { isMoney } from "./money.js";
import { watchPledge } from "./pledge.js";
import { proveGift } from "./proof.js";
import { offerToShare } from "./share.js";

const WATCH_MS = 10 * 60 * 1000;
const SHOWN = { open: "waiting", partly_refunded: "refunded", cancelled: "lapsed" };

function show(outcome, money = "") {
  $("outcome").dataset.status = outcome;
  $("headline").textContent = texts[outcome];
  $("amount").textContent = money;
  $("more").textContent = texts[`${outcome}_more`] ?? "";
}

/** The pledge named in the page's address, else the last one made in this tab. */
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

/** What the donor may need when asking about the gift. */
function showReceipt({ id, created_at: at }) {
  const day = new Date(at);
  const format = new Intl.DateTimeFormat(figures.locale, { dateStyle: "long" });
  $("gift-number").textContent = id;
  $("gift-date").textContent = Number.isNaN(day.getTime()) ? "" : format.format(day);
  $("receipt").hidden = false;
}

/** The tick: the gift is in the public log, as the browser verified where it can. */
async function showProof(id, token) {
  const proof = await proveGift(id, token).catch(() => null);
  if (proof === null) return;
  const known = { true: "proof_verified", false: "proof_failed", null: "proof_served" }[proof.verified];
  $("proof").dataset.verified = proof.verified;
  $("proof-text").textContent = figures.format(texts[known], { row: proof.row });
  $("proof-link").href = proof.address;
  $("proof").hidden = false;
}

function offer(id, token) {
  const creator = new URLSearchParams(location.search).get("creator");
  const query = new URLSearchParams(creator ? { creator, lang: page.lang } : { lang: page.lang });
  const link = `${location.origin}/donate/${encodeURIComponent(page.slug)}?${query}`;
  const text = figures.format(texts.share_text, { title: page.title });
  const badge = `/badge/${encodeURIComponent(id)}.svg?${new URLSearchParams({ token, lang: page.lang })}`;
  offerToShare({ link, text, badge, texts, format: (phrase, holes) => figures.format(phrase, holes) });
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
    memory.write(null); // this donation has a final status: the form starts empty
    around?.tell(pledge.status === "paid" ? "paid" : "closed", { pledge: id });
    if (pledge.status !== "paid") return undefined;
    showReceipt(pledge);
    showProof(id, token);
    return offer(id, token);
  }
  return show("slow");
}

const pledge = pledgeToWatch();
document.querySelector(".choices a").addEventListener("click", () => around?.tell("closed", { pledge: pledge?.id }));
if (pledge) watch(pledge);
else show("unknown");
