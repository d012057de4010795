// Verifies with the browser's own SHA-256 that a gift is in its drive's public log (docs/proof.md).

const TRIES = 10;
const PAUSE_MS = 2000;

const bytesOf = (base64) => Uint8Array.from(atob(base64), (one) => one.charCodeAt(0));
const isSame = (one, other) => one.length === other.length && one.every((byte, n) => byte === other[n]);
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function sha256(...parts) {
  const joined = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return new Uint8Array(await crypto.subtle.digest("SHA-256", joined));
}

const leafHash = (entry) => sha256([0], entry);
const nodeHash = (left, right) => sha256([1], left, right);

/** Canonical JSON: sorted names, no spaces, everything outside ASCII escaped. */
function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (value !== null && typeof value === "object") {
    const names = Object.keys(value).sort();
    return `{${names.map((name) => `${canonical(name)}:${canonical(value[name])}`).join(",")}}`;
  }
  const escaped = (one) => `\\u${one.charCodeAt(0).toString(16).padStart(4, "0")}`;
  return JSON.stringify(value).replace(/[\u007f-\uffff]/g, escaped);
}

/** The root that an inclusion path leads to (RFC 9162, section 2.1.3.2); null for a path of another length. */
async function rootOf(leaf, index, size, path) {
  let [node, last, hashed] = [index, size - 1, leaf];
  for (const sibling of path) {
    if (last === 0) return null;
    if (node % 2 === 1 || node === last) {
      hashed = await nodeHash(sibling, hashed);
      while (node % 2 === 0 && node !== 0) [node, last] = [node / 2, Math.floor(last / 2)];
    } else {
      hashed = await nodeHash(hashed, sibling);
    }
    [node, last] = [Math.floor(node / 2), Math.floor(last / 2)];
  }
  return last === 0 ? hashed : null;
}

async function isValid({ row, index, inclusion_path: path, tree_size: size, checkpoint }, pledge) {
  const [, signedSize, signedRoot] = checkpoint.split("\n");
  const leaf = await leafHash(new TextEncoder().encode(canonical(row)));
  const root = await rootOf(leaf, index, size, path.map(bytesOf));
  const isOurs = row.pledge === pledge && row.sequence === index + 1 && signedSize === String(size);
  return isOurs && root !== null && isSame(root, bytesOf(signedRoot));
}

/**
 * The number of a gift's row in the log, and whether the browser verified it: null where it has no SHA-256
 * (a page without TLS). Null if there is no proof.
 */
export async function proveGift(id, token) {
  const address = `/v1/pledges/${encodeURIComponent(id)}/proof?${new URLSearchParams({ token })}`;
  for (let tried = 0; tried < TRIES; tried += 1) {
    const reply = await fetch(address).catch(() => null);
    if (reply?.ok) {
      const proof = await reply.json();
      return { address, row: proof.index + 1, verified: globalThis.crypto?.subtle ? await isValid(proof, id) : null };
    }
    if (reply !== null && ![409, 429, 503].includes(reply.status)) return null;
    await pause(PAUSE_MS);
  }
  return null;
}
