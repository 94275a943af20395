// One function per kind of panel. Each takes a panel with Prometheus' answer in it and draws it into the panel's card.
import { cssColor, dark, element, formatter, onGround, paletteColor } from './look.js';

// A curve that ended has no value now: only so many of the newest points count as "now".
const FRESH_POINTS = 4;
const FRESH_SECONDS = 20;
// Bytes are marked at round numbers of KiB, MiB and GiB.
const BINARY_UNITS = new Set(['bytes', 'Bps']);
const POWERS_OF_TWO = Array.from({ length: 50 }, (_, power) => 2 ** power);
// uPlot's own have nothing between a minute and five, which leaves one mark on a phone.
const TIME_STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600];
const FONT = '12px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", sans-serif';
// Viridis, dark to bright: equal steps look equal, also without colour.
const VIRIDIS = [[68, 1, 84], [72, 40, 120], [62, 74, 137], [49, 104, 142], [38, 130, 142], [31, 158, 137], [53, 183, 121], [110, 206, 88], [181, 222, 43], [253, 231, 37]];

// ---- curves ----

export function drawCurves(panel, sync) {
  const { model } = panel;
  const { window, answers, problem } = panel.answer;
  const series = named(model, answers).slice(0, 24);
  if (nothing(panel, series, problem)) return;
  const times = grid(window);
  const stacked = model.fieldConfig.defaults.custom?.stacking?.mode === 'normal';
  const values = series.map(({ points }) => onGrid(points, window, times.length));
  // From the top of a stack down: where one curve adds nothing, the one that it lies on is drawn over it.
  const heights = stacked ? stack(values).reverse() : values;
  const drawn = stacked ? [...series].reverse() : series;
  const key = JSON.stringify([series.map(({ name, color }) => [name, color]), dark()]);
  panel.state = { series, values };
  if (panel.drawn?.key === key) {
    panel.drawn.plot.setData([times, ...heights]);
    panel.drawn.plot.setScale('x', { min: window.start, max: window.end });
    showLegend(panel, null);
    return;
  }
  panel.drawn?.destroy();
  panel.body.replaceChildren();
  const custom = model.fieldConfig.defaults.custom || {};
  const steps = custom.lineInterpolation === 'stepAfter' ? globalThis.uPlot.paths.stepped({ align: 1 }) : undefined;
  const options = {
    ...frame(panel, sync),
    series: [{}, ...drawn.map(({ color }) => ({
      stroke: color, width: custom.lineWidth || 1, paths: steps,
      points: { show: true, filter: alone, size: 5, fill: color, stroke: color },
      fill: stacked ? color + '66' : series.length === 1 ? color + '22' : undefined,
    }))],
    bands: stacked ? series.slice(1).map((_, place) => ({ series: [place + 1, place + 2] })) : [],
    hooks: { drawClear: [(plot) => drawEvents(plot, panel)], draw: [(plot) => drawLimit(plot, panel)], setCursor: [(plot) => showLegend(panel, plot.cursor.idx)] },
  };
  mount(panel, options, [times, ...heights], key);
  showLegend(panel, null);
}

function frame(panel, sync) {
  const format = formatter(panel.model.fieldConfig.defaults.unit);
  const axis = { stroke: cssColor('--soft'), font: FONT, grid: { stroke: cssColor('--grid'), width: 1 }, ticks: { show: false } };
  const { min: minimum, unit } = panel.model.fieldConfig.defaults;
  const limit = limitOf(panel.model.fieldConfig.defaults);
  return {
    width: panel.body.clientWidth || 300, height: 200, padding: [8, 24, 0, 0], legend: { show: false },
    cursor: { sync: sync ? { key: sync.key, scales: ['x', null] } : undefined, y: false, drag: { x: false, y: false }, points: { size: 6 } },
    scales: {
      x: { time: true, range: () => [panel.answer.window.start, panel.answer.window.end] },
      y: { range: (_, low, high) => span(minimum === undefined ? low : Math.min(minimum, low), high, limit) },
    },
    axes: [
      { ...axis, size: 28, space: 56, incrs: TIME_STEPS, values: (_, splits) => splits.map((time) => clock(time)) },
      { ...axis, incrs: BINARY_UNITS.has(unit) ? POWERS_OF_TWO : undefined, size: (plot, labels) => Math.max(44, ...(labels || []).map((label) => label.length * 7 + 14)), values: (_, splits) => splits.map((value) => (value === null ? '' : format(value))) },
    ],
  };
}

