// Nodes, upstreams and quarantine: tables that are brought up to date in place, sorted by the column that was chosen.

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
  byId("no-jobs").hidden = snapshot.jobs.length > 0;
  byId("jobs").hidden = snapshot.jobs.length === 0;
  table("jobs", "Preheat jobs, the newest first", JOBS, (row) => row.number).show([...snapshot.jobs].reverse());
}

export function showUpstreams(snapshot) {
  byId("no-upstreams").hidden = snapshot.upstreams.length > 0;
  byId("upstreams").hidden = snapshot.upstreams.length === 0;
  table("upstreams", "Origins that were asked", UPSTREAMS, (row) => row.host).show(snapshot.upstreams);
}

export function showQuarantine(snapshot) {
  byId("no-quarantine").hidden = snapshot.quarantined.length > 0;
  byId("quarantine").hidden = snapshot.quarantined.length === 0;
  table("quarantine", "Nodes in quarantine", QUARANTINE, (row) => row.peer).show(snapshot.quarantined);
}
