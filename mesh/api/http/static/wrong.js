// What is wrong, the worst first: what the worker says with its codes, and services that do not answer.

import { reference } from "./address.js";
import { arrange, element } from "./dom.js";
import { place, rank, serving } from "./format.js";

const MOST = 100;
const LEADS = { frozen: "Frozen, the last good state stays in force: ", suspicion: "Suspected mass failure: ", failure: "The data plane refuses: " };

export class Wrong {
  constructor(list) {
    this.list = list;
    this.shown = new Map(); // key -> li
  }

  /** Show everything that is wrong; returns [errors, warnings]. */
  show(worker, services, lost) {
    const rows = [...ofWorker(worker), ...ofServices(services)];
    if (worker.repairs > 0) rows.push({ severity: "warning", text: `${worker.repairs} changes from outside vipmesh were reverted; see the log.`, code: "VM508" });
    if (lost) rows.unshift({ severity: "error", text: lost });
    rows.sort((one, other) => Number(one.severity !== "error") - Number(other.severity !== "error"));
    const counts = ["error", "warning"].map((severity) => rows.filter((row) => row.severity === severity).length);
    const shown = rows.slice(0, MOST);
    if (rows.length > MOST) shown.push({ text: `and ${rows.length - MOST} more, which \`vipmesh status\` lists` });
    if (rows.length === 0) shown.push({ text: "Nothing" });
    const before = this.shown;
    this.shown = new Map();
    for (const row of shown) {
      const key = JSON.stringify([row.severity, row.text, row.code, row.owner]);
      if (!this.shown.has(key)) this.shown.set(key, before.get(key) ?? item(row));
    }
    arrange(this.list, [...this.shown.values()]);
    return counts;
  }
}

const item = ({ severity, text, code, owner }) =>
  element("li", {},
    severity ? element("strong", { class: severity === "error" ? "bad" : "warn" }, severity) : null, severity ? " " : null,
    element("span", { class: "data" }, text),
    code ? [" ", reference("code", code, code)] : null,
    owner ? [" ", reference("service", owner, "service", `service ${owner}`)] : null,
  );

/** Return what the worker says; one of an earlier version has no codes. */
function ofWorker(worker) {
  if (worker.notices?.length > 0) {
    return worker.notices.map((each) => ({ ...each, text: `${LEADS[each.kind] ?? ""}${withoutSeverity(each)}` }));
  }
  const of = (kind, texts) => texts.map((text) => ({ severity: "error", text: `${LEADS[kind] ?? ""}${text}` }));
  return [...of("frozen", worker.frozen), ...of("suspicion", worker.suspicions), ...of("failure", worker.failures), ...of("problem", worker.problems)];
}

/** The lines of problems have their severity, after the place where there is one: `compose.yaml:9: error: ...`. */
const withoutSeverity = ({ kind, text }) => (kind === "problem" ? text.replace(/^(.*?)(error|warning): /, "$1") : text);

const rows = new WeakMap();

/** Return the services that do not answer, or only with some of their endpoints. */
function* ofServices(services) {
  for (const service of services) {
    if (rank(service) === 2 || service.vip === null) continue;
    if (!rows.has(service)) rows.set(service, row(service));
    if (rows.get(service) !== null) yield rows.get(service);
  }
}

function row(service) {
  const failed = service.endpoints.filter((each) => each.health === "unhealthy" && !each.drain);
  const why = failed.slice(0, 3).map((each) => `${each.name ?? place(each)} on ${each.worker}${each.last_probe ? `: ${each.last_probe}` : " fails its probe"}`);
  if (failed.length > 3) why.push(`and ${failed.length - 3} more`);
  const words = why.length > 0 ? ` (${why.join("; ")})` : "";
  if (serving(service) === 0) {
    const state = service.endpoints.length === 0 ? "has no endpoints" : `has no endpoint that serves${words}`;
    return { severity: "error", text: `service ${service.name} ${state}`, code: "VM784", owner: service.owner };
  }
  if (failed.length === 0) return null; // drained, starting, or reported by the worker itself
  return { severity: "warning", text: `service ${service.name}: ${failed.length} of ${service.endpoints.length} endpoints fail${words}`, code: "VM781", owner: service.owner };
}
