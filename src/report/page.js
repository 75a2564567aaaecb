// Draws the page and updates it when its controls change. The program supplies the numbers in #data.

const data = JSON.parse(document.getElementById("data").textContent);
const {layers: L, heads: H, kvHeads: K, pairs: P, strategies, theta} = data;
const S = strategies.length;
const TWO_NORM = strategies.findIndex(s => s.kept === null);
const group = H / K;
const find = id => document.getElementById(id);
const styleOf = s => "s" + s % 5;
const shown = strategies.map(() => true);
let r = data.ropeDim / 2;

const at = (layer, head, k) => (layer * K + head) * P + k;
const ranksOf = s => strategies[s].ranks ?? data.ranks;
const kept = (s, layer, head, k, ranks = ranksOf(s)) =>
  strategies[s].kept ? strategies[s].kept[r - 1].includes(k) : ranks[at(layer, head, k)] < r;
const keptPairs = (layer, head, ranks) => {
  const out = [];
  for (let k = 0; k < P; ++k) if (ranks[at(layer, head, k)] < r) out.push(k);
  return out;
};
const byLayer = value => Array.from({length: L}, (_, layer) => [layer, value(layer)]);
const widthOf = element => Math.max(280, Math.min(1056, element.clientWidth));

// ---- Across layers

function keptCounts() {
  const counts = Array.from({length: L}, () => new Array(P).fill(0));
  for (let layer = 0; layer < L; ++layer) {
    for (let head = 0; head < K; ++head) for (let k = 0; k < P; ++k) if (data.ranks[at(layer, head, k)] < r) ++counts[layer][k];
  }
  return counts;
}

function drawKeptByPair(counts) {
  const element = find("kept-by-pair");
  const g = heatGeometry(1, P, widthOf(element), 130);
  const fixed = strategies.map((s, i) => i).filter(i => strategies[i].kept);
  let out = "";
  for (const share of [0, 0.5, 1]) {
    const y = g.bottom - share * g.rowHeight;
    out += path(`M${g.left} ${round(y)}h${round(g.cell * P)}`, 'class="grid"') + text(g.left - 7, y + 4, 100 * share + "%", 'text-anchor="end"');
  }
  for (let k = 0; k < P; ++k) {
    const share = counts.reduce((sum, row) => sum + row[k], 0) / (L * K);
    if (share === 0) continue;
    out += `<g><title>pair ${k}: kept by ${percent(share)} of the KV heads</title>` +
      path(box(g.left + k * g.cell, g.bottom - share * g.rowHeight, g.left + (k + 1) * g.cell - (g.cell > 6 ? 1 : 0), g.bottom), `class="fill ${styleOf(TWO_NORM)}"`) + "</g>";
  }
  out += heatAxes({...g, rows: 0}, () => "", theta);
  fixed.forEach((s, i) => {
    const y = g.bottom + 54 + 15 * i;
    out += text(g.left - 7, y + 4, strategies[s].name, `text-anchor="end" class="named ${styleOf(s)}"`);
    for (const [first, last] of runs(strategies[s].kept[r - 1])) {
      out += path(box(g.left + first * g.cell, y - 3.5, g.left + (last + 1) * g.cell - 1, y + 3.5), `class="fill ${styleOf(s)}"`);
    }
  });
  element.innerHTML = svg(g.width, g.height + 15 * fixed.length + 8, "Share of KV heads that keep each rotary pair by 2-norm, and pairs of the fixed selections", out);
}

function drawKeptByLayer(counts) {
  const element = find("kept-by-layer");
  const g = heatGeometry(L, P, widthOf(element), L > 40 ? 8 : L > 16 ? 12 : 18);
  element.innerHTML = legend("no head", "all heads") + svg(g.width, g.height, "Share of the KV heads of each layer that keep each rotary pair",
    heatCells(g, (layer, k) => counts[layer][k] / K) + heatAxes(g, layer => layer, theta));
}

function drawAgreement() {
  const element = find("agreement");
  const chance = r / (2 * P - r);
  const series = strategies.map((s, i) => i).filter(i => i !== TWO_NORM).map(i => ({
    name: strategies[i].name, cls: styleOf(i), points: byLayer(layer => data.agreement[layer][r - 1][TWO_NORM * S + i])}));
  element.innerHTML = lineChart(widthOf(element), {label: "Jaccard index against 2-norm by layer", series,
    byChance: [[0, chance], [Math.max(L - 1, 0), chance]], x: [0, L - 1], y: [0, 1], xName: "layer", yName: "Jaccard"});
}

