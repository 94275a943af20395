// The page: the rush as it happens, and Grafana's dashboards drawn without Grafana. Everything it shows comes from three places:
// the service's own API, the dashboards' files, and two read-only questions to Prometheus.
import { Board } from './board.js';
import { OUTCOMES, colorOf, count, element, rate } from './look.js';
import { instant } from './prometheus.js';

const RUSH_MS = 1000;
const BOARD_MS = 4000;
const COUPONS_MAX = 12;
const BOARDS = ['scale-overview', 'service-and-lock', 'servers', 'k6-run'];

const $ = (id) => document.getElementById(id);
const seen = { service: null, prometheus: null };
let board = null;
// Counts the choices of a board: the last one is shown, whichever file arrives first.
let choices = 0;
let paused = false;

// ---- the rush ----

async function showStock() {
  let coupons;
  try {
    const response = await fetch('/coupons', { cache: 'no-store', signal: AbortSignal.timeout(5000) });
    if (!response.ok) throw new Error(`status ${response.status}`);
    coupons = await response.json();
    seen.service = true;
  } catch {
    seen.service = false;
    $('stock').replaceChildren(element('p', 'empty', 'The service does not answer. `make status` shows what runs.'));
    return;
  }
  if (coupons.length === 0) {
    $('stock').replaceChildren(element('p', 'empty', 'There is no coupon yet.'));
    return;
  }
  // What is over interests nobody as long as something is not; the experiments leave many such coupons behind.
  const current = coupons.filter(({ state }) => state !== 'closed');
  const shown = (current.length > 0 ? current : coupons).slice(0, COUPONS_MAX);
  keyed($('stock'), shown, ({ code }) => code, newCoupon, updateCoupon);
  showOthers(current.length - shown.length, coupons.length - current.length);
}

function showOthers(more, closed) {
  const said = [more > 0 ? `${count(more)} more` : '', closed > 0 && more >= 0 ? `${count(closed)} closed` : ''].filter((part) => part);
  const note = $('stock').querySelector('.others') || $('stock').appendChild(element('p', 'note others'));
  note.textContent = said.length > 0 ? `Not shown: ${said.join(', ')}.` : '';
  note.hidden = said.length === 0;
}

function newCoupon({ code, discountPercent }) {
  const row = element('div', 'coupon');
  const main = element('div');
  const head = element('div', 'row-head');
  const discount = element('span', 'quiet', `${discountPercent} %`);
  discount.append(element('span', 'off', ' off'));
  head.append(element('b', '', code), discount, element('span', 'badge'), element('span', 'figure'));
  const bar = element('div', 'bar');
  bar.setAttribute('role', 'meter');
  bar.setAttribute('aria-label', `${code}: pieces left`);
  bar.append(element('i'));
  main.append(head, bar, element('p', 'row-foot served'));
  const button = element('button', '', 'Take one');
  button.type = 'button';
  button.setAttribute('aria-label', `Take a coupon ${code}`);
  button.addEventListener('click', () => take(code, button));
  row.append(main, button);
  return row;
}

function updateCoupon(row, { code, total, remaining, state }) {
  const share = total > 0 ? remaining / total : 0;
  const figure = row.querySelector('.figure');
  figure.replaceChildren(element('b', 'left', count(remaining)), ` of ${count(total)}`);
  const badge = row.querySelector('.badge');
  badge.textContent = state === 'open' ? '' : state.replace('-', ' ');
  badge.hidden = state === 'open';
  const bar = row.querySelector('.bar');
  bar.setAttribute('aria-valuemax', total);
  bar.setAttribute('aria-valuenow', remaining);
  bar.firstChild.style.width = `${share * 100}%`;
  row.dataset.code = code;
}

async function take(code, button) {
  const user = $('user');
  if (!user.reportValidity()) return;
  button.disabled = true;
  try {
    const response = await fetch('/coupons/issue', {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', 'Idempotency-Key': `${user.value}-${code}` },
      body: JSON.stringify({ code, userId: user.value }),
      signal: AbortSignal.timeout(20000),
    });
    say(...told(response.status, await response.json(), code, response.headers.get('x-replica')));
  } catch {
    say('bad', 'No answer. Asking again is safe: you cannot get two.');
  }
  button.disabled = false;
  showStock();
}

function told(status, body, code, replica) {
  const by = replica ? ` (${replica} answered)` : '';
  const entry = body.entry || body;
  const serial = entry.serial ? `number ${entry.serial}` : 'without a number';
  if (status === 201) return ['good', `You got ${code}, ${serial}${by}.`];
  if (status === 200) return ['good', `You have ${code} already, ${serial}: the same answer to the same question${by}.`];
  if (status === 409) return ['so-so', `You hold ${entry.code || 'a coupon'} already${entry.serial ? `, ${serial}` : ''}: one per person${by}.`];
  if (status === 410) return ['so-so', `${code} is sold out${by}.`];
  if (status === 403) return ['so-so', `${code} is not open now${by}.`];
  if (status === 503) return ['bad', 'Not now: the service is busy. Try again in a moment; it is safe.'];
  return ['bad', `${body.title || 'Refused'} (${status})${by}.`];
}

