// The page of one node: its state, links, work, routes with the reasons, jobs and events.

import { Charts } from "./charts.js";
import { $, fill, h } from "./dom.js";
import { bytes, clock, milliseconds, moment, percent, rate, since, span } from "./format.js";
import { stateOf, STATE_TEXT } from "./judgement.js";
import { get, mesh } from "./store.js";

const EVERY = 2000, SLOWER = 6000;
const view = $("node");
let shown = null, timer = null, aborter = null, parts = {}, charts = null, explained = null, filter = "";

export function showNode(id) {
  if (shown === id) return;
  clearTimeout(timer);
  aborter?.abort();
  shown = id;
  explained = null;
  filter = "";
  if (!id) return;
  aborter = new AbortController();
  build(id);
  refresh(id, 0);
}

function build(id) {
  parts = Object.fromEntries(["title", "notice", "status", "links", "work", "routes", "jobs", "log", "charts"].map(name => [name, h("div")]));
  parts.charts.className = "charts";
  parts.routes.className = parts.jobs.className = parts.log.className = parts.links.className = "scroll";
  parts.log.classList.add("log");
  const panel = (title, ...content) => h("section", { class: "panel" }, h("h2", {}, title), ...content);
  const search = h("input", { type: "search", placeholder: "filter", "aria-label": "Filter routes", oninput: event => { filter = event.target.value; routes(); } });
  view.replaceChildren(
    parts.title, parts.notice, parts.charts,
    h("div", { class: "columns" },
      h("div", { class: "column" }, panel("Status", parts.status), panel("Work", parts.work), panel("Jobs", parts.jobs)),
      h("div", { class: "column" }, panel("Links", parts.links), panel("Routes", h("div", {}, search), parts.routes))),
    panel("Events", parts.log));
  charts = new Charts(parts.charts, "node");
  view.scrollTop = 0;
  parts.title.textContent = id;
}

async function refresh(id, count) {
  const signal = aborter.signal;
  try {
    const found = await get(`/api/nodes/${id}`, {}, signal);
    if (shown !== id) return;
    if (found.error) return fill(parts.notice, h("p", { class: "notice bad" }, found.error.text));
    head(found.row);
    status(found);
    charts.set(found.lines);
    if (count % (SLOWER / EVERY) === 0 && found.row.up) {
      const [known, events, kept] = await Promise.all([get(`/api/nodes/${id}/routes`, {}, signal), get(`/api/nodes/${id}/events`, {}, signal), jobsOf(id, signal)]);
      if (shown !== id) return;
      parts.known = known;
      routes();
      log(events);
      jobs(kept);
    }
    timer = setTimeout(() => refresh(id, count + 1), EVERY);
  } catch (error) {
    if (error.name !== "AbortError") throw error;
  }
}

// Asks once where jobs may not be listed, so that no refusal is counted again and again.
async function jobsOf(id, signal) {
  if (!parts.kept?.error) parts.kept = await get(`/api/nodes/${id}/jobs`, {}, signal);
  return parts.kept;
}

function head(row) {
  const name = stateOf(row);
  fill(parts.title, h("div", { class: "bar" }, h("h2", {}, row.id), h("span", { class: `state ${name}` }, row.up ? STATE_TEXT[name] : `down since ${moment(row.since)}`),
    ...row.tags.map(tag => h("span", { class: "tag" }, tag)), ...row.own_tags.map(tag => h("span", { class: "tag own", title: "its own tag, not certified" }, tag)),
    h("span", { class: "soft" }, row.up ? `${row.hops} hops from ${mesh.host}` : "")));
  const notices = [];
  if (!row.up) notices.push(h("p", { class: "notice bad" }, `Down for ${since(row.since)}.${row.heard_by.length ? ` Last heard by ${row.heard_by.join(", ")}.` : ""} ${row.reason}`));
  if (row.problem) notices.push(h("p", { class: "notice" }, row.problem.code === "not_allowed" ? `No permission to see its state: ${row.problem.text}` : row.problem.text));
  for (const [, text] of row.warnings) notices.push(h("p", { class: "notice" }, text));
  fill(parts.notice, ...notices);
}

const facts = rows => h("dl", { class: "facts" }, ...rows.flatMap(([name, value]) => [h("dt", {}, name), h("dd", { class: "mono" }, String(value))]));
const table = (heads, rows) => h("table", {}, h("thead", {}, h("tr", {}, ...heads.map(([title, kind]) => h("th", { scope: "col", class: kind ?? "" }, title)))), h("tbody", {}, ...rows));
const empty = text => h("p", { class: "soft" }, text);

