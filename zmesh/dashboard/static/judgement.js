// What of the mesh needs attention: what is down, slow, or warns. Pure functions of rows.

const SLOW_RTT = 0.12, SLOW_AT_LEAST = 0.03, SLOW_RATIO = 5;

export function median(values) {
  if (!values.length) return 0;
  const sorted = Float64Array.from(values).sort();
  return sorted[Math.floor(sorted.length / 2)];
}

// From which round-trip time on a link is slow: much slower than the others, or slow for anybody.
export function slowFrom(links) {
  const typical = median([...links].filter(link => link.rtt !== null).map(link => link.rtt));
  return Math.min(SLOW_RTT, Math.max(SLOW_AT_LEAST, SLOW_RATIO * typical));
}

export const isSlow = (link, limit) => link.state !== "down" && link.rtt !== null && link.rtt >= limit;

export function stateOf(node) {
  if (!node.up) return "off";
  if (node.problem && node.problem.code !== "not_allowed") return "warn";
  if (node.warnings.length || node.duplicate) return "warn";
  return node.sampled === null ? "unknown" : "ok";
}

export const STATE_TEXT = { off: "down", warn: "warning", unknown: "up", ok: "up" };

// One entry for each thing, the gravest first: {bad, kind, node, link, what, since, why}.
// Links with a round-trip time from `limit` on are slow.
export function attention(nodes, links, limit) {
  const found = [], denied = [];
  const downNodes = new Set([...nodes.values()].filter(node => !node.up).map(node => node.id));
  for (const node of [...nodes.values()].filter(node => !node.up).toSorted((a, b) => b.since - a.since)) {
    const by = node.heard_by.length ? `last heard by ${node.heard_by.join(", ")}` : "";
    found.push({ bad: true, node: node.id, what: `${node.id} is down`, since: node.since, why: [by, node.reason].filter(Boolean).join(": ") });
  }
  for (const link of links.values()) {
    if (link.state === "down" && !downNodes.has(link.a) && !downNodes.has(link.b))
      found.push({ bad: true, link: link.id, what: `link ${link.a} – ${link.b} is down`, since: link.since, why: link.reason });
  }
  const slow = [...links.values()].filter(link => isSlow(link, limit)).toSorted((a, b) => b.rtt - a.rtt);
  for (const link of slow) found.push({ link: link.id, rtt: link.rtt, what: `link ${link.a} – ${link.b} is slow` });
  for (const link of links.values())
    if (link.state === "suspect") found.push({ link: link.id, what: `link ${link.a} – ${link.b} is silent` });
  for (const node of nodes.values()) {
    if (!node.up) continue;
    if (node.duplicate) found.push({ bad: true, node: node.id, what: `two nodes are called ${node.id}` });
    if (node.problem?.code === "not_allowed") denied.push(node);
    else if (node.problem) found.push({ node: node.id, what: `${node.id} does not answer`, why: node.problem.text });
    for (const [code, text] of node.warnings) {
      if (code === "link_slow" || code === "link_suspect" || code === "duplicate_id") continue;
      if (code === "link_down" && [...downNodes].some(id => text.startsWith(`no link with ${id} `))) continue;
      found.push({ node: node.id, what: node.id, why: text });
    }
  }
  if (denied.length) {
    const what = denied.length === 1 ? `no permission to see the state of ${denied[0].id}` : `no permission to see the state of ${denied.length} nodes`;
    found.push({ node: denied[0].id, what, why: denied[0].problem.text });
  }
  return found;
}

// Whether a node matches the words of a search: parts of its id, tag:NAME, is:down, is:up, is:warning, version:TEXT.
export function matches(node, search) {
  return search.toLowerCase().split(/\s+/).filter(Boolean).every(word => {
    const [, key, value] = /^(tag|is|version):(.*)$/.exec(word) ?? [];
    if (key === "tag") return [...node.tags, ...node.own_tags].some(tag => tag.toLowerCase().startsWith(value));
    if (key === "is") return value === "up" ? node.up : STATE_TEXT[stateOf(node)].startsWith(value);
    if (key === "version") return node.version.startsWith(value);
    return node.id.toLowerCase().includes(word) || [...node.tags, ...node.own_tags].some(tag => tag.toLowerCase() === word);
  });
}

// What was requested of whom by whom, but for what shows the state of nodes: {client, node, directive, count, rate, failed}, the busiest first.
export function requests(nodes) {
  const found = [];
  for (const node of nodes.values())
    for (const [client, directive, count, rate, failed] of node.requested)
      if (!directive.startsWith("zmesh:")) found.push({ client, node: node.id, directive, count, rate, failed });
  return found.toSorted((a, b) => b.rate - a.rate || b.count - a.count || (a.node < b.node ? -1 : 1));
}
