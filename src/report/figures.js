// Figures as SVG text. They contain only numbers and fixed words, never text from the data.

const VIRIDIS = [[68, 1, 84], [72, 36, 117], [65, 68, 135], [53, 95, 141], [42, 120, 142], [33, 145, 140],
  [34, 168, 132], [68, 191, 112], [122, 209, 81], [189, 223, 38], [253, 231, 37]];
const BINS = 48;  // number of colours of a heat map, each drawn as one <path>

const viridis = t => {
  const at = Math.min(1, Math.max(0, t)) * (VIRIDIS.length - 1);
  const i = Math.min(VIRIDIS.length - 2, Math.floor(at));
  return "rgb(" + VIRIDIS[i].map((c, j) => Math.round(c + (VIRIDIS[i + 1][j] - c) * (at - i))).join(",") + ")";
};
const GRADIENT = "linear-gradient(to right," + VIRIDIS.map((c, i) => viridis(i / (VIRIDIS.length - 1))).join(",") + ")";

const round = x => Math.round(x * 100) / 100;
// Four significant digits, the precision of the data.
const short = x => x === 0 ? "0" : Math.abs(x) >= 1e5 || Math.abs(x) < 1e-3 ? x.toExponential(3) : String(+x.toPrecision(4));
const percent = x => (100 * x).toFixed(1) + "%";
const mean = list => list.reduce((a, b) => a + b, 0) / list.length;

const text = (x, y, words, how = "") => `<text x="${round(x)}" y="${round(y)}" ${how}>${words}</text>`;
const path = (d, how) => d ? `<path d="${d}" ${how}/>` : "";
const svg = (width, height, label, body, how = "") =>
  `<svg viewBox="0 0 ${round(width)} ${round(height)}" width="${round(width)}" height="${round(height)}" ${how} role="img" ` +
  `aria-label="${label}">${body}</svg>`;

// About `count` round values between low and high.
function ticks(low, high, count) {
  const raw = (high - low) / count || 1;
  const unit = 10 ** Math.floor(Math.log10(raw));
  const step = unit * [1, 2, 5, 10].find(s => s * unit >= raw - 1e-12);
  const out = [];
  for (let v = Math.ceil(low / step - 1e-9) * step; v <= high + step * 1e-9; v += step) out.push(+v.toFixed(10));
  return out;
}

// Whole numbers 0..n-1 that leave `gap` pixels between labels.
const labelled = (n, cell, gap) => {
  const step = [1, 2, 4, 8, 16, 32, 64].find(s => s * cell >= gap) || 128;
  return Array.from({length: Math.ceil(n / step)}, (_, i) => i * step);
};

// A log scale over positive values; zeros take the darkest colour.
function logScale(values) {
  let low = Infinity, high = 0;
  for (const v of values) if (v > 0) { low = Math.min(low, v); high = Math.max(high, v); }
  if (high === 0) low = high = 1;
  const span = Math.log(high / low) || 1;
  return {low, high, at: v => v > 0 ? Math.log(v / low) / span : 0};
}

const legend = (low, high) => `<span class="legend">${low}<i style="background:${GRADIENT}"></i>${high}</span>`;

// The positions of the cells of a heat map of `rows` x `columns`.
function heatGeometry(rows, columns, width, rowHeight) {
  const left = 54, bottom = 44;
  const cell = Math.max(3, Math.min(34, (width - left - 6) / columns));
  const top = 10;
  return {rows, columns, left, top, cell, rowHeight, width: left + cell * columns + 6,
    height: top + rowHeight * rows + bottom, bottom: top + rowHeight * rows};
}

// Cells by colour; `value(row, column)` from 0 to 1.
function heatCells(g, value) {
  const bins = Array.from({length: BINS}, () => "");
  const gap = g.cell > 8 ? 1 : 0, w = round(g.cell - gap), h = round(g.rowHeight - gap);
  for (let row = 0; row < g.rows; ++row) {
    for (let column = 0; column < g.columns; ++column) {
      const bin = Math.min(BINS - 1, Math.max(0, Math.floor(value(row, column) * BINS)));
      bins[bin] += `M${round(g.left + column * g.cell)} ${round(g.top + row * g.rowHeight)}h${w}v${h}h-${w}z`;
    }
  }
  return bins.map((d, i) => path(d, `fill="${viridis((i + 0.5) / BINS)}" shape-rendering="crispEdges"`)).join("");
}

