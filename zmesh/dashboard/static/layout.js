// Where nodes are drawn: a force layout (d3-force) that begins with rings around the host, so that it is nearly done.

const RING = 70, TICKS_AT_ONCE = 8, BUDGET = 8;

export class Layout {
  constructor() {
    this.points = new Map();
    this.edges = [];
    this.simulation = d3.forceSimulation([])
      .force("charge", d3.forceManyBody().strength(-140).distanceMax(420).theta(1.0))
      .force("link", d3.forceLink([]).id(point => point.id).distance(48).strength(0.5))
      .force("x", d3.forceX().strength(0.035)).force("y", d3.forceY().strength(0.035))
      .force("collide", d3.forceCollide(12))
      .alphaDecay(0.04).stop();
  }

  // Takes the nodes and links that there are; those that stay keep their places.
  update(nodes, links, host) {
    const added = [...nodes.keys()].filter(id => !this.points.has(id));
    for (const id of this.points.keys()) if (!nodes.has(id)) this.points.delete(id);
    if (added.length > this.points.size) this.#rings(nodes, links, host);
    for (const id of added) if (!this.points.has(id)) this.points.set(id, { id, ...this.#beside(id, links) });
    this.edges = [];
    for (const link of links.values())
      if (this.points.has(link.a) && this.points.has(link.b)) this.edges.push({ id: link.id, source: link.a, target: link.b });
    this.simulation.nodes([...this.points.values()]);
    this.simulation.force("link").links(this.edges);
    if (this.points.size) this.simulation.alpha(Math.max(this.simulation.alpha(), added.length ? 0.5 : 0.1));
  }

  // Moves nodes for some milliseconds; whether they still move.
  step() {
    if (this.simulation.alpha() < 0.02 || !this.points.size) return false;
    const until = performance.now() + BUDGET;
    for (let tick = 0; tick < TICKS_AT_ONCE && performance.now() < until; tick++) this.simulation.tick();
    return true;
  }

  // Moves nodes for so many milliseconds at most, so that a small mesh is drawn as it will stay.
  settle(milliseconds) {
    const until = performance.now() + milliseconds;
    while (this.simulation.alpha() >= 0.02 && this.points.size && performance.now() < until) this.simulation.tick();
  }

  find(x, y, radius) {
    return this.simulation.find(x, y, radius) ?? null;
  }

  bounds() {
    const points = [...this.points.values()];
    return points.length && { x: d3.extent(points, point => point.x), y: d3.extent(points, point => point.y) };
  }

  #beside(id, links) {
    for (const link of links.values()) {
      const other = link.a === id ? link.b : link.b === id ? link.a : null, point = this.points.get(other);
      if (point) return { x: point.x + 20, y: point.y + 20 };
    }
    return {};
  }

  // Each node on the ring of its hops from the host, near its parent.
  #rings(nodes, links, host) {
    const beside = new Map([...nodes.keys()].map(id => [id, []]));
    for (const { a, b } of links.values()) { beside.get(a)?.push(b); beside.get(b)?.push(a); }
    const seen = new Set(), order = [];
    const visit = (id, hops, from, to) => {
      order.push([id, hops, from, to]);
      seen.add(id);
    };
    if (nodes.has(host)) visit(host, 0, 0, 2 * Math.PI);
    for (let at = 0; at < order.length; at++) {
      const [id, hops, from, to] = order[at], next = beside.get(id).filter(each => nodes.has(each) && !seen.has(each));
      next.forEach((each, index) => {
        const share = (to - from) / next.length;
        visit(each, hops + 1, from + index * share, from + (index + 1) * share);
      });
    }
    for (const [id, hops, from, to] of order) {
      const angle = (from + to) / 2;
      this.points.set(id, { id, x: hops * RING * Math.cos(angle), y: hops * RING * Math.sin(angle) });
    }
  }
}
