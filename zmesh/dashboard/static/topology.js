// The nodes and links on a canvas: drawn when something has changed, moved and zoomed by d3-zoom.

import { $, announce, fill, h } from "./dom.js";
import { bytes, milliseconds, percent, rate, since } from "./format.js";
import { isSlow, matches, stateOf, STATE_TEXT } from "./judgement.js";
import { Layout } from "./layout.js";
import { mesh } from "./store.js";
import { colour, onTheme } from "./theme.js";

const MODES = { rtt: "RTT", cost: "Cost", load: "Load" };
const LABELS_ALWAYS = 60, NEAR = 14, QUICK = 0.005, FIRST = 40, TAG_FONT = "600 11px system-ui, sans-serif";
const CELL = [24, 14], ALONG = [0.5, 0.38, 0.62, 0.25, 0.75];
const canvas = $("topology"), context = canvas.getContext("2d");
const layout = new Layout();
let structure = -1, transform = d3.zoomIdentity, size = [0, 0], dirty = false, moved = false;
let mode = "rtt", search = "", selected = null, hovered = null, path = [], open = () => {}, choosePath = () => {};

// What was drawn: frames, and of the last one its milliseconds, nodes and links.
export const topology = { draws: 0, last: 0, nodes: 0, links: 0, texts: [] };

const zoom = d3.zoom().scaleExtent([0.05, 6]).on("zoom", event => {
  transform = event.transform;
  if (event.sourceEvent) moved = true;
  redraw();
});

export function startTopology(onOpen, onPath) {
  open = onOpen;
  choosePath = onPath;
  d3.select(canvas).call(zoom).on("dblclick.zoom", null);
  canvas.addEventListener("mousemove", event => hover(at(event)));
  canvas.addEventListener("mouseleave", () => hover(null));
  canvas.addEventListener("click", event => {
    const id = at(event);
    if (id && event.shiftKey && selected) choosePath(selected, id);
    else select(id);
  });
  canvas.addEventListener("dblclick", event => { const id = at(event); if (id) open(id); });
  canvas.addEventListener("keydown", onKey);
  $("fit").addEventListener("click", () => fit(true));
  for (const [name, text] of Object.entries(MODES))
    $("colouring").append(h("button", { type: "button", role: "radio", "data-mode": name, onclick: () => setMode(name) }, text));
  $("colouring").addEventListener("keydown", event => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    const names = Object.keys(MODES);
    setMode(names[(names.indexOf(mode) + step + names.length) % names.length]);
    $("colouring").querySelector("[aria-checked=true]").focus();
    event.preventDefault();
  });
  setMode("rtt");
  onTheme(() => { legend(); redraw(); });
  new ResizeObserver(resize).observe(canvas.parentElement);
}

function resize() {
  const box = canvas.parentElement.getBoundingClientRect(), ratio = devicePixelRatio || 1;
  if (!box.width) return;
  size = [box.width, box.height];
  canvas.width = Math.round(box.width * ratio);
  canvas.height = Math.round(box.height * ratio);
  if (!moved) fit(false);
  redraw();
}

export function updateTopology() {
  if (structure !== mesh.structure) {
    structure = mesh.structure;
    const first = layout.points.size === 0;
    layout.update(mesh.nodes, mesh.links, mesh.host);
    if (first) layout.settle(FIRST);
    if (!moved) fit(false);
  }
  const up = [...mesh.nodes.values()].filter(node => node.up).length;
  canvas.setAttribute("aria-label", `Topology: ${up} nodes up, ${mesh.nodes.size - up} down, ${mesh.links.size} links`);
  card();
  redraw();
}

export function setSearch(text) {
  search = text.trim();
  redraw();
}

export function setPath(ids) {
  path = ids;
  redraw();
}

export function setMode(name) {
  mode = name;
  for (const button of $("colouring").children) {
    button.setAttribute("aria-checked", String(button.dataset.mode === name));
    button.tabIndex = button.dataset.mode === name ? 0 : -1;
  }
  legend();
  redraw();
}

export function nextMode() {
  const names = Object.keys(MODES);
  setMode(names[(names.indexOf(mode) + 1) % names.length]);
}

export function select(id, centre = false) {
  selected = id && layout.points.has(id) ? id : null;
  if (selected) {
    const node = mesh.nodes.get(selected);
    announce(node.up ? `${selected}, up, ${node.hops} hops` : `${selected}, down for ${since(node.since)}`);
    if (centre) {
      const point = layout.points.get(selected);
      d3.select(canvas).call(zoom.translateTo, point.x, point.y);
    }
  }
  card();
  redraw();
}

