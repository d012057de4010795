// The errors of the form: beside their fields, or below all of them where no field is meant.

import { $, choice, texts } from "./form_page.js";

const FIELDS = ["currency", "amount", "email", "name", "message", "creator"];

export function showProblem(field, text) {
  const place = $(`${field}-error`);
  if (!place) return text && ($("problem").textContent = text);
  place.textContent = text;
  if (text) $(field).setAttribute("aria-invalid", "true");
  else $(field).removeAttribute("aria-invalid");
  return place;
}

export function clearProblems() {
  for (const field of FIELDS) showProblem(field, "");
  $("problem").textContent = "";
  $("status").textContent = "";
}

/** Shows an error, [field or null, sentence], and moves the focus to its field. */
export function showError([field, sentence]) {
  showProblem(field ?? "problem", sentence);
  if (field && $(field)) $(field).focus();
}

/** A problem document (RFC 9457) as [field or null, sentence]. */
export function explain(problem, status) {
  const type = problem?.type ?? "";
  if (type.endsWith("/drive-closed")) return [null, texts.error_closed];
  if (type.endsWith("/drive-paused")) return [null, texts.error_paused];
  const ofCurrency = choice.explain?.(type);
  if (ofCurrency) return ofCurrency;
  if (type.endsWith("/amount-too-large")) return ["amount", texts.error_amount_large];
  if (status === 404) return [null, texts.error_missing];
  if (status === 401 || status === 403) return [null, texts.error_old_page];
  if (status !== 422) return [null, texts.error_unknown];
  const pointers = (problem?.errors ?? []).map((error) => String(error.pointer ?? ""));
  const field = FIELDS.find((name) => pointers.some((pointer) => pointer.split("/").includes(name)));
  return field ? [field, texts[`error_${field}`]] : [null, texts.error_form];
}
