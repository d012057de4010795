// The moderation desk: polls the messages of one state, shows who else looks at what, and sends decisions with the
// version that was seen. Text of donors and moderators is only ever set as text.

const POLL_MS = 1_000;
const HIDDEN_POLL_MS = 4_000; // a page in the background stays present (presence.py, GONE)
const ANSWER_MS = 8_000; // a request without an answer by then has failed
const ASKED_MS = 5_000; // how long a second press decides although another moderator looks at the message
const RANDOM_BYTES = 12;
const MAX_NAME = 40;
const MAX_UNDO = 100;

const { drive, csrf, lang, digits, texts } = document.body.dataset;
const say = JSON.parse(texts);
const base = `/moderate/${encodeURIComponent(drive)}/messages`;
const find = (id) => document.getElementById(id);
const list = find("messages");

const desk = [...crypto.getRandomValues(new Uint8Array(RANDOM_BYTES))].map((one) => one.toString(16).padStart(2, "0")).join("");
const own = new Set(); // the newest decisions of this desk, by message and version
const mine = []; // decisions that can be undone, the newest last
let state = "held";
let shown = []; // the messages on the page
let current = null; // the pledge of the selected message
let desks = [];
let told = null; // the decisions of the newest poll, by message and version; null before the first one
const sending = new Set(); // the messages whose decision has no answer yet
let asked = { pledge: null, until: 0 };
let round = 0;
let timer = 0;

