// The hosted form: validates it, explains errors, makes the pledge once, and opens the payment page.

import { readAmount } from "./amount.js";
import { withFee } from "./fee.js";
import { pageAround } from "./framed.js";
import { Figures, isMoney, localised, toMinor, toValue, wholePercent } from "./money.js";
import { Memory, checkoutUrl, makePledge, readPledge, sleep, watchPledge } from "./pledge.js";
import { reportVisit } from "./visits.js";

const page = JSON.parse(document.getElementById("page").textContent);
const { texts } = page;
const figures = new Figures(page.lang, page.digits);
const memory = new Memory(page.memory);
const around = pageAround(page);
const $ = (id) => document.getElementById(id);
const form = $("form");
const MESSAGE_MAX = 280;
const FEW_LEFT = 20;
const TOTALS_MS = 15_000;
const QUEUE_LIFE_MS = 24 * 3600 * 1000;

// --- the amount ---

const example = $("amount")?.placeholder;

function chosenAmount() {
  const typed = $("amount").value;
  if (typed.trim()) return readAmount(typed, page.decimals);
  const picked = form.querySelector('input[name="menu"]:checked');
  return picked ? { value: picked.value } : { error: "missing" };
}

const inWords = (value) => figures.money({ currency: page.currency, value });

/** What is charged for a gift of `value`: with the payment's fee, if the donor adds it. */
function charged(value) {
  return $("cover")?.checked ? withFeeAdded(value) : value;
}

const withFeeAdded = (value) => toValue(withFee(toMinor(value), page.fee), page.decimals);

function showAmount() {
  const { value } = chosenAmount();
  const money = value && inWords(charged(value));
  $("give").textContent = money ? figures.format(texts.give_amount, { money }) : texts.give;
  if ($("cover")) showFee(value);
}

function showFee(value) {
  const total = value && withFeeAdded(value);
  const fee = total && inWords(toValue(toMinor(total) - toMinor(value), page.decimals));
  $("cover-text").textContent = fee ? figures.format(texts.cover_fee_amount, { fee }) : texts.cover_fee;
  const added = total && $("cover").checked;
  $("charged").textContent = added ? figures.format(texts.charged, { total: inWords(total), money: inWords(value) }) : "";
}

function typeAmount() {
  if ($("amount").value.trim()) form.querySelectorAll('input[name="menu"]').forEach((radio) => (radio.checked = false));
  showProblem("amount", "");
  showAmount();
}

function pickAmount() {
  $("amount").value = "";
  showProblem("amount", "");
  showAmount();
}

// --- errors ---

function showProblem(field, text) {
  const place = $(`${field}-error`);
  if (!place) return text && ($("problem").textContent = text);
  place.textContent = text;
  if (text) $(field).setAttribute("aria-invalid", "true");
  else $(field).removeAttribute("aria-invalid");
  return place;
}

function clearProblems() {
  for (const field of ["amount", "name", "email", "message", "creator"]) showProblem(field, "");
  $("problem").textContent = "";
  $("status").textContent = "";
}

/** All errors of the form, as [field, sentence], in the order of the page. */
function faults(amount) {
  const found = [];
  if (amount.error) found.push(["amount", figures.format(texts[`error_amount_${amount.error}`], { example })]);
  if ($("email").value && !$("email").checkValidity()) found.push(["email", texts.error_email]);
  if ([...$("message").value].length > MESSAGE_MAX) found.push(["message", texts.error_message]);
  return found;
}

const FIELDS = ["amount", "email", "name", "message", "creator"];

/** A problem document (RFC 9457) as [field or null, sentence]. */
function explain(problem, status) {
  const type = problem?.type ?? "";
  if (type.endsWith("/drive-closed")) return [null, texts.error_closed];
  if (type.endsWith("/drive-paused")) return [null, texts.error_paused];
  if (type.endsWith("/amount-too-large")) return ["amount", texts.error_amount_large];
  if (status === 404) return [null, texts.error_missing];
  if (status === 401 || status === 403) return [null, texts.error_old_page];
  if (status !== 422) return [null, texts.error_unknown];
  const pointers = (problem?.errors ?? []).map((error) => String(error.pointer ?? ""));
  const field = FIELDS.find((name) => pointers.some((pointer) => pointer.split("/").includes(name)));
  return field ? [field, texts[`error_${field}`]] : [null, texts.error_form];
}

function showError([field, sentence]) {
  showProblem(field ?? "problem", sentence);
  if (field && $(field)) $(field).focus();
}

// --- sending ---

function formBody(amount) {
  const donor = { locale: page.lang, anonymous: $("anonymous").checked };
  if ($("name").value.trim()) donor.name = $("name").value.trim();
  if ($("email").value.trim()) donor.email = $("email").value.trim();
  const request = {
    amount: { currency: page.currency, value: charged(amount.value) },
    donor,
    checkout_mode: page.checkout_mode,
  };
  // An embedded Checkout returns in this window: in a frame, to the thanks page in the frame.
  const here = location.origin + thanksUrl();
  const back = page.checkout_mode === "embedded" ? here : (around?.returnUrl ?? here);
  if (returnable(back)) request.return_url = back;
  if (creator()) request.creator = creator();
  if (page.source) request.source = page.source;
  if ($("message").value.trim()) request.message = $("message").value.trim();
  const purpose = form.querySelector('input[name="purpose"]:checked')?.value;
  if (purpose && purpose !== "general") request.purpose = purpose;
  return JSON.stringify(request);
}