function drawConcentration() {
  const element = find("concentration");
  element.innerHTML = lineChart(widthOf(element), {label: "Share of the score in the kept pairs by layer",
    series: [{name: "2-norm", cls: styleOf(TWO_NORM), points: byLayer(layer => data.topShare[layer][r - 1])}],
    byChance: [[0, r / P], [Math.max(L - 1, 0), r / P]], x: [0, L - 1], y: [0, 1], xName: "layer", yName: "share"});
}

function fillTables() {
  for (const element of document.querySelectorAll(".at-rope-dim")) element.textContent = 2 * r;
  const fill = (id, values) => [...find(id).tBodies[0].rows].forEach((row, i) =>
    values(i).forEach((value, j) => { row.cells[j + 1].textContent = value; }));
  fill("layer-table", layer => [percent(data.topShare[layer][r - 1]), data.effectivePairs[layer].toFixed(1), data.gini[layer].toFixed(2),
    ...strategies.map((_, s) => s).filter(s => s !== TWO_NORM).map(s => data.agreement[layer][r - 1][TWO_NORM * S + s].toFixed(2))]);
  fill("strategy-table", a => strategies.map((_, b) => mean(data.agreement.map(layer => layer[r - 1][a * S + b])).toFixed(2)));
}

// ---- Spectra

// Earlier layers darker, all of them visible on the page's background.
function depth(layer) {
  const [from, to] = matchMedia("(prefers-color-scheme: dark)").matches ? [0.4, 1] : [0, 0.8];
  return viridis(from + (to - from) * layer / Math.max(1, L - 1));
}

function drawSpectra() {
  if (!data.spectra) return;
  const element = find("retained");
  const widths = data.retained[0].map(row => row[0]);
  const over = (member, how) => widths.map((_, i) => how(data.retained.map(layer => layer[i][member])));
  const series = [], bands = [];
  [["joint", 0], ["split", 1]].forEach(([name, s], i) => {
    const low = over(i + 1, v => Math.min(...v)), high = over(i + 1, v => Math.max(...v)), middle = over(i + 1, mean);
    bands.push({cls: styleOf(s), points: widths.map((w, j) => [w, low[j], high[j]])});
    series.push({name, cls: styleOf(s), points: widths.map((w, j) => [w, middle[j]])});
  });
  element.innerHTML = lineChart(widthOf(element), {label: "Energy kept by kv-rank", series, bands, x: [widths[0], widths[widths.length - 1]], y: [0, 1], xName: "kv-rank", yName: "energy kept"});
  for (const name of ["joint", "key", "value"]) {
    const curves = data.spectra.map(layer => layer[name]);
    const points = curves.flat();
    if (!points.length) continue;
    const low = Math.max(1e-6, Math.min(...points.map(p => p[1])));
    find("spectrum-" + name).innerHTML = lineChart(widthOf(find("spectrum-" + name)), {label: "Singular values by layer", logY: true,
      series: curves.map((curve, layer) => ({points: curve.filter(p => p[1] >= low), color: depth(layer)})),
      x: [1, Math.max(...points.map(p => p[0]))], y: [10 ** Math.floor(Math.log10(low * 0.999)), 1], xName: "index", yName: "σ / σ₁"});
  }
}

// ---- Against other statistics