const isolated = (part) => `\u2068${part}\u2069`; // a name or date of the other direction stays in one piece
const text = (key, holes = {}) => Object.entries(holes).reduce((so, [name, value]) => so.replace(`{${name}}`, () => isolated(value)), say[key]);
const nameOf = (other) => other.name || say.another;
const tag = digits === "arab" ? `${lang}-u-nu-arab` : `${lang}-u-nu-latn`;
const clock = new Intl.DateTimeFormat(tag, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const moment = new Intl.DateTimeFormat(tag, { dateStyle: "short", timeStyle: "medium" });

function notify(message, bad = false) {
  const notice = find("notice");
  notice.textContent = message;
  notice.classList.toggle("bad", bad);
}

async function send(path, options = {}) {
  const reply = await fetch(path, { credentials: "same-origin", signal: AbortSignal.timeout(ANSWER_MS), ...options });
  if (reply.status === 401) location.reload(); // the session has ended: the login follows
  return reply;
}

async function poll() {
  clearTimeout(timer);
  const own = ++round;
  const query = new URLSearchParams({ state, desk, name: find("name").value, looking: current ?? "", lang, digits });
  try {
    const reply = await send(`${base}?${query}`);
    if (!reply.ok) throw new Error(String(reply.status));
    const found = await reply.json();
    if (own === round) show(found);
  } catch {
    if (own === round) find("offline").hidden = false;
  }
  if (own === round) timer = setTimeout(poll, document.hidden ? HIDDEN_POLL_MS : POLL_MS);
}

function show(found) {
  find("offline").hidden = true;
  desks = found.desks ?? []; // null while presence is not known
  const names = desks.map(nameOf).map(isolated).join(lang === "ar" ? "، " : ", ");
  find("others").textContent = found.desks === null ? say.presence_unknown : names ? text("also_here", { names }) : say.alone;
  tell(found.decisions);
  const before = shown.findIndex((one) => one.pledge === current);
  shown = found.data;
  if (!shown.some((one) => one.pledge === current)) select(next(before), false);
  draw();
}

/** What others decided since the last poll. Not while an own decision is on its way: it may be among them. */
function tell(decisions) {
  if (decisions === null || sending.size) return;
  const others = decisions.filter((one) => told && !told.has(keyOf(one)) && !own.has(keyOf(one)));
  if (others.length) notify(text(`other_${others.at(-1).state}`, { name: nameOf(others.at(-1)) }));
  told = new Set(decisions.map(keyOf));
}

const keyOf = ({ pledge, version }) => `${pledge}.${version}`;

/** The message to select where one has left the list: the first from that place on that nobody looks at. */
function next(place) {
  const start = Math.max(0, place);
  const order = [...shown.slice(start), ...shown.slice(0, start)];
  const free = order.find((one) => !lookers(one.pledge).length) ?? order[0];
  return free?.pledge ?? null;
}

const lookers = (pledge) => desks.filter((other) => other.looking === pledge);

function draw() {
  const focused = list.contains(document.activeElement);
  const items = new Map([...list.children].map((item) => [item.dataset.pledge, item]));
  shown.forEach((message, place) => {
    const item = items.get(message.pledge) ?? create(message);
    items.delete(message.pledge);
    fill(item, message);
    if (list.children[place] !== item) list.insertBefore(item, list.children[place] ?? null);
  });
  for (const item of items.values()) item.remove();
  if (focused && !list.contains(document.activeElement)) itemOf(current)?.focus(); // the message left with the focus
  const empty = find("empty");
  empty.hidden = shown.length > 0;
  empty.textContent = say[`empty_${state}`];
}

function create(message) {
  const item = find("message").content.cloneNode(true).firstElementChild;
  item.dataset.pledge = message.pledge;
  item.addEventListener("click", (event) => {
    select(message.pledge, false);
    const action = event.target.closest("button")?.dataset.action;
    if (action) act(action);
  });
  item.addEventListener("focusin", () => select(message.pledge, false));
  return item;
}

function fill(item, message) {
  const part = (name) => item.querySelector(`.${name}`);
  part("name").textContent = message.name ?? say.anonymous;
  part("amount").textContent = message.amount_text;
  part("unpaid").hidden = message.status !== "open";
  const time = item.querySelector("time");
  time.dateTime = message.created_at;
  time.textContent = clock.format(new Date(message.created_at));
  part("text").textContent = message.message ?? say.no_message;
  part("text").classList.toggle("none", message.message === null);
  const reasons = Object.entries(message.reasons).flatMap(([field, found]) => found.map((one) => `${say[`reason_${one}`] ?? one} · ${say[`field_${field}`] ?? field}`));
  if (part("reasons").childElementCount !== reasons.length) part("reasons").replaceChildren(...reasons.map((one) => element("span", one)));
  const others = lookers(message.pledge);
  part("looking").hidden = !others.length;
  part("looking").textContent = others.length ? text("looking", { name: others.map(nameOf).map(isolated).join(" · ") }) : "";
  item.classList.toggle("taken", others.length > 0);
  item.setAttribute("aria-current", String(message.pledge === current));
  for (const button of item.querySelectorAll("[data-action]")) {
    const action = button.dataset.action;
    button.hidden = (action === "approve" && ["approved", "pinned"].includes(message.state)) || (action === "hide" && message.state === "hidden");
    if (action === "pin" || action === "unpin") {
      button.dataset.action = message.state === "pinned" ? "unpin" : "pin";
      button.firstChild.textContent = `${say[button.dataset.action]} `;
    }
  }
}

function element(name, content) {
  const made = document.createElement(name);
  made.textContent = content;
  return made;
}

function select(pledge, focus = true) {
  if (current !== pledge) {
    current = pledge;
    for (const item of list.children) item.setAttribute("aria-current", String(item.dataset.pledge === pledge));
    poll();
  }
  if (focus) itemOf(pledge)?.focus();
}

const itemOf = (pledge) => [...list.children].find((item) => item.dataset.pledge === pledge);

function move(by) {
  if (!shown.length) return;
  const place = shown.findIndex((one) => one.pledge === current) + by;
  select(shown[Math.min(Math.max(place, 0), shown.length - 1)].pledge);
}

async function act(action) {
  const message = shown.find((one) => one.pledge === current);
  if (!message || sending.has(message.pledge)) return;
  if (action === "history") {
    await toggleHistory(message.pledge);
    return;
  }
  const others = lookers(message.pledge);
  if (others.length && !(asked.pledge === message.pledge && performance.now() < asked.until)) {
    asked = { pledge: message.pledge, until: performance.now() + ASKED_MS };
    notify(text("looking_ask", { name: others.map(nameOf).map(isolated).join(" · ") }), true);
    return;
  }
  const decided = await decide(message.pledge, action, message.version);
  // A repeat of another moderator's decision is not this one's to undo, and what changes no state need not be.
  if (decided?.changed && decided.state !== message.state) mine.push({ pledge: message.pledge, before: stateBefore(message), after: decided.state, version: decided.version });
  if (mine.length > MAX_UNDO) mine.shift();
  if (decided) apply(decided);
  await poll();
}

/** The state to which undo leads back. A moderator's approval would show a link that the filters' approval does not. */
const stateBefore = ({ state: now, version, links_hidden }) => (now === "approved" && version === 0 && links_hidden ? "held" : now);

/** Show a decision at once, so that the next key is for the next message. */
function apply({ pledge, state: now, version }) {
  const place = shown.findIndex((one) => one.pledge === pledge);
  if (place < 0) return;
  if (now === state) Object.assign(shown[place], { state: now, version });
  else shown.splice(place, 1);
  if (!shown.some((one) => one.pledge === current)) select(next(place), false);
  draw();
}

function note(keys, key) {
  keys.add(key);
  if (keys.size > MAX_UNDO) keys.delete(keys.values().next().value);
}

/** Send a decision; the message after it, null where it was refused, undefined where no answer came. */
async function decide(pledge, action, version) {
  const moderator = [...find("name").value.trim()].slice(0, MAX_NAME).join("") || undefined;
  sending.add(pledge);
  try {
    const reply = await send(`${base}/${pledge}/${action}`, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-CSRF-Token": csrf },
      body: JSON.stringify({ seen_version: version, moderator }),
    });
    const found = await reply.json();
    if (reply.ok) {
      if (found.changed) note(own, keyOf(found));
      notify(say[`mine_${found.state}`]);
    } else notify(reply.status === 409 ? say.conflict : say.failed, true);
    return reply.ok ? found : reply.status < 500 ? null : undefined;
  } catch {
    notify(say.failed, true);
  } finally {
    sending.delete(pledge);
  }
}

