// Everything that is shown goes through here. Text becomes text nodes and nothing else: names, labels and reasons are
// written by strangers. The page's Content-Security-Policy refuses what would make markup of a text (Trusted Types).

const SVG = "http://www.w3.org/2000/svg";
const LONGEST = 500; // characters of one text

/** Cut to a bounded length, without characters that move or hide what is around them. */
export function plain(text) {
  const clean = String(text).replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "\ufffd");
  return clean.length > LONGEST ? `${clean.slice(0, LONGEST)}…` : clean;
}

/** An element with attributes and children; a child that is not a node is text. */
export function element(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same of SVG. */
export function drawn(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) throw new TypeError(`${name}: listeners are added, not written`);
    if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, String(value));
  }
  node.append(...children.flat().filter((child) => child !== null).map((c) => (c instanceof Node ? c : plain(c))));
  return node;
}

/** Change a text only if it is another one: a screen reader would read it again. */
export function say(node, text) {
  const wanted = plain(text);
  if (node.textContent !== wanted) node.textContent = wanted;
}

/** Change an attribute only if it is another one. */
export function mark(node, name, value) {
  if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}
