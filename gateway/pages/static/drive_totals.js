// The drive's bar above the form. The form works without it.

import { showDoubling } from "./doubling.js";
import { $, figures, page, texts } from "./form_page.js";
import { isMoney, localised, wholePercent } from "./money.js";

const TOTALS_MS = 15_000;
let etag = "";

async function showTotals() {
  if (document.hidden) return;
  const headers = etag ? { "If-None-Match": etag } : {};
  const reply = await fetch(`/v1/drives/${encodeURIComponent(page.drive)}/totals`, { headers, cache: "no-store" });
  if (reply.status !== 200) return;
  etag = reply.headers.get("ETag") ?? "";
  const totals = await reply.json();
  showDoubling(totals);
  if (!isMoney(totals.raised)) return;
  $("raised").textContent = figures.money(totals.raised);
  $("of-goal").textContent = isMoney(totals.goal) ? figures.format(texts.of_goal, { goal: figures.money(totals.goal) }) : "";
  $("gifts").textContent = figures.format(texts.gifts, {}, totals.donations ?? 0);
  $("progress").value = isMoney(totals.goal) ? wholePercent(totals.raised, totals.goal) : 0;
  document.querySelector("h1").textContent = localised(totals.title, page.lang) || page.slug;
}

const keepShowing = () => showTotals().catch(() => undefined);

export function followTotals() {
  keepShowing();
  setInterval(keepShowing, TOTALS_MS);
}