const BACK = { held: "hold", approved: "unpin", hidden: "hide", pinned: "pin" };

async function undo() {
  if (sending.size) return;
  const last = mine.pop();
  if (!last) {
    notify(say.nothing_to_undo);
    return;
  }
  // From hidden, "approve" leads back to approved; from pinned only "unpin" does.
  const action = last.before === "approved" && last.after !== "pinned" ? "approve" : BACK[last.before];
  if (await decide(last.pledge, action, last.version) === undefined) mine.push(last); // no answer: it can be tried again
  await poll();
}

async function toggleHistory(pledge) {
  const item = itemOf(pledge);
  const history = item.querySelector(".history");
  const button = item.querySelector('[data-action="history"]');
  button.setAttribute("aria-expanded", String(history.hidden));
  if (!history.hidden) {
    history.hidden = true;
    return;
  }
  history.replaceChildren();
  history.hidden = false;
  await showHistory(pledge, history);
}

const openings = new WeakMap(); // the newest page asked for, by list: an answer to an earlier request is dropped

async function showHistory(pledge, history, after = null) {
  const own = {};
  openings.set(history, own);
  const found = await historyPage(pledge, after);
  if (openings.get(history) !== own) return;
  if (!found) {
    notify(say.failed, true);
    return;
  }
  history.querySelector(".more")?.remove();
  history.append(...found.data.map((one) => element("li", stepText(one))));
  if (found.next !== null) history.append(moreSteps(() => showHistory(pledge, history, found.next)));
}

/** A page of a message's history, null where it did not arrive. */
async function historyPage(pledge, after) {
  try {
    const reply = await send(`${base}/${pledge}/history${after === null ? "" : `?after=${encodeURIComponent(after)}`}`);
    return reply.ok ? await reply.json() : null;
  } catch {
    return null;
  }
}

function moreSteps(show) {
  const last = element("li", "");
  const button = element("button", say.more);
  last.className = "more";
  button.type = "button";
  button.addEventListener("click", show);
  last.append(button);
  return last;
}

const stepText = (one) => [say[one.to], one.moderator, one.key ?? say.filters, moment.format(new Date(one.at)), one.note].filter(Boolean).map(isolated).join(" · ");

const KEYS = {
  j: () => move(1), arrowdown: () => move(1), k: () => move(-1), arrowup: () => move(-1),
  a: () => act("approve"), h: () => act("hide"), u: undo, "?": () => find("keys").showModal(),
  p: () => act(shown.find((one) => one.pledge === current)?.state === "pinned" ? "unpin" : "pin"),
};

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input, textarea") || find("keys").open;
  if (typing || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  // On an Arabic keyboard the same keys give Arabic letters: then the place of the key counts.
  const key = event.key.toLowerCase();
  const run = KEYS[key] ?? (event.key === "؟" ? KEYS["?"] : /[a-z]/.test(key) ? null : KEYS[event.code.replace("Key", "").toLowerCase()]);
  if (!run) return;
  event.preventDefault();
  run();
});

for (const button of document.querySelectorAll("[data-state]")) {
  button.addEventListener("click", () => {
    state = button.dataset.state;
    for (const one of document.querySelectorAll("[data-state]")) one.setAttribute("aria-pressed", String(one === button));
    shown = [];
    current = null;
    draw();
    poll();
  });
}
find("undo").addEventListener("click", undo);
find("help").addEventListener("click", () => find("keys").showModal());
try {
  find("name").value = localStorage.getItem("ataa-moderator") ?? "";
  find("name").addEventListener("change", (event) => localStorage.setItem("ataa-moderator", event.target.value));
} catch {
  // storage is blocked: the name is kept for this page only
}
document.addEventListener("visibilitychange", () => document.hidden || poll());
poll();
