// The public page: keeps the figures that the server wrote current, and says honestly when it cannot.

import { Figures, isMoney, localised, wholePercent } from "./money.js";
import { reportVisit } from "./visits.js";

const page = JSON.parse(document.getElementById("page").textContent);
const { texts } = page;
const figures = new Figures(page.lang, page.digits);
const $ = (id) => document.getElementById(id);
const POLL_MS = 5_000;
const POLL_TIMEOUT_MS = 8_000;

let etag = "";
let state = $("freshness").dataset.state;
const shown = { leaders: "", recent: "" };
let leaders = [];
let standingAsked = 0; // counts the questions about the creator's own sum: only the newest answer is shown
let standingKnown = !page.creator; // as of the newest totals

// --- figures ---

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.textContent = text;
  return element;
}

function moneyOf(amount) {
  return make("b", "money", isMoney(amount) ? figures.money(amount) : "");
}

function showSums(totals) {
  if (!isMoney(totals.raised)) return;
  $("raised").textContent = figures.money(totals.raised);
  const goal = isMoney(totals.goal) ? totals.goal : null;
  $("of-goal").textContent = goal ? figures.format(texts.of_goal, { goal: figures.money(goal) }) : "";
  $("progress").value = goal ? wholePercent(totals.raised, goal) : 0;
  $("gifts").textContent = figures.format(texts.gifts, {}, totals.donations ?? 0);
}

function leaderRow(leader) {
  const link = document.createElement("a");
  link.href = `/d/${encodeURIComponent(page.slug)}/${encodeURIComponent(leader.slug)}${page.link}`;
  if (leader.creator === page.creator) link.setAttribute("aria-current", "page");
  link.append(make("bdi", "name", leader.name), " ", moneyOf(leader.raised));
  return rowOf(link);
}

function giftRow(gift) {
  const row = rowOf(make("bdi", "name", gift.name || texts.anonymous), " ", moneyOf(gift.amount));
  if (gift.message) {
    const message = make("p", "", gift.message);
    message.dir = "auto";
    row.append(message);
  }
  return row;
}

function rowOf(...parts) {
  const row = document.createElement("li");
  row.append(...parts);
  return row;
}

/** Replaces the rows of a list where its data changed; a link that has the focus keeps it. */
function showList(name, data, toRow) {
  const next = JSON.stringify(data);
  if (next === shown[name]) return;
  shown[name] = next;
  const focused = $(name).contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  $(name).replaceChildren(...data.map(toRow));
  if (focused) [...$(name).querySelectorAll("a")].find((link) => link.getAttribute("href") === focused)?.focus();
}

function showMilestones(milestones) {
  const rows = $("milestones")?.children ?? [];
  milestones.forEach((milestone, index) => {
    if (!rows[index]) return;
    rows[index].dataset.reached = String(milestone.reached_at !== null);
    rows[index].querySelector(".mark").textContent = milestone.reached_at === null ? "" : texts.reached;
  });
}

function showTotals(totals) {
  showSums(totals);
  leaders = (totals.leaders ?? []).filter((leader) => leader.slug);
  showList("leaders", leaders, leaderRow);
  $("leaders-section").hidden = leaders.length === 0;
  // Under overload the server leaves the gifts out: what is shown stays.
  if (!totals.degraded?.includes("recent")) showList("recent", totals.recent ?? [], giftRow);
  $("no-gifts").hidden = (totals.donations ?? 0) > 0;
  showMilestones(totals.milestones ?? []);
  if (page.creator) followCreator();
  document.querySelector("h1").textContent = localised(totals.title, page.lang) || page.slug;
  state = totals.state;
  showFreshness(state, totals.as_of);
}

// --- the creator whose page it is ---

function showStanding({ raised, rank }) {
  if (!isMoney(raised)) return;
  $("creator-raised").textContent = figures.money(raised);
  $("creator-place").textContent = figures.format(texts.place, {}, rank);
  $("standing").hidden = false;
}

/** The creator's own sum: among the leaders of the totals, else on the board, which is asked once totals change. */
async function followCreator() {
  const own = ++standingAsked;
  standingKnown = false;
  const place = leaders.find((leader) => leader.creator === page.creator) ?? (await boardPlace());
  if (own !== standingAsked) return;
  standingKnown = place !== undefined;
  if (place) showStanding(place);
  else if (place === null) $("standing").hidden = true;
}

/** Null where the creator has raised nothing, undefined where the board does not answer. */
async function boardPlace() {
  const board = `/v1/drives/${encodeURIComponent(page.drive)}/leaderboards/creators`;
  const limit = AbortSignal.timeout(POLL_TIMEOUT_MS);
  const around = `limit=1&around=${encodeURIComponent(page.creator)}`;
  const reply = await fetch(`${board}?${around}`, { signal: limit }).catch(() => null);
  if (!reply?.ok) return undefined;
  return (await reply.json()).data.find((row) => row.creator === page.creator) ?? null;
}

/** `asOf` is when the figures were right; without it the moment shown stays. */
function showFreshness(kind, asOf = "") {
  $("freshness").dataset.state = kind;
  $("state").textContent = texts[kind] ?? texts.frozen;
  if (asOf) showMoment(asOf);
}

/** The server still has the figures shown. Only where they are live and complete, they are right until now. */
function confirm() {
  showFreshness(state, state === "live" && standingKnown ? new Date().toISOString() : "");
  if (!standingKnown) followCreator();
}

/** The moment in the reader's own time; the server can only write it in UTC. */
function showMoment(iso) {
  const time = document.querySelector("#as-of time");
  time.dateTime = iso;
  time.textContent = figures.time(iso) || time.textContent;
}

// --- polling ---

async function poll() {
  if (document.hidden) return undefined;
  const limit = AbortSignal.timeout(POLL_TIMEOUT_MS);
  const headers = etag ? { "If-None-Match": etag } : {};
  const url = `/v1/drives/${encodeURIComponent(page.drive)}/totals`;
  const reply = await fetch(url, { headers, cache: "no-store", signal: limit });
  if (reply.status === 304) return confirm();
  if (reply.status !== 200) throw new Error(String(reply.status));
  showTotals(await reply.json());
  etag = reply.headers.get("ETag") ?? "";
  return undefined;
}

async function keepShowing() {
  await poll().catch(() => showFreshness("offline"));
  setTimeout(keepShowing, POLL_MS * (0.8 + 0.4 * Math.random()));
}

// --- where the visitor comes from ---

/** Tells the donate form which site linked here: its origin only, and only if it is another one. */
function passReferrer() {
  const give = $("give");
  if (!give || !document.referrer) return;
  const { origin } = new URL(document.referrer);
  if (origin === location.origin || origin === "null") return;
  const url = new URL(give.href);
  url.searchParams.set("referrer", origin);
  give.href = url.pathname + url.search;
}

document.body.dataset.digits = page.digits;
passReferrer();
reportVisit("seen", page.slug, page.source);
showMoment(document.querySelector("#as-of time").dateTime);
document.addEventListener("visibilitychange", () => poll().catch(() => showFreshness("offline")));
keepShowing();