function status({ row, status: state }) {
  if (!state) {
    const text = row.problem ? "Not shown." : row.up ? "Waiting for its answer." : "It is down.";
    for (const part of ["status", "links", "work"]) fill(parts[part], empty(text));
    return;
  }
  const { process, loop, work, identity } = state;
  fill(parts.status, facts([
    ["version", state.version], ["up for", span(state.uptime_s)], ["host", `${process.host}, process ${process.pid}`], ["listens on", state.listening.join(", ") || "no address"],
    ["identity", identity ? `${identity.mesh}, certificate for ${span(identity.expires_s)}` : "none"], ["memory", bytes(process.memory_bytes)],
    ["processor", percent(row.cpu)], ["descriptors", `${process.descriptors} of ${process.descriptor_limit ?? "any number"}`], ["loop lag", `${milliseconds(loop.lag_s)}, at worst ${milliseconds(loop.worst_lag_s)}`],
  ]));
  fill(parts.links, table([["Neighbour"], ["State"], ["Cost", "num"], ["RTT", "num"], ["In", "num"], ["Out", "num"]], state.links.slice(0, 200).map(link => h("tr", {},
    h("td", {}, link.node ? h("a", { href: `#/node/${link.node}` }, link.node) : link.where, link.reason ? h("div", { class: "soft" }, link.reason) : ""),
    h("td", { class: link.state === "up" ? "" : "down" }, `${link.state} ${span(link.since_s)}`), h("td", { class: "num" }, link.cost ?? "–"),
    h("td", { class: "num" }, milliseconds(link.rtt_s)), h("td", { class: "num" }, bytes(link.bytes_in)), h("td", { class: "num" }, bytes(link.bytes_out))))));
  fill(parts.work, facts([
    ["running", `${work.running} of ${work.max_running}`], ["served", work.served], ["its own requests", work.requested], ["jobs", `${work.jobs_running} running, ${work.jobs_waiting} waiting`],
  ]), work.requests.length ? table([["Client"], ["Directive"], ["Count", "num"], ["Failed", "num"], ["/s", "num"]], work.requests.map(({ client, directive, taken, failed }) => h("tr", {},
    h("td", { class: "mono" }, client), h("td", { class: "mono" }, directive), h("td", { class: "num" }, taken), h("td", { class: `num ${failed ? "down" : ""}` }, failed),
    h("td", { class: "num" }, rate(row.requested.find(([other, name]) => other === client && name === directive)?.[3]))))) : empty("Nothing was requested since it started."));
}

function routes() {
  const known = parts.known;
  if (!known) return;
  if (known.error) return fill(parts.routes, empty(known.error.text));
  const rows = known.routes.filter(route => route.node.includes(filter)).slice(0, 200);
  fill(parts.routes, table([["To"], ["Next hop"], ["Hops", "num"], ["Cost", "num"], [""]], rows.flatMap(route => [
    h("tr", { class: route.reachable ? "" : "down" }, h("td", {}, h("a", { href: `#/node/${route.node}` }, route.node)), h("td", {}, route.next_hop ?? "no route"), h("td", { class: "num" }, route.hops ?? "–"),
      h("td", { class: "num" }, route.cost ?? "–"), h("td", { class: "num" }, h("button", { class: "link", "data-key": `why ${route.node}`, "data-why": route.node, "aria-expanded": String(explained?.to === route.node) }, "why"))),
    ...(explained?.to === route.node ? [h("tr", {}, h("td", { colspan: 5 }, why(explained)))] : [])])));
}

view.addEventListener("click", async event => {
  const to = event.target.closest("[data-why]")?.dataset.why, id = shown;
  if (!to) return;
  explained = explained?.to === to ? null : { to };
  routes();
  if (!explained) return;
  const found = await get(`/api/nodes/${id}/why`, { to });
  if (shown === id && explained?.to === to) {
    explained = { to, found };
    routes();
  }
});

function why({ found }) {
  if (!found) return h("div", { class: "why-box soft" }, "…");
  if (found.error) return h("div", { class: "why-box" }, found.error.text);
  const lines = [];
  if (found.next_hop) lines.push(`over ${found.next_hop}: cost ${found.cost}, ${found.hops} hops, for ${span(found.since_s)}`);
  if (found.lost) lines.push(`left ${span(found.lost.age_s)} ago${found.lost.heard_by ? `, last heard by ${found.lost.heard_by}` : ""}${found.lost.reason ? `: ${found.lost.reason}` : ""}`);
  if (found.next_hop) lines.push(found.following ? `if that link is lost, ${found.following} takes over at once` : "if that link is lost, no other neighbour has a feasible route");
  return h("div", { class: "why-box" }, ...lines.map(line => h("div", {}, line)), ...found.offers.map(offer => h("div", { class: offer.state === "selected" ? "" : "soft" }, h("span", { class: "mono" }, `${offer.neighbour} ${offer.cost}`), ` ${offer.text}`)));
}

function jobs(kept) {
  if (kept.error) return fill(parts.jobs, empty(kept.error.code === "not_allowed" ? `No permission to list its jobs: ${kept.error.text}` : kept.error.code === "unknown_directive" ? "It keeps no jobs." : kept.error.text));
  if (!kept.jobs.length) return fill(parts.jobs, empty("None."));
  fill(parts.jobs, table([["Job"], ["State"], ["Work"], ["Owner"]], kept.jobs.map(job => h("tr", {}, h("td", { class: "mono" }, job.id.split("/")[1]),
    h("td", { class: ["failed", "lost"].includes(job.state) ? "down" : "" }, job.state), h("td", { class: "mono" }, job.title), h("td", {}, job.owner)))));
}

function log(events) {
  if (events.error) return fill(parts.log, empty(events.error.text));
  fill(parts.log, h("ol", {}, ...events.events.toReversed().map(event => h("li", {}, h("time", { class: "num soft" }, moment(event.time)), h("span", { class: "soft" }, event.kind.replaceAll("_", " ")), h("span", { class: "text" }, event.text)))));
}
