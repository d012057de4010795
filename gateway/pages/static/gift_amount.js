// The amount of the gift: picked or typed, and with the payment's fee where the donor adds it.

import { readAmount } from "./amount.js";
import { withFee } from "./fee.js";
import { showProblem } from "./form_errors.js";
import { $, choice, figures, inWords, page, texts } from "./form_page.js";
import { toMinor, toValue } from "./money.js";

export const example = () => $("amount").placeholder;

const menu = () => document.querySelectorAll('input[name="menu"]');

/** `{ value }`, or `{ error }` as `readAmount` names it. A typed amount takes precedence. */
export function chosenAmount() {
  const typed = $("amount").value;
  if (typed.trim()) return readAmount(typed, page.decimals);
  const picked = document.querySelector('input[name="menu"]:checked');
  return picked ? { value: picked.value } : { error: "missing" };
}

/** What is charged for a gift of `value`: with the payment's fee, if the donor adds it. */
export const charged = (value) => ($("cover")?.checked ? withFeeAdded(value) : value);

const withFeeAdded = (value) => toValue(withFee(toMinor(value), page.fee), page.decimals);

/** Writes the amount on the button, and what the fee makes of it. */
export function showAmount() {
  const { value } = chosenAmount();
  const money = value && inWords(charged(value));
  $("give").textContent = money ? figures.format(texts.give_amount, { money }) : texts.give;
  if ($("cover")) showFee(value);
  choice.show?.(value && charged(value));
}

function showFee(value) {
  const total = value && withFeeAdded(value);
  const fee = total && inWords(toValue(toMinor(total) - toMinor(value), page.decimals));
  $("cover-text").textContent = fee ? figures.format(texts.cover_fee_amount, { fee }) : texts.cover_fee;
  const added = total && $("cover").checked;
  $("charged").textContent = added ? figures.format(texts.charged, { total: inWords(total), money: inWords(value) }) : "";
}

function typeAmount() {
  if ($("amount").value.trim()) menu().forEach((radio) => (radio.checked = false));
  showProblem("amount", "");
  showAmount();
}

function pickAmount() {
  $("amount").value = "";
  showProblem("amount", "");
  showAmount();
}

export function followAmount() {
  $("amount").addEventListener("input", typeAmount);
  $("menu").addEventListener("change", pickAmount);
  $("cover")?.addEventListener("change", showAmount);
}
