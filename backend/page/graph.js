// The graph of a frame: modules as boxes that open, operators as boxes that tell what they are.
const ROOM = 20; // boxes to begin with,
const FEW = 7; // or more where else there would be so few
const LOOSE = 4; // operators between modules that make one box
const CROWD = 120; // boxes of one group, at most
const GAP = { x: 18, y: 22 };

// A tree over the order of execution: consecutive nodes of one module are one group. Groups are
// intervals of that order, so that whatever is closed, no edge ever goes backwards.
function treeOf(nodes) {
  const root = { label: "", children: grouped(nodes, 0, nodes.length, 0), low: 0, high: nodes.length, open: true, parent: null };
  adopt(root);
  return root;
}

function grouped(nodes, low, high, depth) {
  const children = [];
  for (let at = low; at < high;) {
    const step = nodes[at].module[depth];
    let end = at + 1;
    while (step !== undefined && end < high && nodes[end].module[depth] === step) end++;
    children.push(step === undefined || end - at === 1 ? { index: at, low: at, high: at + 1 } : inner(nodes, at, end, depth, step));
    at = end;
  }
  return thinned(nodes, children);
}

function inner(nodes, low, high, depth, label) {
  const children = grouped(nodes, low, high, depth + 1);
  if (depth && /^\d+$/.test(label)) label = `${nodes[low].module[depth - 1]}.${label}`;
  if (children.length === 1 && children[0].children) {
    const below = children[0].label;
    return { ...children[0], label: below.startsWith(`${label}.`) ? below : `${label}.${below}` };
  }
  return { label, children, low, high, open: false };
}

// Loose operators between modules (a mask, say) are put together where they run in one region, and
// so are many of one line; what runs in eager is never hidden among others.
function thinned(nodes, children) {
  const loose = (child) => !child.children && nodes[child.low].kind === "operator" && nodes[child.low].region !== null;
  const between = children.some((child) => child.children);
  const together = runs(children, (child) => (between && loose(child) ? nodes[child.low].region : null), LOOSE);
  const byLine = together.length > CROWD ? runs(together, (child) => (loose(child) ? nodes[child.low].location : null), 2) : together;
  if (byLine.length <= CROWD) return byLine;
  const length = Math.ceil(Math.sqrt(byLine.length));
  const slices = [];
  for (let at = 0; at < byLine.length; at += length) slices.push(bundle(nodes, byLine.slice(at, at + length)));
  return slices;

  function runs(items, key, least) {
    const found = [];
    for (const item of items) {
      const last = found[found.length - 1];
      if (last && last.key !== null && last.key === key(item)) last.items.push(item);
      else found.push({ key: key(item), items: [item] });
    }
    return found.flatMap((run) => (run.items.length >= least ? [bundle(nodes, run.items)] : run.items));
  }
}

function bundle(nodes, children) {
  const label = short(nodes[children[0].low].location) || "operators";
  return { label, children, low: children[0].low, high: children[children.length - 1].high, open: false };
}

function adopt(group) {
  for (const child of group.children || []) {
    child.parent = group;
    adopt(child);
  }
}

function visible(item, found = []) {
  if (item.children && item.open) item.children.forEach((child) => visible(child, found));
  else found.push(item);
  return found;
}

function openSome(root) {
  for (;;) {
    const closed = visible(root).filter((item) => item.children);
    const top = Math.min(...closed.map(depthOf));
    const level = closed.filter((item) => depthOf(item) === top);
    const more = level.reduce((sum, item) => sum + item.children.length - 1, 0);
    const boxes = visible(root).length;
    if (!level.length || boxes + more > (boxes < FEW ? CROWD : ROOM)) return;
    level.forEach((item) => { item.open = true; });
  }
}

function depthOf(item) {
  return item.parent ? 1 + depthOf(item.parent) : 0;
}

function setOpen(item, open) {
  if (!item.children) return;
  item.open = open || !item.parent;
  item.children.forEach((child) => setOpen(child, open));
}

