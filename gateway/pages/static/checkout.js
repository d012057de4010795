// From a stored pledge to its payment: the place in the queue, the payment page, and the addresses around it.

import { showError } from "./form_errors.js";
import { creator } from "./form_fields.js";
import { $, around, figures, page, texts } from "./form_page.js";
import { checkoutUrl, watchPledge } from "./pledge.js";

const QUEUE_LIFE_MS = 24 * 3600 * 1000;

/** The thanks page's address. It names creator, source and language, which the form keeps for another donation. */
function thanksUrl(path = page.path, place = page.query) {
  const named = page.frame ? new URLSearchParams(location.search).get("creator") : creator();
  const query = new URLSearchParams({ ...(named ? { creator: named } : {}), ...page.source, ...place });
  return `${path}/thanks?${query}`;
}

/** The same outside of any frame. */
function hostedThanksUrl() {
  const { key, origin, ...place } = page.query;
  return thanksUrl(`/donate/${encodeURIComponent(page.slug)}`, place);
}

/** The API accepts https return addresses of up to 2,048 characters, and http ones on a loopback address. */
const returnable = (address) =>
  address.length <= 2048 &&
  !address.includes("\\") &&
  /^(https:|http:\/\/(localhost|127\.0\.0\.1|\[::1\])[:/])/.test(address);

/**
 * Where the donor returns to after paying, or undefined for the API's own choice. A hosted checkout, which opens in the
 * donor's tab, returns to the page around the form; where that address is too long, to the hosted thanks page.
 */
export function returnUrl() {
  const hosted = location.origin + hostedThanksUrl();
  const wanted = page.checkout_mode === "embedded" ? location.origin + thanksUrl() : around?.returnUrl;
  return [wanted, hosted].find((address) => address && returnable(address));
}

/** Where the pledge is paid: Stripe's page, or ours with Stripe's embedded Checkout; null while there is no checkout. */
function paymentUrl(pledge) {
  const embedded = pledge.checkout?.client_secret && pledge.checkout.publishable_key;
  if (!embedded) return checkoutUrl(pledge);
  // The fragment is for browsers that refuse storage. It is not sent to any server.
  return `${thanksUrl().replace("/thanks?", "/pay?")}#${pledge.id}.${pledge.token}`;
}

/** In a frame the page around opens it in the donor's tab: Stripe's page refuses to be framed. */
function open(url) {
  if (around && !url.startsWith("/")) around.tell("checkout", { url });
  else location.assign(url);
}

/** Opens the payment of a pledge. Returns false while it has no checkout. */
export function openPayment(pledge) {
  const url = paymentUrl(pledge);
  if (url) open(url);
  return url !== null;
}

function showQueue(queue) {
  if (!queue) return;
  $("waiting-queue").textContent = queue.position ? placeIn(queue) : texts.queue_opening;
}

function placeIn({ position, eta_seconds }) {
  const place = figures.format(texts.queue_place, {}, position);
  return `${place} ${figures.format(texts.queue_eta, {}, eta_seconds)}`;
}

/** Shows the place in the queue in place of the form, and opens the payment once there is a checkout. */
export async function queueForPayment({ id, token, queue }) {
  $("form").hidden = true;
  $("resume").hidden = true;
  $("waiting").hidden = false;
  $("waiting-text").textContent = texts.queued;
  $("waiting").focus();
  showQueue(queue);
  for await (const pledge of watchPledge(id, token, QUEUE_LIFE_MS)) {
    $("waiting-text").textContent = pledge === null ? texts.offline : texts.queued;
    if (pledge === null) continue;
    if (pledge === "gone") return backToForm();
    if (pledge.status !== "open") return location.assign(thanksUrl());
    if (openPayment(pledge)) return ($("waiting-queue").textContent = texts.to_checkout);
    showQueue(pledge.queue);
  }
  return backToForm();
}

/** The pledge does not exist any more: the donor may send the form, which has kept what they entered, once more. */
function backToForm() {
  $("waiting").hidden = true;
  $("form").hidden = false;
  showError([null, texts.error_unknown]);
}