// Row names on the left, pairs below, and wavelengths below the pairs if θ is known.
function heatAxes(g, rowName, theta) {
  let out = labelled(g.rows, g.rowHeight, 13).map(row =>
    text(g.left - 7, g.top + (row + 0.5) * g.rowHeight + 4, rowName(row), 'text-anchor="end"')).join("");
  const centre = k => g.left + (k + 0.5) * g.cell;
  for (const k of labelled(g.columns, g.cell, 24)) out += text(centre(k), g.bottom + 22, k, 'text-anchor="middle"');
  if (theta.length === 0) return out + text(g.left, g.bottom + 36, "pair, fast to slow");
  for (const k of labelled(g.columns, g.cell, 52)) {
    out += text(centre(k), g.bottom + 36, tokens(theta[k]), 'text-anchor="middle"');
  }
  return out + text(g.left - 14, g.bottom + 22, "pair", 'text-anchor="end"') +
    text(g.left - 14, g.bottom + 36, "tokens", 'text-anchor="end"');
}

// A wavelength in short form: "6.28", "1.2k", "3.4M".
function tokens(theta) {
  const turn = 2 * Math.PI / theta;
  if (turn < 1000) return String(+turn.toPrecision(3));
  const [unit, sign] = turn < 1e6 ? [1e3, "k"] : turn < 1e9 ? [1e6, "M"] : [1e9, "G"];
  return +(turn / unit).toPrecision(2) + sign;
}

// Runs of neighbours in an ascending list: [[first, last], ...].
function runs(kept) {
  const out = [];
  for (const k of kept) {
    if (out.length && out[out.length - 1][1] === k - 1) out[out.length - 1][1] = k;
    else out.push([k, k]);
  }
  return out;
}

const box = (x0, y0, x1, y1) => `M${round(x0)} ${round(y0)}H${round(x1)}V${round(y1)}H${round(x0)}z`;

// Lines over x. series: {points: [[x, y], ...], cls, name?, color?}; bands: {points: [[x, low, high], ...], cls}.
function lineChart(width, {label, series, bands = [], byChance, x, y, xName, yName, logY = false, whole = true}) {
  const left = 46, right = series.some(s => s.name) ? 74 : 12, top = 24, bottom = 36, height = 250;
  const w = width - left - right, h = height - top - bottom;
  const px = v => left + (x[1] === x[0] ? w / 2 : (v - x[0]) / (x[1] - x[0]) * w);
  const py = v => top + h - (logY ? Math.log(v / y[0]) / Math.log(y[1] / y[0]) : (v - y[0]) / (y[1] - y[0])) * h;
  let out = "";
  const rows = logY ? ticks(Math.log10(y[0]), Math.log10(y[1]), 4).filter(Number.isInteger).map(e => 10 ** e) : ticks(y[0], y[1], 5);
  for (const v of rows) {
    out += path(`M${left} ${round(py(v))}h${round(w)}`, 'class="grid"') + text(left - 7, py(v) + 4, short(v), 'text-anchor="end"');
  }
  let columns = ticks(x[0], x[1], Math.max(2, Math.min(8, w / 50)));
  if (whole) columns = columns.filter(Number.isInteger);
  for (const v of columns) out += text(px(v), top + h + 16, v, 'text-anchor="middle"');
  out += path(`M${left} ${top + h}h${round(w)}`, 'class="axis"') + text(left + w / 2, height - 3, xName, 'text-anchor="middle"');
  out += text(2, 9, yName);
  const trace = points => points.map(([a, b], i) => (i ? "L" : "M") + round(px(a)) + " " + round(py(b))).join("");
  for (const b of bands) {
    out += path(trace(b.points.map(p => [p[0], p[2]])) + trace(b.points.map(p => [p[0], p[1]]).reverse()).replace("M", "L") + "z",
      `class="band fill ${b.cls}"`);
  }
  if (byChance) out += path(trace(byChance), 'class="by-chance"');
  const ends = [];
  for (const s of series) {
    if (!s.points.length) continue;
    out += path(trace(s.points), `class="line ${s.cls || ""}" ${s.color ? `style="stroke:${s.color};stroke-width:1.2"` : ""}`);
    if (s.points.length === 1) out += `<circle class="fill ${s.cls}" cx="${round(px(s.points[0][0]))}" cy="${round(py(s.points[0][1]))}" r="4"/>`;
    if (s.name) ends.push({...s, at: py(s.points[s.points.length - 1][1])});
  }
  // Names at the ends of their lines, moved apart if they would overlap.
  ends.sort((a, b) => a.at - b.at);
  ends.forEach((s, i) => { s.at = Math.max(s.at, i ? ends[i - 1].at + 14 : 0); });
  const over = ends.length ? Math.max(0, ends[ends.length - 1].at - (top + h)) : 0;
  for (const s of ends) out += text(left + w + 8, s.at - over + 4, s.name, `class="named ${s.cls}"`);
  return svg(width, height, label, out);
}
