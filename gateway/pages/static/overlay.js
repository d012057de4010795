// The overlay: messages arrive at any rate; the page is drawn at most once per animation frame.

import "./trusted.js";
import "./layout.js";
import "./local_file.js";
import { Alerts } from "./alerts.js";
import { drawTotal, showBar, showGoal } from "./bar.js";
import { isNewer, parse } from "./feed.js";
import { showImpact } from "./impact.js";
import { showLeaders } from "./leaders.js";
import { Link } from "./link.js";
import { showMatching } from "./matching.js";
import { celebrate, showMilestones } from "./milestones.js";
import { isMoney } from "./money.js";
import { $, figures, page, set, texts } from "./overlay_page.js";
import { showPinned } from "./pinned.js";
import { showRecent } from "./ticker.js";

const STREAM_TRUSTED_MS = 20_000; // longer than the feed waits before it closes an idle stream
const BROKEN_TRUSTED_MS = 5_000;

const boxes = document.querySelectorAll(".boards, .beside");
let totals = null;
let totalsText = null;
let unknown = false;
let streaming = false;
let confirmed = 0;
let drawing = false;
const alerts = $(".alerts") ? new Alerts(newestTotals) : null;

function take(message) {
  unknown = message.kind === "unknown";
  if (unknown) return wake();
  streaming = message.streaming;
  confirmed = Math.max(confirmed, message.confirmed);
  if (message.kind === "figures" && message.text !== null) totalsText = message.text;
  alerts?.take(message);
  wake();
}

function wake() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(draw);
}

function draw(now) {
  takeTotals();
  const waiting = alerts?.draw() ?? false;
  const rolling = drawTotal(now);
  drawing = rolling || waiting;
  if (drawing) requestAnimationFrame(draw);
}

function newestTotals() {
  takeTotals();
  return totals;
}

function takeTotals() {
  if (totalsText === null) return;
  const next = parse(totalsText);
  totalsText = null;
  if (!next || !isMoney(next.raised) || !isNewer(next, totals)) return;
  totals = next;
  showBar(totals);
  if ($(".impact")) showImpact(totals);
  showGoal(totals);
  showMilestones(totals);
  showMatching(totals);
  showLeaders(totals);
  showRecent(totals);
  showPinned(totals);
  alerts?.follow(totals);
  for (const box of boxes) box.hidden = !box.querySelector(":scope > :not([hidden])");
  showFreshness();
  document.body.dataset.sequence = totals.sequence;
}

function freshness() {
  if (unknown) return "offline";
  if (!totals) return "starting";
  const trusted = streaming ? STREAM_TRUSTED_MS : BROKEN_TRUSTED_MS;
  if (Date.now() - confirmed > trusted) return "offline";
  return ["live", "catching_up", "frozen"].includes(totals.state) ? totals.state : "frozen";
}

function showFreshness() {
  const state = freshness();
  $(".freshness").dataset.state = state;
  const late = totals && state !== "live" && state !== "starting";
  const time = late ? figures.time(totals.as_of) : "";
  set($(".state"), texts[state] + (time ? ` · ${figures.format(texts.as_of, { time })}` : ""));
}

/** A test from the setup page, which shows this page in a frame. */
function takeTest({ source, origin, data }) {
  if (source !== parent || parent === window || origin !== location.origin) return;
  if (data?.alert) alerts?.test(data.alert);
  if (isMoney(data?.milestone?.amount)) celebrate(data.milestone);
}

addEventListener("message", takeTest);
setInterval(showFreshness, 1_000);
new Link(page.drive, take).start();
