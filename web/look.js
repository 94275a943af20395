// Colours, numbers and elements: what all parts of the page share.

// Okabe and Ito's colours, as in grafana/panels.py, in the order in which curves without a colour of their own take them.
const PALETTE = ['#0072b2', '#e69f00', '#009e73', '#cc79a7', '#56b4e9', '#d55e00', '#8c8c8c', '#cc3311'];
const OUTCOME_COLORS = {
  issued: '#009e73', replayed: '#56b4e9', 'already-issued': '#0072b2', 'sold-out': '#8c8c8c', 'not-open': '#cc79a7',
  'unknown-coupon': '#e69f00', busy: '#d55e00', unavailable: '#cc3311',
};
// The darkest three, lifted for a dark ground.
const LIFTED = { '#0072b2': '#3d9be0', '#cc3311': '#f0603e', '#009e73': '#1fbf92' };

export const OUTCOMES = Object.keys(OUTCOME_COLORS);

export function dark() {
  return matchMedia('(prefers-color-scheme: dark)').matches;
}

export function onGround(color) {
  return dark() ? LIFTED[color.toLowerCase()] || color : color;
}

export function colorOf(outcome) {
  return onGround(OUTCOME_COLORS[outcome]);
}

export function paletteColor(place) {
  return onGround(PALETTE[place % PALETTE.length]);
}

export function cssColor(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// Text between backticks becomes code, so that a command looks like one.
export function element(tag, kind = '', text = '') {
  const made = document.createElement(tag);
  if (kind) made.className = kind;
  if (text) text.split('`').forEach((part, place) => made.append(place % 2 ? element('code', '', part) : part));
  return made;
}

export function count(value) {
  return Math.round(value).toLocaleString('en');
}

export function rate(value) {
  return `${short(value)}/s`;
}

function short(value) {
  const size = Math.abs(value);
  if (size >= 1e9) return `${digits(value / 1e9)} G`;
  if (size >= 1e6) return `${digits(value / 1e6)} M`;
  if (size >= 1e4) return `${digits(value / 1e3)} k`;
  if (Number.isInteger(value)) return value.toLocaleString('en');
  return digits(value);
}

function digits(value) {
  const size = Math.abs(value);
  if (size === 0) return '0';
  if (size < 0.01) return value.toPrecision(1);
  return value.toLocaleString('en', { maximumFractionDigits: size >= 100 ? 0 : size >= 10 ? 1 : 2 });
}

function seconds(value) {
  const size = Math.abs(value);
  if (size === 0) return '0 s';
  if (size < 0.001) return `${digits(value * 1e6)} µs`;
  if (size < 1) return `${digits(value * 1e3)} ms`;
  if (size < 120) return `${digits(value)} s`;
  return `${digits(value / 60)} min`;
}

function bytes(value) {
  const size = Math.abs(value);
  const [scale, name] = [[2 ** 30, 'GiB'], [2 ** 20, 'MiB'], [2 ** 10, 'KiB']].find(([limit]) => size >= limit) || [1, 'B'];
  return `${digits(value / scale)} ${name}`;
}

// Grafana's unit ids, the few that the boards use.
const UNITS = { s: seconds, reqps: rate, ops: rate, percentunit: (value) => `${digits(value * 100)} %`, short, bytes, Bps: (value) => `${bytes(value)}/s` };

export function formatter(unit) {
  return UNITS[unit] || short;
}
