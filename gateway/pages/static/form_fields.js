// What the donor enters: its check, the API's request, and the fields as they are kept while the donor is at the payment.

import { charged, example, showAmount } from "./gift_amount.js";
import { $, choice, figures, page, texts } from "./form_page.js";

const MESSAGE_MAX = 280;
const FEW_LEFT = 20;

/** The creator the donation credits: the one of the link, else the one chosen in the form, else none (""). */
export const creator = () => page.creator || ($("creator")?.value ?? "");

/** All errors of the form, as [field, sentence], in the order of the page. */
export function faults(amount) {
  const found = [];
  if (amount.error) found.push(["amount", figures.format(texts[`error_amount_${amount.error}`], { example: example() })]);
  if ($("email").value && !$("email").checkValidity()) found.push(["email", texts.error_email]);
  if ([...$("message").value].length > MESSAGE_MAX) found.push(["message", texts.error_message]);
  return found;
}

/** The request for a pledge, as JSON. The same fields give the same text. */
export function requestBody(amount, returnUrl) {
  const donor = { locale: page.lang, anonymous: $("anonymous").checked };
  if ($("name").value.trim()) donor.name = $("name").value.trim();
  if ($("email").value.trim()) donor.email = $("email").value.trim();
  const request = {
    amount: { currency: page.currency, value: charged(amount.value) },
    donor,
    checkout_mode: page.checkout_mode,
  };
  if (returnUrl) request.return_url = returnUrl;
  if (creator()) request.creator = creator();
  if (page.source) request.source = page.source;
  if ($("message").value.trim()) request.message = $("message").value.trim();
  const purpose = document.querySelector('input[name="purpose"]:checked')?.value;
  if (purpose && purpose !== "general") request.purpose = purpose;
  return JSON.stringify(request);
}

const controls = () =>
  [...$("form").elements].filter(({ localName, id }) => id !== "find" && !["button", "fieldset"].includes(localName));

/** The fields: radio buttons by their group's name, others by id. */
export function readFields() {
  const found = {};
  for (const one of controls()) {
    if (one.type === "radio") {
      if (one.checked) found[one.name] = one.value;
    } else found[one.id] = one.type === "checkbox" ? one.checked : one.value;
  }
  const chosen = $("creator")?.selectedOptions[0];
  return { ...found, creatorName: chosen?.value ? chosen.text : "", currency: page.currency };
}

/** Enters fields that `readFields` returned. */
export function enterFields(fields) {
  choice.use?.(fields.currency);
  if ((fields.currency ?? page.currency) !== page.currency) fields = { ...fields, menu: "", amount: "" };
  if (fields.creator && $("creator") && ![...$("creator").options].some(({ value }) => value === fields.creator))
    $("creator").add(new Option(fields.creatorName, fields.creator)); // one that a search found
  for (const one of controls()) {
    if (one.type === "radio") one.checked = fields[one.name] === one.value;
    else if (one.type === "checkbox") one.checked = fields[one.id] === true;
    else one.value = fields[one.id] ?? "";
  }
  showFields();
}

/** Shows what follows from the fields. */
export function showFields() {
  showAmount();
  countMessage();
}

/** Counts characters as the API does (code points), and announces the count once few are left. */
export function countMessage() {
  const left = MESSAGE_MAX - [...$("message").value].length;
  $("message-left").setAttribute("aria-live", left <= FEW_LEFT ? "polite" : "off");
  $("message-left").textContent = figures.format(left < 0 ? texts.message_over : texts.message_left, {}, Math.abs(left));
}

