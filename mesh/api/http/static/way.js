// Draws the request path: from the names over the VIP to the workers and their endpoints, with their shares, and why others
// get no traffic. Beside each other on a wide window, one under another on a narrow one.

import { drawn, plain } from "./dom.js";
import { place, state } from "./format.js";

const MOST = 12, BOX = 36, LETTER = 6.7; // LETTER: the width of a letter
const WIDE = { width: 960, row: 46, columns: [[8, 218], [258, 206], [496, 152], [680, 272]] };
const NARROW = { width: 344, row: 46, columns: [[4, 336], [20, 320], [36, 304], [52, 288]] };
const narrow = matchMedia("(max-width: 40rem)");

/** Call a function when the window becomes narrow or wide. */
export const onTurn = (call) => narrow.addEventListener("change", call);

/** Return an SVG of the request path of a service; its label says the same in words, for screen readers. */
export function way(service, own) {
  const ends = endpoints(service);
  const columns = [entrances(service, own), servers(service, own), ...workers(ends, own)];
  const label = words(service, ends, own);
  return narrow.matches ? listed(columns, label) : abreast(columns, label);
}

/** Return the endpoints, serving ones first; `share` is the share of new connections, by the weights alone. */
function endpoints(service) {
  const total = service.endpoints.filter((each) => each.serving).reduce((sum, each) => sum + each.weight, 0);
  return service.endpoints
    .map((each) => {
      const share = each.serving && total > 0 ? each.weight / total : 0;
      const [word, kind] = state(each);
      const note = each.serving ? `${Math.round(share * 100)} % of new connections` : [word, each.last_probe].filter(Boolean).join(": ");
      return { title: each.name ?? place(each), note, out: !each.serving, share, kind, worker: each.worker };
    })
    .sort((one, other) => Number(one.out) - Number(other.out) || other.share - one.share);
}

/** Return the names, and the addresses of the worker if ports are published; `to` is the kind of server that each leads to. */
function entrances(service, own) {
  const names = service.names.length > 0 ? service.names : [service.name];
  const found = names.map((name) => ({ title: name, note: "", out: service.vip === null, to: "vip" }));
  if ((service.published ?? []).length > 0) found.push({ title: `addresses of ${plain(own)}`, note: "", out: false, to: "port" });
  return cut(found);
}

function servers(service) {
  const note = unreached(service), out = service.vip === null;
  const all = service.virtual_servers.length > 0 ? service.virtual_servers : [out ? "no VIP: refused" : "no virtual server"];
  const found = all.map((title) => ({ title, note, out, kind: "bad", of: "vip" }));
  const ports = (service.published ?? []).map((port) => ({ title: `port ${port}`, note: "published", out: false, of: "port" }));
  return [...cut(found), ...cut(ports)];
}

/** Return the workers and their endpoints, in the order in which they are drawn. */
function workers(ends, own) {
  const found = new Map();
  for (const end of cut(ends)) {
    if (end.more !== undefined) {
      found.set(null, { ...end, note: "", out: true, share: 0, ends: [] });
      continue;
    }
    const worker = found.get(end.worker) ?? { title: end.worker, note: end.worker === own ? "this worker" : "", out: true, share: 0, ends: [] };
    worker.out &&= end.out;
    worker.share += end.share;
    worker.ends.push(end);
    found.set(end.worker, worker);
  }
  const all = [...found.values()];
  return [all.filter((each) => each.more === undefined), all.flatMap((each) => (each.more === undefined ? each.ends : [each]))];
}

const cut = (all) => (all.length <= MOST ? all : [...all.slice(0, MOST - 1), { more: `and ${all.length - MOST + 1} more` }]);

function words(service, ends, own) {
  if (service.vip === null) return `A request for ${plain(service.name)} goes nowhere: it has no VIP.`;
  const told = (out) => ends.filter((end) => end.out === out).slice(0, MOST).map((end) => `${plain(end.title)} on ${plain(end.worker)}, ${plain(end.note)}`);
  const [to, not] = [told(false), told(true)];
  const there = to.length > 0 ? `goes to ${to.join("; ")}` : "is refused: no endpoint serves";
  const lost = unreached(service);
  if (lost) return `${lost}. A request for ${plain(service.name)} at ${service.vip} should go to ${to.join("; ")}.`;
  const ports = (service.published ?? []).length > 0 ? ` So does one to port ${service.published.join(", ")} of ${plain(own)}.` : "";
  return `A request for ${plain(service.name)} at ${service.vip} ${there}.${ports}${not.length > 0 ? ` Not to ${not.join("; ")}.` : ""}`;
}

