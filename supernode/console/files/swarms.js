// The live swarms: a card each, with its piece map, its nodes by zone, and where its bytes came from.

import { attribute, byId, keep, make, percent, put, rate, short, size, span } from "./dom.js";

const SOURCES = [
  ["origin", "origin to supernode"],
  ["supernode", "supernode to nodes"],
  ["nodes", "node to node"],
  ["own", "origin to nodes"],
];
const FIGURES = ["came", "rate", "elapsed", "bound", "origin", "from"];
const NAMES = { came: "Came", rate: "To nodes", elapsed: "Time", bound: "Of the bound", origin: "Origin", from: "From" };
const LEGEND = [["0", "nobody has it"], ["1", "one copy"], ["5", "some nodes"], ["9", "all nodes"]];

// By a digit of the map; read again when the page turns dark or light.
let colours = null;
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => (colours = null));

function colourOf(digit) {
  if (colours === null) {
    const style = getComputedStyle(document.documentElement);
    colours = Array.from({ length: 10 }, (_, level) => style.getPropertyValue(`--map-${level}`).trim());
  }
  return colours[digit];
}

function drawMap(canvas, map) {
  const drawn = map + colourOf(0);
  if (canvas.drawn === drawn) return;
  canvas.drawn = drawn;
  canvas.width = Math.max(1, map.length);
  const context = canvas.getContext("2d");
  for (let cell = 0; cell < map.length; cell += 1) {
    context.fillStyle = colourOf(map.charCodeAt(cell) - 48);
    context.fillRect(cell, 0, 1, 1);
  }
}

function saidOf(map, pieces) {
  const rare = [...map].filter((digit) => digit < "2").length;
  const all = [...map].filter((digit) => digit === "9").length;
  const per = pieces > map.length ? ` (${Math.ceil(pieces / map.length)} pieces a cell)` : "";
  return `Piece map${per}: ${map.length} cells, ${rare} with one copy or none, ${all} at all nodes`;
}

// How the time so far compares with the least in which the links could bring what came.
function ofBound(swarm) {
  if (!swarm.bound_s || !swarm.progress) return "–";
  return `${(swarm.elapsed_s / swarm.progress / swarm.bound_s).toFixed(2)} ×`;
}

function card() {
  const item = make("li");
  const article = make("article");
  const head = make("h3");
  const map = make("canvas", "", { role: "img", height: "1", width: "1" });
  const progress = make("progress", "", { max: "1", value: "0", "aria-label": "of what nodes wait for" });
  const figures = make("dl");
  const zones = make("ul", "", { class: "zones", "aria-label": "Nodes by zone" });
  item.parts = { head, map, progress, zones, figures: {} };
  // For who points: the piece below. By keyboard the title leads there, and the piece is typed.
  map.addEventListener("click", (event) => {
    const part = event.offsetX / map.clientWidth;
    location.hash = `#/story/${item.swarm.digest}/${Math.min(item.swarm.pieces - 1, Math.floor(part * item.swarm.pieces))}`;
  });
  for (const name of FIGURES) {
    const cell = make("div");
    item.parts.figures[name] = make("dd");
    cell.append(make("dt", NAMES[name]), item.parts.figures[name]);
    figures.append(cell);
  }
  item.parts.title = make("a");
  item.parts.about = make("span");
  head.append(item.parts.title, item.parts.about);
  article.append(head, map, progress, figures, zones);
  item.append(article);
  return item;
}

function update(item, swarm) {
  const { parts } = item;
  item.swarm = swarm;
  put(parts.title, short(swarm.digest));
  attribute(parts.title, "title", `${swarm.digest}: the story of its pieces`);
  attribute(parts.title, "href", `#/story/${swarm.digest}/0`);
  const waits = swarm.wanted_by ? `${swarm.wanted_by} wait` : "nobody waits";
  put(parts.about, ` ${size(swarm.size_bytes)}, ${swarm.pieces} pieces, ${swarm.members} nodes, ${waits}`);
  const map = swarm.map ?? "";
  parts.map.hidden = map === "";
  if (map !== "") {
    drawMap(parts.map, map);
    attribute(parts.map, "aria-label", saidOf(map, swarm.pieces));
  }
  const done = swarm.progress ?? 0;
  if (parts.progress.value !== done) parts.progress.value = done;
  const from = SOURCES.filter(([key]) => swarm.bytes[key]).map(([key, name]) => `${size(swarm.bytes[key])} ${name}`);
  const said = {
    came: percent(swarm.progress),
    rate: rate(swarm.came_bytes_s),
    elapsed: span(swarm.elapsed_s),
    bound: ofBound(swarm),
    origin: `${swarm.origin}${swarm.upstream ? ` (${swarm.upstream})` : ""}`,
    from: from.join(", ") || "–",
  };
  for (const name of FIGURES) put(parts.figures[name], said[name]);
  keep(parts.zones, swarm.zones ?? [], ([zone]) => zone, zoneItem, updateZone);
}

function zoneItem([zone]) {
  const item = make("li");
  const name = zone || "no zone";
  item.parts = { meter: make("meter", "", { min: "0", "aria-label": `${name}: nodes with all of it` }), text: make("span") };
  item.append(make("span", name), item.parts.meter, item.parts.text);
  return item;
}

function updateZone(item, [, members, whole]) {
  attribute(item.parts.meter, "max", members);
  attribute(item.parts.meter, "value", whole);
  put(item.parts.text, `${whole} of ${members}`);
}

function legend() {
  const place = byId("legend");
  if (place.firstChild) return;
  place.append("Pieces: ");
  for (const [digit, text] of LEGEND) place.append(make("span", "", { class: `swatch map-${digit}` }), `${text} `);
}

export function showSwarms(snapshot) {
  legend();
  byId("no-swarms").hidden = snapshot.swarms.length > 0;
  keep(byId("swarms"), snapshot.swarms, (swarm) => swarm.number, card, update);
}
