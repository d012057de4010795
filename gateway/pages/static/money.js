// Formats the API's decimal strings for display.
//
// Money is a BigInt of minor units or a decimal string, never a binary float. Intl formats the whole part
// (as a BigInt) and its zero decimals are replaced by the true ones, which is exact in every engine:
// decimal strings in Intl came with Chromium 106, and OBS ships older ones.

export const decimalsOf = (value) => (value.includes(".") ? value.length - value.indexOf(".") - 1 : 0);

export const toMinor = (value) => BigInt(value.replace(".", ""));

export function toValue(minor, decimals) {
  const sign = minor < 0n ? "-" : "";
  const digits = String(minor < 0n ? -minor : minor).padStart(decimals + 1, "0");
  const whole = digits.slice(0, digits.length - decimals);
  return sign + whole + (decimals ? "." + digits.slice(-decimals) : "");
}

/** The share of `part` in `whole` (both minor units), 0 to 1, for drawing only. */
export function share(part, whole) {
  if (whole <= 0n || part <= 0n) return 0;
  return part >= whole ? 1 : Number((part * 100000n) / whole) / 100000;
}

/** How much of `goal` is raised, 0 to 100, rounded down: 100 only once the goal is reached. */
export function wholePercent(raised, goal) {
  const part = toMinor(raised.value), whole = toMinor(goal.value);
  if (whole <= 0n || part <= 0n) return 0;
  return part >= whole ? 100 : Number((part * 100n) / whole);
}

export const isMoney = (money) =>
  !!money && /^[A-Z]{3}$/.test(money.currency) && /^-?\d+(\.\d+)?$/.test(money.value);

/** "$" instead of Arabic's "US$". Other Latin signs are isolated, else right-to-left text reorders them ("$CA"). */
function readableSign(currency, sign) {
  if (currency === "USD") return "$";
  return /[A-Za-z]/.test(sign) ? `\u2066${sign}\u2069` : sign;
}

export class Figures {
  constructor(lang, digits) {
    this.locale = `${lang}-u-nu-${digits}`;
    this.plurals = new Intl.PluralRules(lang);
    this.plain = new Intl.NumberFormat(this.locale);
    this.percents = new Intl.NumberFormat(this.locale, { style: "percent", maximumFractionDigits: 1 });
    this.times = new Intl.DateTimeFormat(this.locale, { timeStyle: "medium" });
    this.numerals = [...new Intl.NumberFormat(this.locale, { useGrouping: false }).format(9876543210n)].reverse();
    this.formats = new Map();
  }

  /** The parts of an amount as Intl names them; decimals that are all zero are left out when `short`. */
  parts({ currency, value }, short = false) {
    const [whole, decimals = ""] = value.replace("-", "").split(".");
    const shown = short && /^0*$/.test(decimals) ? 0 : decimals.length;
    const parts = this.#format(currency, shown).formatToParts(BigInt(whole));
    for (const part of parts) {
      if (part.type === "fraction") part.value = this.digitsOf(decimals);
      if (part.type === "currency") part.value = readableSign(currency, part.value);
    }
    return value.startsWith("-") ? [{ type: "minusSign", value: "\u2212" }, ...parts] : parts;
  }

  money(money, short = true) {
    return this.parts(money, short).map((part) => part.value).join("");
  }

  count(n) {
    return this.plain.format(n);
  }

  /** What part of the goal is raised (both minor units), rounded down: 100 % means reached. Never below 0. */
  percentOf(raised, goal) {
    const thousandths = raised > 0n && goal > 0n ? (raised * 1000n) / goal : 0n;
    return this.percents.format(Number(thousandths) / 1000);
  }

  time(iso) {
    const at = new Date(iso);
    return Number.isNaN(at.getTime()) ? "" : this.times.format(at);
  }

  /** A phrase in the plural form of `n`, its {holes} filled. */
  format(phrase, holes = {}, n = undefined) {
    const sentence = typeof phrase === "string" ? phrase : this.#form(phrase, n);
    const filled = n === undefined ? holes : { ...holes, n: this.count(n) };
    return sentence.replace(/\{(\w+)\}/g, (_, name) => filled[name] ?? "");
  }

  #form(phrase, n) {
    if (n === 0 && phrase.zero) return phrase.zero;
    return phrase[this.plurals.select(n)] ?? phrase.other;
  }

  digitsOf(ascii) {
    return ascii.replace(/\d/g, (digit) => this.numerals[digit]);
  }

  #format(currency, decimals) {
    const key = currency + decimals;
    if (!this.formats.has(key)) {
      const options = { style: "currency", currency, minimumFractionDigits: decimals, maximumFractionDigits: decimals };
      this.formats.set(key, new Intl.NumberFormat(this.locale, options));
    }
    return this.formats.get(key);
  }
}

/** The text of `lang` in a string or a mapping of languages, else English, else any. */
export function localised(text, lang) {
  if (typeof text === "string") return text;
  if (!text || typeof text !== "object") return "";
  const texts = Object.entries(text).filter(([, value]) => typeof value === "string" && value);
  const of = (wanted) => texts.find(([tag]) => tag.split("-")[0] === wanted);
  return (of(lang) ?? of("en") ?? texts[0])?.[1] ?? "";
}