// The points that no line reaches, because both neighbours are missing.
function alone(plot, number) {
  const row = plot.data[number];
  return row.flatMap((value, place) => (value !== null && (row[place - 1] ?? null) === null && (row[place + 1] ?? null) === null ? [place] : []));
}

// A flat curve shows how far it is from its limit, where it has one.
function span(low, high, limit = 1) {
  if (high === null || high === low) return [low || 0, (high || 0) + 1.5 * limit];
  return [low, high + (high - low) * 0.08];
}

function clock(time) {
  const date = new Date(time * 1000);
  const text = date.toLocaleTimeString('en-GB');
  return date.getSeconds() === 0 ? text.slice(0, 5) : text;
}

function mount(panel, options, data, key) {
  const plot = new globalThis.uPlot(options, data, panel.body);
  const resize = new ResizeObserver(() => {
    const width = panel.body.clientWidth;
    if (width > 0 && width !== plot.width) plot.setSize({ width, height: options.height });
  });
  resize.observe(panel.body);
  panel.drawn = { key, plot, destroy: () => { resize.disconnect(); plot.destroy(); } };
}

function drawEvents(plot, panel) {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.lineWidth = devicePixelRatio;
  for (const { time, color } of panel.answer.events) {
    const x = Math.round(plot.valToPos(time, 'x', true));
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    ctx.strokeStyle = color;
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
  }
  ctx.restore();
}

// The line that should not be crossed. It is drawn where the curve comes near it, and never squeezes the curve.
function drawLimit(plot, panel) {
  const { defaults } = panel.model.fieldConfig;
  const limit = limitOf(defaults);
  if (limit === undefined || defaults.custom?.thresholdsStyle?.mode !== 'dashed' || limit > plot.scales.y.max) return;
  const { ctx, bbox } = plot;
  const y = plot.valToPos(limit, 'y', true);
  ctx.save();
  ctx.strokeStyle = cssColor('--bad');
  ctx.lineWidth = devicePixelRatio;
  ctx.setLineDash([6 * devicePixelRatio, 4 * devicePixelRatio]);
  ctx.beginPath();
  ctx.moveTo(bbox.left, y);
  ctx.lineTo(bbox.left + bbox.width, y);
  ctx.stroke();
  ctx.restore();
}

// The newest values, or those under the pointer.
function showLegend(panel, place) {
  const legend = legendOf(panel);
  const format = formatter(panel.model.fieldConfig.defaults.unit);
  const { series, values } = panel.state;
  legend.replaceChildren(...series.map(({ name, color }, number) => {
    const item = element('span');
    const swatch = element('span', 'swatch');
    swatch.style.background = color;
    const value = place === null || place === undefined ? values[number].slice(-FRESH_POINTS).findLast((one) => one !== null) : values[number][place];
    item.append(swatch, name, element('b', '', value === null || value === undefined ? '–' : format(value)));
    return item;
  }));
}

// ---- heatmap ----