function say(kind, text) {
  $('answer').dataset.kind = kind;
  $('answer').textContent = text;
}

async function showReplicas() {
  const orders = 'sum by (replica) (increase(coupon_issue_total{job="coupon"}[1m]))';
  const answers = 'sum by (code, replica) (rate(coupon_issue_total{job="coupon"}[15s]))';
  const outcomes = 'sum by (outcome) (increase(coupon_issue_total{job="coupon"}[5m]))';
  const flying = 'sum by (replica) (coupon_in_flight{job="coupon"})';
  let found;
  try {
    found = await Promise.all(['coupon_build_info{job="coupon"}', orders, answers, flying, outcomes].map(instant));
    seen.prometheus = true;
  } catch {
    seen.prometheus = false;
    for (const id of ['replicas', 'outcomes']) $(id).replaceChildren(element('p', 'empty', 'Not known: Prometheus does not answer.'));
    $('running').textContent = '';
    return;
  }
  const [builds, taken, rates, flights, kinds] = found;
  drawReplicas(builds, by('replica', taken), by('replica', rates), by('replica', flights));
  drawHomes(rates);
  drawOutcomes(by('outcome', kinds));
}

// The sum of the series that share a value of the label.
function by(label, series) {
  const sums = new Map();
  for (const { metric, value } of series) sums.set(metric[label], (sums.get(metric[label]) || 0) + Number(value[1]));
  return sums;
}

// Which replicas serve a code: its home, and those that joined.
function drawHomes(rates) {
  for (const row of $('stock').querySelectorAll('.coupon')) {
    const own = [...by('replica', rates.filter(({ metric }) => metric.code === row.dataset.code))].filter(([, orders]) => orders > 0);
    const sum = own.reduce((all, [, orders]) => all + orders, 0);
    const parts = own.sort(([, one], [, other]) => other - one).map(([name, orders]) => `${name} ${Math.round((orders / sum) * 100)} %`);
    row.querySelector('.served').textContent = parts.length > 0 ? `served by ${parts.join(', ')}` : '';
  }
}

function drawReplicas(builds, orders, rates, flights) {
  const names = builds.map(({ metric }) => metric.replica || metric.instance).sort((a, b) => a.localeCompare(b, 'en', { numeric: true }));
  const { strategy, version } = builds[0]?.metric || {};
  $('running').textContent = names.length ? `${names.length} ${names.length === 1 ? 'replica' : 'replicas'}, strategy ${strategy}, version ${version}` : '';
  if (names.length === 0) {
    $('replicas').replaceChildren(element('p', 'empty', 'Prometheus sees no replica. `make up` starts some.'));
    return;
  }
  const sum = names.reduce((all, name) => all + (orders.get(name) || 0), 0);
  const rows = names.map((name) => ({ name, share: sum > 0 ? (orders.get(name) || 0) / sum : 0, rate: rates.get(name) || 0, flights: flights.get(name) || 0, orders: orders.get(name) || 0 }));
  keyed($('replicas'), rows, ({ name }) => name, newReplica, updateReplica);
}

function newReplica({ name }) {
  const row = element('div');
  const head = element('div', 'row-head');
  head.append(element('b', '', name), element('span', 'figure'));
  const bar = element('div', 'bar');
  bar.setAttribute('role', 'meter');
  bar.setAttribute('aria-label', `${name}: share of the orders`);
  bar.setAttribute('aria-valuemax', 100);
  bar.append(element('i'));
  row.append(head, bar, element('div', 'row-foot'));
  return row;
}

function updateReplica(row, { share, rate: answers, flights, orders }) {
  row.querySelector('.figure').replaceChildren(element('b', '', rate(answers)), ' answers');
  const bar = row.querySelector('.bar');
  bar.setAttribute('aria-valuenow', Math.round(share * 100));
  bar.firstChild.style.width = `${share * 100}%`;
  row.querySelector('.row-foot').replaceChildren(
    element('span', '', `${count(orders)} orders (${Math.round(share * 100)} %)`), element('span', '', `${count(flights)} in flight`));
}

function drawOutcomes(kinds) {
  const known = OUTCOMES.filter((name) => kinds.has(name));
  const sum = known.reduce((all, name) => all + kinds.get(name), 0);
  if (sum < 0.5) {
    $('outcomes').replaceChildren(element('p', 'empty', 'Nobody has asked for a coupon. Take one yourself, or send a crowd: `make rush`.'));
    return;
  }
  const split = element('div', 'split');
  const table = element('table', 'tally');
  for (const name of known) {
    const share = kinds.get(name) / sum;
    if (share > 0) {
      const part = element('i');
      part.style.flexGrow = share;
      part.style.background = colorOf(name);
      part.title = `${name}: ${(share * 100).toFixed(1)} %`;
      split.append(part);
    }
    const line = element('tr', share > 0 ? '' : 'nothing');
    const head = element('th');
    head.scope = 'row';
    const swatch = element('span', 'swatch');
    swatch.style.background = colorOf(name);
    head.append(swatch, name.replaceAll('-', ' '));
    line.append(head, element('td', '', count(Math.round(kinds.get(name)))), element('td', 'share', share > 0 ? `${(share * 100).toFixed(1)} %` : ''));
    table.append(line);
  }
  split.setAttribute('aria-hidden', 'true');
  $('outcomes').replaceChildren(split, table);
}

