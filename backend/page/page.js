"use strict";

// Everything that is shown goes through textContent or setAttribute: no text becomes markup.
const SVG = "http://www.w3.org/2000/svg";
const PROVIDERS = ["native", "second", "third"]; // colours, in the order of first use

function h(tag, attributes, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

function s(tag, attributes, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

function time(ms) {
  if (ms >= 10000) return `${(ms / 1000).toFixed(1)} s`;
  if (ms >= 1000) return `${(ms / 1000).toFixed(2)} s`;
  if (ms >= 100) return `${ms.toFixed(0)} ms`;
  if (ms >= 10) return `${ms.toFixed(1)} ms`;
  return ms >= 1 || ms === 0 ? `${ms.toFixed(2)} ms` : `${(ms * 1000).toFixed(0)} µs`;
}

function size(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (bytes >= 1000 && unit < units.length - 1) [bytes, unit] = [bytes / 1000, unit + 1];
  return `${unit && bytes < 100 ? bytes.toFixed(1) : bytes.toFixed(0)} ${units[unit]}`;
}

function count(number, singular, plural) {
  return `${number.toLocaleString("en")} ${number === 1 ? singular : plural || singular + "s"}`;
}

function short(location) {
  return location.replace(/^.*[\\/]/, "");
}

function place(line) {
  if (!line.location) return h("span", { class: "quiet" }, "an unknown line");
  return h("span", { class: "place" },
    h("span", { title: line.location }, short(line.location)),
    line.source ? h("pre", { class: "code" }, line.source) : null);
}

function percent(part, whole) {
  if (!whole) return "–";
  const value = (100 * part) / whole;
  return `${value < 100 && value > 99.9 ? "99.9" : value.toFixed(value >= 10 || value === 0 ? 0 : 1)}%`;
}

function tile(name, fact, value, ...more) {
  return h("div", { class: "tile" }, h("div", { class: "name" }, name),
    h("div", { class: "value", "data-fact": fact }, String(value)), h("div", { class: "more" }, ...more));
}

function fact(name, value) {
  return h("span", { "data-fact": name }, String(value));
}

function tiles(report) {
  const sum = report.summary;
  const all = sum.native_ops + sum.eager_ops;
  const copies = report.copies.reduce((total, copy) => total + copy.count, 0);
  const weights = report.memory.frozen_bytes + report.memory.live_bytes;
  const spent = report.phases.reduce((total, phase) => total + phase.ms, 0);
  return h("section", { class: "tiles" },
    tile("In ONNX Runtime", "native_share", percent(sum.native_ops, all),
      h("div", { class: "share" },
        h("i", { style: `flex:${sum.native_ops};background:var(--native)` }),
        h("i", { style: `flex:${sum.eager_ops};background:var(--eager)` })),
      fact("native_ops", sum.native_ops), " native, ", fact("eager_ops", sum.eager_ops), " eager"),
    tile("Graphs", "graphs", sum.graphs, count(report.frames.length, "frame"), ", ",
      fact("guard_sets", sum.guard_sets), sum.guard_sets === 1 ? " guard set" : " guard sets"),
    tile("Regions", "regions", sum.regions, fact("onnx_nodes", sum.onnx_nodes), " ONNX nodes"),
    tile("Graph breaks", "graph_breaks", sum.graph_breaks, sum.graph_breaks ? "left to Python" : "all in one piece"),
    tile("Compile time", "compile_time", time(spent), "ours; ", fact("cache_hits", sum.cache_hits), " of ",
      sum.cache_hits + sum.cache_misses, " programs cached"),
    tile("Runs", "calls", sum.calls.toLocaleString("en"), fact("sessions", sum.sessions),
      sum.sessions === 1 ? " session opened" : " sessions opened"),
    tile("Weights", "weights", size(weights),
      report.memory.live_bytes ? `${size(report.memory.live_bytes)} of it live` : weights ? "frozen" : "none read"),
    tile("Copies", "copies", copies, copies ? "see below" : "of inputs, outputs"));
}

function adviceCard(report) {
  const items = report.advice.map((one, index) => h("li", { "data-row": "advice" },
    h("span", { class: "mark" }, index + 1),
    h("div", null, h("b", null, one.title),
      one.location ? h("span", { class: "quiet small", title: one.location }, ` at ${short(one.location)}`) : null,
      h("div", { class: "why" }, one.why),
      one.code ? h("code", { class: "source" }, one.code) : null)));
  return h("section", { class: "card first" }, h("h2", null, "What to do next"),
    items.length ? h("ol", { class: "advice" }, items)
      : h("p", { class: "quiet" }, "Nothing: everything runs in ONNX Runtime, in one piece."));
}

function stack(parts) {
  const whole = parts.reduce((total, part) => total + part.ms, 0);
  return [
    h("div", { class: "stack" }, parts.filter((part) => part.ms > 0).map((part) =>
      h("i", { style: `flex:${part.ms};background:var(--${part.colour})`, title: `${part.name}: ${time(part.ms)}` }))),
    h("ul", { class: "keys" }, parts.map((part) => h("li", { title: part.what },
      h("span", { class: "dot", style: `background:var(--${part.colour})` }),
      h("span", null, part.name, " ", h("b", { "data-fact": `ms_${part.fact}` }, time(part.ms)),
        h("span", { class: "quiet" }, ` ${percent(part.ms, whole)}`)))))];
}

function runTimeCard(report) {
  const card = h("section", { class: "card" }, h("h2", null, "Run time by operator"));
  const times = report.times;
  if (!times) {
    card.append(h("p", { class: "quiet" }, "Not measured. A report with run times, from both profilers:"),
      h("pre", { class: "source code" }, 'dynamo_onnx.profile(compiled, x).save("report.html")'));
    return card;
  }
  card.append(...stack([
    { name: "ONNX Runtime", fact: "onnx", ms: times.onnx_ms, colour: "native", what: "the runs of sessions" },
    { name: "eager", fact: "eager", ms: times.eager_ms, colour: "eager", what: "operators between the sessions" },
    { name: "around them", fact: "other", ms: times.other_ms, colour: "other",
      what: "Dynamo's guards, AOTAutograd's code, ours, and the profilers" }]));
  const most = 10;
  const ops = times.ops.slice(0, most);
  const longest = Math.max(...ops.map((op) => op.ms), 1e-9);
  card.append(h("div", { class: "bars" }, ops.map((op) => h("div", { class: "bar", "data-row": "op" },
    h("div", { class: "what", title: `${op.op}\n${op.line.location}\n${op.line.source}` },
      h("b", { style: "font-weight:600" }, op.op.replace(/^aten\./, "").replace(/\.default$/, "")),
      h("span", { class: "quiet small" }, ` × ${op.count}`, op.line.location ? ` ${short(op.line.location)}` : "")),
    h("div", { class: "track" }, h("i", {
      style: `width:${(100 * op.ms) / longest}%;background:var(--${op.engine === "eager" ? "eager" : colourOf(op.provider)})` })),
    h("div", { class: "number" }, time(op.ms))))));
  const rest = times.ops.slice(most);
  if (rest.length) {
    card.append(h("p", { class: "quiet small", style: "margin:8px 0 0" },
      `and ${rest.length} more, ${time(rest.reduce((total, op) => total + op.ms, 0))} together`));
  }
  return card;
}

function costsCard(report) {
  const colours = ["third", "second", "native"];
  const memory = report.memory;
  const card = h("section", { class: "card" }, h("h2", null, "Compile time by phase"),
    ...stack(report.phases.map((phase, index) => ({
      name: phase.name, fact: phase.name, what: phase.what, ms: phase.ms, colour: colours[index % colours.length] }))),
    h("h2", { style: "margin:22px 0 8px" }, "Memory and copies"));
  const rows = [
    ["weights, frozen in sessions", size(memory.frozen_bytes), "frozen_bytes"],
    ["weights, read at each call", size(memory.live_bytes), "live_bytes"],
    ["sessions open", memory.open_sessions, "open_sessions"],
    ...report.copies.map((copy) => [copy.where + (copy.line.location ? ` at ${short(copy.line.location)}` : ""), copy.count]),
    ...report.placed.map((placed) => [`nodes on ${placed.provider}`, placed.count])];
  if (!report.copies.length) rows.push(["inputs and outputs copied", 0, "copied"]);
  card.append(h("table", null, rows.map(([name, value, known]) =>
    h("tr", null, h("td", null, name), h("td", { class: "right", "data-fact": known }, value)))));
  for (const text of report.quantized) card.append(h("p", { class: "small quiet" }, `quantized: ${text}`));
  return card;
}

function fallbacksCard(report) {
  const measured = report.fallbacks.some((one) => one.ms !== null);
  const card = h("section", { class: "card" }, h("h2", null, "What runs in eager PyTorch"));
  if (!report.fallbacks.length) {
    card.append(h("p", { class: "quiet" }, "Nothing."));
    return card;
  }
  const head = ["operator", "why", "where", "count", ...(measured ? ["time"] : [])];
  card.append(h("div", { class: "scroll" }, h("table", { class: "stacked" },
    h("thead", null, h("tr", null, head.map((name) => h("th", { class: ["count", "time"].includes(name) ? "right" : null }, name)))),
    h("tbody", null, report.fallbacks.map((one, index) => h("tr", { "data-row": "fallback" },
      h("td", null, h("code", null, one.op)),
      h("td", null, h("span", { class: "tag eager" }, one.kind), h("div", { class: "small place" }, one.detail),
        one.hint ? h("div", { class: "small quiet place" }, one.hint) : null),
      h("td", null, place(one.line)),
      h("td", { class: "right", "data-name": "count", "data-fact": `fallback_count_${index}` }, one.count),
      measured ? h("td", { class: "right", "data-name": "time", "data-fact": `fallback_ms_${index}` }, one.ms === null ? "–" : time(one.ms)) : null))))));
  return card;
}

function framesCard(report) {
  return h("section", { class: "card" }, h("h2", null, "Frames and guard sets"), report.frames.map((frame) =>
    h("div", { class: "frame" },
      h("div", { class: "title" }, h("b", null, frame.function || `frame ${frame.id}`),
        h("span", { class: "quiet small", title: frame.line.location }, short(frame.line.location))),
      h("div", { class: "sets" }, frame.guard_sets.map((set) => guardSet(report, set))),
      frame.graph_break ? h("div", { class: "ended", title: frame.graph_break }, "ended by a graph break, see below") : null)));
}

function guardSet(report, set) {
  const told = set.graphs.map((index) => {
    const graph = report.graphs[index];
    return `${graph.kind}: ${graph.native_ops} native in ${count(graph.regions.length, "region")}, ${graph.eager_ops} eager`;
  });
  return h("details", { "data-row": "guard_set" },
    h("summary", null, h("code", null, set.id), h("span", { class: "quiet small" }, `${told.join("; ")}; ${count(set.guards.length, "guard")}`)),
    set.guards.length ? h("pre", { class: "guards code" }, set.guards.join("\n")) : h("p", { class: "quiet small" }, "Dynamo has dropped them."));
}

function breaksCard(report) {
  if (!report.graph_breaks.length) return null;
  return h("section", { class: "card" }, h("h2", null, "Left to Python by Dynamo"),
    report.graph_breaks.map((one) => h("div", { class: "frame", "data-row": "break" },
      h("div", { class: "place" }, one.reason), place(one.line))));
}

const seen = [];
function colourOf(provider) {
  if (!seen.includes(provider)) seen.push(provider);
  return PROVIDERS[Math.min(seen.indexOf(provider), PROVIDERS.length - 1)];
}

function showReport(report, page) {
  for (const graph of report.graphs) for (const region of graph.regions) region.providers.slice(0, 1).forEach(colourOf);
  const names = [...new Set(report.frames.map((frame) => frame.function.replace(/ from line \d+$/, "")))].filter(Boolean);
  const versions = Object.entries(report.versions).map((each) => each.join(" ")).join(", ");
  page.append(
    h("header", null, h("div", null, h("div", { class: "quiet small" }, "dynamo-onnx report"), h("h1", null, names.slice(0, 3).join(", ") || "Nothing compiled")),
      h("div", { class: "quiet small" }, `${report.made.replace("T", " ").replace("+00:00", " UTC")}, ${versions}`)),
    tiles(report),
    h("div", { class: "cards" },
      h("div", { class: "column" }, graphCard(report), runTimeCard(report)),
      h("div", { class: "column" }, adviceCard(report), costsCard(report), framesCard(report), breaksCard(report)),
      fallbacksCard(report)));
  document.documentElement.setAttribute("data-shown", "true");
}