function drawComparison() {
  if (!data.otherRanks) return;
  const element = find("comparison-plot");
  const low = Math.min(0, ...data.spearman);
  element.innerHTML = lineChart(widthOf(element), {label: "Spearman correlation and Jaccard index by layer",
    series: [{name: "Spearman", cls: styleOf(1), points: byLayer(layer => data.spearman[layer])},
      {name: "Jaccard", cls: styleOf(0), points: byLayer(layer => data.jaccard[layer][r - 1])}],
    x: [0, L - 1], y: [low, 1], xName: "layer", yName: ""});
  const open = new Set([...document.querySelectorAll("#changes details[open]")].map(d => d.dataset.layer));
  let out = "";
  for (let layer = 0; layer < L; ++layer) {
    let changed = 0, list = "";
    for (let head = 0; head < K; ++head) {
      const before = keptPairs(layer, head, data.ranks), after = keptPairs(layer, head, data.otherRanks);
      const leaving = before.filter(k => !after.includes(k)), entering = after.filter(k => !before.includes(k));
      if (!leaving.length) continue;
      ++changed;
      list += `<tr><th scope="row">${head}</th><td>${leaving.join(", ")}</td><td>${entering.join(", ")}</td></tr>`;
    }
    const cells = find("comparison-table").tBodies[0].rows[layer].cells;
    cells[2].textContent = data.jaccard[layer][r - 1].toFixed(2);
    cells[3].textContent = changed + " of " + K;
    if (!changed) continue;
    out += `<details data-layer="${layer}" ${open.has(String(layer)) ? "open" : ""}><summary>Layer ${layer}: ${changed} of ${K} heads keep other pairs</summary>` +
      `<table><thead><tr><th scope="col">KV head</th><th scope="col">pairs leaving</th><th scope="col">pairs entering</th></tr></thead><tbody>${list}</tbody></table></details>`;
  }
  find("changes").innerHTML = out ? "<h3>What changes</h3>" + out : "<p>Every KV head keeps the same pairs.</p>";
}

// ---- Layer by layer

const modelScale = logScale(data.scores);
const queryScale = logScale(data.queryNorms), keyScale = logScale(data.keyNorms);
const figures = [];  // per layer: {element, drawn, g}

function makeLayers() {
  const parent = find("layer-figures");
  if (P <= 20) for (const id of ["kept-by-pair", "kept-by-layer"]) find(id).parentElement.classList.remove("wide");
  else parent.style.gridTemplateColumns = "minmax(0, 1fr)";
  const rowHeight = K > 16 ? 14 : K > 8 ? 18 : 24;
  parent.innerHTML = Array.from({length: L}, (_, layer) =>
    `<figure class="layer" data-layer="${layer}"><div class="layer-head"><h3>Layer ${layer}</h3><span class="range"></span></div>` +
    `<div class="heat" style="min-height:${K * rowHeight + 54}px"></div>` +
    `<details><summary>Norms of the query and key heads</summary><div class="norms"></div></details></figure>`).join("");
  for (const element of parent.children) {
    figures.push({element, rowHeight, layer: figures.length, drawn: false, chosen: -1});
    element.querySelector("details").addEventListener("toggle", () => drawNorms(figures[+element.dataset.layer]));
  }
  const watcher = new IntersectionObserver(entries => {
    for (const entry of entries) if (entry.isIntersecting) drawLayer(figures[+entry.target.dataset.layer]);
  }, {rootMargin: "600px"});
  for (const f of figures) watcher.observe(f.element);
}

function drawLayer(f, again = false) {
  if (f.drawn && !again) return;
  const {layer} = f;
  const heat = f.element.querySelector(".heat");
  const scale = find("scale").value === "model" ? modelScale : logScale(data.scores.slice(at(layer, 0, 0), at(layer + 1, 0, 0)));
  f.drawn = true;
  f.g = heatGeometry(K, P, widthOf(heat), f.rowHeight);
  heat.innerHTML = svg(f.g.width, f.g.height, `Layer ${layer}: scores of ${K} KV heads by ${P} rotary pairs. Arrow keys move, Enter shows norms.`,
    heatCells(f.g, (head, k) => scale.at(data.scores[at(layer, head, k)])) + heatAxes(f.g, head => head, theta) +
    '<g class="outlines"></g><path class="cursor"/>', 'tabindex="0" role="application"');
  f.element.querySelector(".range").innerHTML = legend(short(scale.low), short(scale.high));
  f.element.dataset.drawn = "true";
  drawOutlines(f);
}

// Outlines of the selections: fixed ones as columns that extend above and below the map, each further than the one before;
// 2-norm in every row.
function drawOutlines(f) {
  const {g, layer} = f;
  let out = "";
  strategies.forEach((strategy, s) => {
    if (!shown[s]) return;
    let d = "";
    const x = k => g.left + k * g.cell - 0.5;
    if (strategy.kept) {
      const inset = Math.min(0.7 * s, g.cell / 5), beyond = 2 * s;
      for (const [first, last] of runs(strategy.kept[r - 1])) d += box(x(first) + inset, g.top - beyond, x(last + 1) - inset, g.bottom + beyond - 1);
    } else {
      for (let head = 0; head < K; ++head) {
        const y = g.top + head * g.rowHeight;
        for (const [first, last] of runs(keptPairs(layer, head, ranksOf(s)))) d += box(x(first) + 0.5, y + 0.5, x(last + 1) - 0.5, y + g.rowHeight - 1.5);
      }
    }
    out = path(d, 'class="rim"') + path(d, `class="mark ${styleOf(s)}"`) + out;  // 2-norm comes first and is drawn on top
  });
  f.element.querySelector(".outlines").innerHTML = out;
  f.element.dataset.ropeDim = 2 * r;
}