/** Return from which clients requests do not arrive, in words; empty if none is known. */
function unreached(service) {
  const clients = service.not_arriving ?? [];
  return clients.length > 0 ? `Requests do not arrive from ${clients.slice(0, MOST).map(plain).join(", ")}` : "";
}

function canvas(label, size, height) {
  return drawn("svg", { class: "way", viewBox: `0 0 ${size.width} ${height}`, role: "img", "aria-label": label });
}

/** Draw the columns beside each other. */
function abreast(columns, label) {
  const height = Math.max(...columns.map((column) => column.length)) * WIDE.row + 10;
  const image = canvas(label, WIDE, height);
  const [names, entries, hosts, ends] = columns.map((column) =>
    column.map((each, row) => ({ ...each, middle: height / 2 + (row - (column.length - 1) / 2) * WIDE.row })));
  for (const from of names) for (const to of entries) {
    if ((from.to ?? "vip") === (to.of ?? "vip")) image.append(link(0, from.middle, to.middle, from.out || to.out, 0));
  }
  // Beside many servers the lines begin in the middle, since they would hide each other.
  const starts = entries.length > 3 ? [height / 2] : entries.map((each) => each.middle);
  for (const from of starts) for (const to of hosts) image.append(link(1, from, to.middle, to.out, to.share));
  const of = new Map(hosts.map((host) => [host.title, host]));
  for (const to of ends) if (to.more === undefined) image.append(link(2, of.get(to.worker).middle, to.middle, to.out, to.share));
  [names, entries, hosts, ends].forEach((column, at) => {
    for (const each of column) image.append(...box(WIDE.columns[at], each.middle, each, at > 0));
  });
  return image;
}

/** Draw the boxes one under another, each under the one before it on the path. */
function listed([names, entries, hosts, ends], label) {
  const rows = ["vip", "port"].flatMap((kind) => [
    ...names.filter((each) => (each.to ?? "vip") === kind).map((each) => [0, each]),
    ...entries.filter((each) => (each.of ?? "vip") === kind).map((each) => [1, each]),
  ]);
  for (const host of hosts) rows.push([2, host], ...host.ends.map((end) => [3, end]));
  rows.push(...ends.filter((each) => each.more !== undefined).map((each) => [3, each]));
  const image = canvas(label, NARROW, rows.length * NARROW.row + 4);
  const lasts = []; // of each column, the bottom of its last box
  rows.forEach(([column, each], row) => {
    const middle = row * NARROW.row + 4 + BOX / 2, [x] = NARROW.columns[column];
    if (column > 0 && lasts[column - 1] !== undefined) {
      const width = 1.5 + 3 * (each.share ?? 0);
      image.append(drawn("path", { class: each.out ? "link out" : "link", d: `M${x - 8},${lasts[column - 1]}V${middle}H${x}`, "stroke-width": width }));
    }
    image.append(...box(NARROW.columns[column], middle, each, column > 0));
    lasts[column] = middle + BOX / 2;
  });
  return image;
}

function box([x, width], middle, each, coloured) {
  const { title, note = "", out = false, kind = "", more } = each;
  const shown = [drawn("rect", { class: out ? "box out" : "box", x, y: middle - BOX / 2, width, height: BOX, rx: 6 })];
  shown.push(drawn("text", { x: x + 10, y: note ? middle - 3 : middle + 5 }, short(more ?? title, width)));
  const colour = coloured && (out || kind === "bad") ? kind : "";
  if (note) shown.push(drawn("text", { class: `small ${colour}`, x: x + 10, y: middle + 12 }, short(note, width)));
  return shown;
}

function short(text, width) {
  const letters = Array.from(plain(text)), most = Math.floor((width - 14) / LETTER);
  return letters.length <= most ? letters.join("") : `${letters.slice(0, most - 1).join("")}…`;
}

function link(column, from, to, out, share) {
  const [left, width] = WIDE.columns[column], x = left + width, [end] = WIDE.columns[column + 1], bend = (x + end) / 2;
  const d = `M${x},${from}C${bend},${from} ${bend},${to} ${end},${to}`;
  return drawn("path", { class: out ? "link out" : "link", d, "stroke-width": out ? 1.5 : 1.5 + 4 * share });
}