export function fit(smooth) {
  const bounds = layout.bounds();
  if (!bounds || !size[0]) return;
  const [[x, u], [y, v]] = [bounds.x, bounds.y], margin = 46;
  const scale = Math.min(2.2, (size[0] - 2 * margin) / Math.max(1, u - x), (size[1] - 2 * margin) / Math.max(1, v - y));
  const target = d3.zoomIdentity.translate(size[0] / 2, size[1] / 2).scale(scale).translate(-(x + u) / 2, -(y + v) / 2);
  moved = false;
  d3.select(canvas).call(zoom.transform, target);
  if (smooth) canvas.focus();
}

function at(event) {
  const [x, y] = transform.invert(d3.pointer(event, canvas));
  return layout.find(x, y, NEAR / transform.k)?.id ?? null;
}

function hover(id) {
  if (id === hovered) return;
  hovered = id;
  canvas.style.cursor = id ? "pointer" : "";
  redraw();
}

function onKey(event) {
  const direction = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (direction) step(...direction);
  else if (event.key === "Enter" && selected) open(selected);
  else if (event.key === "Escape") select(null);
  else if (event.key === "+" || event.key === "=") d3.select(canvas).call(zoom.scaleBy, 1.3);
  else if (event.key === "-") d3.select(canvas).call(zoom.scaleBy, 1 / 1.3);
  else return;
  event.preventDefault();
  event.stopPropagation();
}

// Selects the nearest node in a direction.
function step(dx, dy) {
  const from = layout.points.get(selected);
  if (!from) return select(layout.points.has(mesh.host) ? mesh.host : layout.points.keys().next().value, true);
  let best = null, least = Infinity;
  for (const point of layout.points.values()) {
    const x = point.x - from.x, y = point.y - from.y, along = x * dx + y * dy, across = Math.abs(x * dy) + Math.abs(y * dx);
    if (along > 1 && along + 2 * across < least && across < 2 * along) { least = along + 2 * across; best = point.id; }
  }
  if (best) select(best, true);
}

// -- drawing ----------------------------------------------------------------------------------------------------------

function redraw() {
  if (dirty) return;
  dirty = true;
  requestAnimationFrame(draw);
}

function draw() {
  dirty = false;
  if (!size[0] || canvas.offsetParent === null) return;
  const began = performance.now(), ratio = devicePixelRatio || 1;
  if (layout.step()) {
    if (!moved) fit(false);
    redraw();
  }
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, size[0], size[1]);
  const places = new Map();
  for (const point of layout.points.values()) places.set(point.id, transform.apply([point.x, point.y]));
  const shown = search ? new Set([...mesh.nodes.values()].filter(node => matches(node, search)).map(node => node.id)) : null;
  const tags = drawLinks(places, shown), radius = drawNodes(places, shown), taken = new Set();
  topology.texts = [];
  names(places, shown, radius, taken, true);
  drawTags(tags, taken);
  names(places, shown, radius, taken, false);
  topology.draws++;
  topology.nodes = places.size;
  topology.last = performance.now() - began;
}

// Where a link is between the least and the most, from 0 to 1.
function level(link, most) {
  if (mode === "load") return link.rate ? Math.min(1, Math.log10(1 + link.rate) / 7) : 0;
  if (mode === "cost") {
    const cost = Math.max(link.cost ?? 0, link.cost_back ?? 0);
    return Math.max(0, Math.min(1, (cost - 100) / Math.max(100, most - 100)));
  }
  return link.rtt === null ? 0 : Math.max(0, Math.min(1, Math.log(link.rtt / QUICK) / Math.log(Math.max(0.1, most) / QUICK)));
}