// Mean norms of every query head, and of the KV heads that they share.
function drawNorms(f) {
  const details = f.element.querySelector("details");
  if (!details.open) return;
  const {layer} = f;
  const width = widthOf(f.element.querySelector(".norms"));
  const map = (name, rows, scale, values, heads) => {
    const g = heatGeometry(rows, P, width, 14);
    const chosen = f.chosen < 0 ? "" : path(box(g.left - 1, g.top + f.chosen * heads * 14 - 1, g.left + P * g.cell, g.top + (f.chosen + 1) * heads * 14), 'class="chosen"');
    return `<div>${name} ${legend(short(scale.low), short(scale.high))}</div><div class="heat">` +
      svg(g.width, g.height, name + " by rotary pair", heatCells(g, (row, k) => scale.at(values[(layer * rows + row) * P + k])) + heatAxes(g, row => row, theta) + chosen) + "</div>";
  };
  details.querySelector(".norms").innerHTML =
    (f.chosen < 0 ? "" : `<p>Outlined: KV head ${f.chosen}${group > 1 ? ` and its query heads ${f.chosen * group} to ${f.chosen * group + group - 1}` : ""}.</p>`) +
    map("Mean ‖q‖ of each query head", H, queryScale, data.queryNorms, group) + map("Mean ‖k‖ of each KV head", K, keyScale, data.keyNorms, 1);
}

// ---- Numbers of one cell

const tip = find("tip");
let cursor = null;  // {f, head, k}

function showTip(f, head, k, x, y) {
  const {g, layer} = f;
  if (cursor && cursor.f !== f) hideTip();
  cursor = {f, head, k};
  f.element.querySelector(".cursor").setAttribute("d", box(g.left + k * g.cell, g.top + head * g.rowHeight, g.left + (k + 1) * g.cell - 1, g.top + (head + 1) * g.rowHeight - 1));
  const row = (name, value) => `<span><i>${name}</i>${value}</span>`;
  const by = strategies.map((_, s) => s).filter(s => kept(s, layer, head, k)).map(s => strategies[s].name);
  const norms = Array.from({length: group}, (_, i) => short(data.queryNorms[(layer * H + head * group + i) * P + k]));
  tip.innerHTML = `<b>Layer ${layer}, KV head ${head}, pair ${k}</b>` + row("score", short(data.scores[at(layer, head, k)])) +
    row("rank", `${data.ranks[at(layer, head, k)]} (0 is the largest)`) +
    (theta.length ? row("θ", short(theta[k]) + " rad/token") + row("wavelength", short(2 * Math.PI / theta[k]) + " tokens") : "") +
    row("mean ‖k‖", short(data.keyNorms[at(layer, head, k)])) + (group <= 32 ? row("mean ‖q‖", norms.join(" · ")) : "") +
    row("kept by", by.join(", ") || "none");
  tip.hidden = false;
  const w = tip.offsetWidth, h = tip.offsetHeight;
  tip.style.left = Math.max(4, x + 16 + w > innerWidth ? x - 16 - w : x + 16) + "px";
  tip.style.top = Math.max(4, y + 16 + h > innerHeight ? y - 16 - h : y + 16) + "px";
}

function hideTip() {
  if (cursor) cursor.f.element.querySelector(".cursor").removeAttribute("d");
  cursor = null;
  tip.hidden = true;
}

// The cell under a pointer, of the main heat maps only.
function cellAt(event) {
  const image = event.target.closest && event.target.closest(".layer > .heat > svg");
  if (!image) return null;
  const f = figures[+image.closest(".layer").dataset.layer];
  const bounds = image.getBoundingClientRect();
  const zoom = f.g.width / bounds.width;
  const k = Math.floor(((event.clientX - bounds.left) * zoom - f.g.left) / f.g.cell);
  const head = Math.floor(((event.clientY - bounds.top) * zoom - f.g.top) / f.g.rowHeight);
  return k >= 0 && k < P && head >= 0 && head < K ? {f, head, k} : null;
}