export function drawHeat(panel, sync) {
  const { window, answers, problem } = panel.answer;
  const found = (answers[0] || []).map(({ metric, values }) => ({ top: Number(metric.le.replace('+Inf', 'Infinity')), points: values })).sort((a, b) => a.top - b.top);
  const times = grid(window);
  const sums = found.map(({ points }) => onGrid(points, window, times.length));
  // Prometheus' buckets are cumulative; a cell is what a bucket has beyond the one below it.
  const cells = sums.map((row, number) => row.map((value, place) => (value === null ? null : Math.max(0, value - (number > 0 ? sums[number - 1][place] || 0 : 0)))));
  const used = cells.map((row, number) => (row.some((value) => value > 0.01) ? number : -1)).filter((number) => number >= 0);
  if (nothing(panel, used, problem)) return;
  const low = Math.max(0, Math.min(...used) - 1);
  const high = Math.min(found.length - 1, Math.max(...used) + 1);
  const most = Math.max(...used.map((number) => Math.max(...cells[number].map((value) => value || 0))));
  panel.heat = { cells, found, low, high, most, window };
  const key = JSON.stringify([low, high, dark()]);
  const data = [times, times.map(() => null)];
  if (panel.drawn?.key === key) {
    panel.drawn.plot.setData(data);
  } else {
    panel.drawn?.destroy();
    panel.body.replaceChildren();
    const options = frame(panel, sync);
    const format = formatter(panel.model.fieldConfig.defaults.unit);
    const rows = high - low + 1;
    const every = Math.ceil(rows / 7);
    const labels = Array.from({ length: Math.floor(rows / every) + 1 }, (_, number) => number * every);
    options.scales.y = { range: [0, rows] };
    options.axes[1] = {
      ...options.axes[1], splits: () => labels, grid: { show: false },
      values: () => labels.map((number) => edge(found, low + number - 1, format)),
    };
    mount(panel, { ...options, series: [{}, { show: true, points: { show: false } }], hooks: { drawClear: [(plot) => drawCells(plot, panel.heat)], draw: [(plot) => drawEvents(plot, panel)], setCursor: [(plot) => heatLegend(panel, plot.cursor.idx)] } }, data, key);
  }
  heatLegend(panel, null);
}

function edge(found, number, format) {
  if (number < 0) return '0';
  const { top } = found[number] || {};
  return top === Infinity || top === undefined ? '∞' : format(top);
}

function drawCells(plot, { cells, low, high, most, window }) {
  const { ctx, bbox } = plot;
  const height = bbox.height / (high - low + 1);
  const width = Math.max(1, bbox.width / ((window.end - window.start) / window.step));
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  for (let number = low; number <= high; number += 1) {
    const y = Math.round(bbox.top + bbox.height - (number - low + 1) * height);
    cells[number].forEach((value, place) => {
      if (!(value > 0.01)) return;
      ctx.fillStyle = viridis((value / most) ** 0.5);
      const x = plot.valToPos(window.start + place * window.step, 'x', true) - width;
      ctx.fillRect(Math.floor(x), y, Math.ceil(width) + 1, Math.ceil(height));
    });
  }
  ctx.restore();
}

function viridis(share) {
  const place = Math.min(0.9999, Math.max(0, share)) * (VIRIDIS.length - 1);
  const one = VIRIDIS[Math.floor(place)];
  const next = VIRIDIS[Math.floor(place) + 1];
  return `rgb(${one.map((value, number) => Math.round(value + (next[number] - value) * (place % 1))).join(' ')})`;
}

function heatLegend(panel, place) {
  const { cells, found, most } = panel.heat;
  const legend = legendOf(panel);
  const format = formatter(panel.model.fieldConfig.defaults.unit);
  const ramp = element('span', 'ramp');
  ramp.style.background = `linear-gradient(to right, ${[0, 0.25, 0.5, 0.75, 1].map(viridis).join(', ')})`;
  const parts = [element('span', '', 'few'), ramp, element('span', '', `up to ${formatter('short')(Math.round(most))} at once`)];
  if (place !== null && place !== undefined) {
    const column = cells.map((row) => row[place] || 0);
    const sum = column.reduce((all, value) => all + value, 0);
    let below = 0;
    const half = column.findIndex((value) => (below += value) >= sum / 2 && sum > 0);
    parts.push(element('span', '', sum > 0 ? `here: ${formatter('short')(Math.round(sum))}, half of them up to ${edge(found, half, format)}` : 'here: none'));
  }
  legend.replaceChildren(...parts);
}

// ---- one number ----

export function drawStat(panel) {
  const { model, body } = panel;
  const { answers, window, problem } = panel.answer;
  const { unit, decimals } = model.fieldConfig.defaults;
  const series = named(model, answers);
  const last = series.map(({ points }) => points.findLast(([, value]) => !Number.isNaN(Number(value))));
  const names = model.options.textMode === 'value_and_name';
  const value = element('p', `value${names ? ' small' : ''}`);
  if (problem || !last[0]) {
    value.textContent = '–';
    body.replaceChildren(value);
    value.title = problem || 'no data in this time';
    return;
  }
  const newest = Number(last[0][1]);
  const limit = limitOf(model.fieldConfig.defaults);
  value.textContent = names ? series.map(({ name }) => name).join(', ') : formatter(unit)(decimals === 0 ? Math.round(newest) : newest);
  value.title = value.textContent;
  const age = window.end - last[0][0];
  if (age > FRESH_SECONDS) value.append(element('span', 'age', `${formatter('s')(age)} ago`));
  value.classList.toggle('trouble', limit !== undefined && newest >= limit);
  const spark = element('canvas');
  spark.setAttribute('aria-hidden', 'true');
  body.replaceChildren(value, ...(names ? [] : [spark]));
  if (!names) sparkline(spark, onGrid(series[0].points, window, grid(window).length));
}

