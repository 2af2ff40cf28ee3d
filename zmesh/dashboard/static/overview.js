// The overview: numbers, what needs attention, what is requested of whom, the latest events, and the path.

import { $, fill, h } from "./dom.js";
import { bytes, clock, milliseconds, rate, since } from "./format.js";
import { attention, isSlow, requests } from "./judgement.js";
import { get, mesh } from "./store.js";
import { setPath } from "./topology.js";

const SHOWN = 60, LATEST = 40, REQUESTS = 30, NAMES = 40, PATH_AGAIN = 4000;
let chosen = null, timer = null, latest = null;

export function updateOverview() {
  const found = attention(mesh.nodes, mesh.links, mesh.slowFrom);
  summary(found);
  $("attention-count").textContent = found.length || "";
  fill($("attention"), ...(found.length ? found.slice(0, SHOWN).map(entry) : [h("li", { class: "none" }, mesh.nodes.size ? "All is well." : "Waiting for the mesh.")]));
  asked();
  if (latest === mesh.events) return;
  latest = mesh.events;
  fill($("latest"), ...mesh.events.slice(-LATEST).toReversed().map(event =>
    h("li", {}, h("time", {}, clock(event.time)), h("span", { class: "text" }, event.at === mesh.host ? "" : h("span", { class: "soft" }, `${event.at}: `), event.text))));
}

function entry(found) {
  const when = found.rtt ? milliseconds(found.rtt) : found.since ? `since ${clock(found.since)}, ${since(found.since)}` : "";
  const key = found.node ?? found.link;
  return h("li", { class: found.bad ? "bad" : "" },
    h("span", { class: "what" }, h("button", { class: "link", "data-key": `${key}${found.what}`, "data-open": found.node ?? null, "data-link": found.link ?? null }, found.what)),
    h("span", { class: "when" }, when), found.why ? h("span", { class: "why" }, found.why) : null);
}

function summary(found) {
  const nodes = [...mesh.nodes.values()], up = nodes.filter(node => node.up).length, down = nodes.length - up;
  const links = [...mesh.links.values()], linksDown = links.filter(link => link.state === "down").length;
  const slowest = d3.greatest(links, link => (link.state === "down" ? null : link.rtt));
  const isBad = slowest && isSlow(slowest, mesh.slowFrom), line = mesh.lines.at(-1) ?? [];
  $("node-count").textContent = nodes.length;
  const rows = [
    ["Nodes up", h("dd", {}, `${up} `, down ? h("span", { class: "down" }, `${down} down`) : h("small", {}, "none down"))],
    ["Links up", h("dd", {}, `${links.length - linksDown} `, linksDown ? h("span", { class: "down" }, `${linksDown} down`) : h("small", {}, "none down"))],
    ["Slowest link", slowest ? h("dd", { title: `${slowest.a} – ${slowest.b}` }, h("span", { class: isBad ? "slow" : "" }, milliseconds(slowest.rtt)), h("small", {}, ` ${slowest.a} – ${slowest.b}`)) : h("dd", {}, "–")],
    ["Requests", h("dd", {}, `${rate(line[1])}`, h("small", {}, " /s"))],
    ["Bytes over links", h("dd", {}, bytes(line[3]), h("small", {}, " /s"))],
    ["Errors", h("dd", { class: line[4] > 0.05 ? "down" : "" }, rate(line[4]), h("small", {}, " /s"))],
  ];
  fill($("summary"), ...rows.map(([name, value]) => h("div", {}, h("dt", {}, name), value)));
}

function asked() {
  const rows = requests(mesh.nodes).slice(0, REQUESTS);
  if (!rows.length) return fill($("requests"), h("p", { class: "soft" }, "Nothing was requested since the nodes started."));
  fill($("requests"), h("table", {},
    h("thead", {}, h("tr", {}, ...["Client", "Node", "Directive"].map(name => h("th", { scope: "col" }, name)), ...["Count", "/s"].map(name => h("th", { scope: "col", class: "num" }, name)))),
    h("tbody", {}, ...rows.map(row => h("tr", {},
      h("td", { class: "mono" }, row.client), h("td", { class: "mono" }, h("a", { href: `#/node/${row.node}` }, row.node)), h("td", { class: "mono" }, row.directive),
      h("td", { class: "num" }, String(row.count), row.failed ? h("span", { class: "down", title: `${row.failed} failed` }, ` ${row.failed}✕`) : ""), h("td", { class: "num" }, rate(row.rate)))))));
}

// -- the path between two nodes -----------------------------------------------------------------------------------------

export function startPath(onChoice) {
  $("path-form").addEventListener("submit", event => {
    event.preventDefault();
    const from = $("path-from").value.trim(), to = $("path-to").value.trim();
    if (from && to) onChoice(from, to);
    else $(from ? "path-to" : "path-from").focus();
  });
  $("path-clear").addEventListener("click", () => onChoice(null, null));
  for (const input of [$("path-from"), $("path-to")])
    for (const event of ["input", "focus"]) input.addEventListener(event, () => suggest(input.value.trim().toLowerCase()));
}

// The first names of nodes that contain what is typed.
function suggest(text) {
  const found = [...mesh.nodes.keys()].filter(id => id.toLowerCase().includes(text)).toSorted();
  fill($("node-names"), ...found.slice(0, NAMES).map(id => h("option", { value: id })));
}

export function showPath(from, to) {
  clearTimeout(timer);
  chosen = from && to ? [from, to] : null;
  $("path-clear").hidden = !chosen;
  $("path").hidden = !chosen;
  if (!chosen) return setPath([]);
  [$("path-from").value, $("path-to").value] = chosen;
  fill($("path"), h("span", { class: "soft" }, `finding the path from ${from} to ${to} …`));
  trace(chosen);
}

async function trace(mine) {
  const found = await get("/api/path", { from: mine[0], to: mine[1] });
  if (chosen !== mine) return;
  if (found.error) {
    fill($("path"), h("span", { class: "down" }, found.error.text));
    setPath([]);
  } else {
    const there = found.steps.filter(step => !step.back);
    setPath(there.filter(step => step.node).map(step => step.node));
    fill($("path"), ...there.flatMap((step, index) => leg(step, there[index + 1])));
  }
  timer = setTimeout(() => trace(mine), PATH_AGAIN);
}

function leg(step, next) {
  const parts = [h("span", { class: "hop" }, h("a", { class: "name", href: `#/node/${step.node}` }, step.node))];
  if (step.error) parts.push(h("span", { class: "down" }, ` ${step.error}`));
  else if (next && step.hop) parts.push(h("span", { class: "leg" }, [step.hop.rtt_s ? milliseconds(step.hop.rtt_s) : "", `cost ${step.hop.link_cost}`, step.hop.queued_bytes ? `${bytes(step.hop.queued_bytes)} queued` : ""].filter(Boolean).join(", ")));
  return parts;
}
