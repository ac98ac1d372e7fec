// Builds everything that the page shows. Text only becomes text nodes: names, labels and reasons are untrusted input. The
// page's Content-Security-Policy also refuses to turn text into markup (Trusted Types).

const SVG = "http://www.w3.org/2000/svg";
const LONGEST = 500; // the most characters of one text

/** Return a text of bounded length, without characters that move or hide other text. */
export function plain(text) {
  const clean = String(text).replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "\ufffd");
  return clean.length > LONGEST ? `${clean.slice(0, LONGEST)}…` : clean;
}

/** Make an HTML element with attributes and children; a child that is not a node becomes text. */
export function element(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** Make an SVG element with attributes and children. */
export function drawn(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) throw new TypeError(`${name}: use addEventListener`);
    if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, String(value));
  }
  node.append(...children.flat().filter((child) => child !== null).map((c) => (c instanceof Node ? c : plain(c))));
  return node;
}

/** Set a text only if it differs: a screen reader reads every change, even to the same text. */
export function say(node, text) {
  const wanted = plain(text);
  if (node.textContent !== wanted) node.textContent = wanted;
}

/** Set an attribute only if it differs. */
export function mark(node, name, value) {
  if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

/**
 * Make `nodes` the children of `parent` from the `first`-th child on, in this order. A node that stays is not touched, and one
 * that moves keeps the focus.
 */
export function arrange(parent, nodes, first = 0) {
  const wanted = new Set(nodes);
  for (const child of [...parent.children].slice(first)) if (!wanted.has(child)) child.remove();
  const focused = document.activeElement;
  let next = parent.children[first] ?? null;
  for (const node of nodes) {
    if (node === next) next = next.nextElementSibling;
    else if (parent.moveBefore && node.parentNode === parent) parent.moveBefore(node, next);
    else parent.insertBefore(node, next);
  }
  if (focused !== document.activeElement && parent.contains(focused)) focused.focus({ preventScroll: true });
}