function drawLinks(places, shown) {
  const limit = mesh.slowFrom, values = [...mesh.links.values()];
  const most = mode === "cost" ? d3.max(values, link => Math.max(link.cost ?? 0, link.cost_back ?? 0)) ?? 0 : d3.max(values, link => link.rtt ?? 0) ?? 0;
  const quiet = colour("edge"), loud = colour(mode === "load" ? "accent" : "slow"), down = colour("down");
  const between = d3.interpolateRgb(quiet, loud), onPath = new Set(path.slice(1).map((id, index) => [id, path[index]].toSorted().join("|")));
  const groups = new Map(), tags = [], thin = mesh.links.size > 400 ? 0.7 : 1;
  for (const link of values) {
    const from = places.get(link.a), to = places.get(link.b);
    if (!from || !to) continue;
    const isDown = link.state === "down", grade = isDown ? 0 : Math.round(level(link, most) * 6) / 6;
    const faint = (shown && !shown.has(link.a) && !shown.has(link.b)) || (onPath.size && !onPath.has(link.id));
    const style = onPath.has(link.id) ? "path" : `${link.state}|${grade}|${faint}`;
    if (!groups.has(style)) groups.set(style, { state: link.state, grade, faint, path: style === "path", lines: [] });
    groups.get(style).lines.push(from, to);
    const near = hovered === link.a || hovered === link.b || selected === link.a || selected === link.b;
    if ((isSlow(link, limit) && mode === "rtt") || onPath.has(link.id) || (near && !isDown)) tags.push([link, from, to]);
  }
  topology.links = d3.sum(groups.values(), group => group.lines.length / 2);
  for (const group of [...groups.values()].toSorted((a, b) => a.path - b.path || a.grade - b.grade)) {
    context.globalAlpha = group.faint ? 0.25 : 1;
    context.setLineDash(group.state === "up" || group.path ? [] : [5, 4]);
    context.strokeStyle = group.path ? colour("accent") : group.state === "down" ? down : group.state === "suspect" ? colour("slow") : between(group.grade);
    context.lineWidth = (group.path ? 4 : group.state === "down" ? 1.4 : 1 + 2.4 * group.grade) * thin;
    context.beginPath();
    for (let index = 0; index < group.lines.length; index += 2) {
      context.moveTo(...group.lines[index]);
      context.lineTo(...group.lines[index + 1]);
    }
    context.stroke();
  }
  context.globalAlpha = 1;
  context.setLineDash([]);
  return tags;
}

// What links measure, where it covers nothing else: in the middle of the link or, if that is taken, nearer to an end.
function drawTags(tags, taken) {
  context.font = TAG_FONT;
  for (const [link, from, to] of tags) {
    const text = linkText(link), width = context.measureText(text).width + 10;
    if (!text) continue;
    const places = ALONG.map(share => [from[0] + (to[0] - from[0]) * share, from[1] + (to[1] - from[1]) * share]);
    const [x, y] = places.find(([x, y]) => isFree(cells(x, y - 9, width, 18), taken)) ?? places[0];
    take(x, y - 9, width, 18, taken);
    tag(x, y, width, text, isSlow(link, mesh.slowFrom) ? colour("slow") : colour("soft"));
  }
}

// The cells of a grid that a text covers which has its middle at x and its top at y.
function cells(x, y, width, height) {
  const found = [];
  for (let column = Math.floor((x - width / 2) / CELL[0]); column <= Math.floor((x + width / 2) / CELL[0]); column++)
    for (let row = Math.floor(y / CELL[1]); row <= Math.floor((y + height) / CELL[1]); row++) found.push(`${column},${row}`);
  return found;
}

function take(x, y, width, height, taken) {
  for (const cell of cells(x, y, width, height)) taken.add(cell);
  topology.texts.push([x - width / 2, y, x + width / 2, y + height]);
}

const isFree = (wanted, taken) => !wanted.some(cell => taken.has(cell));

function linkText(link) {
  if (mode === "cost") return `cost ${[...new Set([link.cost, link.cost_back].filter(cost => cost !== null))].join(" / ")}`;
  if (mode === "load") return link.rate === null ? "" : `${bytes(link.rate)}/s`;
  return link.rtt === null ? "" : milliseconds(link.rtt);
}

function tag(x, y, width, text, ink) {
  context.fillStyle = colour("panel");
  context.globalAlpha = 0.9;
  context.beginPath();
  context.roundRect(x - width / 2, y - 9, width, 18, 5);
  context.fill();
  context.globalAlpha = 1;
  context.fillStyle = ink;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillText(text, x, y);
}

function drawNodes(places, shown) {
  const radius = Math.max(2.2, Math.min(7, (mesh.nodes.size > 300 ? 4 : 6) * Math.sqrt(transform.k)));
  const inks = { ok: colour("node"), unknown: colour("edge"), warn: colour("slow"), off: colour("down") };
  const groups = { unknown: [], ok: [], warn: [], off: [] };
  for (const node of mesh.nodes.values()) if (places.has(node.id)) groups[stateOf(node)].push(node);
  for (const [state, nodes] of Object.entries(groups)) {
    for (const faint of [true, false]) {
      context.globalAlpha = faint ? 0.2 : 1;
      context.fillStyle = inks[state];
      context.beginPath();
      for (const node of nodes) {
        if (faint !== Boolean((shown && !shown.has(node.id)) || (path.length && !path.includes(node.id)))) continue;
        const [x, y] = places.get(node.id), r = state === "off" ? radius + 1.5 : radius;
        context.moveTo(x + r, y);
        context.arc(x, y, r, 0, 2 * Math.PI);
      }
      context.fill();
    }
  }
  context.globalAlpha = 1;
  for (const node of groups.off) cross(...places.get(node.id), radius * 0.55);
  ring(places.get(mesh.host), radius + 3, colour("node"), 1.5);
  for (const id of path) ring(places.get(id), radius + 2.5, colour("accent"), 2.5);
  ring(places.get(selected), radius + 4, colour("accent"), 2.5);
  return radius;
}

