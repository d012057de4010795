// Makes a pledge exactly once: every retry of the same form sends the same idempotency key.

const KEY_LIFE_MS = 12 * 3600 * 1000; // well below the 24 h for which the API keeps idempotency keys
const TRIES = 60;
const NETWORK_WAITS_S = [1, 2, 4, 8, 15];
const TIMEOUT_MS = 30_000;
const POLL_GAP_MS = 1_000;

export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

/** What this tab stores of its donation to a drive; without storage it is kept until the page is closed. */
export class Memory {
  constructor(drive) {
    this.name = `ataa.gift.${drive}`;
    this.held = null;
  }

  read() {
    try {
      this.held = JSON.parse(sessionStorage.getItem(this.name));
    } catch {
      // no storage, or unreadable content: use the page's own copy
    }
    if (this.held && !(Date.now() - this.held.at < KEY_LIFE_MS)) this.write(null);
    return this.held;
  }

  write(donation) {
    this.held = donation;
    try {
      if (donation) sessionStorage.setItem(this.name, JSON.stringify(donation));
      else sessionStorage.removeItem(this.name);
    } catch {
      // private windows may refuse to store it: the page's own copy remains
    }
  }

  /** The idempotency key of this form's content: created when it is first sent, kept over double clicks and reloads. */
  keyFor(body) {
    const kept = this.read();
    if (kept?.body === body) return kept.key;
    const key = newKey();
    this.write({ key, body, at: Date.now() });
    return key;
  }
}

function newKey() {
  if (crypto.randomUUID) return crypto.randomUUID(); // exists in secure contexts only
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function request(url, options) {
  const control = new AbortController();
  const timer = setTimeout(() => control.abort(), TIMEOUT_MS);
  try {
    const reply = await fetch(url, { ...options, cache: "no-store", signal: control.signal });
    const body = await reply.json().catch(() => null);
    return { status: reply.status, body, retryAfter: retryAfter(reply.headers.get("Retry-After")) };
  } catch {
    return { status: 0, body: null, retryAfter: null };
  } finally {
    clearTimeout(timer);
  }
}

/** Seconds to wait, from either form of the header (RFC 9110, 10.2.3), or null. */
function retryAfter(header) {
  if (!header) return null;
  const seconds = /^\d+$/.test(header) ? Number(header) : (Date.parse(header) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.min(Math.max(seconds, 0), 120) : null;
}

/**
 * Sends a form until it gets a final response. `onWait(kind, seconds)` is called during each wait, with the kind
 * "busy" or "network". Resolves to `{ pledge }`, `{ problem }` (a problem document, or null) or `{ gaveUp: true }`.
 */
export async function makePledge({ drive, frame, body, key, token, freshToken, onWait }) {
  let renewed = false;
  for (let tried = 0; tried < TRIES; tried++) {
    const reply = await post(drive, frame, body, key, token);
    if (reply.status === 201 || reply.status === 200) return { pledge: reply.body };
    if ([401, 403].includes(reply.status) && !renewed) {
      renewed = true; // the form token has expired
      token = (await freshToken()) ?? token;
      continue;
    }
    const wait = waitBefore(reply, tried);
    if (wait === null) return { problem: reply.body, status: reply.status };
    await countDown(wait, (left) => onWait(reply.status ? "busy" : "network", left));
  }
  return { gaveUp: true };
}

function post(drive, frame, body, key, token) {
  const headers = {
    "Content-Type": "application/json",
    "Idempotency-Key": key,
    "Ataa-Form-Token": token,
    Prefer: "wait=5",
  };
  if (frame) headers.Authorization = `Bearer ${frame.key}`;
  return request(`/v1/drives/${encodeURIComponent(drive)}/pledges`, { method: "POST", headers, body });
}

/** Seconds until the next attempt; null if repeating the request cannot change the response. */
function waitBefore(reply, tried) {
  const backoff = NETWORK_WAITS_S[Math.min(tried, NETWORK_WAITS_S.length - 1)];
  const stillRunning = reply.status === 409 && !/drive-(closed|paused)|no-exchange-rate/.test(reply.body?.type ?? "");
  if (stillRunning && tried < 10) return 1;
  if (reply.status === 0 || reply.status >= 500 || reply.status === 429) {
    // Clients that were refused at the same time must not retry at the same time.
    return reply.retryAfter === null ? backoff : reply.retryAfter + Math.random() * Math.min(1, reply.retryAfter / 4);
  }
  return null;
}

async function countDown(seconds, onWait) {
  const end = performance.now() + seconds * 1000;
  for (let left = seconds; left > 0; left = (end - performance.now()) / 1000) {
    onWait(Math.ceil(left));
    await sleep(Math.min(1000, left * 1000));
  }
}

export function readPledge(id, token, headers = {}) {
  return request(`/v1/pledges/${encodeURIComponent(id)}?token=${encodeURIComponent(token)}`, { headers });
}

/** Yields the pledge each time it may have changed, null if it could not be read, and "gone" on a 404. */
export async function* watchPledge(id, token, lifeMs) {
  const end = performance.now() + lifeMs;
  for (let failures = 0; performance.now() < end; ) {
    const began = performance.now();
    const reply = await readPledge(id, token, { Prefer: "wait=10" });
    failures = reply.status === 200 ? 0 : failures + 1;
    if (reply.status === 404) yield "gone";
    else yield reply.status === 200 ? reply.body : null;
    const backoff = failures ? NETWORK_WAITS_S[Math.min(failures, NETWORK_WAITS_S.length) - 1] * 1000 : 0;
    // An API that does not hold the reply must not be polled without a pause.
    await sleep(Math.max(backoff, reply.retryAfter * 1000, POLL_GAP_MS - (performance.now() - began)));
  }
}

/** The checkout's address if it is an http or https address, else null. */
export function checkoutUrl(pledge) {
  const url = pledge?.checkout?.url;
  return typeof url === "string" && /^https?:\/\//i.test(url) ? url : null;
}