function sparkline(canvas, values) {
  const { width, height } = canvas.getBoundingClientRect();
  canvas.width = width * devicePixelRatio;
  canvas.height = height * devicePixelRatio;
  const known = values.filter((value) => value !== null);
  const most = Math.max(...known);
  const least = Math.min(0, ...known);
  const ctx = canvas.getContext('2d');
  ctx.strokeStyle = cssColor('--accent');
  ctx.fillStyle = cssColor('--accent') + '22';
  ctx.lineWidth = 1.5 * devicePixelRatio;
  const y = (value) => canvas.height * (1 - 0.8 * ((value - least) / (most - least || 1))) - ctx.lineWidth;
  const x = (place) => (place / (values.length - 1)) * canvas.width;
  for (const [from, to] of runs(values)) {
    ctx.beginPath();
    for (let place = from; place <= to; place += 1) ctx.lineTo(x(place), y(values[place]));
    ctx.stroke();
    ctx.lineTo(x(to), canvas.height);
    ctx.lineTo(x(from), canvas.height);
    ctx.fill();
  }
}

// First and last place of every stretch without a gap.
function runs(values) {
  const found = [];
  values.forEach((value, place) => {
    if (value === null) return;
    const last = found.at(-1);
    if (last && last[1] === place - 1) last[1] = place;
    else found.push([place, place]);
  });
  return found;
}

// ---- what they share ----

function legendOf(panel) {
  return panel.card.querySelector('.legend') || panel.card.appendChild(element('div', 'legend'));
}

// Where trouble begins, or undefined.
function limitOf({ thresholds }) {
  return thresholds?.steps?.[1]?.value;
}

// Says why there is nothing to draw; true if so.
function nothing(panel, series, problem) {
  const missing = globalThis.uPlot ? null : 'uPlot is not installed: `make install` fetches it.';
  const why = problem || missing || (series.length === 0 ? 'Nothing in this time. `make rush` sends a crowd.' : null);
  if (!why) return false;
  panel.drawn?.destroy();
  panel.drawn = null;
  panel.card.querySelector('.legend')?.remove();
  const said = element('div', 'nothing');
  said.append(element('p', '', why));
  panel.body.replaceChildren(said);
  return true;
}

function grid({ start, end, step }) {
  return Array.from({ length: Math.round((end - start) / step) + 1 }, (_, place) => start + place * step);
}

function onGrid(points, { start, step }, length) {
  const row = new Array(length).fill(null);
  for (const [time, text] of points) {
    const value = Number(text);
    const place = Math.round((time - start) / step);
    if (Number.isFinite(value) && place >= 0 && place < length) row[place] = value;
  }
  return row;
}

function stack(values) {
  const below = new Array(values[0].length).fill(0);
  return values.map((row) => row.map((value, place) => (below[place] += value || 0)));
}

// The series of all targets with their names and colours, those without any number left out.
function named(model, answers) {
  const found = [];
  answers.forEach((result, number) => {
    for (const { metric, values } of result) {
      if (!values.some(([, value]) => Number.isFinite(Number(value)))) continue;
      const legend = model.targets[number].legendFormat;
      const name = !legend || legend === '__auto' ? model.title : legend.replace(/\{\{ *(\w+) *\}\}/g, (_, label) => metric[label] || '').trim();
      found.push({ name, points: values });
    }
  });
  const fixed = new Map((model.fieldConfig.overrides || []).map(({ matcher, properties }) => [matcher.options, properties.find(({ id }) => id === 'color')?.value.fixedColor]));
  let next = 0;
  return found.map((one) => ({ ...one, color: fixed.get(one.name) ? onGround(fixed.get(one.name)) : paletteColor(next++) }));
}
