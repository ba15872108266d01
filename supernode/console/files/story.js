// The story of one piece, as the supernode's scheduler remembers it: asked for once, when the address names it.

import { byId, keep, make, put, span } from "./dom.js";

let told = "";

export function showStory() {
  const [, , written = "", piece = "0"] = location.hash.split("/");
  if (written === "" || told === location.hash) return;
  told = location.hash;
  const digest = decoded(written);
  byId("story-digest").value = digest;
  byId("story-piece").value = piece;
  tell(digest, piece);
}

// The next look asks, though it is of the same piece.
export function askAgain() {
  told = "";
}

// People write addresses, too.
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

async function tell(digest, piece) {
  const wanted = told;
  put(byId("story-said"), "asking");
  let found = null;
  let refusal = "The supernode does not answer.";
  try {
    const answer = await fetch(`/v1/story?digest=${encodeURIComponent(digest)}&piece=${encodeURIComponent(piece)}`);
    if (answer.ok) found = await answer.json();
    else refusal = await answer.text();
  } catch {
    // The supernode is away.
  }
  // Another one was asked for since.
  if (told !== wanted) return;
  if (found === null) {
    put(byId("story-said"), refusal);
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
