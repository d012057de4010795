// The donate form: checks it, makes the pledge once, and opens its payment; offers to go on with an unpaid one.

import { openPayment, queueForPayment, returnUrl } from "./checkout.js";
import { offerSearch } from "./creator_search.js";
import { followTotals } from "./drive_totals.js";
import { clearProblems, explain, showError } from "./form_errors.js";
import { countMessage, enterFields, faults, readFields, requestBody, showFields } from "./form_fields.js";
import { $, around, choice, figures, memory, page, texts } from "./form_page.js";
import { chosenAmount, followAmount } from "./gift_amount.js";
import { isMoney } from "./money.js";
import { makePledge, readPledge, sleep } from "./pledge.js";
import { reportVisit } from "./visits.js";

const form = $("form");
const OPENING_MS = 4_000;
let busy = false;
let touched = false;

function setBusy(on) {
  busy = on;
  // Not `disabled`: a disabled button loses the keyboard focus.
  $("give").setAttribute("aria-disabled", String(on));
  form.setAttribute("aria-busy", String(on));
}

// --- sending ---

async function send(event) {
  event.preventDefault();
  if (busy) return;
  clearProblems();
  const amount = chosenAmount();
  const wrong = faults(amount);
  if (wrong.length) return wrong.reverse().forEach(showError); // the first error is focused last and keeps the focus
  setBusy(true);
  $("status").textContent = texts.sending;
  const body = requestBody(amount, returnUrl());
  const sent = { body, key: memory.keyFor(body), fields: readFields() };
  const onWait = (kind, left) => ($("status").textContent = figures.format(texts[`retry_${kind}`], {}, left));
  await finish(await makePledge({ ...page, ...sent, freshToken, onWait }), sent);
}

async function finish({ pledge, problem, status, gaveUp }, sent) {
  if (pledge) {
    memory.write({ ...sent, at: Date.now(), pledge: { id: pledge.id, token: pledge.token } });
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

async function goOn(pledge) {
  if (!openPayment(pledge)) return queueForPayment(pledge);
  $("status").textContent = texts.to_checkout;
  await sleep(OPENING_MS); // if this continues, the payment page did not open: enable the button again
  return setBusy(false);
}

// --- back without having paid ---

/** Offers to continue the payment of the pledge that this tab made, and enters its fields as they were sent. */
async function offerToResume() {
  const kept = memory.read();
  if (!kept?.pledge) return;
  const { status, body: pledge } = await readPledge(kept.pledge.id, kept.pledge.token);
  if (status === 404 || (status === 200 && pledge.status !== "open")) return memory.write(null);
  if (status !== 200 || busy) return;
  if (kept.fields && !touched) enterFields(kept.fields);
  const money = isMoney(pledge.amount) ? figures.money(pledge.amount) : "";
  $("resume-text").textContent = figures.format(texts.resume, { money });
  $("resume-go").onclick = () => goOn({ ...pledge, token: kept.pledge.token });
  $("resume").hidden = false;
}

function startAfresh() {
  around?.tell("closed", { pledge: memory.read()?.pledge?.id });
  memory.write(null);
  $("resume").hidden = true;
  if (!touched) form.reset();
  showFields();
  form.querySelector("input:checked, #amount").focus();
}

if (form) {
  form.addEventListener("submit", send);
  form.addEventListener("input", () => (touched = true), { once: true });
  followAmount();
  choice.showAll = showFields;
  choice.use?.($("currency").value); // chosen before this script ran
  $("message").addEventListener("input", countMessage);
  $("resume-no").addEventListener("click", startAfresh);
  offerSearch();
  $("give").disabled = false;
  showFields();
  offerToResume();
}
// Back from the payment page, a browser may show the form as it was left: busy, or for a gift that is paid by now.
addEventListener("pageshow", (event) => event.persisted && location.reload());
document.documentElement.classList.add("scripted");
reportVisit("opened", page.slug, page.source);
followTotals();
