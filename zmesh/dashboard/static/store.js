// The mesh as the server knows it, kept up to date by server-sent events.

import { slowFrom } from "./judgement.js";

const MAX_EVENTS = 500, MAX_LINES = 900;
const token = new URLSearchParams(location.search).get("token") ?? "";
const listeners = new Set();

export const mesh = {
  nodes: new Map(), links: new Map(), events: [], lines: [], host: "", omitted: { nodes: 0, links: 0 },
  contact: { ok: false, since: null, text: "joining" }, connected: false, structure: 0, slowFrom: Infinity,
};

export function subscribe(listener) {
  listeners.add(listener);
}

export function address(path, query = {}) {
  return `${path}?${new URLSearchParams({ ...query, token })}`;
}

// The JSON that the server answers; an object with `error` where it can't.
export async function get(path, query = {}, signal = undefined) {
  try {
    const response = await fetch(address(path, query), { signal });
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    return { error: { code: "dashboard", text: "the dashboard does not answer" } };
  }
}

function take(update) {
  if (update.full) {
    for (const known of [mesh.nodes, mesh.links]) known.clear();
    mesh.events = [];
    mesh.lines = [];
    mesh.structure++;
  }
  for (const [rows, changed, removed] of [
    [mesh.nodes, update.nodes, update.removed.nodes], [mesh.links, update.links, update.removed.links],
  ]) {
    for (const row of changed) {
      if (!rows.has(row.id)) mesh.structure++;
      rows.set(row.id, row);
    }
    for (const key of removed) if (rows.delete(key)) mesh.structure++;
  }
  const lastEvent = mesh.events.at(-1)?.n ?? 0, lastTime = mesh.lines.at(-1)?.[0] ?? 0;
  const events = update.events.filter(event => event.n > lastEvent);
  if (events.length) mesh.events = [...mesh.events, ...events].slice(-MAX_EVENTS);
  const lines = update.lines.filter(line => line[0] > lastTime);
  if (lines.length) mesh.lines = [...mesh.lines, ...lines].slice(-MAX_LINES);
  if (update.links.length || update.removed.links.length) mesh.slowFrom = slowFrom(mesh.links.values());
  Object.assign(mesh, { host: update.host, contact: update.contact, omitted: update.omitted });
}

function changed(update) {
  for (const listener of listeners) listener(update);
}

export function connect() {
  const stream = new EventSource(address("/api/stream"));
  stream.onopen = () => { mesh.connected = true; changed(null); };
  stream.onerror = () => {
    mesh.connected = false;
    changed(null);
    if (stream.readyState === EventSource.CLOSED) setTimeout(connect, 3000);  // refused: too many pages
  };
  stream.onmessage = message => {
    const update = JSON.parse(message.data);
    take(update);
    changed(update);
  };
}
