// Draws the plots of one report from the JSON inside the page. No request is made; colours come from page.css.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("report-data").textContent);
  const engines = ["native", "onnxruntime", "litert", "openvino", "keras", "torch"];
  const tint = (c) => `var(--${engines.includes(c.engine) ? c.engine : "other"})`;
  const sign = { winner: "★ ", today: "▸ ", honest: "▹ " };
  const byId = (id) => document.getElementById(id);
  const known = (x) => x !== null && x !== undefined;

  // The same rules as units.py, so that axis, tooltip and table read alike.
  function digits(value) {
    if (value === 0) return "0";
    const rounded = Number(value.toPrecision(3));
    if (Math.abs(rounded) >= 99.95) return Math.round(rounded).toLocaleString("en-US");
    return rounded.toFixed(Math.max(0, 2 - Math.floor(Math.log10(Math.abs(rounded)))));
  }
  function time(ns) {
    if (!known(ns)) return "—";
    if (ns < 99.95) return `${digits(ns)} ns`;
    if (ns < 999500) return `${digits(ns / 1e3)} µs`;
    return ns < 999.5e6 ? `${digits(ns / 1e6)} ms` : `${digits(ns / 1e9)} s`;
  }
  // Axis labels: round numbers in their own unit.
  function tick(ns) {
    const [scale, unit] = ns >= 1e9 ? [1e9, "s"] : ns >= 1e6 ? [1e6, "ms"] : ns >= 1e3 ? [1e3, "µs"] : [1, "ns"];
    return `${Number((ns / scale).toPrecision(3))} ${unit}`;
  }
  function power(x) {
    const exponent = Math.log10(x);
    return Number.isInteger(exponent) && Math.abs(exponent) > 2 ? `1e${exponent}` : String(Number(x.toPrecision(2)));
  }
  // Ticks on a logarithmic axis: decades, with 2 and 5 between them where the span is short; thinned where it is long.
  function logTicks([low, high], most = 9) {
    const first = Math.floor(Math.log10(low)), last = Math.ceil(Math.log10(high));
    const steps = last - first <= 2 ? [1, 2, 5] : [1];
    const ticks = [];
    for (let e = first; e <= last; e++) for (const s of steps) ticks.push(Number(`${s}e${e}`));
    const inside = ticks.filter((t) => t >= low * 0.999 && t <= high * 1.001);
    const every = Math.ceil(inside.length / most);
    return inside.filter((_, i) => i % every === 0);
  }
  function span(values, below = 1.25, above = 1.25) {
    const good = values.filter((v) => known(v) && v > 0);
    return good.length ? [Math.min(...good) / below, Math.max(...good) * above] : [1, 10];
  }
  const clip = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

  function draw(host, options) {
    const label = host.dataset.label;
    const svg = Plot.plot({ style: { background: "transparent", fontSize: "12px", color: "var(--ink)" }, ...options });
    svg.setAttribute("role", "img");
    if (label) svg.setAttribute("aria-label", label);
    host.querySelector(":scope > svg")?.remove();
    host.append(svg);
  }

  function logAxis(domain, { anchor = "bottom", most = 9, format = tick, label = null } = {}) {
    const ticks = logTicks(domain, most);
    const [axis, grid] = anchor === "left" ? [Plot.axisY, Plot.gridY] : [Plot.axisX, Plot.gridX];
    return [
      grid(ticks, { stroke: "var(--line)", strokeOpacity: 1 }),
      // "text", not "tickFormat": on a logarithmic scale the latter hides labels by a rule of its own
      axis(ticks, { anchor, text: format, tickSize: 0, tickPadding: 6, label, color: "var(--soft)", labelArrow: "none" }),
    ];
  }

  // ---- every candidate on one axis -------------------------------------------------------------------------------
  function matrix(host) {
    const rows = data.candidates, width = host.clientWidth, narrow = width < 620;
    const band = narrow ? 40 : 27, left = narrow ? 4 : Math.min(250, 40 + 6.6 * Math.max(...rows.map((c) => c.label.length)));
    const right = narrow ? 12 : 150, shift = narrow ? 9 : 0;
    const domain = span(rows.flatMap((c) => [c.p50, c.p99, c.p999, c.max]));
    const keys = rows.map((c) => c.key), of = (f) => ({ y: "key", dy: shift, ...f });
    const marks = [...logAxis(domain, { most: narrow ? 5 : 9 })];
    for (const role of ["winner", "today", "honest"]) {
      marks.push(Plot.barX(rows.filter((c) => c.role === role), {
        y: "key", x1: domain[0], x2: domain[1], fill: `var(--${role}-soft)`, insetLeft: -left, insetRight: -right,
      }));
    }
    const winner = rows.find((c) => c.role === "winner");
    if (winner) marks.push(Plot.ruleX([winner.p50], { stroke: "var(--winner)", strokeDasharray: "2 4", strokeOpacity: 0.8 }));
    for (const c of rows) {
      const colour = c.status === "wrong" ? "var(--bad)" : tint(c), one = [c];
      marks.push(
        Plot.ruleY(one, of({ x1: "p50", x2: "max", stroke: colour, strokeOpacity: 0.35 })),
        Plot.dot(one, of({ x: "max", r: 3, stroke: colour, fill: "var(--card)", strokeOpacity: 0.8 })),
      );
      if (known(c.p99)) marks.push(Plot.ruleY(one, of({ x1: "p50", x2: "p99", stroke: colour, strokeWidth: 5, strokeOpacity: 0.45 })));
      if (known(c.p999)) marks.push(Plot.tickX(one, of({ x: "p999", stroke: colour, strokeWidth: 1.5, inset: narrow ? 12 : 7 })));
      marks.push(
        c.status === "wrong"
          ? Plot.dot(one, of({ x: "p50", r: 5, symbol: "times", stroke: colour, strokeWidth: 2 }))
          : Plot.dot(one, of({ x: "p50", r: 5, fill: colour, stroke: "var(--card)", strokeWidth: 1.5 })),
      );
    }
    const name = (c) => clip(`${sign[c.role] ?? ""}${c.label}${c.status === "ok" ? "" : ` (${c.status})`}`, narrow ? 34 : 36);
    for (const c of rows) {
      const weight = c.role === "winner" ? 700 : 400, fill = c.status === "wrong" ? "var(--bad)" : "var(--ink)";
      const at = { y: "key", frameAnchor: "left", textAnchor: "start", fontWeight: weight, fill };
      marks.push(Plot.text([c], { ...at, text: name, dx: narrow ? 4 : 10 - left, dy: narrow ? -9 : 0 }));
      const number = { ...at, frameAnchor: "right", textAnchor: "end", fontVariant: "tabular-nums" };
      if (narrow) marks.push(Plot.text([c], { ...number, text: (d) => d.texts.p50, dx: 0, dy: -9 }));
      else
        marks.push(
          Plot.text([c], { ...number, text: (d) => d.texts.p50, dx: 74 }),
          Plot.text([c], { ...number, text: (d) => d.texts.p99, dx: 142, fill: "var(--soft)", fontWeight: 400 }),
        );
    }
    if (!narrow)
      for (const [word, dx] of [["p50", 74], ["p99", 142]])
        marks.push(Plot.text([word], { frameAnchor: "top-right", textAnchor: "end", dx, dy: -13, text: (d) => d, fill: "var(--soft)" }));
    marks.push(Plot.tip(rows, Plot.pointerY({ y: "key", x: "p50", title: facts, fill: "var(--card)", stroke: "var(--line-strong)" })));
    draw(host, {
      width, height: rows.length * band + (narrow ? 32 : 48), marginLeft: left, marginRight: right, marginTop: narrow ? 4 : 20, marginBottom: 28,
      x: { type: "log", domain, axis: null }, y: { domain: keys, axis: null, padding: 0 }, marks,
    });
  }
  function facts(c) {
    const t = c.texts;
    return [c.label, `p50 ${t.interval}`, `p90 ${t.p90}`, `p99 ${t.p99}`, `p99.9 ${t.p999}`, `max ${t.max}`, c.remark].join("\n");
  }

  // ---- distributions ---------------------------------------------------------------------------------------------
  const shown = new Set();
  function leaders() {
    const best = new Map();
    for (const c of data.candidates) if (c.ecdf.length && c.status !== "wrong" && !best.has(c.engine)) best.set(c.engine, c.key);
    const roles = data.candidates.filter((c) => c.role && c.ecdf.length).map((c) => c.key);
    return new Set([...roles, ...best.values()]);
  }
  function curves(host) {
    const width = host.clientWidth, tail = document.querySelector("input[name=curve]:checked")?.value !== "ecdf";
    const rows = data.candidates.filter((c) => shown.has(c.key));
    const points = rows.map((c) => c.ecdf.map(([ns, share]) => ({ c, ns, share, odds: 1 / (1 - share + 0.5 / c.count) })));
    const all = points.flat(), domain = span(all.map((p) => p.ns), 1.15, 1.15);
    const style = (c) => ({ stroke: tint(c), strokeWidth: c.role === "winner" ? 3 : 1.6, strokeDasharray: c.role === "today" ? "6 3" : null });
    const odds = [1, Math.max(10, ...all.map((p) => p.odds))];
    const share = (x) => (x === 1 ? "all" : `1 in ${x.toLocaleString("en-US")}`);
    const marks = tail
      ? [...logAxis(domain, { anchor: "left", most: 8 }), ...logAxis(odds, { format: share, most: width < 620 ? 4 : 7, label: "calls slower than this" })]
      : [...logAxis(domain, { most: width < 620 ? 5 : 9 }), Plot.gridY({ stroke: "var(--line)", strokeOpacity: 1 }),
         Plot.axisY({ tickFormat: "%", tickSize: 0, label: "calls at most this slow", labelArrow: "none", color: "var(--soft)" })];
    const at = tail ? { x: "odds", y: "ns" } : { x: "ns", y: "share" };
    for (const p of points) {
      if (!p.length) continue;
      const start = tail ? [] : [{ ...p[0], share: 0 }];
      marks.push(Plot.line([...start, ...p], { ...at, curve: tail ? "step-before" : "step-after", ...style(p[0].c), strokeLinejoin: "round" }));
    }
    const height = Math.min(460, Math.max(300, width * 0.5)), top = 24, bottom = tail ? 46 : 34;
    const named = tail && rows.length <= 10 && width >= 760;
    if (named)
      for (const [end, y] of apart(points.filter((p) => p.length).map((p) => p.at(-1)), domain, height - bottom - top)) {
        const words = clip((sign[end.c.role] ?? "") + end.c.label, 24), weight = end.c.role === "winner" ? 700 : 400;
        marks.push(Plot.text([end], { y, frameAnchor: "right", textAnchor: "start", dx: 8, text: () => words, fill: tint(end.c), fontWeight: weight, title: () => end.c.label }));
      }
    const words = (p) => `${p.c.label}\n${(100 * p.share).toPrecision(4)} % of calls within ${time(p.ns)}`;
    marks.push(Plot.tip(all, Plot.pointer({ ...at, title: words, fill: "var(--card)", stroke: "var(--line-strong)" })));
    draw(host, {
      width, height, marginLeft: 62, marginRight: named ? 172 : 24, marginTop: top, marginBottom: bottom,
      x: { type: "log", domain: tail ? odds : domain, axis: null },
      y: tail ? { type: "log", domain, axis: null } : { domain: [0, 1], axis: null }, marks,
    });
  }
  // Labels for the ends of curves, moved up or down until none covers another: [point, latency to stand at].
  function apart(ends, [low, high], pixels, gap = 15) {
    const scale = pixels / Math.log(high / low), at = (ns) => Math.log(high / ns) * scale;
    const sorted = ends.map((end) => ({ end, y: at(end.ns) })).sort((a, b) => a.y - b.y);
    sorted.forEach((s, i) => i && (s.y = Math.max(s.y, sorted[i - 1].y + gap)));
    let floor = pixels;
    for (const s of sorted.reverse()) floor = (s.y = Math.min(s.y, floor)) - gap;
    return sorted.map((s) => [s.end, () => high * Math.exp(-s.y / scale)]);
  }
  function chips(host, presets, redraw) {
    const buttons = [];
    const refresh = () => {
      for (const [key, button] of buttons) button.setAttribute("aria-pressed", String(shown.has(key)));
      redraw();
    };
    const add = (text, act) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = text;
      button.addEventListener("click", () => (act(), refresh()));
      host.append(button);
      return button;
    };
    const usable = data.candidates.filter((c) => c.ecdf.length);
    for (const c of usable) {
      const button = add((sign[c.role] ?? "") + c.label, () => shown.delete(c.key) || shown.add(c.key));
      button.style.setProperty("--tint", tint(c));
      button.title = c.label;
      buttons.push([c.key, button]);
    }
    const pick = (keys) => (shown.clear(), keys.forEach((k) => shown.add(k)));
    for (const [text, keys] of [["leaders", leaders], ["all", () => usable.map((c) => c.key)], ["none", () => []]]) {
      if (usable.length > 3) presets.append(add(text, () => pick(keys())));
    }
    pick(leaders());
    refresh();
  }

  // ---- call after call -------------------------------------------------------------------------------------------
  function runs(host) {
    host.replaceChildren();
    for (const c of data.candidates) {
      const b = c.band, rows = b.call.map((call, i) => ({ call, low: b.low[i], middle: b.middle[i], high: b.high[i] }));
      if (!rows.length) continue;
      const figure = document.createElement("figure"), caption = document.createElement("figcaption");
      const name = document.createElement("b"), remark = document.createElement("span");
      name.textContent = (sign[c.role] ?? "") + c.label;
      name.title = c.label;
      remark.textContent = `${c.count.toLocaleString("en-US")} samples · ${c.remark}`;
      caption.append(name, remark);
      figure.append(caption);
      figure.className = `role-${c.role}`;
      figure.dataset.label = `Latency of ${c.label}, call after call; ${c.remark}`;
      host.append(figure);
      const [low, high] = span([...b.low, ...b.high], 1.1, 1.1), domain = [low, Math.max(high, low * 3)];
      draw(figure, {
        width: figure.clientWidth - 24, height: 112, marginLeft: 46, marginRight: 8, marginTop: 8, marginBottom: 20,
        x: { domain: [0, c.count], axis: null }, y: { type: "log", domain, axis: null },
        marks: [
          ...logAxis(domain, { anchor: "left", most: 4 }),
          Plot.axisX({ ticks: 3, tickSize: 0, tickFormat: (d) => (d >= 1000 ? `${d / 1000}k` : String(d)), label: null, color: "var(--soft)" }),
          Plot.areaY(rows, { x: "call", y1: "low", y2: "high", fill: tint(c), fillOpacity: 0.28 }),
          Plot.line(rows, { x: "call", y: "middle", stroke: tint(c), strokeWidth: 1.4 }),
        ],
      });
    }
  }

  // ---- errors ----------------------------------------------------------------------------------------------------
  function errors(host) {
    const rows = data.errors, width = host.clientWidth, narrow = width < 620;
    const bounds = Object.entries(data.tolerance).filter(([name, v]) => (name === "absolute" || name === "relative") && v > 0);
    const [low, high] = span([...rows.flatMap((r) => [r.absolute, r.relative]), ...bounds.map(([, v]) => v)], 3, 3);
    // Exact answers have no place on a logarithmic axis: they stand at its left end. NaN and infinity at the right.
    const exact = rows.some((r) => r.absolute === 0);
    const domain = [Math.min(low, 1e-9) / (exact ? 10 : 1), Math.max(high, 1e-4)];
    const place = (error) => (error === null ? domain[1] : Math.max(error, domain[0]));
    const left = narrow ? 4 : Math.min(250, 40 + 6.6 * Math.max(...rows.map((r) => r.label.length))), right = narrow ? 14 : 150;
    const marks = [...logAxis(exact ? [domain[0] * 5, domain[1]] : domain, { format: power, most: narrow ? 5 : 10 })];
    if (exact) marks.push(Plot.text(["exact"], { frameAnchor: "bottom-left", textAnchor: narrow ? "start" : "middle", dy: 18, text: (d) => d, fill: "var(--soft)" }));
    const at = (value) => left + ((width - left - right) * Math.log(value / domain[0])) / Math.log(domain[1] / domain[0]);
    bounds.sort((a, b) => a[1] - b[1]).forEach(([name, value], i) => {
      const words = `${name} ≤ ${power(value)}`;
      const first = bounds.length > 1 && i === 0; // the lower bound's words to its left, the other's to its right
      marks.push(Plot.ruleX([value], { stroke: "var(--bad)", strokeDasharray: name === "absolute" ? null : "4 4", strokeWidth: 1.3 }));
      const ends = at(value) + 4 + 6.6 * words.length, crowded = !first && ends > width - right + 44; // would meet the columns' heads
      const leftwards = first || (narrow && ends > width); // no room to the right
      marks.push(Plot.text([value], { x: (d) => d, frameAnchor: "top", dy: narrow ? -12 - 13 * i : crowded ? -26 : -12, dx: leftwards ? -4 : 4, text: () => words, fill: "var(--bad)", textAnchor: leftwards ? "end" : "start" }));
    });
    rows.forEach((r, i) => {
      const colour = r.status === "wrong" ? "var(--bad)" : tint(r), y = i, one = [r], weight = r.role === "winner" ? 700 : 400;
      const common = { y: () => y, dy: narrow ? 8 : 0 };
      marks.push(
        Plot.ruleY(one, { ...common, x1: place(r.absolute), x2: place(r.relative), stroke: colour, strokeOpacity: 0.35 }),
        Plot.dot(one, { ...common, x: place(r.relative), r: 3.5, stroke: colour, fill: "var(--page)" }),
        r.status === "wrong"
          ? Plot.dot(one, { ...common, x: place(r.absolute), r: 5, symbol: "times", stroke: colour, strokeWidth: 2 })
          : Plot.dot(one, { ...common, x: place(r.absolute), r: 4.5, fill: colour, stroke: "var(--page)" }),
      );
      const text = { y: () => y, textAnchor: "start", frameAnchor: "left", fontWeight: weight, fill: r.status === "wrong" ? "var(--bad)" : "var(--ink)" };
      marks.push(Plot.text(one, { ...text, text: () => clip((sign[r.role] ?? "") + r.label, 36), dx: narrow ? 4 : 10 - left, dy: narrow ? -9 : 0 }));
      const said = { ...text, frameAnchor: "right", textAnchor: "end", fontVariant: "tabular-nums", dy: narrow ? -9 : 0, stroke: "var(--page)", strokeWidth: 4 };
      marks.push(Plot.text(one, { ...said, text: () => r.texts[0], dx: narrow ? 0 : 74 }));
      if (!narrow) marks.push(Plot.text(one, { ...said, text: () => r.texts[1], dx: 142, fill: "var(--soft)" }));
    });
    if (!narrow)
      for (const [word, dx] of [["abs.", 74], ["rel.", 142]])
        marks.push(Plot.text([word], { frameAnchor: "top-right", textAnchor: "end", dx, dy: -13, text: (d) => d, fill: "var(--soft)" }));
    draw(host, {
      width, height: rows.length * (narrow ? 38 : 23) + 72, marginLeft: left, marginRight: right, marginTop: 40, marginBottom: 28,
      x: { type: "log", domain, axis: null }, y: { domain: rows.map((_, i) => i), type: "band", axis: null, padding: 0 }, marks,
    });
  }

  // ---- operators -------------------------------------------------------------------------------------------------
  function operators(host) {
    const ops = data.ops, width = host.clientWidth, left = Math.min(190, 16 + 6.6 * Math.max(...ops.map((o) => o.name.length)));
    const most = Math.floor(left / 6.6), rows = ops.map((o, i) => ({ ...o, i }));
    const words = (o) => [`${o.name}${o.op ? ` (${o.op})` : ""}`, `${time(o.time_ns)}, ${(100 * o.share).toPrecision(3)} %`, known(o.limit_ns) ? `at the machine's limit ${time(o.limit_ns)}` : "", o.kernel].filter(Boolean).join("\n");
    draw(host, {
      width, height: rows.length * 25 + 12, marginLeft: left, marginRight: 104, marginTop: 4, marginBottom: 4,
      x: { axis: null, domain: [0, Math.max(...ops.flatMap((o) => [o.time_ns, o.limit_ns ?? 0]))] }, y: { axis: null, domain: rows.map((o) => o.i), padding: 0.3 },
      marks: [
        Plot.barX(rows, { x: "time_ns", y: "i", fill: "var(--honest)", fillOpacity: 0.75, rx: 2 }),
        Plot.tickX(rows.filter((o) => known(o.limit_ns)), { x: "limit_ns", y: "i", stroke: "var(--ink)", strokeWidth: 2, insetTop: -2, insetBottom: -2 }),
        Plot.text(rows, { y: "i", frameAnchor: "left", textAnchor: "start", dx: -left, text: (o) => clip(o.name, most), title: "name" }),
        Plot.text(rows, { y: "i", x: "time_ns", textAnchor: "start", dx: 6, text: (o) => `${time(o.time_ns)} · ${(100 * o.share).toFixed(0)} %`, fill: "var(--soft)" }),
        Plot.tip(rows, Plot.pointerY({ y: "i", x: "time_ns", title: words, fill: "var(--card)", stroke: "var(--line-strong)" })),
      ],
    });
  }
  function roofline(host) {
    const { gmac_per_s: peak, int8_gmac_per_s: whole, gb_per_s: levels } = data.peaks, width = host.clientWidth;
    const ops = data.ops.filter((o) => o.macs > 0 && o.bytes > 0 && o.gmacs_per_s > 0).map((o) => ({ ...o, intensity: o.macs / o.bytes }));
    const top = Math.max(peak, whole ?? 0), ridges = Object.values(levels).map((gb) => peak / gb);
    const x = span([...ops.map((o) => o.intensity), ...ridges], 4, 4), y = span([peak, top, ...ops.map((o) => o.gmacs_per_s)], 3, 1.8);
    const marks = [...logAxis(y, { anchor: "left", format: power, label: "GMAC/s" }), ...logAxis(x, { format: power, most: 6, label: "multiply-adds per byte" })];
    for (const [level, gb] of Object.entries(levels)) {
      const start = Math.max(x[0], y[0] / gb), ridge = Math.min(top / gb, x[1]);
      const roof = [{ x: start, y: start * gb }, { x: ridge, y: Math.min(top, ridge * gb) }];
      marks.push(Plot.line(roof, { x: "x", y: "y", stroke: "var(--soft)", strokeWidth: 1.3 }));
    }
    // Names stand beside the feet of their lines; levels whose lines are too close for a name between share one.
    const feet = Object.entries(levels).sort((a, b) => b[1] - a[1]), names = [];
    feet.forEach(([level, gb], i) => {
      names.push(level);
      const next = feet[i + 1];
      if (next && ((width - 64) * Math.log(gb / next[1])) / Math.log(x[1] / x[0]) < 30) return;
      const up = Math.max(x[0] * gb, y[0]) * (y[1] / y[0]) ** 0.06, shared = names.splice(0).join(", ");
      marks.push(Plot.text([gb], { x: () => up / gb, y: () => up, text: () => shared, textAnchor: "start", dx: 7, dy: 6, fill: "var(--soft)", stroke: "var(--page)", strokeWidth: 4 }));
    });
    const flat = Math.min(...ridges, x[1]);
    marks.push(Plot.line([{ x: ridges.length ? flat : x[0], y: peak }, { x: x[1], y: peak }], { x: "x", y: "y", stroke: "var(--soft)", strokeWidth: 2 }));
    marks.push(Plot.text([peak], { x: () => x[1], y: () => peak, text: () => `peak ${digits(peak)} GMAC/s`, textAnchor: "end", dy: -9, fill: "var(--soft)" }));
    if (whole) {
      const start = Math.min(...Object.values(levels).map((gb) => whole / gb), x[1]);
      marks.push(Plot.line([{ x: start, y: whole }, { x: x[1], y: whole }], { x: "x", y: "y", stroke: "var(--soft)", strokeWidth: 2, strokeDasharray: "5 4" }));
      marks.push(Plot.text([whole], { x: () => x[1], y: () => whole, text: () => `integers ${digits(whole)} GMAC/s`, textAnchor: "end", dy: -9, fill: "var(--soft)" }));
    }
    // Names go to the side that has room; of names that would cover each other the longest time's stays.
    const part = (value, [low, high]) => Math.log(value / low) / Math.log(high / low), named = [];
    for (const o of ops.slice(0, 5)) {
      const spot = { ...o, at: part(o.intensity, x), up: part(o.gmacs_per_s, y) };
      if (named.every((n) => (n.at < 0.5) !== (spot.at < 0.5) || Math.abs(n.up - spot.up) > 0.06)) named.push(spot);
    }
    const words = (o) => `${o.name} (${o.op})\n${digits(o.gmacs_per_s)} GMAC/s, ${digits(o.gb_per_s ?? 0)} GB/s\n${(100 * o.share).toPrecision(3)} % of the call`;
    marks.push(
      Plot.dot(ops, { x: "intensity", y: "gmacs_per_s", r: (o) => 4 + 14 * Math.sqrt(o.share), fill: "var(--honest)", fillOpacity: 0.75, stroke: "var(--page)" }),
      ...["start", "end"].map((side) => Plot.text(named.filter((o) => (o.at < 0.5) === (side === "start")), { x: "intensity", y: "gmacs_per_s", text: (o) => clip(o.name, 22), dx: side === "start" ? 14 : -14, textAnchor: side, stroke: "var(--page)", strokeWidth: 4, fill: "var(--ink)" })),
      Plot.tip(ops, Plot.pointer({ x: "intensity", y: "gmacs_per_s", title: words, fill: "var(--card)", stroke: "var(--line-strong)" })),
    );
    draw(host, {
      width, height: 320, marginLeft: 48, marginRight: 16, marginTop: 22, marginBottom: 44, r: { type: "identity" },
      x: { type: "log", domain: x, axis: null }, y: { type: "log", domain: y, axis: null }, marks,
    });
  }

  // A link may ask for a view: report.html#theme=dark&curve=ecdf
  const asked = new URLSearchParams(location.hash.slice(1));

  // ---- the page --------------------------------------------------------------------------------------------------
  const plots = [["plot-matrix", matrix], ["plot-curves", curves], ["plot-time", runs], ["plot-error", errors], ["plot-ops", operators], ["plot-roofline", roofline]];
  const redraw = () => plots.forEach(([id, plot]) => byId(id) && plot(byId(id)));
  function sortable(table) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending", body = table.tBodies[0];
      const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
      const order = (a, b) => {
        const [p, q] = [value(a), value(b)];
        if (p === "" || q === "") return (p === "") - (q === ""); // what was not measured stays below either way
        const numbers = !Number.isNaN(Number(p)) && !Number.isNaN(Number(q));
        return (numbers ? p - q : p.localeCompare(q)) * (up ? 1 : -1);
      };
      heads.forEach((h) => h.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      body.append(...[...body.rows].sort(order));
    }));
  }
  function theme(button) {
    const steps = ["", "light", "dark"], words = { "": "Theme: system", light: "Theme: light", dark: "Theme: dark" };
    const set = (name) => {
      if (name) document.documentElement.dataset.theme = name;
      else delete document.documentElement.dataset.theme;
      button.textContent = words[name];
    };
    let at = Math.max(0, steps.indexOf(asked.get("theme") ?? ""));
    set(steps[at]);
    button.addEventListener("click", () => set(steps[(at = (at + 1) % steps.length)]));
  }
  function copying(button) {
    button.addEventListener("click", async () => {
      const code = button.parentElement.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(code); // no clipboard here: leave it selected
      }
    });
  }

  theme(byId("theme"));
  for (const input of document.querySelectorAll("input[name=curve]")) input.checked = input.value === (asked.get("curve") ?? "tail");
  document.querySelectorAll("table.sortable").forEach(sortable);
  document.querySelectorAll("button.copy").forEach(copying);
  redraw();
  if (byId("chips")) {
    chips(byId("chips"), byId("presets"), () => curves(byId("plot-curves")));
    document.querySelectorAll("input[name=curve]").forEach((i) => i.addEventListener("change", () => curves(byId("plot-curves"))));
  }
  let wide = innerWidth, waiting = 0;
  addEventListener("resize", () => {
    if (innerWidth === wide) return;
    wide = innerWidth;
    clearTimeout(waiting);
    waiting = setTimeout(redraw, 120);
  });
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((d) => (d.open = true)));
})();
