// A spike: a steady rate, all at once a much higher one, and back. Says how long the users who come after the spike still
// suffer from it.
//
//   RATE=500 PEAK=3000   requests a second before and after the spike, and in it
//   BEFORE=10s SPIKE=10s AFTER=20s   how long each lasts
//   BACK_MS=250          the p95 of the last five seconds must be below this again
//   CODES=1              spread over so many coupons, `L-01` ... (1 to 64)
//   and the knobs in lib/stream.js; DROPS is about before and after, what could not be sent in the spike is shown
import exec from 'k6/execution';
import { Counter, Trend } from 'k6/metrics';

import * as api from './lib/api.js';
import * as knobs from './lib/knobs.js';
import * as report from './lib/report.js';
import * as stock from './lib/stock.js';
import * as stream from './lib/stream.js';

const RATE = knobs.count('RATE', 500, { max: stream.RATE_MAX });
const PEAK = knobs.count('PEAK', Math.max(3000, RATE), { min: RATE, max: stream.RATE_MAX });
const BEFORE = knobs.duration('BEFORE', '10s', { min: 5 });
const SPIKE = knobs.duration('SPIKE', '10s');
const AFTER = knobs.duration('AFTER', '20s', { min: 6, max: 120 });
const BACK_MS = knobs.count('BACK_MS', 250, { max: 5000 });
const COUPONS = stock.ofStream();

const LAST_SECONDS = 5;
// The service is back when users wait no longer than this, compared with before the spike: twice as long, and what one commit may be slow.
const BACK_FACTOR = 2;
const BACK_ALLOWANCE_MS = 10;

// Latency of the users who came in each second after the spike; the last ones again as `second:last`.
const recovery = new Trend('coupon_recovery', true);
// How many those last ones were: k6 lets a trend without a sample pass every threshold, and a counter that was touched is judged.
const last = new Counter('coupon_recovery_last');
const seconds = Array.from({ length: AFTER }, (_, second) => second);

export const options = stream.optionsFor(
  ['before', 'spike', 'after'],
  stream.warmed(RATE, {
    before: stream.steady(RATE, BEFORE),
    spike: stream.steady(PEAK, SPIKE, { startTime: `${BEFORE}s` }),
    after: stream.steady(RATE, AFTER, { startTime: `${BEFORE + SPIKE}s`, exec: 'askAfter' }),
  }),
  {
    'dropped_iterations{scenario:spike}': ['count>=0'],
    'coupon_recovery{second:last}': [`p(95)<${BACK_MS}`],
    coupon_recovery_last: ['count>0'],
    ...Object.fromEntries(seconds.map((second) => [`coupon_recovery{second:${second}}`, ['max>=0']])),
  },
);

export function setup() {
  last.add(0);
  stream.begin(COUPONS);
}

export function teardown() {
  stream.end();
}

export default function ask() {
  return stream.askForOne(COUPONS);
}

export function askAfter() {
  const second = Math.floor((Date.now() - exec.scenario.startTime) / 1000);
  const { status, timings } = ask();
  // A user that is refused a connection knows at once, and is not served any faster for that.
  const waited = status === 0 ? api.TIMEOUT_SECONDS * 1000 : timings.duration;
  recovery.add(waited, { second: String(second) });
  if (second < AFTER - LAST_SECONDS) return;
  recovery.add(waited, { second: 'last' });
  last.add(1);
}

export function handleSummary(data) {
  const rates = { before: RATE, spike: PEAK, after: RATE };
  const rows = Object.entries(rates).map(([name, rate]) => [name, rate, report.numbersOf(data, name)]).filter(([, , numbers]) => numbers);
  return report.said(report.table(rows), report.failures(data), recovered(data, rows));
}

function recovered({ metrics }, rows) {
  if (rows.length < 3) return 'nobody was answered after the spike, or the run ended before it was over';
  const limit = BACK_FACTOR * rows[0][2].p95 + BACK_ALLOWANCE_MS;
  const p95 = seconds.map((second) => p95Of(metrics[`coupon_recovery{second:${second}}`]));
  // One good second may be luck.
  const back = seconds.findIndex((second) => p95[second] <= limit && (second === AFTER - 1 || p95[second + 1] <= limit));
  const curve = p95.map((value) => (value === Infinity ? '–' : Math.round(value))).join(' ');
  const end = back < 0 ? `not recovered in ${AFTER} s` : `recovered within ${back + 1} s`;
  return `p95 in each second after the spike, in ms: ${curve}\n${end}, which means two seconds with a p95 of at most ${report.milliseconds(limit)}`;
}

// A second in which nobody could even ask is the worst one; k6 says 0 of it.
function p95Of({ values }) {
  return values.count === 0 ? Infinity : values['p(95)'];
}
