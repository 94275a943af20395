// Capacity: the rate rises in steps until something breaks: the p99, a "busy", or requests that cannot be sent any more. Says
// the highest rate that held. What breaks ends the run, so it says nothing of what comes after that.
//
//   FROM=500 TO=8000    the first rate and the last one to try, in requests a second
//   GROWTH=25           each step asks for so many percent more
//   STEP=10s            how long a step lasts, its rise of 2 s included
//   P99_MS=100          what the p99 must stay below
//   CODES=1             spread over so many coupons, `L-01` ... (1 to 64)
//   and the knobs in lib/stream.js, without DROPS
import * as knobs from './lib/knobs.js';
import * as report from './lib/report.js';
import * as stock from './lib/stock.js';
import * as stream from './lib/stream.js';

const FROM = knobs.count('FROM', 500, { max: stream.RATE_MAX });
const TO = knobs.count('TO', Math.max(8000, FROM), { min: FROM, max: stream.RATE_MAX });
const GROWTH = 1 + knobs.count('GROWTH', 25, { max: 400 }) / 100;
const RISE_SECONDS = 2;
const STEP = knobs.duration('STEP', '10s', { min: 5, max: 600 });
const P99_MS = knobs.count('P99_MS', 100, { max: 5000 });
const COUPONS = stock.ofStream();
// A request that cannot be sent would have waited beyond the limit, too; the p99 allows one of a hundred.
const DROPPED_SHARE_MAX = 0.01;
// A step is judged when it has run for so long, because the p99 of few requests is chance.
const JUDGED_AFTER = RISE_SECONDS + 2;
// Where answers take so long on average, the p99 is far beyond its limit.
const ANSWER_SECONDS = P99_MS / 1000;

// Far above the limit. Longer, and the users of several steps would have to be kept ready at once.
const GRACE = '2s';

const RATES = [];
for (let rate = FROM; rate <= TO; rate = Math.max(Math.round(rate * GROWTH), rate + 1)) RATES.push(rate);

export const options = stream.optionsFor(
  RATES.map(step),
  stream.warmed(FROM, Object.fromEntries(RATES.map((rate, i) => [step(rate), rising(rate, i)])), { gracefulStop: GRACE }),
  Object.assign({}, ...RATES.map(limits)),
);

function step(rate) {
  return `step-${rate}`;
}

function rising(rate, i) {
  const stages = [{ target: rate, seconds: RISE_SECONDS }, { target: rate, seconds: STEP - RISE_SECONDS }];
  return stream.changing(RATES[Math.max(i - 1, 0)], stages, {
    startTime: `${i * STEP}s`,
    answerSeconds: ANSWER_SECONDS,
    gracefulStop: GRACE,
  });
}

function limits(rate, i) {
  const until = (threshold) => [{ threshold, abortOnFail: true, delayAbortEval: `${stream.WARMUP + i * STEP + JUDGED_AFTER}s` }];
  return {
    [`http_req_duration{scenario:${step(rate)}}`]: until(`p(99)<${P99_MS}`),
    [`coupon_busy{scenario:${step(rate)}}`]: until('count==0'),
    [`dropped_iterations{scenario:${step(rate)}}`]: until(`count<=${Math.ceil(rate * STEP * DROPPED_SHARE_MAX)}`),
  };
}

export function setup() {
  stream.begin(COUPONS);
}

export function teardown() {
  stream.end();
}

export default function ask() {
  return stream.askForOne(COUPONS);
}

export function handleSummary(data) {
  const steps = RATES.map((rate) => [step(rate), rate, report.numbersOf(data, step(rate))]).filter(([, , numbers]) => numbers);
  return report.said(report.table(steps), report.failures(data), verdict(steps));
}

function verdict(steps) {
  if (steps.length === 0) return 'nothing was sent';
  const [, last] = steps[steps.length - 1];
  // What a step began may be answered, and break it, when the next one has begun.
  const broke = steps.findIndex(([, , { broken }]) => broken.length > 0);
  if (broke < 0) return last === RATES[RATES.length - 1] ? `all rates up to ${last}/s held: try a higher TO` : `nothing had broken when the run was ended at ${last}/s`;
  const [, rate, { broken }] = steps[broke];
  const held = broke > 0 ? `the highest rate that held is ${steps[broke - 1][1]}/s` : 'not even the first rate held';
  return `${held}; at ${rate}/s it broke: ${broken.join(', ')}`;
}
