// The desk's control of the alerts on every overlay of the drive. What it shows is what the overlays obey: the state in
// the drive's totals, or the answer to a command that the totals do not have yet.

const POLL_MS = 1_000;
const HIDDEN_POLL_MS = 4_000;
const ANSWER_MS = 8_000; // a request without an answer by then has failed

const { drive, csrf, texts } = document.body.dataset;
const say = JSON.parse(texts);
const path = encodeURIComponent(drive);
const find = (id) => document.getElementById(id);

let state = null; // the newest that is known
let etag = "";
let timer = 0;
const sending = new Set(); // the commands without an answer yet: a double click is one command

function show(next) {
  if (!Number.isInteger(next?.version) || next.version < (state?.version ?? 0)) return;
  state = next;
  find("alerts-paused").hidden = !state.paused;
  find("alerts-running").hidden = state.paused;
  const button = find("alerts-toggle");
  button.dataset.alerts = state.paused ? "resume" : "pause";
  button.firstChild.textContent = `${say[state.paused ? "alerts_resume" : "alerts_pause"]} `;
  button.disabled = false;
}

function tell(text, bad = false) {
  const notice = find("alerts-notice");
  notice.textContent = text;
  notice.classList.toggle("bad", bad);
}

async function poll() {
  clearTimeout(timer);
  try {
    const headers = etag ? { "If-None-Match": etag } : {};
    const reply = await fetch(`/v1/drives/${path}/totals`, { headers, cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS) });
    if (reply.status === 200) {
      etag = reply.headers.get("ETag") ?? "";
      show((await reply.json()).alerts);
    }
  } catch {
    // desk.js tells that there is no connection
  }
  clearTimeout(timer); // of a poll that was begun meanwhile
  timer = setTimeout(poll, document.hidden ? HIDDEN_POLL_MS : POLL_MS);
}

async function command(action, pledge = null) {
  if (sending.has(action)) return;
  sending.add(action);
  try {
    const reply = await fetch(`/moderate/${path}/alerts/${action}`, {
      method: "POST",
      credentials: "same-origin",
      signal: AbortSignal.timeout(ANSWER_MS),
      headers: { "Content-Type": "application/json", "X-CSRF-Token": csrf },
      body: JSON.stringify(pledge ? { pledge } : {}),
    });
    if (reply.status === 401) location.reload(); // the session has ended: the login follows
    const found = await reply.json();
    if (reply.ok) show(found);
    tell(reply.ok ? say[`alerts_done_${action}`] : reply.status === 409 ? say.alerts_unpaid : say.failed, !reply.ok);
  } catch {
    tell(say.failed, true);
  } finally {
    sending.delete(action);
  }
}

const selected = () => document.querySelector('#messages > [aria-current="true"]')?.dataset.pledge;

const KEYS = {
  o: () => state && command(state.paused ? "resume" : "pause"),
  s: () => command("skip"),
  r: (event) => (event.shiftKey ? selected() && command("replay", selected()) : command("replay")),
};

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input, textarea") || document.querySelector("dialog[open]");
  if (typing || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  // On an Arabic keyboard the place of the key counts, as in desk.js.
  const key = event.key.toLowerCase();
  const run = KEYS[/[a-z]/.test(key) ? key : event.code.replace("Key", "").toLowerCase()];
  if (!run) return;
  event.preventDefault();
  run(event);
});

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-alerts]");
  if (button) command(button.dataset.alerts, button.closest("#messages > li")?.dataset.pledge);
});
document.addEventListener("visibilitychange", () => document.hidden || poll());
poll();
