// The table of nodes: sorted, searched, and drawn for the rows in sight only.

import { $, h } from "./dom.js";
import { bytes, clock, milliseconds, moment, percent, rate } from "./format.js";
import { matches, stateOf, STATE_TEXT } from "./judgement.js";
import { mesh } from "./store.js";

const ROW = 30, MORE = 12;
const COLUMNS = [
  { key: "id", title: "Node", width: 170, value: node => node.id, cell: node => node.id },
  { key: "state", title: "State", width: 150, value: node => ({ off: 0, warn: 1, unknown: 2, ok: 3 })[stateOf(node)], cell: state },
  { key: "tags", title: "Tags", width: 170, value: node => [...node.tags, ...node.own_tags].join(" "), cell: tags },
  { key: "hops", title: "Hops", number: true, width: 60, value: node => node.hops, cell: node => node.hops ?? "–" },
  { key: "rtt", title: "RTT", number: true, width: 80, value: node => node.rtt, cell: node => milliseconds(node.rtt) },
  { key: "requests", title: "Req/s", number: true, width: 72, value: node => node.requests, cell: node => rate(node.requests) },
  { key: "bytes_in", title: "In/s", number: true, width: 80, value: node => node.bytes_in, cell: node => bytes(node.bytes_in) },
  { key: "bytes_out", title: "Out/s", number: true, width: 80, value: node => node.bytes_out, cell: node => bytes(node.bytes_out) },
  { key: "errors", title: "Err/s", number: true, width: 68, value: node => node.errors, cell: node => rate(node.errors) },
  { key: "lag", title: "Lag", number: true, width: 80, value: node => node.lag, cell: node => milliseconds(node.lag) },
  { key: "cpu", title: "CPU", number: true, width: 70, value: node => node.cpu, cell: node => percent(node.cpu) },
  { key: "version", title: "Version", width: 90, value: node => node.version, cell: node => node.version || "–" },
];
const view = $("nodes");
let sort = "state", descending = false, search = "", rows = [], selected = null, open = () => {}, searchFor = () => {};
let wrap, body, found, drawn = new Map();
const spacers = [];

export function startTable(onOpen, onSearch) {
  open = onOpen;
  searchFor = onSearch;
  found = h("span", { class: "soft", role: "status" });
  body = h("tbody");
  const head = h("tr", {}, ...COLUMNS.map(column =>
    h("th", { scope: "col", class: column.number ? "num" : "", "data-column": column.key }, h("button", { type: "button", onclick: () => sortBy(column.key) }, column.title))));
  const columns = h("colgroup", {}, ...COLUMNS.map(column => h("col", { width: column.width })));
  wrap = h("div", { class: "grid-wrap", tabindex: "0", "aria-label": "Nodes: arrow keys choose, Enter opens" }, h("table", { role: "grid" }, columns, h("thead", {}, head), body));
  view.append(h("div", { class: "bar" }, h("h2", {}, "Nodes"), found), wrap);
  wrap.addEventListener("scroll", () => draw());
  wrap.addEventListener("keydown", onKey);
  body.addEventListener("click", event => {
    const tag = event.target.closest("[data-tag]"), row = event.target.closest("tr[data-id]");
    if (tag) searchFor(`tag:${tag.dataset.tag}`);
    else if (row) open(row.dataset.id);
  });
  new ResizeObserver(() => draw()).observe(wrap);
}

function sortBy(key) {
  descending = key === sort ? !descending : Boolean(COLUMNS.find(column => column.key === key).number);
  sort = key;
  updateTable();
}

export function setTableSearch(text) {
  search = text;
  wrap.scrollTop = 0;
  updateTable();
}