// Where every visible box goes: each below all that it reads, near their middle.
function layout(nodes, root) {
  const items = visible(root);
  const owner = [];
  for (const item of items) for (let at = item.low; at < item.high; at++) owner[at] = item;
  const rows = [];
  for (const item of items) {
    Object.assign(item, { from: new Set(), to: new Set(), layer: 0, ...measured(nodes, item) });
    for (let at = item.low; at < item.high; at++) for (const read of nodes[at].reads) if (owner[read] !== item) item.from.add(owner[read]);
    for (const source of item.from) {
      source.to.add(item);
      item.layer = Math.max(item.layer, source.layer + 1);
    }
  }
  // Then everything goes down to just above its first reader.
  for (const item of [...items].reverse()) {
    if (item.to.size) item.layer = Math.min(...[...item.to].map((to) => to.layer)) - 1;
    (rows[item.layer] = rows[item.layer] || []).push(item);
  }
  const order = rows.filter(Boolean);
  order.forEach((row) => row.reverse());
  for (const [towards, sequence] of [["from", order], ["to", [...order].reverse()], ["from", order]]) {
    for (const row of sequence) settle(row, towards);
  }
  let y = 0;
  for (const row of order) {
    const height = Math.max(...row.map((item) => item.height));
    row.forEach((item) => { item.y = y + (height - item.height) / 2; });
    y += height + GAP.y;
  }
  return items;
}

function settle(row, towards) {
  const wish = new Map(row.map((item) => {
    const others = [...item[towards]].map((other) => other.x).filter((x) => x !== undefined);
    return [item, others.length ? others.reduce((sum, x) => sum + x, 0) / others.length : item.x || 0];
  }));
  row.sort((a, b) => wish.get(a) - wish.get(b));
  let edge = -Infinity;
  let off = 0;
  for (const item of row) {
    item.x = Math.max(wish.get(item), edge + item.width / 2);
    edge = item.x + item.width / 2 + GAP.x;
    off += item.x - wish.get(item);
  }
  row.forEach((item) => { item.x -= off / row.length; });
}

function measured(nodes, item) {
  const [title, more] = words(nodes, item);
  const width = Math.max(title.length * 7.6, more.length * 6.4) + 26;
  return { title, more, width: Math.max(width, 70), height: more ? 44 : 30 };
}

function words(nodes, item) {
  if (item.children) return [clipped(item.label, 34), count(item.high - item.low, "operator")];
  const node = nodes[item.index];
  if (node.kind === "output") return ["output", ""];
  const title = node.kind === "input" ? node.name : node.op.replace(/^aten\./, "").replace(/\.default$/, "");
  return [clipped(title, 34), clipped(node.shape, 34)];
}

function clipped(text, length) {
  return text.length > length ? `${text.slice(0, length - 1)}…` : text;
}

function graphCard(report) {
  const graphs = report.graphs.map((graph, index) => ({ graph, index })).filter(({ graph }) => graph.nodes.length);
  const card = h("section", { class: "card graph stretched" });
  if (!graphs.length) {
    card.append(h("h2", { style: "margin-bottom:12px" }, "Graph"), h("p", { class: "quiet" }, "The compiled function is gone, and its graphs with it."));
    return card;
  }
  const holder = h("div", { class: "canvas", tabindex: "0", role: "img", "aria-label": "the graph" });
  const about = h("div", { class: "about" });
  const view = new GraphView(report, holder, about);
  const choice = h("select", { "aria-label": "which graph", onchange: () => view.show(graphs[choice.value].graph) },
    graphs.map(({ graph }, index) => h("option", { value: index },
      `${graph.guard_set} ${graph.kind}, ${count(graph.native_ops + graph.eager_ops, "operator")}`)));
  const button = (text, title, action) => h("button", { type: "button", title, onclick: action }, text);
  const providers = [...new Set(graphs.flatMap(({ graph }) => graph.regions.map((region) => region.providers[0])))].filter(Boolean);
  card.append(
    h("div", { class: "tools" }, h("h2", null, "Graph"), choice,
      button("+", "larger", () => view.zoom(1.3)), button("−", "smaller", () => view.zoom(1 / 1.3)), button("fit", "all of it", () => view.fit()),
      button("open all", "every operator", () => view.openAll()), button("close", "as at the beginning", () => view.restart())),
    holder,
    h("ul", { class: "keys" },
      providers.map((provider) => h("li", null, h("span", { class: "dot", style: `background:var(--${colourOf(provider)})` }), provider)),
      h("li", null, h("span", { class: "dot", style: "background:var(--eager)" }), "eager PyTorch"),
      h("li", { class: "quiet" }, "a box with a number opens")),
    about);
  requestAnimationFrame(() => view.show(graphs[0].graph));
  return card;
}

