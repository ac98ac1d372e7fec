// What the address says behind its #, which is sent to nobody: `#service=shop%2Fweb`, `#worker=w1` or `#code=VM201`.

import { element, plain } from "./dom.js";

export const LONGEST = 600; // characters
const KINDS = new Set(["service", "worker", "code"]);

/** Return [kind, value] of a hash, or [null, null] if it is none of ours. */
export function parse(hash) {
  const [kind, ...rest] = hash.replace(/^#/, "").split("=");
  if (!KINDS.has(kind) || rest.length === 0) return [null, null];
  try {
    return [kind, decodeURIComponent(rest.join("="))];
  } catch {
    return [null, null]; // no valid percent-encoding
  }
}

/** Return a link to a thing, or its words alone where its name is too long for an address. */
export function reference(kind, value, words, label = null) {
  if (String(value).length > LONGEST) return element("span", {}, words);
  return element("a", { href: hash(kind, value), "aria-label": label === null ? null : plain(label) }, words);
}

/** Return the hash of a thing. */
export const hash = (kind, value) => `#${kind}=${encodeURIComponent(String(value).toWellFormed())}`;