/** The creator the donation credits: the one of the link, else the one chosen in the form, else none (""). */
const creator = () => page.creator || ($("creator")?.value ?? "");

/** The API accepts https return addresses of up to 2,048 characters, and http ones on a loopback address. */
const returnable = (address) =>
  address.length <= 2048 &&
  !address.includes("\\") &&
  /^(https:|http:\/\/(localhost|127\.0\.0\.1|\[::1\])[:/])/.test(address);

let busy = false;

function setBusy(on) {
  busy = on;
  // Not `disabled`: a disabled button loses the keyboard focus.
  $("give").setAttribute("aria-disabled", String(on));
  form.setAttribute("aria-busy", String(on));
}

async function send(event) {
  event.preventDefault();
  if (busy) return;
  clearProblems();
  const amount = chosenAmount();
  const wrong = faults(amount);
  if (wrong.length) return wrong.reverse().forEach(showError); // the first error is focused last and keeps the focus
  setBusy(true);
  $("status").textContent = texts.sending;
  const body = formBody(amount);
  const key = memory.keyFor(body);
  const onWait = (kind, left) => ($("status").textContent = figures.format(texts[`retry_${kind}`], {}, left));
  const result = await makePledge({ ...page, body, key, freshToken, onWait });
  await finish(result, { body, key });
}

async function finish({ pledge, problem, status, gaveUp }, sent) {
  if (pledge) {
    memory.write({ ...sent, at: Date.now(), pledge: { id: pledge.id, token: pledge.token, amount: pledge.amount } });
    around?.tell("pledged", { pledge: pledge.id });
    await goOn(pledge);
    return;
  }
  setBusy(false);
  $("status").textContent = "";
  if (gaveUp) return showError([null, texts.error_gave_up]);
  if (status >= 400 && status < 500) memory.write(null); // refused: the next attempt needs a new key
  showError(explain(problem, status));
}

/** A new form token, read from a new copy of this page. A token is valid for two hours. */
async function freshToken() {
  try {
    const html = await (await fetch(location.href, { cache: "no-store" })).text();
    return /"token":"([\w.-]+)"/.exec(html)?.[1] ?? null;
  } catch {
    return null;
  }
}

// --- from pledge to payment ---

async function goOn(pledge) {
  const url = paymentUrl(pledge);
  if (url) {
    $("status").textContent = texts.to_checkout;
    openCheckout(url);
    await sleep(4_000); // if this continues, the payment page did not open: enable the button again
    setBusy(false);
    return;
  }
  form.hidden = true;
  $("resume").hidden = true;
  $("waiting").hidden = false;
  $("waiting-text").textContent = texts.queued;
  $("waiting").focus();
  showQueue(pledge.queue);
  await awaitCheckout(pledge);
}

/** Where the pledge is paid: Stripe's page, or ours with Stripe's embedded Checkout; null while there is no checkout. */
function paymentUrl(pledge) {
  const embedded = pledge.checkout?.client_secret && pledge.checkout.publishable_key;
  if (!embedded) return checkoutUrl(pledge);
  // The fragment is for browsers that refuse storage. It is not sent to any server.
  return `${thanksUrl().replace("/thanks?", "/pay?")}#${pledge.id}.${pledge.token}`;
}

/** In a frame the page around opens it in the donor's tab: Stripe's page refuses to be framed. */
function openCheckout(url) {
  if (around && !url.startsWith("/")) around.tell("checkout", { url });
  else location.assign(url);
}

function showQueue(queue) {
  if (!queue) return;
  const place = figures.format(texts.queue_place, {}, queue.position);
  $("waiting-queue").textContent = `${place} ${figures.format(texts.queue_eta, {}, queue.eta_seconds)}`;
}

async function awaitCheckout({ id, token }) {
  for await (const pledge of watchPledge(id, token, QUEUE_LIFE_MS)) {
    if (pledge === null || pledge === "gone") continue;
    if (pledge.status !== "open") return location.assign(thanksUrl());
    const url = paymentUrl(pledge);
    if (url) {
      $("waiting-queue").textContent = texts.to_checkout;
      return openCheckout(url);
    }
    showQueue(pledge.queue);
  }
}

/** The thanks page's address. It names the creator, so that a second donation credits the same one. */
function thanksUrl() {
  const named = page.frame ? new URLSearchParams(location.search).get("creator") : creator();
  const credited = named ? { creator: named } : {};
  const query = new URLSearchParams({ ...credited, ...page.source, ...page.query });
  return `${page.path}/thanks?${query}`;
}

