"use strict";
(() => {
  const { $, known, node, draw, ticks, widthOf, zoom, themeSwitch } = page;
  const data = JSON.parse(document.getElementById("data").textContent);
  const metrics = data.metrics;
  const labels = [...new Set(data.scenes.flatMap((s) => s.contenders.map((c) => c.label)))];
  const hidden = new Set();
  const dashes = ["", "7 3", "2 3", "9 3 2 3", "5 2 1 2 1 2"];
  const markers = ["circle", "square", "up", "diamond", "down", "cross"];
  let scene = data.scenes[0];

  // Small helpers

  const colour = (label) => `var(--c${labels.indexOf(label) % 9})`;
  const dash = (label) => dashes[labels.indexOf(label) % dashes.length];
  const marker = (label) => markers[labels.indexOf(label) % markers.length];
  const shown = (list) => list.filter((c) => !hidden.has(c.label));

  function written(value, unit) {
    if (!known(value)) return "–";
    if (unit === "truth" && scene.truth_unit === "m") return written(1000 * value, "mm");
    if (unit === "share") return `${(100 * value).toFixed(1)}%`;
    if (unit === "bytes") return value >= 1e6 ? `${(value / 1e6).toFixed(0)} MB` : `${(value / 1e3).toFixed(0)} kB`;
    if (Number.isInteger(value) && Math.abs(value) < 1e7 && unit !== "s") return String(value);
    const size = Math.abs(value);
    if (size >= 1000) return value.toFixed(0);
    if (size >= 100) return value.toFixed(1);
    if (size >= 1) return value.toFixed(2);
    return String(Number(value.toPrecision(3)));
  }
  const suffix = (unit) => (["", "share", "bytes"].includes(unit) ? "" : ` ${unit === "truth" ? (scene.truth_unit === "m" ? "mm" : "units of the truth") : unit}`);
  const full = (value, unit) => written(value, unit) + (known(value) ? suffix(unit) : "");
  function standing(name, label, of = scene) {
    const ranking = of.rankings[name];
    if (!ranking) return "";
    if (ranking.best === label) return "best";
    if (ranking.inside_noise.includes(label)) return "tie";
    const value = of.contenders.find((c) => c.label === label).metrics[name];
    return ranking.tested.includes(label) || !known(value) ? "" : "untested";
  }
  const mark = (name, label) => ({ best: " ★", tie: " ≈", untested: " ?" })[standing(name, label)] || "";
  const present = (of = scene) => Object.keys(metrics).filter((name) => of.contenders.some((c) => known(c.metrics[name])));

  function choose(label, options, value, change) {
    const select = node("select", { on: { change: () => change(select.value) } });
    const groups = new Map();
    for (const [key, text, group] of options) {
      const option = node("option", { value: key, selected: key === value }, text);
      if (!group) select.append(option);
      else {
        if (!groups.has(group)) { groups.set(group, node("optgroup", { label: group })); select.append(groups.get(group)); }
        groups.get(group).append(option);
      }
    }
    return node("label", {}, label, select);
  }
  const metricOptions = (names) => names.map((name) => [name, metrics[name].label.startsWith(metrics[name].group.toLowerCase()) ? metrics[name].label : `${metrics[name].group}: ${metrics[name].label}`, metrics[name].group]);

  function legend(redraw) {
    const list = node("div", { class: "legend", role: "group", "aria-label": "Show or hide" });
    for (const label of labels) {
      const sample = draw("svg", { viewBox: "0 0 26 12", "aria-hidden": "true" });
      sample.append(draw("line", { x1: 0, x2: 26, y1: 6, y2: 6, stroke: colour(label), "stroke-width": 2.5, "stroke-dasharray": dash(label) }), symbol(label, 13, 6, 4));
      list.append(node("button", { type: "button", "aria-pressed": String(!hidden.has(label)), on: { click: () => { hidden.has(label) ? hidden.delete(label) : hidden.add(label); redraw(); } } }, sample, label));
    }
    return list;
  }
  function symbol(label, x, y, r) {
    const fill = { fill: colour(label), stroke: "var(--paper)", "stroke-width": 1 };
    switch (marker(label)) {
      case "square": return draw("rect", { x: x - r, y: y - r, width: 2 * r, height: 2 * r, ...fill });
      case "up": return draw("path", { d: `M${x},${y - r * 1.2}L${x + r * 1.2},${y + r}H${x - r * 1.2}Z`, ...fill });
      case "down": return draw("path", { d: `M${x},${y + r * 1.2}L${x + r * 1.2},${y - r}H${x - r * 1.2}Z`, ...fill });
      case "diamond": return draw("path", { d: `M${x},${y - r * 1.35}L${x + r * 1.35},${y}L${x},${y + r * 1.35}L${x - r * 1.35},${y}Z`, ...fill });
      case "cross": return draw("path", { d: `M${x - r},${y - r}L${x + r},${y + r}M${x - r},${y + r}L${x + r},${y - r}`, stroke: colour(label), "stroke-width": 2.5 });
      default: return draw("circle", { cx: x, cy: y, r, ...fill });
    }
  }

  // Tables

  const verdicts = { best: node("span", { class: "star", title: "best" }, " ★"), tie: node("span", { class: "same", title: "cannot be told from the best" }, " ≈"), untested: node("span", { class: "same", title: "not tested: nothing says how large the noise is" }, " ?") };

  function table(names, caption) {
    let sorted = null, upward = true;
    const head = node("tr");
    const body = node("tbody");
    const columns = [["", "matcher", ""], ...names.map((n) => [n, metrics[n].label, arrow(metrics[n]) + (metrics[n].unit && !["share", "bytes"].includes(metrics[n].unit) ? ` ${suffix(metrics[n].unit)}` : "")])];
    const cells = columns.map(([name, label, hint]) => {
      const button = node("button", { type: "button", on: { click: () => sort(name) } }, label, hint ? node("small", {}, hint) : null);
      const cell = node("th", { scope: "col", "aria-sort": "none" }, button);
      head.append(cell);
      return cell;
    });
    function sort(name) {
      upward = sorted === name ? !upward : name === "" || metrics[name].better !== "higher";
      sorted = name;
      cells.forEach((cell, i) => cell.setAttribute("aria-sort", columns[i][0] === name ? (upward ? "ascending" : "descending") : "none"));
      fill();
    }
    function fill() {
      const rows = [...scene.contenders];
      if (sorted !== null) {
        const value = (c) => (sorted === "" ? c.label : c.metrics[sorted]);
        rows.sort((a, b) => {
          const [x, y] = [value(a), value(b)];
          if (sorted !== "" && known(x) !== known(y)) return known(x) ? -1 : 1;
          return (upward ? 1 : -1) * (typeof x === "string" ? x.localeCompare(y) : (x ?? 0) - (y ?? 0));
        });
      }
      body.replaceChildren(...rows.map((c) => {
        const row = node("tr", { class: c.state === "failed" ? "failed" : null }, node("th", { scope: "row" }, c.label, c.state === "failed" ? node("span", { class: "badge" }, "failed") : null));
        for (const name of names) {
          const unit = metrics[name].unit;
          const range = c.spread[name] || c.intervals[name];
          const cell = node("td", { class: standing(name, c.label) || null }, written(c.metrics[name], unit), verdicts[standing(name, c.label)]?.cloneNode(true));
          if (range && known(c.metrics[name])) cell.append(node("small", { title: c.spread[name] ? "smallest and largest over the seeds" : "95% interval" }, `${written(range[0], unit)} … ${written(range[1], unit)}`));
          row.append(cell);
        }
        return row;
      }));
    }
    fill();
    return node("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, node("table", {}, node("thead", {}, head), body));
  }
  const arrow = (metric) => ({ higher: "↑", lower: "↓" })[metric.better] || "";

  // Charts

  function bars(figure, name) {
    const metric = metrics[name];
    const list = shown(scene.contenders).filter((c) => known(c.metrics[name]));
    const sign = metric.better === "lower" ? 1 : -1;
    list.sort((a, b) => sign * (a.metrics[name] - b.metrics[name]));
    const ends = list.flatMap((c) => [c.metrics[name], ...(c.spread[name] || c.intervals[name] || [])]).filter(known);
    if (!ends.length) { figure.replaceChildren(node("p", { class: "soft" }, "Nobody has this measure here.")); return; }
    const W = widthOf(figure), narrow = W < 560, left = narrow ? 8 : 150, right = narrow ? 16 : 165, step = narrow ? 50 : 34, H = list.length * step + 34;
    const low = Math.min(0, ...ends), high = Math.max(...ends, low + 1e-12);
    const x = (v) => left + ((v - low) / (high - low)) * (W - left - right);
    const svg = draw("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${metric.label}: ${list.map((c) => `${c.label} ${full(c.metrics[name], metric.unit)}`).join(", ")}` });
    for (const t of ticks(low, high, narrow ? 3 : 6)) {
      svg.append(draw("line", { class: "grid", x1: x(t), x2: x(t), y1: 0, y2: H - 26 }));
      const text = draw("text", { class: "soft", x: x(t), y: H - 8, "text-anchor": "middle" });
      text.textContent = written(t, metric.unit);
      svg.append(text);
    }
    list.forEach((c, i) => {
      const y = i * step + (narrow ? 22 : 7), h = narrow ? 16 : 19, tie = standing(name, c.label) === "tie";
      svg.append(draw("rect", { class: "bar", x: x(Math.min(0, c.metrics[name])), y, width: Math.max(1, Math.abs(x(c.metrics[name]) - x(0))), height: h, rx: 2, fill: colour(c.label), "fill-opacity": tie ? 0.55 : 1, stroke: colour(c.label), "stroke-width": 1.5, "stroke-dasharray": tie ? "4 3" : "" }));
      const range = c.spread[name] || c.intervals[name];
      let end = x(c.metrics[name]);
      if (range && range.every(known)) {
        const [a, b] = range.map(x), m = y + h / 2;
        svg.append(draw("path", { class: "whisker", d: `M${a},${m}H${b}M${a},${m - 5}V${m + 5}M${b},${m - 5}V${m + 5}` }));
        end = Math.max(end, b);
      }
      const label = draw("text", narrow ? { x: left, y: y - 6 } : { x: left - 8, y: y + 14, "text-anchor": "end" });
      label.textContent = narrow ? `${c.label}   ${full(c.metrics[name], metric.unit)}${mark(name, c.label)}` : c.label.length > 19 ? `${c.label.slice(0, 18)}…` : c.label;
      svg.append(label);
      if (!narrow) {
        const value = draw("text", { x: end + 8, y: y + 14 });
        value.textContent = full(c.metrics[name], metric.unit) + mark(name, c.label);
        svg.append(value);
      }
    });
    const interval = list.some((c) => c.spread[name]) ? "Whiskers: smallest and largest over the seeds." : list.some((c) => c.intervals[name]) ? "Whiskers: 95% interval (bootstrap over photos or pairs)." : "No interval: the measure is one number of the whole run.";
    figure.replaceChildren(svg, node("figcaption", {}, `${metric.better === "lower" ? "Lower" : "Higher"} is better. ${interval} Dashed and pale: cannot be told from the best.`));
  }

  function lines(figure, series, options) {
    const W = widthOf(figure), H = Math.max(260, Math.min(420, W * 0.5)), left = 52, right = 14, top = 10, bottom = 44;
    const points = series.flatMap((s) => s.points);
    if (!points.length) { figure.replaceChildren(node("p", { class: "soft" }, "Nothing to draw.")); return; }
    const xs = points.map((p) => p[0]), ys = points.flatMap((p) => [p[1], ...(p[2] || [])]).filter(known);
    const lowX = options.lowX ?? Math.min(...xs), highX = Math.max(...xs, lowX + 1e-12), lowY = options.lowY ?? Math.min(0, ...ys), highY = options.highY ?? (Math.max(...ys, lowY + 1e-12) * 1.05);
    const x = (v) => left + ((v - lowX) / (highX - lowX || 1)) * (W - left - right), y = (v) => H - bottom - ((v - lowY) / (highY - lowY || 1)) * (H - top - bottom);
    const svg = draw("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${options.title}: ${series.map((s) => s.label).join(", ")}` });
    for (const t of ticks(lowY, highY, 5)) {
      svg.append(draw("line", { class: "grid", x1: left, x2: W - right, y1: y(t), y2: y(t) }));
      const text = draw("text", { class: "soft", x: left - 6, y: y(t) + 4, "text-anchor": "end" }); text.textContent = written(t, options.unitY).replace(".0%", "%"); svg.append(text);
    }
    for (const t of options.ticksX || ticks(lowX, highX, W < 560 ? 4 : 8)) {
      svg.append(draw("line", { class: "grid", x1: x(t), x2: x(t), y1: top, y2: H - bottom }));
      const text = draw("text", { class: "soft", x: x(t), y: H - bottom + 17, "text-anchor": "middle" }); text.textContent = written(t, options.unitX).replace(".0%", "%"); svg.append(text);
    }
    const axis = draw("text", { class: "soft", x: (left + W - right) / 2, y: H - 6, "text-anchor": "middle" }); axis.textContent = options.labelX; svg.append(axis);
    for (const s of series) {
      svg.append(draw("path", { class: "curve", d: s.points.map((p, i) => `${i ? "L" : "M"}${x(p[0]).toFixed(1)},${y(p[1]).toFixed(1)}`).join(""), fill: "none", stroke: colour(s.label), "stroke-width": 2.4, "stroke-dasharray": dash(s.label), "stroke-linejoin": "round" }));
      const every = options.dots ? 1 : Math.max(1, Math.ceil(s.points.length / 6));
      s.points.forEach((p, i) => {
        if (p[2] && p[2].every(known)) svg.append(draw("path", { d: `M${x(p[0])},${y(p[2][0])}V${y(p[2][1])}`, stroke: colour(s.label), "stroke-width": 1.4 }));
        if (i % every === Math.min(every - 1, (labels.indexOf(s.label) * 3) % every)) svg.append(symbol(s.label, x(p[0]), y(p[1]), options.dots ? 5 : 3.6));
      });
    }
    const guide = draw("line", { class: "axis", y1: top, y2: H - bottom, visibility: "hidden" }), readout = node("div", { class: "readout", "aria-live": "off" });
    svg.append(guide);
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect(), v = lowX + (((event.clientX - box.left) * W / box.width - left) / (W - left - right)) * (highX - lowX);
      if (v < lowX || v > highX) return;
      const near = options.dots ? xs.reduce((a, b) => (Math.abs(b - v) < Math.abs(a - v) ? b : a)) : v;
      guide.setAttribute("x1", x(near)); guide.setAttribute("x2", x(near)); guide.setAttribute("visibility", "visible");
      readout.replaceChildren(node("b", {}, `${options.at} ${written(near, options.unitX)}`), ...series.map((s) => node("span", {}, `${s.label} ${written(at(s.points, near), options.unitY)}`)));
    });
    svg.addEventListener("pointerleave", () => { guide.setAttribute("visibility", "hidden"); });
    figure.replaceChildren(svg, readout, node("figcaption", {}, options.caption));
  }
  function at(points, v) {
    let after = points.findIndex((p) => p[0] >= v);
    if (after < 0) return points[points.length - 1][1];
    if (after === 0) return points[0][1];
    const [a, b] = [points[after - 1], points[after]];
    return a[1] + ((b[1] - a[1]) * (v - a[0])) / (b[0] - a[0] || 1);
  }

  function scatter(figure, nameX, nameY) {
    const [mx, my] = [metrics[nameX], metrics[nameY]];
    const list = shown(scene.contenders).filter((c) => known(c.metrics[nameX]) && known(c.metrics[nameY]) && c.metrics[nameX] > 0 && c.state !== "failed");
    if (!list.length) { figure.replaceChildren(node("p", { class: "soft" }, "Nothing to draw.")); return; }
    const W = widthOf(figure), H = Math.max(260, Math.min(400, W * 0.5)), left = 56, right = 24, top = 12, bottom = 46;
    const vx = list.map((c) => Math.log10(c.metrics[nameX])), vy = list.flatMap((c) => [c.metrics[nameY], ...(c.intervals[nameY] || [])]).filter(known);
    const padX = Math.max(0.12, (Math.max(...vx) - Math.min(...vx)) * 0.12), padY = (Math.max(...vy) - Math.min(...vy)) * 0.12 || Math.abs(vy[0]) * 0.1 || 1;
    const lowX = Math.min(...vx) - padX, highX = Math.max(...vx) + padX, lowY = Math.min(...vy) - padY, highY = Math.max(...vy) + padY;
    const x = (v) => left + ((Math.log10(v) - lowX) / (highX - lowX)) * (W - left - right), y = (v) => H - bottom - ((v - lowY) / (highY - lowY)) * (H - top - bottom);
    const svg = draw("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${my.label} against ${mx.label}: ${list.map((c) => `${c.label} ${full(c.metrics[nameY], my.unit)} at ${full(c.metrics[nameX], mx.unit)}`).join(", ")}` });
    for (const t of ticks(lowY, highY, 5)) {
      svg.append(draw("line", { class: "grid", x1: left, x2: W - right, y1: y(t), y2: y(t) }));
      const text = draw("text", { class: "soft", x: left - 6, y: y(t) + 4, "text-anchor": "end" }); text.textContent = written(t, my.unit).replace(".0%", "%"); svg.append(text);
    }
    const marks = []; for (let p = Math.floor(lowX); p <= Math.ceil(highX); p += 1) for (const f of highX - lowX > 2 ? [1] : [1, 2, 5]) marks.push(f * 10 ** p);
    for (const t of marks.filter((v) => Math.log10(v) >= lowX && Math.log10(v) <= highX)) {
      svg.append(draw("line", { class: "grid", x1: x(t), x2: x(t), y1: top, y2: H - bottom }));
      const text = draw("text", { class: "soft", x: x(t), y: H - bottom + 17, "text-anchor": "middle" }); text.textContent = written(t, mx.unit); svg.append(text);
    }
    const axis = draw("text", { class: "soft", x: (left + W - right) / 2, y: H - 6, "text-anchor": "middle" }); axis.textContent = `${mx.label}${suffix(mx.unit)}, logarithmic`; svg.append(axis);
    const taken = [];
    for (const c of list) {
      const px = x(c.metrics[nameX]), py = y(c.metrics[nameY]), range = c.intervals[nameY];
      if (range && range.every(known)) svg.append(draw("path", { d: `M${px},${y(range[0])}V${y(range[1])}`, stroke: colour(c.label), "stroke-width": 1.4 }));
      svg.append(symbol(c.label, px, py, 6));
      const end = px > W - right - 8 * c.label.length; let ty = py - 10;
      while (taken.some(([a, b]) => Math.abs(a - px) < 90 && Math.abs(b - ty) < 14)) ty += 15;
      taken.push([px, ty]);
      const text = draw("text", { x: px + (end ? -9 : 9), y: ty, "text-anchor": end ? "end" : "start" }); text.textContent = c.label; svg.append(text);
    }
    figure.replaceChildren(svg, node("figcaption", {}, `${my.label} (${my.better === "lower" ? "lower" : "higher"} is better) against ${mx.label}.`));
  }

  const stageColours = { photos: 7, features: 5, pairs: 4, match: 0, verify: 1, tracks: 6, map: 3, fields: 8, depth: 2, fuse: 7, mesh: 1, report: 7 };
  function times(figure) {
    const list = shown(scene.contenders).filter((c) => Object.keys(c.stage_seconds).length);
    const names = [...new Set(list.flatMap((c) => Object.keys(c.stage_seconds)))];
    const total = (c) => Object.values(c.stage_seconds).reduce((a, b) => a + b, 0);
    const most = Math.max(...list.map(total), 1e-9), W = widthOf(figure), narrow = W < 560, left = narrow ? 8 : 150, right = narrow ? 12 : 70, step = narrow ? 44 : 30;
    const svg = draw("svg", { viewBox: `0 0 ${W} ${list.length * step + 6}`, role: "img", "aria-label": `Seconds: ${list.map((c) => `${c.label} ${total(c).toFixed(0)}`).join(", ")}` });
    list.forEach((c, i) => {
      const y = i * step + (narrow ? 20 : 4); let at = left;
      for (const name of names) {
        const width = ((c.stage_seconds[name] || 0) / most) * (W - left - right); if (width <= 0) continue;
        const part = draw("rect", { x: at, y, width, height: 18, fill: `var(--c${stageColours[name] ?? 7})`, stroke: "var(--paper)", "stroke-width": 1 }), title = draw("title"); title.textContent = `${name} ${c.stage_seconds[name].toFixed(1)} s`; part.append(title); svg.append(part);
        if (width > 7.4 * name.length + 6) { const text = draw("text", { x: at + 4, y: y + 13, style: "fill: var(--paper); font-size: 12px; font-weight: 600" }); text.textContent = name; svg.append(text); }
        at += width;
      }
      const label = draw("text", narrow ? { x: left, y: y - 5 } : { x: left - 8, y: y + 14, "text-anchor": "end" }); label.textContent = narrow ? `${c.label}   ${total(c).toFixed(1)} s` : c.label.length > 19 ? `${c.label.slice(0, 18)}…` : c.label; svg.append(label);
      if (!narrow) { const value = draw("text", { x: at + 7, y: y + 14 }); value.textContent = `${total(c).toFixed(1)} s`; svg.append(value); }
    });
    figure.replaceChildren(svg, node("figcaption", {}, "Wall seconds by stage. Stages that contenders share count for each as if it had run them; after a sparse matcher, ‘fields’ is the dense matcher that the densification needs."));
  }

  // Pictures

  function panels(list, wide, caption) {
    return node("div", { class: `grid-pictures${wide ? " wide" : ""}` }, ...list.filter((p) => data.images[`${data.scenes.indexOf(scene)}/${p.file}`]).map((p) => {
      const source = data.images[`${data.scenes.indexOf(scene)}/${p.file}`], text = caption(p);
      const image = node("img", { src: source, alt: `${p.label}: ${text}` });
      return node("figure", {}, node("button", { type: "button", "aria-label": `Enlarge: ${p.label}`, on: { click: () => zoom(source, `${p.label} ${text}`) } }, image), node("figcaption", {}, node("b", {}, p.label), ` ${text}`));
    }));
  }
  const percent = (value) => (known(value) ? `${(100 * value).toFixed(0)}%` : "–");
  function pictures() {
    const groups = [], all = scene.pictures;
    const group = (title, text, list, name, show) => {
      if (!list || !list.length) return;
      const place = node("div"), controls = node("div", { class: "controls" });
      const pick = (i) => place.replaceChildren(show(list[i]));
      if (list.length > 1) controls.append(choose("", list.map((one, i) => [String(i), name(one)]), "0", (v) => pick(Number(v))));
      else controls.append(node("span", { class: "soft" }, name(list[0])));
      groups.push(node("h3", {}, title), node("p", { class: "note" }, text), controls, place); pick(0);
    };
    const cameras = scene.truth.includes("cameras") ? "true cameras" : "contender's own cameras";
    group("Matches", `Left: the first photo, bright where it is matched; right: the second. Sixty matches, spread evenly: blue within 1 px of the epipolar line of the ${cameras}, yellow within 3 px, vermilion beyond.`, all.pairs, (p) => `${p.a} – ${p.b} (${p.sparse} sparse matches)`,
      (p) => panels(p.panels, true, (one) => `${percent(one.covered)} matched, ${one.count} matches${known(one.good) ? `, ${percent(one.good)} within 1 px` : ""}`));
    group("Depth maps", `Bright is near. One scale of colours for all${scene.truth.includes("depth") ? ", the truth's" : ""}; charcoal has no depth.`, all.depth, (p) => p.photo,
      (p) => panels(p.panels, false, (one) => (known(one.covered) ? `${percent(one.covered)} of the pixels` : "")));
    group("Meshes", "Shaded, seen from the camera of one photo.", all.meshes, (p) => p.photo, (p) => panels(p.panels, false, () => ""));
    group("Left-out photos", "Predicted from a mesh that never saw them.", all.left_out, (p) => p.photo, (p) => panels(p.panels, false, (one) => (known(one.psnr) ? `${one.psnr.toFixed(1)} dB where covered` : "")));
    $("picture-groups").replaceChildren(...groups);
    $("pictures").hidden = !groups.length;
  }

  // The page

  const first = (names, wanted) => wanted.find((n) => names.includes(n)) || names[0];
  const wantedQuality = ["mesh.f_20mm", "points.f_20mm", "depth.correct_1pct_share", "poses.auc_5", "left_out.mesh_psnr_whole", "photo_consistency", "run.depth_share", "run.registered"];
  const state = { bar: null, curve: null, tradeY: null, tradeX: null, sweep: null };

  function showScene() {
    const names = present();
    const ranked = names.filter((n) => metrics[n].better);
    $("headlines").replaceChildren(...scene.headlines.map((text) => node("li", {}, text)));
    $("failures").replaceChildren(...scene.contenders.filter((c) => c.error).map((c) => node("p", { class: "warning" }, node("b", {}, `${c.label} failed${c.failed_stage ? ` in ‘${c.failed_stage}’` : ""}:`), c.error)));
    $("short-table").replaceChildren(table(names.filter((n) => metrics[n].key), "Main measures"));
    const groups = new Map();
    for (const name of names) { const g = metrics[name].group; if (!groups.has(g)) groups.set(g, []); groups.get(g).push(name); }
    $("tables").replaceChildren(...data.groups.filter((g) => groups.has(g)).map((g) => node("details", {}, node("summary", {}, `${g} (${groups.get(g).length})`), table(groups.get(g), g))));
    if (!ranked.includes(state.bar)) state.bar = first(ranked, wantedQuality);
    $("bar-controls").replaceChildren(choose("Measure", metricOptions(ranked), state.bar, (v) => { state.bar = v; redraw(); }));
    const curves = [...new Set(scene.contenders.flatMap((c) => Object.keys(c.curves).filter((k) => c.curves[k].x.length > 1)))];
    $("curves").hidden = !curves.length;
    if (curves.length) {
      if (!curves.includes(state.curve)) state.curve = first(curves, ["mesh.precision", "points.precision", "matches.epipolar", "poses.error"]);
      const name = (k) => { const c = scene.contenders.find((one) => one.curves[k]).curves[k]; return [k, `${k.replace(/[._]/g, " ")}: ${c.label}`]; };
      $("curve-controls").replaceChildren(choose("Curve", curves.map(name), state.curve, (v) => { state.curve = v; redraw(); }));
    }
    const cost = names.filter((n) => metrics[n].group === "Cost"), quality = ranked.filter((n) => metrics[n].group !== "Cost");
    if (!quality.includes(state.tradeY)) state.tradeY = first(quality, wantedQuality);
    if (!cost.includes(state.tradeX)) state.tradeX = first(cost, ["cost.seconds_per_pair", "cost.seconds"]);
    $("trade-controls").replaceChildren(choose("Quality", metricOptions(quality), state.tradeY, (v) => { state.tradeY = v; redraw(); }), choose("Cost", cost.map((n) => [n, metrics[n].label]), state.tradeX, (v) => { state.tradeX = v; redraw(); }));
    made(); pictures(); redraw();
  }

  function redraw() {
    bars($("bar-chart"), state.bar);
    $("bar-chart").prepend(legend(redraw));
    const key = state.curve;
    if (key && !$("curves").hidden) {
      const list = shown(scene.contenders).filter((c) => c.curves[key]);
      const about = scene.contenders.find((c) => c.curves[key]).curves[key];
      const unit = about.unit === "share" ? "share" : "";
      lines($("curve-chart"), list.map((c) => ({ label: c.label, points: c.curves[key].x.map((x, i) => [x, c.curves[key].y[i]]) })), { title: key, labelX: `error up to${unit ? "" : ` (${about.unit})`}`, unitX: unit, unitY: "share", lowY: 0, highY: 1, lowX: 0, at: "up to", caption: `Share of: ${about.label}. Higher and further left is better.` });
      $("curve-chart").prepend(legend(redraw));
    }
    if (state.tradeX && state.tradeY) scatter($("trade-chart"), state.tradeX, state.tradeY);
    times($("time-chart"));
    if (data.sweep) {
      const name = state.sweep, metric = metrics[name], values = data.sweep.values.map(Number);
      const series = labels.filter((l) => !hidden.has(l)).map((label) => ({ label, points: data.scenes.map((s, i) => [values[i], s.contenders.find((c) => c.label === label)]).filter(([, c]) => c && known(c.metrics[name])).map(([v, c]) => [v, c.metrics[name], c.spread[name] || c.intervals[name]]) })).filter((s) => s.points.length);
      lines($("sweep-chart"), series, { title: metric.label, labelX: data.sweep.parameter, unitX: "", unitY: metric.unit, ticksX: values, dots: true, at: data.sweep.parameter, caption: `${metric.label} (${metric.better === "lower" ? "lower" : "higher"} is better) over ${data.sweep.parameter}. A missing point: failed, or not to be measured.` });
      $("sweep-chart").prepend(legend(redraw));
    }
  }

  function made() {
    const list = (items) => (items.length ? node("ul", {}, ...items.map((t) => node("li", {}, t))) : null);
    const facts = node("dl", {}, ...[["Scene", scene.name], ["Photos", `${scene.photos.length}, ${scene.pairs} pairs`], ["Known truth", scene.truth.join(", ") || "none"], ["Cameras of the densification", scene.poses], ["Intrinsics", scene.intrinsics === "auto" ? (scene.truth.includes("cameras") ? "the truth's" : "estimated") : scene.intrinsics], ["Quality", scene.quality], ["Seeds", `${scene.seeds}, from ${scene.seed}`], ["Machine", data.machine], ["Versions", Object.entries(data.versions).map(([n, v]) => `${n} ${v}`).join(", ")]].flatMap(([k, v]) => [node("dt", {}, k), node("dd", {}, v)]));
    const parts = [facts];
    if (scene.truth_note) parts.push(node("p", { class: "note" }, `Of the truth: ${scene.truth_note}`));
    parts.push(...scene.notes.map((text) => node("p", { class: "note" }, text)));
    for (const c of scene.contenders) {
      const said = [...c.warnings, ...c.notes];
      parts.push(node("details", {}, node("summary", {}, c.label, said.length ? ` (${said.length} notes)` : ""), node("p", {}, "recipe ", node("code", {}, c.recipe), ...c.overrides.flatMap((o) => [" ", node("code", {}, o)])), list(said)));
    }
    parts.push(node("p", { class: "note" }, "Intervals are percentile bootstrap over photos or pairs, 2000 draws. They speak of these photos, not of other scenes; with several contenders and measures, some marks will be wrong by chance."));
    $("made").replaceChildren(...parts.filter(Boolean));
  }

  function start() {
    if (data.scenes.length > 1) {
      const place = $("scenes"); place.hidden = false;
      const buttons = data.scenes.map((s) => node("button", { type: "button", "aria-pressed": String(s === scene), on: { click: () => { scene = s; buttons.forEach((b, i) => b.setAttribute("aria-pressed", String(data.scenes[i] === s))); showScene(); } } }, s.name));
      place.append(...buttons);
    }
    if (data.sweep) {
      $("sweep").hidden = false;
      const names = [...new Set(data.scenes.flatMap((s) => present(s)))].filter((n) => metrics[n].better);
      state.sweep = first(names, wantedQuality);
      $("sweep-controls").append(choose("Measure", metricOptions(names), state.sweep, (v) => { state.sweep = v; redraw(); }));
    }
    themeSwitch($("theme"));
    let waiting = 0, last = innerWidth;
    addEventListener("resize", () => { if (innerWidth === last) return; last = innerWidth; clearTimeout(waiting); waiting = setTimeout(redraw, 120); });
    showScene();
  }
  start();
})();
