// Nodes, jobs, registry events, upstreams and quarantine: tables that are brought up to date in place, sorted by the column that was chosen.

import { attribute, byId, keep, make, put, size, span } from "./dom.js";

class Table {
  // `columns`: [heading, text of a row, what it is sorted by if not the text].
  constructor(place, caption, columns, keyOf) {
    this.columns = columns;
    this.keyOf = keyOf;
    this.sorted = null;
    const table = make("table", "", { role: "table" });
    const head = make("tr", "", { role: "row" });
    this.headings = columns.map(([name], column) => {
      const cell = make("th", "", { scope: "col", role: "columnheader" });
      const button = make("button", name, { type: "button" });
      button.addEventListener("click", () => this.sortBy(column));
      cell.append(button);
      head.append(cell);
      return cell;
    });
    const group = make("thead", "", { role: "rowgroup" });
    group.append(head);
    this.body = make("tbody", "", { role: "rowgroup" });
    table.append(make("caption", caption, { class: "unseen" }), group, this.body);
    place.append(table);
    this.rows = [];
  }

  sortBy(column) {
    const descending = this.sorted?.column === column && !this.sorted.descending;
    this.sorted = { column, descending };
    this.headings.forEach((cell, each) => {
      if (each === column) cell.setAttribute("aria-sort", descending ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    });
    this.show(this.rows);
  }

  show(rows) {
    this.rows = rows;
    keep(this.body, this.inOrder(rows), this.keyOf, () => this.line(), (line, row) => this.update(line, row));
  }

  inOrder(rows) {
    if (this.sorted === null) return rows;
    const [, text, value = text] = this.columns[this.sorted.column];
    const sign = this.sorted.descending ? -1 : 1;
    const order = (one, other) => (typeof one === "number" ? one - other : one.localeCompare(other));
    return [...rows].sort((one, other) => sign * order(value(one), value(other)));
  }

  line() {
    const line = make("tr", "", { role: "row" });
    for (const [name] of this.columns) line.append(make("td", "", { role: "cell", "data-name": name }));
    return line;
  }

  update(line, row) {
    this.columns.forEach(([, text], column) => put(line.children[column], text(row)));
    if (row.trouble !== undefined) attribute(line, "class", row.trouble ? "trouble" : "");
  }
}

const stored = (row) =>
  row.store_used_bytes === null ? "–" : `${size(row.store_used_bytes)} of ${size(row.store_limit_bytes)}`;

const NODES = [
  ["Node", (row) => row.node, (row) => row.node],
  ["Name", (row) => row.peer],
  ["Zone", (row) => row.zone || "–"],
  ["Address", (row) => row.address],
  ["Version", (row) => row.agent.replace(/^layercast\//, "")],
  ["Store", (row) => stored(row), (row) => row.store_used_bytes ?? -1],
  ["Waits for", (row) => row.blobs_wanted, (row) => row.blobs_wanted],
  ["Blobs", (row) => row.blobs_announced, (row) => row.blobs_announced],
  ["Health", (row) => row.trouble || "good"],
];

const sum = (counts, ...names) => names.reduce((total, name) => total + (counts[name] ?? 0), 0);
const listed = (counts) =>
  Object.entries(counts)
    .filter(([, count]) => count)
    .map(([name, count]) => `${count} ${name}`)
    .join(", ") || "0";

const UPSTREAMS = [
  ["Upstream", (row) => row.host],
  ["Waiting", (row) => listed(row.waiting), (row) => sum(row.waiting, ...Object.keys(row.waiting))],
  ["Errors", (row) => sum(row.failures, "unavailable", "content"), (row) => sum(row.failures, "unavailable", "content")],
  ["Limited", (row) => sum(row.failures, "rate_limited"), (row) => sum(row.failures, "rate_limited")],
  ["Refused", (row) => sum(row.failures, "denied", "unknown"), (row) => sum(row.failures, "denied", "unknown")],
  ["Retry-After", (row) => span(row.retry_after_s), (row) => row.retry_after_s ?? 0],
  ["Last error", (row) => (row.last_failure ? `${row.last_failure} (${span(row.last_failure_ago_s)} ago)` : "–")],
];

const QUARANTINE = [
  ["Node", (row) => row.peer],
  ["Reason", (row) => row.reason],
  ["Ends in", (row) => span(row.ends_in_s), (row) => row.ends_in_s],
];

const JOBS = [
  ["Job", (row) => row.number, (row) => row.number],
  ["Image", (row) => row.image],
  ["To", (row) => row.to],
  ["State", (row) => row.state],
  ["Nodes", (row) => `${row.nodes_done} of ${row.nodes_count}`, (row) => row.nodes_done],
  ["Size", (row) => size(row.size_bytes), (row) => row.size_bytes],
  ["Attempts", (row) => row.attempts, (row) => row.attempts],
  ["Error", (row) => row.error || "–"],
];

const EVENTS = [
  ["Event", (row) => row.number, (row) => row.number],
  ["Image", (row) => row.image],
  ["State", (row) => row.state],
  ["Received", (row) => row.received],
  ["Job", (row) => row.job ?? "–", (row) => row.job ?? 0],
  ["Error", (row) => row.error || "–"],
];

const RULES = [
  ["Rule", (row) => row.name],
  ["Repositories", (row) => row.repositories.join(", ")],
  ["Tags", (row) => row.tags.join(", ")],
  ["Platforms", (row) => row.platforms.join(", ") || "all"],
  ["To", (row) => row.to],
];

const PROBLEMS = [
  ["Repository", ([repository]) => repository],
  ["Error", ([, problem]) => problem],
];

const tables = {};

function table(id, caption, columns, keyOf) {
  tables[id] ??= new Table(byId(id), caption, columns, keyOf);
  return tables[id];
}

export function showNodes(snapshot) {
  const wanted = byId("filter").value.trim().toLowerCase();
  const found = snapshot.nodes.filter((row) =>
    [row.peer, row.zone, row.address, row.agent, row.trouble].some((text) => text.toLowerCase().includes(wanted)),
  );
  const shown = snapshot.nodes.length < snapshot.sessions ? `, ${snapshot.nodes.length} of ${snapshot.sessions} here` : "";
  put(byId("head-nodes"), `Nodes (${found.length}${shown})`);
  table("nodes", "Connected nodes", NODES, (row) => row.node).show(found);
}

export function showJobs(snapshot) {
  showOrSay("jobs", "Preheat jobs, the newest first", JOBS, (row) => row.number, [...snapshot.jobs].reverse());
}

export function showEvents(snapshot) {
  const { events } = snapshot;
  const { last } = events.scan;
  const looked = last === null ? "" : ` Tags of ${last.repositories} repositories were looked at ${last.ended}: ${last.found} changed.`;
  put(byId("events-said"), `${events.waiting} waiting, ${events.working} worked on, ${events.dead} dead.${looked}`);
  showOrSay("events", "Registry events that are not done with", EVENTS, (row) => row.number, events.events);
  showOrSay("rules", "Rules by which events are taken", RULES, (row) => row.name, events.rules);
  const problems = last === null ? [] : Object.entries(last.problems);
  showOrSay("problems", "Repositories whose tags were not told", PROBLEMS, ([repository]) => repository, problems);
}

// The table, or in its place the words that there is nothing in it.
function showOrSay(id, caption, columns, keyOf, rows) {
  byId(`no-${id}`).hidden = rows.length > 0;
  byId(id).hidden = rows.length === 0;
  table(id, caption, columns, keyOf).show(rows);
}

export function showUpstreams(snapshot) {
  showOrSay("upstreams", "Origins that were asked", UPSTREAMS, (row) => row.host, snapshot.upstreams);
}

export function showQuarantine(snapshot) {
  showOrSay("quarantine", "Nodes in quarantine", QUARANTINE, (row) => row.peer, snapshot.quarantined);
}