export function updateTable() {
  if (view.hidden) return;
  const { value } = COLUMNS.find(column => column.key === sort), sign = descending ? -1 : 1;
  const keyed = [...mesh.nodes.values()].filter(node => matches(node, search)).map(node => [value(node), node]);
  rows = keyed.sort(([x, a], [y, b]) => {
    const byId = a.id < b.id ? -1 : 1;
    if (x === null || y === null) return (x === null) - (y === null) || byId;
    return x < y ? -sign : x > y ? sign : byId;
  }).map(([, node]) => node);
  for (const head of wrap.querySelectorAll("th"))
    if (head.dataset.column === sort) head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  const left = mesh.omitted.nodes ? `; ${mesh.omitted.nodes} more are not shown` : "";
  found.textContent = (search.trim() ? `${rows.length} of ${mesh.nodes.size} match` : `${rows.length}`) + left;
  draw();
}

function draw() {
  if (view.hidden) return;
  const first = Math.max(0, Math.floor(wrap.scrollTop / ROW) - MORE), last = Math.min(rows.length, first + Math.ceil(wrap.clientHeight / ROW) + 2 * MORE);
  const next = rows.slice(first, last).map((node, index) => row(node, first + index + 2));
  place([...spacer(0, first), ...next, ...spacer(1, rows.length - last)]);
  drawn = new Map(next.map(element => [element.dataset.id, element]));
}

// The element of a node, the one that is there unless the node has changed.
function row(node, index) {
  const isSelected = node.id === selected ? "true" : "false", known = drawn.get(node.id);
  if (known?.node === node && known.getAttribute("aria-selected") === isSelected) {
    if (known.getAttribute("aria-rowindex") !== String(index)) known.setAttribute("aria-rowindex", index);
    return known;
  }
  const cells = COLUMNS.map(column => h("td", { class: column.number ? "num" : "" }, column.cell(node)));
  const element = h("tr", { "data-id": node.id, "aria-rowindex": index, "aria-selected": isSelected }, ...cells);
  element.node = node;
  return element;
}

// What stands for the rows above, or below, of those in sight.
function spacer(which, count) {
  if (!count) return [];
  spacers[which] ??= h("tr", { "aria-hidden": "true" }, h("td", { colspan: COLUMNS.length, class: "spacer" }));
  spacers[which].firstChild.style.height = `${count * ROW}px`;
  return [spacers[which]];
}

// Makes these the rows, and touches those that stay in no way.
function place(elements) {
  const stay = new Set(elements);
  for (const element of [...body.children]) if (!stay.has(element)) element.remove();
  elements.forEach((element, index) => {
    if (body.children[index] !== element) body.insertBefore(element, body.children[index] ?? null);
  });
}

function onKey(event) {
  const page = Math.max(1, Math.floor(wrap.clientHeight / ROW) - 2);
  const step = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity }[event.key];
  if (step !== undefined && rows.length) {
    const at = rows.findIndex(node => node.id === selected);
    const next = Math.max(0, Math.min(rows.length - 1, at < 0 ? 0 : at + step));
    selected = rows[next].id;
    const top = next * ROW, height = wrap.clientHeight - ROW;
    if (top < wrap.scrollTop) wrap.scrollTop = top;
    if (top + ROW > wrap.scrollTop + height) wrap.scrollTop = top + ROW - height;
    draw();
  } else if (event.key === "Enter" && selected && event.target === wrap) open(selected);
  else return;
  event.preventDefault();
}

export function focusTable() {
  wrap.focus();
}

function state(node) {
  const name = stateOf(node), text = node.up ? STATE_TEXT[name] : `down since ${clock(node.since)}`;
  const title = node.up ? (node.problem?.text ?? node.warnings.map(([, line]) => line).join("\n")) : moment(node.since);
  const denied = node.problem?.code === "not_allowed";
  return h("span", { class: `state ${name}${node.up ? "" : " down"}`, title }, denied ? "no permission" : text);
}

function tags(node) {
  return [...node.tags.map(tag => h("button", { type: "button", class: "tag", "data-tag": tag, tabindex: "-1" }, tag)),
    ...node.own_tags.map(tag => h("button", { type: "button", class: "tag own", "data-tag": tag, tabindex: "-1", title: "its own tag, not certified" }, tag))];
}