function cross(x, y, r) {
  context.strokeStyle = colour("panel");
  context.lineWidth = 1.8;
  context.beginPath();
  context.moveTo(x - r, y - r);
  context.lineTo(x + r, y + r);
  context.moveTo(x + r, y - r);
  context.lineTo(x - r, y + r);
  context.stroke();
}

function ring(place, radius, ink, width) {
  if (!place) return;
  context.strokeStyle = ink;
  context.lineWidth = width;
  context.beginPath();
  context.arc(...place, radius, 0, 2 * Math.PI);
  context.stroke();
}

// Names where nothing else is: first those that were chosen, which are always there, then the others by importance.
function names(places, shown, radius, taken, chosen) {
  const wanted = [hovered, selected, ...path], nodes = [...mesh.nodes.values()];
  const important = state => nodes.filter(node => stateOf(node) === state).map(node => node.id);
  const more = shown ? [...shown] : mesh.nodes.size <= LABELS_ALWAYS || transform.k > 1.6 ? [...mesh.nodes.keys()] : [];
  const ids = chosen ? wanted : [...important("off"), mesh.host, ...important("warn"), ...more].filter(id => !wanted.includes(id));
  context.textAlign = "center";
  context.textBaseline = "top";
  for (const id of [...new Set(ids)].slice(0, 400)) {
    const place = places.get(id);
    if (!place || place[0] < -50 || place[1] < -50 || place[0] > size[0] + 50 || place[1] > size[1] + 50) continue;
    const node = mesh.nodes.get(id);
    context.font = `${chosen || !node.up ? 600 : 400} 11.5px system-ui, sans-serif`;
    const text = node.up ? id : `${id} · down ${since(node.since)}`;
    const box = [place[0], place[1] + radius + 4, context.measureText(text).width, 12];
    if (!chosen && !isFree(cells(...box), taken)) continue;
    take(...box, taken);
    context.lineWidth = 3;
    context.lineJoin = "round";
    context.strokeStyle = colour("panel");
    context.strokeText(text, place[0], place[1] + radius + 4);
    context.fillStyle = node.up ? colour("text") : colour("down");
    context.globalAlpha = path.length && !path.includes(id) ? 0.35 : 1;
    context.fillText(text, place[0], place[1] + radius + 4);
    context.globalAlpha = 1;
  }
}

function legend() {
  const dot = name => { const mark = h("i", { class: "dot" }); mark.style.background = colour(name); return mark; };
  const line = (name, dashed) => { const mark = h("i", { class: dashed ? "dash" : "" }); mark.style.borderColor = colour(name); return mark; };
  const most = { rtt: "slow", cost: "dear", load: "busy" }[mode];
  fill($("legend"),
    h("span", {}, dot("node"), "up"), h("span", {}, dot("slow"), "warning"), h("span", {}, dot("down"), "down"),
    h("span", {}, line("edge"), "link"), h("span", {}, line(mode === "load" ? "accent" : "slow"), most), h("span", {}, line("down", true), "down"));
  // colours are set through the object model, which the content security policy allows: copies have none
  const marks = [dot("node"), dot("slow"), dot("down"), line("edge"), line(mode === "load" ? "accent" : "slow"), line("down", true)];
  [...$("legend").querySelectorAll("i")].forEach((mark, index) => mark.replaceWith(marks[index]));
}

function card() {
  const node = mesh.nodes.get(selected);
  $("card").hidden = !node;
  if (!node) return;
  const facts = node.up
    ? [["hops", node.hops], ["round trip", milliseconds(node.rtt)], ["requests", node.requests === null ? "–" : `${rate(node.requests)}/s`],
      ["in, out", node.bytes_in === null ? "–" : `${bytes(node.bytes_in)}/s, ${bytes(node.bytes_out)}/s`], ["loop lag", milliseconds(node.lag)], ["processor", percent(node.cpu)]]
    : [["down for", since(node.since)], ["last heard by", node.heard_by.join(", ") || "–"]];
  fill($("card"),
    h("h3", {}, h("span", {}, node.id), h("span", { class: `state ${stateOf(node)}` }, STATE_TEXT[stateOf(node)])),
    h("dl", {}, ...facts.flatMap(([name, value]) => [h("dt", {}, name), h("dd", { class: "num" }, String(value ?? "–"))])),
    h("div", { class: "buttons" }, h("button", { "data-key": "open", "data-open": node.id }, "Open"), h("button", { "data-key": "from", "data-from": node.id }, "Path from"), h("button", { "data-key": "to", "data-to": node.id }, "Path to")));
}