// Rows that stay the same element, so that bars glide and a button keeps its focus.
function keyed(parent, items, keyOf, make, update) {
  let list = parent.querySelector('.rows');
  if (!list) {
    list = element('div', 'rows');
    parent.replaceChildren(list);
  }
  const old = new Map([...list.children].map((child) => [child.dataset.key, child]));
  items.forEach((item, place) => {
    const key = keyOf(item);
    const row = old.get(key) || make(item);
    row.dataset.key = key;
    old.delete(key);
    update(row, item);
    if (list.children[place] !== row) list.insertBefore(row, list.children[place] || null);
  });
  for (const gone of old.values()) gone.remove();
}

function showState() {
  const { service, prometheus } = seen;
  const [kind, text] = service && prometheus ? ['live', paused ? 'live, curves paused' : 'live']
    : service ? ['partly', 'no measurements'] : ['off', 'the service does not answer'];
  $('state').dataset.kind = kind;
  if ($('state-text').textContent !== text) $('state-text').textContent = text;
  const problems = [];
  if (prometheus === false) problems.push('Prometheus does not answer, so there is nothing to draw. Coupons can be taken all the same. `make status` shows what runs, `make up` starts what is missing.');
  if (typeof window.uPlot === 'undefined') problems.push('uPlot is not installed, so curves are missing: `make install` fetches it.');
  const said = problems.join(' ');
  if ($('banner').dataset.said !== said) $('banner').replaceChildren(...element('p', '', said).childNodes);
  $('banner').dataset.said = said;
  $('banner').hidden = said === '';
}

// ---- the dashboards ----

async function openBoard(name) {
  for (const tab of $('tabs').children) {
    const selected = tab.dataset.name === name;
    tab.setAttribute('aria-selected', selected);
    tab.tabIndex = selected ? 0 : -1;
    // On a phone the tabs are wider than the screen. Not `scrollIntoView`: the page itself must stay where it is.
    if (selected) $('tabs').scrollTo({ left: tab.offsetLeft - $('tabs').offsetLeft - ($('tabs').clientWidth - tab.clientWidth) / 2 });
  }
  board?.close();
  board = null;
  choices += 1;
  const choice = choices;
  try {
    const response = await fetch(`dashboards/${name}.json`, { cache: 'no-cache' });
    if (!response.ok) throw new Error(`status ${response.status}`);
    const file = await response.json();
    if (choice !== choices) return;
    board = new Board(file, $('board'), $('variables'));
  } catch {
    if (choice === choices) $('board').replaceChildren(element('p', 'empty', `The file of this dashboard is missing: \`make dashboards\` writes it.`));
    return;
  }
  board.range = Number($('range').value);
}

async function start() {
  $('user').value = sessionStorage.getItem('user') || someone();
  $('user').addEventListener('input', () => sessionStorage.setItem('user', $('user').value));
  $('another').addEventListener('click', () => {
    $('user').value = someone();
    say('idle', 'You are somebody new: take a coupon.');
  });
  $('take').addEventListener('submit', (event) => event.preventDefault());
  $('range').addEventListener('change', () => {
    if (board) board.range = Number($('range').value);
    board?.refresh();
  });
  $('pause').addEventListener('click', () => {
    paused = !paused;
    $('pause').setAttribute('aria-pressed', paused);
    $('pause').textContent = paused ? 'Go on' : 'Pause';
    showState();
  });
  await openTabs();
  forever(RUSH_MS, async () => {
    await Promise.all([showStock(), showReplicas()]);
    showState();
  });
  const asked = location.hash.slice(1);
  await openBoard(BOARDS.includes(asked) ? asked : BOARDS[0]);
  forever(BOARD_MS, () => (paused ? null : board?.refresh()));
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => board?.redraw());
}

async function openTabs() {
  for (const name of BOARDS) {
    const tab = element('button', '', name.replaceAll('-', ' ').replace(/^./, (first) => (name === 'k6-run' ? first : first.toUpperCase())));
    tab.type = 'button';
    tab.dataset.name = name;
    tab.setAttribute('role', 'tab');
    tab.setAttribute('aria-controls', 'board');
    tab.addEventListener('click', () => {
      history.replaceState(null, '', `#${name}`);
      openBoard(name);
    });
    $('tabs').append(tab);
  }
  $('tabs').addEventListener('keydown', (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const tabs = [...$('tabs').children];
    const next = tabs[(tabs.indexOf(document.activeElement) + step + tabs.length) % tabs.length];
    next.focus();
    next.click();
  });
}

function someone() {
  const name = `me-${Math.random().toString(36).slice(2, 8)}`;
  sessionStorage.setItem('user', name);
  return name;
}

// One after the other, never two at once, and not while nobody looks.
async function forever(pause, work) {
  for (;;) {
    if (!document.hidden) await work();
    await new Promise((done) => setTimeout(done, pause));
  }
}

start();