/** After a return from the payment page without paying: offer to continue that payment. */
async function offerToResume() {
  const kept = memory.read();
  if (!kept?.pledge) return;
  const { status, body: pledge } = await readPledge(kept.pledge.id, kept.pledge.token);
  if (status === 404 || (status === 200 && pledge.status !== "open")) return memory.write(null);
  if (status !== 200 || busy) return;
  const money = isMoney(pledge.amount) ? figures.money(pledge.amount) : "";
  $("resume-text").textContent = figures.format(texts.resume, { money });
  $("resume-go").onclick = () => goOn({ ...pledge, token: kept.pledge.token });
  $("resume").hidden = false;
}

function startAfresh() {
  around?.tell("closed", { pledge: memory.read()?.pledge?.id });
  memory.write(null);
  $("resume").hidden = true;
  form.querySelector("input:checked, #amount").focus();
}

// --- finding a creator among many ---

const FIND_AFTER_MS = 250;
const OPTIONS_SEEN = 7;
let listed = [];
let searches = 0;

/** Searches for the typed text after a pause in typing; a response to an earlier search is discarded. */
async function findCreator() {
  const text = $("find").value.trim();
  const mine = (searches += 1);
  if (!text) return offerCreators(listed, "", 1);
  await sleep(FIND_AFTER_MS);
  if (mine !== searches) return undefined;
  const result = await searchCreators(text).catch(() => null);
  if (mine !== searches) return undefined;
  if (!result) return ($("found").textContent = texts.find_failed);
  const found = result.creators.map(({ id, name }) => new Option(name, id));
  const summary = result.more ? texts.found_more : figures.format(texts.found, {}, found.length);
  return offerCreators(found, summary, Math.min(found.length + 2, OPTIONS_SEEN));
}

async function searchCreators(text) {
  const path = `/donate/${encodeURIComponent(page.slug)}/creators?q=${encodeURIComponent(text)}`;
  const reply = await fetch(path, { cache: "no-store" });
  return reply.status === 200 ? reply.json() : null;
}

/** Sets the options: nobody, the creator chosen now, and `found`; `size` of them are visible at a time. */
function offerCreators(found, summary, size) {
  const [nobody, chosen] = [$("creator").options[0], $("creator").selectedOptions[0]];
  const others = found.filter((option) => option.value !== chosen.value);
  for (const option of others) option.dir = "auto";
  $("creator").replaceChildren(...new Set([nobody, chosen, ...others]));
  chosen.selected = true;
  $("creator").size = size;
  $("found").textContent = summary;
}

function noSubmit(event) {
  if (event.key === "Enter") event.preventDefault();
}

// --- the drive's bar ---

let etag = "";

async function showTotals() {
  if (document.hidden) return;
  const headers = etag ? { "If-None-Match": etag } : {};
  const reply = await fetch(`/v1/drives/${encodeURIComponent(page.drive)}/totals`, { headers, cache: "no-store" });
  if (reply.status !== 200) return;
  etag = reply.headers.get("ETag") ?? "";
  const totals = await reply.json();
  if (!isMoney(totals.raised)) return;
  $("raised").textContent = figures.money(totals.raised);
  $("of-goal").textContent = isMoney(totals.goal) ? figures.format(texts.of_goal, { goal: figures.money(totals.goal) }) : "";
  $("gifts").textContent = figures.format(texts.gifts, {}, totals.donations ?? 0);
  $("progress").value = isMoney(totals.goal) ? wholePercent(totals.raised, totals.goal) : 0;
  document.querySelector("h1").textContent = localised(totals.title, page.lang) || page.slug;
}

const keepShowing = () => showTotals().catch(() => undefined); // the form works without the bar

/** Counts characters as the API does (code points), and announces the count once few are left. */
function countMessage() {
  const left = MESSAGE_MAX - [...$("message").value].length;
  $("message-left").setAttribute("aria-live", left <= FEW_LEFT ? "polite" : "off");
  $("message-left").textContent = figures.format(left < 0 ? texts.message_over : texts.message_left, {}, Math.abs(left));
}

if (form) {
  form.addEventListener("submit", send);
  $("amount").addEventListener("input", typeAmount);
  form.querySelectorAll('input[name="menu"]').forEach((radio) => radio.addEventListener("change", pickAmount));
  $("cover")?.addEventListener("change", showAmount);
  $("message").addEventListener("input", countMessage);
  $("resume-no").addEventListener("click", startAfresh);
  if ($("find")) {
    listed = [...$("creator").options].slice(1);
    $("find").addEventListener("input", findCreator);
    $("find").addEventListener("keydown", noSubmit);
  }
  $("give").disabled = false;
  showAmount();
  countMessage();
  offerToResume();
}
// Back from the payment page, a browser may show the form as it was left: busy, or for a gift that is paid by now.
addEventListener("pageshow", (event) => event.persisted && location.reload());
document.documentElement.classList.add("scripted");
reportVisit("opened", page.slug, page.source);
keepShowing();
setInterval(keepShowing, TOTALS_MS);
