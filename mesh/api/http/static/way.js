// Draws the request path: from the name over the VIP to the endpoints, with their shares, and why others get no traffic.

import { drawn, plain } from "./dom.js";
import { place, state } from "./format.js";

const WIDTH = 960, ROW = 46, BOX = 36, MOST = 12, LETTERS = 36;
const COLUMNS = [8, 300, 600], WIDTHS = [240, 240, 352];

/** Return an SVG of the request path of a service; its label says the same in words, for screen readers. */
export function way(service) {
  const ends = endpoints(service);
  const names = service.names.length > 0 ? service.names : [service.name];
  const servers = service.virtual_servers.length > 0 ? service.virtual_servers : ["no VIP: refused"];
  const columns = [cut(names), cut(servers), cut(ends)];
  const height = Math.max(...columns.map((column) => column.length)) * ROW + 10;
  const image = drawn("svg", { class: "way", viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": words(service, ends) });
  const middles = columns.map((column) => column.map((_, row) => height / 2 + (row - (column.length - 1) / 2) * ROW));
  const refused = service.vip === null;
  for (const from of middles[0]) for (const to of middles[1]) image.append(link(0, from, to, refused, 1));
  const hub = height / 2;
  columns[2].forEach((end, row) => {
    for (const from of columns[1].length > 3 ? [hub] : middles[1]) {
      if (end.more === undefined) image.append(link(1, from, middles[2][row], !end.serving, end.share));
    }
  });
  columns[0].forEach((name, row) => image.append(...box(0, middles[0][row], name.more ?? name, "", refused)));
  columns[1].forEach((server, row) => image.append(...box(1, middles[1][row], server.more ?? server, unreached(service), refused, "bad")));
  columns[2].forEach((end, row) => image.append(...box(2, middles[2][row], end.more ?? end.title, end.note ?? "", !end.serving, end.kind)));
  return image;
}

/** Return the endpoints, serving ones first; `share` is the share of new connections, by the weights alone. */
function endpoints(service) {
  const total = service.endpoints.filter((each) => each.serving).reduce((sum, each) => sum + each.weight, 0);
  return service.endpoints
    .map((each) => {
      const share = each.serving && total > 0 ? each.weight / total : 0;
      const [word, kind] = state(each);
      const note = each.serving ? `${Math.round(share * 100)} % of new connections` : [word, each.last_probe].filter(Boolean).join(": ");
      return { title: `${each.name ?? place(each)} on ${each.worker}`, note, serving: each.serving, share, kind };
    })
    .sort((one, other) => Number(other.serving) - Number(one.serving) || other.share - one.share);
}

const cut = (all) => (all.length <= MOST ? all : [...all.slice(0, MOST - 1), { more: `and ${all.length - MOST + 1} more` }]);

function words(service, ends) {
  if (service.vip === null) return `A request for ${plain(service.name)} goes nowhere: it has no VIP.`;
  const to = ends.filter((end) => end.serving).slice(0, MOST).map((end) => `${plain(end.title)}, ${end.note}`);
  const not = ends.filter((end) => !end.serving).slice(0, MOST).map((end) => `${plain(end.title)}, ${plain(end.note)}`);
  const there = to.length > 0 ? `goes to ${to.join("; ")}` : "is refused: no endpoint serves";
  const lost = unreached(service);
  if (lost) return `${lost}. A request for ${plain(service.name)} at ${service.vip} should go to ${to.join("; ")}.`;
  return `A request for ${plain(service.name)} at ${service.vip} ${there}.${not.length > 0 ? ` Not to ${not.join("; ")}.` : ""}`;
}

/** Return from which clients requests do not arrive, in words; empty if none is known. */
function unreached(service) {
  const clients = service.not_arriving ?? [];
  return clients.length > 0 ? `Requests do not arrive from ${clients.slice(0, MOST).map(plain).join(", ")}` : "";
}

function box(column, middle, title, note, out, kind = "") {
  const x = COLUMNS[column], top = middle - BOX / 2;
  const shown = [drawn("rect", { class: out ? "box out" : "box", x, y: top, width: WIDTHS[column], height: BOX, rx: 6 })];
  shown.push(drawn("text", { x: x + 10, y: note ? middle - 3 : middle + 5 }, short(title, column)));
  if (note) shown.push(drawn("text", { class: `small ${out || column === 1 ? kind : ""}`, x: x + 10, y: middle + 12 }, short(note, column)));
  return shown;
}

function short(text, column) {
  const letters = Array.from(plain(text)), most = Math.floor((LETTERS * WIDTHS[column]) / WIDTHS[0]);
  return letters.length <= most ? letters.join("") : `${letters.slice(0, most - 1).join("")}…`;
}

function link(column, from, to, out, share) {
  const x = COLUMNS[column] + WIDTHS[column], end = COLUMNS[column + 1], bend = (x + end) / 2;
  const d = `M${x},${from}C${bend},${from} ${bend},${to} ${end},${to}`;
  return drawn("path", { class: out ? "link out" : "link", d, "stroke-width": out ? 1.5 : 1.5 + 4 * share });
}