class GraphView {
  constructor(report, holder, about) {
    Object.assign(this, { report, holder, about, pinned: null });
    this.layer = s("g");
    this.svg = s("svg", null, this.layer);
    holder.append(this.svg, h("div", { class: "hint" }, "drag to move, ctrl and wheel to zoom"));
    const pointers = new Map();
    this.svg.addEventListener("pointerdown", (event) => {
      pointers.set(event.pointerId, event);
      this.moved = false;
    });
    window.addEventListener("pointermove", (event) => {
      const before = pointers.get(event.pointerId);
      if (!before) return;
      const others = [...pointers.values()].filter((other) => other.pointerId !== event.pointerId);
      if (Math.abs(event.clientX - before.clientX) + Math.abs(event.clientY - before.clientY) < 4 && !this.moved) return;
      this.moved = true;
      this.svg.classList.add("moving");
      if (others.length) {
        const [other] = others;
        const length = (a) => Math.hypot(a.clientX - other.clientX, a.clientY - other.clientY) || 1;
        this.zoom(length(event) / length(before), other);
      } else {
        this.shift(event.clientX - before.clientX, event.clientY - before.clientY);
      }
      pointers.set(event.pointerId, event);
    });
    for (const end of ["pointerup", "pointercancel"]) {
      window.addEventListener(end, (event) => {
        pointers.delete(event.pointerId);
        this.svg.classList.remove("moving");
      });
    }
    this.svg.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey && document.activeElement !== holder) return;
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY / 400), event);
    }, { passive: false });
    window.addEventListener("resize", () => this.fit());
  }

  show(graph) {
    this.graph = graph;
    this.root = treeOf(graph.nodes);
    this.restart();
  }

  restart() {
    setOpen(this.root, false);
    openSome(this.root);
    this.draw();
    this.fit();
  }

  openAll() {
    setOpen(this.root, true);
    this.draw();
    this.fit();
  }

  // Open or close, with the place that was clicked staying where it is.
  toggle(item, open) {
    const before = { x: item.x, y: item.y };
    item.open = open;
    this.draw();
    const after = visible(item)[0];
    if (before.x !== undefined && after.x !== undefined) this.shift((before.x - after.x) * this.k, (before.y - after.y) * this.k);
  }

  draw() {
    const items = layout(this.graph.nodes, this.root);
    const edges = items.flatMap((item) => [...item.from].map((source) => ({ source, item, path: edge(source, item) })));
    this.edges = edges;
    this.boxes = new Map(items.map((item) => [item, this.box(item)]));
    this.layer.replaceChildren(...edges.map((each) => each.path), ...this.boxes.values());
    this.tell(null);
    this.holder.setAttribute("data-boxes", items.length);
  }

  box(item) {
    const { width, height } = item;
    const { fill, line, eager } = this.colours(item);
    const tall = item.more ? -4 : 4.5;
    const box = s("g", {
      class: "box", tabindex: "-1", transform: `translate(${item.x - width / 2} ${item.y})`,
      onpointerenter: () => this.tell(item), onclick: () => this.click(item),
    }, s("rect", { width, height, rx: 8, style: `fill:var(--${fill});stroke:var(--${line})`, "stroke-dasharray": eager === 1 ? "4 3" : null }),
      item.children && eager > 0 && eager < 1
        ? s("rect", { class: "meter", x: 8, y: height - 6, height: 3, rx: 1.5, width: Math.max(4, (width - 16) * eager), style: "fill:var(--eager)" }) : null,
      s("text", { x: width / 2, y: height / 2 + tall, "text-anchor": "middle" }, item.title),
      item.more ? s("text", { class: "more", x: width / 2, y: height / 2 + 12, "text-anchor": "middle" }, item.more) : null);
    return box;
  }

  // Of what the box consists: the colours, and how much of it is eager.
  colours(item) {
    const nodes = this.graph.nodes.slice(item.low, item.high).filter((node) => node.kind === "operator");
    if (!nodes.length) return { fill: "card", line: "other", eager: 0 };
    const eager = nodes.filter((node) => node.region === null).length / nodes.length;
    if (eager === 1) return { fill: "eager-soft", line: "eager", eager };
    const region = this.graph.regions[nodes.find((node) => node.region !== null).region];
    const colour = region.providers.length ? colourOf(region.providers[0]) : "native";
    return { fill: `${colour}-soft`, line: colour, eager };
  }

  click(item) {
    if (this.moved) return;
    if (item.children) this.toggle(item, true);
    else this.pinned = this.pinned === item ? null : item;
    this.tell(item.children ? null : item);
  }

  tell(item) {
    const shown = this.pinned && this.boxes.has(this.pinned) ? this.pinned : item;
    for (const { source, item: target, path } of this.edges) path.classList.toggle("lit", source === shown || target === shown);
    for (const [each, box] of this.boxes) box.classList.toggle("lit", each === shown);
    this.about.replaceChildren(...(shown ? this.described(shown) : [h("span", { class: "quiet" }, "Point at a box, or tap it, for what it is and where it comes from.")]));
  }

  described(item) {
    const parents = [];
    for (let group = item.parent; group && group.parent; group = group.parent) parents.unshift(group);
    const path = parents.map((group) => h("button", { type: "button", title: "close it", onclick: () => this.toggle(group, false) }, group.label));
    if (item.children) return [h("div", { class: "path" }, path, " ", h("b", null, item.label), ` ${count(item.high - item.low, "operator")}`)];
    const node = this.graph.nodes[item.index];
    const where = node.kind !== "operator" ? h("span", { class: "tag" }, node.kind)
      : node.region === null ? h("span", { class: "tag eager" }, "eager")
        : h("span", { class: "tag native" }, `region ${node.region}`);
    return [
      h("div", { class: "path" }, path, " ", h("b", null, node.kind === "operator" ? node.op : node.name), " ", where, " ", h("span", { class: "quiet" }, node.shape)),
      node.reason ? h("div", null, node.reason) : null,
      node.weights.length ? h("div", { class: "quiet" }, `reads ${node.weights.join(", ")}`) : null,
      node.location ? place({ location: node.location, source: this.report.sources[node.location] }) : null].filter(Boolean);
  }

  bounds() {
    const items = [...this.boxes.keys()];
    const left = Math.min(...items.map((item) => item.x - item.width / 2));
    const right = Math.max(...items.map((item) => item.x + item.width / 2));
    const bottom = Math.max(...items.map((item) => item.y + item.height));
    return { left, width: right - left, height: bottom };
  }

  fit() {
    if (!this.boxes) return;
    const { left, width, height } = this.bounds();
    const room = { width: this.holder.clientWidth - 40, height: this.holder.clientHeight - 48 };
    // Where all of it would be too small to read, its beginning.
    this.k = Math.max(Math.min(room.width / width, room.height / height, 1.1), 0.42);
    const middle = width * this.k > room.width ? [...this.boxes.keys()][0].x : left + width / 2;
    this.x = 20 + room.width / 2 - middle * this.k;
    this.y = height * this.k < room.height ? 28 + (room.height - height * this.k) / 2 : 28;
    this.place();
  }

  shift(dx, dy) {
    this.x += dx;
    this.y += dy;
    this.place();
  }

  zoom(factor, at) {
    const frame = this.holder.getBoundingClientRect();
    const x = at ? at.clientX - frame.left : frame.width / 2;
    const y = at ? at.clientY - frame.top : frame.height / 2;
    const k = Math.min(Math.max(this.k * factor, 0.02), 4);
    this.x = x - ((x - this.x) * k) / this.k;
    this.y = y - ((y - this.y) * k) / this.k;
    this.k = k;
    this.place();
  }

  place() {
    this.layer.setAttribute("transform", `translate(${this.x} ${this.y}) scale(${this.k})`);
  }
}

function edge(source, item) {
  const [x1, y1, x2, y2] = [source.x, source.y + source.height, item.x, item.y];
  const bend = Math.max((y2 - y1) / 2, 8);
  return s("path", { class: "edge", d: `M${x1} ${y1}C${x1} ${y1 + bend} ${x2} ${y2 - bend} ${x2} ${y2}` });
}
