// The story of one piece, as the supernode's scheduler remembers it: asked for once, when the address names it.

import { byId, keep, make, put, span } from "./dom.js";

let told = "";

export function showStory() {
  const [, , digest = "", piece = "0"] = location.hash.split("/");
  if (digest === "" || told === location.hash) return;
  told = location.hash;
  byId("story-digest").value = decodeURIComponent(digest);
  byId("story-piece").value = piece;
  tell(decodeURIComponent(digest), piece);
}

async function tell(digest, piece) {
  put(byId("story-said"), "asking");
  let answer = null;
  let found = null;
  try {
    answer = await fetch(`/v1/story?digest=${encodeURIComponent(digest)}&piece=${encodeURIComponent(piece)}`);
    found = answer.ok ? await answer.json() : null;
  } catch {
    // The supernode is away.
  }
  if (found === null) {
    put(byId("story-said"), answer === null ? "The supernode does not answer." : await answer.text());
    show({ happenings: [], nodes: {} });
    return;
  }
  const held = found.held_by.map((count) => `, held by ${count}`).join("");
  put(byId("story-said"), `Piece ${found.piece} of ${found.pieces} of ${found.digest}${held}; the last happenings of its swarm, oldest first.`);
  show(found);
}

function show(found) {
  const lines = found.happenings.map((each, number) => ({ ...each, number }));
  keep(byId("story"), lines, (each) => each.number, () => make("li"), (item, each) => put(item, `${span(each.ago_s)} ago: ${each.text}`));
  const names = Object.entries(found.nodes).map(([number, name]) => `${number} is ${name}`);
  put(byId("story-nodes"), names.length ? `Peer 0 is the supernode's own store; ${names.join(", ")}.` : "");
}
