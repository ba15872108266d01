// The page: what is shown of a snapshot, which view, who is logged in.

import { byId, keep, make, put, rate, size, span } from "./dom.js";
import { askAgain, showStory } from "./story.js";
import { follow, login, logout } from "./stream.js";
import { showSwarms } from "./swarms.js";
import { showEvents, showJobs, showNodes, showQuarantine, showUpstreams } from "./tables.js";

const SHOW = {
  swarms: showSwarms,
  nodes: showNodes,
  jobs: showJobs,
  events: showEvents,
  upstreams: showUpstreams,
  quarantine: showQuarantine,
  story: showStory,
};
// No script sees the cookie: that there is one is noted beside it.
const LOGGED_IN = "layercast-logged-in";
const noted = (what) => {
  try {
    return what(localStorage);
  } catch {
    // The browser keeps nothing for this page.
    return null;
  }
};
let latest = null;
let stream = null;

const view = () => {
  const name = location.hash.slice(2).split("/")[0];
  return Object.hasOwn(SHOW, name) ? name : "swarms";
};

function totals(snapshot) {
  const { traffic } = snapshot;
  const money = traffic.saved_money === null ? "" : ` (${traffic.saved_money.toFixed(2)} ${traffic.currency})`;
  return [
    ["Nodes", snapshot.sessions],
    ["Swarms", snapshot.swarms_open],
    ["To nodes", rate(traffic.came_bytes_s)],
    ["From origins", rate(traffic.origin_bytes_s)],
    ["Origin saved", size(traffic.saved_bytes) + money],
    ["In quarantine", snapshot.quarantined.length],
    ["Up for", span(snapshot.uptime_s)],
  ];
}

function warnings(snapshot) {
  const said = snapshot.seed_unreachable.map(
    (each) => `No node reaches the supernode's port for pieces at ${each.address} (${span(each.for_s)}): correct --advertise, or open it.`,
  );
  if (!snapshot.ready) said.unshift(`The supernode is not ready: ${snapshot.problem}.`);
  if (snapshot.membership === "open") said.push("This supernode admits whoever comes (--open).");
  return said.join(" ");
}

function draw() {
  if (latest === null) return;
  const name = view();
  for (const each of Object.keys(SHOW)) byId(`view-${each}`).hidden = each !== name;
  for (const link of byId("views").children) {
    if (link.hash === `#/${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  keep(
    byId("totals"),
    totals(latest),
    ([term]) => term,
    ([term]) => {
      const tile = make("div");
      tile.append(make("dt", term), make("dd"));
      return tile;
    },
    (tile, [, text]) => put(tile.lastChild, text),
  );
  const said = warnings(latest);
  put(byId("warnings"), said);
  byId("warnings").hidden = said === "";
  SHOW[name](latest);
  for (const id of ["cluster", "views"]) byId(id).hidden = false;
  byId("login").hidden = true;
  byId("logout").hidden = noted((kept) => kept.getItem(LOGGED_IN)) === null;
}

function show(snapshot) {
  latest = snapshot;
  draw();
  if (!document.body.dataset.shown) {
    document.body.dataset.shown = "yes";
    performance.mark("shown");
  }
}

function ask() {
  latest = null;
  noted((kept) => kept.removeItem(LOGGED_IN));
  for (const id of ["cluster", "views", "logout"]) byId(id).hidden = true;
  byId("login").hidden = false;
  byId("token").focus();
}

function begin() {
  stream?.close();
  stream = follow({ show, ask, say: (text) => put(byId("state"), text) });
}

byId("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  put(byId("login-said"), "");
  const token = byId("token").value.trim();
  try {
    if (!(await login(token))) {
      put(byId("login-said"), "This is not the operator's token.");
      return;
    }
  } catch {
    put(byId("login-said"), "The supernode does not answer.");
    return;
  }
  byId("token").value = "";
  noted((kept) => kept.setItem(LOGGED_IN, "yes"));
  begin();
});

byId("logout").addEventListener("click", async () => {
  try {
    await logout();
  } catch {
    // The cookie is good until the supernode hears of it.
    put(byId("state"), "not logged out: the supernode does not answer");
    return;
  }
  stream?.close();
  put(byId("state"), "logged out");
  ask();
});

byId("filter").addEventListener("input", draw);
byId("story-of").addEventListener("submit", (event) => {
  event.preventDefault();
  location.hash = `#/story/${encodeURIComponent(byId("story-digest").value.trim())}/${byId("story-piece").value}`;
  // It may be the one that is shown.
  askAgain();
  draw();
});
addEventListener("hashchange", () => {
  draw();
  byId("content").focus({ preventScroll: true });
});
begin();