function choose(f, head) {
  f.chosen = head;
  const details = f.element.querySelector("details");
  if (details.open) drawNorms(f);
  else details.open = true;
}

function moveByKey(event) {
  const image = event.target.closest(".layer > .heat > svg");
  if (!image) return;
  const f = figures[+image.closest(".layer").dataset.layer];
  const here = cursor && cursor.f === f ? cursor : {head: 0, k: 0};
  const step = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]}[event.key];
  if (event.key === "Escape") return hideTip();
  if (event.key === "Enter") { event.preventDefault(); return choose(f, here.head); }
  if (!step) return;
  event.preventDefault();
  const limit = (v, n) => Math.min(n - 1, Math.max(0, v));
  const head = limit(here.head + step[0], K), k = limit(here.k + step[1], P);
  const bounds = image.getBoundingClientRect(), zoom = bounds.width / f.g.width;
  showTip(f, head, k, bounds.left + (f.g.left + k * f.g.cell) * zoom, bounds.top + (f.g.top + head * f.g.rowHeight) * zoom);
}

// ---- Controls

function redraw() {
  find("rope-dim").value = 2 * r;
  find("rope-dim-says").textContent = `${2 * r} (${r} of ${P} pairs)`;
  document.documentElement.dataset.ropeDim = 2 * r;
  const counts = keptCounts();
  drawKeptByPair(counts);
  drawKeptByLayer(counts);
  drawAgreement();
  drawConcentration();
  fillTables();
  drawComparison();
  for (const f of figures) if (f.drawn) drawOutlines(f);
}

let waiting = false;
function setRopeDim(value) {
  if (!Number.isInteger(value / 2) || value < 2 || value > 2 * P) return;
  r = value / 2;
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; redraw(); });
}

function redrawEverything() {
  redraw();
  drawSpectra();
  for (const f of figures) if (f.drawn) { drawLayer(f, true); drawNorms(f); }
}

const fromFragment = () => { const found = /^#rope-dim=(\d+)$/.exec(location.hash); if (found) setRopeDim(+found[1]); };

function start() {
  document.documentElement.classList.add("js");
  strategies.forEach((strategy, s) => {
    const label = document.createElement("label");
    label.innerHTML = `<input type="checkbox" checked value="${s}"><svg viewBox="0 0 30 12" aria-hidden="true"><path class="line ${styleOf(s)}" d="M1 6H29"/></svg>`;
    label.append(strategy.name);
    find("strategies").append(label);
  });
  find("strategies").addEventListener("change", event => {
    shown[+event.target.value] = event.target.checked;
    for (const f of figures) if (f.drawn) drawOutlines(f);
  });
  find("rope-dim").addEventListener("input", event => {
    history.replaceState(null, "", "#rope-dim=" + event.target.value);
    setRopeDim(+event.target.value);
  });
  find("scale").addEventListener("change", () => { for (const f of figures) if (f.drawn) drawLayer(f, true); });
  find("controls").addEventListener("submit", event => event.preventDefault());
  addEventListener("hashchange", fromFragment);
  const parent = find("layer-figures");
  parent.addEventListener("pointermove", event => {
    const cell = cellAt(event);
    if (cell) showTip(cell.f, cell.head, cell.k, event.clientX, event.clientY);
    else hideTip();
  });
  parent.addEventListener("pointerleave", hideTip);
  parent.addEventListener("focusout", hideTip);
  parent.addEventListener("click", event => { const cell = cellAt(event); if (cell) choose(cell.f, cell.head); });
  parent.addEventListener("keydown", moveByKey);
  addEventListener("beforeprint", () => {
    figures.forEach(f => drawLayer(f));
    for (const details of document.querySelectorAll("#changes details")) details.open = true;
  });
  let resized = 0, width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width) return;
    width = innerWidth;
    clearTimeout(resized);
    resized = setTimeout(redrawEverything, 150);
  });
  makeLayers();
  redraw();
  drawSpectra();
  fromFragment();
  const section = find(location.hash.slice(1));  // hidden when the browser tried to scroll to it
  if (section) section.scrollIntoView();
}

start();
