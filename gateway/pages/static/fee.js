// The processing fee that a donor may add to a gift, in minor units (BigInt): no amount is ever a float.

const up = (amount, unit) => ((amount + unit - 1n) / unit) * unit;

/**
 * The least sum of which `minor` is left after a fee of `bps` ten-thousandths and `fixed` minor units, however the fee
 * is rounded; a multiple of `step`, which Stripe asks of some currencies.
 */
export function withFee(minor, { bps, fixed, step }) {
  const kept = 10_000n - BigInt(bps);
  const sum = up((minor + BigInt(fixed)) * 10_000n, kept) / kept;
  return up(sum, BigInt(step));
}
