// The choice of a currency, where the drive takes several: its amounts, and what they are worth in the drive's own.
// Only forms with this choice load it. It runs before donate.js, and the form's other scripts reach it by `choice`.

import { showProblem } from "./form_errors.js";
import { $, choice, figures, inWords, page, texts } from "./form_page.js";
import { decimalsOf, toMinor, toValue } from "./money.js";

const select = $("currency");
const own = Object.values(page.currencies).find(({ rate }) => !rate);

/** What `value` is worth in the drive's currency, rounded half to even as by the API; null in that currency itself. */
export function worth(value) {
  if (!page.rate) return null;
  const by = 10n ** BigInt(page.decimals + decimalsOf(page.rate));
  const units = toMinor(value) * toMinor(page.rate) * 10n ** BigInt(own.decimals);
  const [whole, twice] = [units / by, (units % by) * 2n];
  const up = twice > by || (twice === by && whole % 2n) ? 1n : 0n;
  return { currency: own.currency, value: toValue(whole + up, own.decimals) };
}

/** Shows what a gift of `value` is worth; nothing without a value, and in the drive's currency. */
choice.show = (value) => {
  const money = value && worth(value);
  $("worth").textContent = money ? figures.format(texts.worth, { money: figures.money(money) }) : "";
};

/** Offers the amounts of another currency. One that is not offered changes nothing. */
choice.use = (code) => {
  const found = page.currencies[code];
  if (!found) return;
  select.value = code;
  if (code === page.currency) return;
  Object.assign(page, found);
  if (found === own) delete page.query.currency;
  else page.query.currency = code;
  $("menu").replaceChildren(...found.menu.map(amountOf));
  $("amount").placeholder = found.example;
  $("amount").nextElementSibling.textContent = code;
};

/** What the API says of the currency, as `explain` returns it; nothing for other problems. */
choice.explain = (type) => {
  if (type.endsWith("/no-exchange-rate")) return ["currency", texts.error_no_rate];
  return type.endsWith("/currency-not-accepted") ? ["currency", texts.error_currency] : undefined;
};

function amountOf(value) {
  const label = $("menu").querySelector("label").cloneNode(true);
  const [radio, text] = label.children;
  radio.value = value;
  radio.defaultChecked = value === page.chosen;
  radio.checked = radio.defaultChecked && !$("amount").value.trim(); // what was typed stays, and counts
  text.textContent = inWords(value);
  return label;
}

select?.addEventListener("change", () => {
  for (const field of ["currency", "amount"]) showProblem(field, "");
  choice.use(select.value);
  choice.showAll();
});
