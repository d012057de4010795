// The page of Stripe's embedded Checkout: mounts it for the pledge that this tab made.
// Source of the interface: https://docs.stripe.com/js/embedded_checkout

import { pageAround } from "./framed.js";
import { Memory, readPledge, sleep } from "./pledge.js";

const page = JSON.parse(document.getElementById("page").textContent);
const { texts } = page;
const $ = (id) => document.getElementById(id);
const STRIPE_MS = 20_000;
const LOOK_MS = 100;

pageAround(page);

/** Stripe's script, which loads beside this one; rejects where it is blocked or late. */
async function stripeScript() {
  for (const end = performance.now() + STRIPE_MS; performance.now() < end; await sleep(LOOK_MS)) {
    if (window.Stripe) return window.Stripe;
    if (document.readyState === "complete") break; // pages wait for their scripts: it was blocked
  }
  throw new Error("Stripe's script did not load");
}

/** The pledge that the address names. */
function named() {
  const [, id, token] = /^#(plg_\w+)\.([\w-]+)$/.exec(location.hash) ?? [];
  return id && { id, token };
}

async function mount() {
  const kept = named() ?? new Memory(page.memory).read()?.pledge;
  if (!kept) return location.replace(page.form);
  const { status, body: pledge } = await readPledge(kept.id, kept.token);
  if (status === 404) return location.replace(page.form);
  if (status !== 200) throw new Error("the pledge could not be read");
  if (pledge.status !== "open") return location.replace(page.thanks);
  const { client_secret: secret, publishable_key: key } = pledge.checkout ?? {};
  if (!secret || !key) return location.replace(page.form);
  const stripe = (await stripeScript())(key, { locale: page.lang });
  const checkout = await stripe.createEmbeddedCheckoutPage({ fetchClientSecret: async () => secret });
  checkout.mount("#checkout");
  $("status").textContent = "";
  return undefined;
}

$("again").addEventListener("click", () => location.reload());
mount().catch((error) => {
  console.info(String(error));
  $("status").textContent = "";
  $("problem").textContent = texts.failed;
  $("again").hidden = false;
});
