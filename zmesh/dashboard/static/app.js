// The page: views by the hash of the URL, keys, and what is drawn anew when an update comes.

import { Charts } from "./charts.js";
import { $, fill, h } from "./dom.js";
import { clock, moment, since } from "./format.js";
import { matches } from "./judgement.js";
import { showNode } from "./node.js";
import { showPath, startPath, updateOverview } from "./overview.js";
import { connect, mesh, subscribe } from "./store.js";
import { focusTable, setTableSearch, startTable, updateTable } from "./table.js";
import { nextTheme, onTheme, startTheme } from "./theme.js";
import { fit, nextMode, select, setSearch, startTopology, topology, updateTopology } from "./topology.js";

const VIEWS = ["overview", "nodes", "node", "events"];
const charts = new Charts($("charts"), "mesh");
let view = "overview";

const go = hash => { location.hash = hash; };
const open = id => go(`#/node/${id}`);
const choosePath = (from, to) => go(from && to ? `#/path/${from}/${to}` : "#/");

function route() {
  const [, name = "", first, second] = location.hash.split("/").map(decodeURIComponent);
  view = name === "nodes" || name === "events" ? name : name === "node" && first ? "node" : "overview";
  for (const each of VIEWS) $(each).hidden = each !== view;
  for (const link of document.querySelectorAll("nav a"))
    if (link.dataset.view === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  document.title = view === "node" ? `${first} · zmesh` : "zmesh";
  showNode(view === "node" ? first : null);
  if (view === "overview") showPath(...(name === "path" ? [first, second] : [null, null]));
  update();
}

function update() {
  contact();
  if (view === "overview") {
    updateOverview();
    updateTopology();
    charts.set(mesh.lines);
  } else if (view === "nodes") updateTable();
  else if (view === "events") events();
}

function contact() {
  const { ok, since: from, text } = mesh.contact, live = mesh.connected && ok;
  $("contact").classList.toggle("lost", !live);
  const state = live ? `live, as seen by ${mesh.host}` : !mesh.connected ? "no connection" : mesh.host ? "out of date" : "joining";
  if ($("contact").textContent !== state) $("contact").textContent = state;
  $("banner").hidden = live || (mesh.connected && !mesh.host && from === null);
  if (!$("banner").hidden) {
    const line = mesh.connected ? `No answer from the mesh for ${since(from)}: ${text}` : "The dashboard does not answer; what is shown is out of date.";
    if ($("banner").textContent !== line) $("banner").textContent = line;
  }
}

let listed = [null, ""];

function events() {
  const search = $("search").value.trim().toLowerCase();
  if (listed[0] === mesh.events && listed[1] === search) return;
  listed = [mesh.events, search];
  const words = search.split(/\s+/).filter(word => word && !/^(tag|is|version):/.test(word));
  const rows = mesh.events.toReversed().filter(event => words.every(word => `${event.at} ${event.node} ${event.kind} ${event.text}`.toLowerCase().includes(word)));
  fill($("events"), h("div", { class: "bar" }, h("h2", {}, "Events"), h("span", { class: "soft" }, String(rows.length))),
    h("ol", { class: "events-list", tabindex: "0", "aria-label": "Events, the latest first" }, ...rows.map(event => h("li", {},
      h("time", { class: "num soft" }, moment(event.time)), h("a", { href: `#/node/${event.at}`, class: "mono" }, event.at), h("span", { class: "soft" }, event.kind.replaceAll("_", " ")), h("span", { class: "text" }, event.text)))));
}

// -- search and keys ----------------------------------------------------------------------------------------------------

function searchFor(text) {
  $("search").value = text;
  setSearch(text);
  setTableSearch(text);
  if (view === "events") events();
}

const KEYS = {
  "/": ["search", () => { $("search").focus(); $("search").select(); }],
  1: ["overview", () => go("#/")],
  2: ["table of nodes", () => { go("#/nodes"); setTimeout(focusTable); }],
  3: ["events", () => go("#/events")],
  g: ["go to the topology", () => { go("#/"); setTimeout(() => $("topology").focus()); }],
  p: ["path between two nodes", () => { if (view !== "overview") go("#/"); setTimeout(() => $("path-from").focus()); }],
  c: ["colour links by RTT, cost, load", nextMode],
  0: ["fit the topology", () => fit(true)],
  t: ["light, dark, automatic", nextTheme],
  "?": ["this list", () => $("help").showModal()],
};

document.addEventListener("keydown", event => {
  const typing = event.target.matches("input, textarea, select");
  if (event.key === "Escape") {
    if (event.target === $("search")) { searchFor(""); $("search").blur(); }
    else if (!typing && view === "node") history.back();
    else if (!typing && location.hash.startsWith("#/path")) choosePath(null, null);
    return;
  }
  if (typing || event.ctrlKey || event.metaKey || event.altKey || $("help").open || !(event.key in KEYS)) return;
  event.preventDefault();
  KEYS[event.key][1]();
});

$("search").addEventListener("input", event => searchFor(event.target.value));
$("search").addEventListener("keydown", event => {
  if (event.key !== "Enter") return;
  const found = [...mesh.nodes.values()].filter(node => matches(node, event.target.value));
  if (found.length === 1) open(found[0].id);
  else if (view === "overview" && found.length) { select(found[0].id, true); $("topology").focus(); }
  else { go("#/nodes"); setTimeout(focusTable); }
});
$("help-button").addEventListener("click", () => $("help").showModal());
document.addEventListener("click", event => {
  const button = event.target.closest("[data-open], [data-link], [data-from], [data-to]");
  if (!button) return;
  const { open: node, link, from, to } = button.dataset;
  if (node) open(node);
  if (link) choosePath(...link.split("|"));
  if (from) { $("path-from").value = from; $("path-to").focus(); }
  if (to) { $("path-to").value = to; if ($("path-from").value) choosePath($("path-from").value, to); else $("path-from").focus(); }
});
fill($("keys"), ...Object.entries(KEYS).flatMap(([key, [text]]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, text)]));

startTheme();
startTopology(open, choosePath);
startTable(open, searchFor);
startPath(choosePath);
onTheme(update);
window.addEventListener("hashchange", route);
subscribe(update);
setInterval(update, 1000);
route();
connect();
globalThis.zmeshTopology = topology;
