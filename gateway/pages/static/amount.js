// Converts an amount as typed, in Latin, Arabic or Persian digits, to the API's decimal string.

const toAscii = (text) =>
  text
    .replace(/[٠-٩]/g, (digit) => String(digit.charCodeAt(0) - 0x660))
    .replace(/[۰-۹]/g, (digit) => String(digit.charCodeAt(0) - 0x6f0))
    .replace(/٫/g, ".")
    .replace(/٬/g, "'")
    .replace(/،/g, ",");

/**
 * `{ value }` with exactly `decimals` digits after the point, or `{ error }`: missing, unreadable, digits
 * (more decimals than the currency has), ambiguous (a comma that may mean either), zero, large.
 */
export function readAmount(text, decimals) {
  const plain = toAscii(text).replace(/[\s\u00a0\u200e\u200f\u061c'’_]/g, "");
  if (!plain) return { error: "missing" };
  const pointed = pointFor(plain, decimals);
  if (pointed === null) return { error: "ambiguous" };
  const shape = /^(\d*)(?:\.(\d*))?$/.exec(pointed);
  if (!shape || !(shape[1] || shape[2])) return { error: "unreadable" };
  return exact(shape[1].replace(/^0+(?=\d)/, "") || "0", shape[2] ?? "", decimals);
}

/** The text without thousands separators and with a decimal comma made a point; null if it is ambiguous. */
function pointFor(plain, decimals) {
  if (!plain.includes(",")) return plain;
  if (plain.includes(".")) return /^\d{1,3}(,\d{3})+\.\d*$/.test(plain) ? plain.replace(/,/g, "") : plain;
  const grouped = /^[1-9]\d{0,2}(,\d{3})+$/.test(plain);
  const decimal = /^\d*,\d+$/.test(plain) && plain.length - plain.indexOf(",") - 1 <= decimals;
  if (grouped && decimal) return null;
  return grouped ? plain.replace(/,/g, "") : plain.replace(",", ".");
}

function exact(whole, part, decimals) {
  if (part.length > decimals) return { error: "digits" };
  if (whole.length > 12) return { error: "large" };
  const value = decimals ? `${whole}.${part.padEnd(decimals, "0")}` : whole;
  return /[1-9]/.test(value) ? { value } : { error: "zero" };
}
