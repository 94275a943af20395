// The open model: requests arrive at a rate, whether or not the last ones were answered, so a slow service cannot slow the
// question. What could not even be sent, because every virtual user still waited, is counted in `dropped_iterations`; the
// latencies of such a run are better than the truth.
//
//   WARMUP=5s     the first rate before anything counts, as the scenario `warmup`, for coupons that do not sell out; 0s: none
//   VUS=          virtual users kept ready; by default enough for the rate while an answer takes half a second
//   SEED=1        another crowd; the same seed is the same crowd
//   ACKS=0        do not write down what was promised: it costs the generator a part of its CPU
//   DROPS=allow   requests that could not be sent do not fail the run
//   STRATEGY BASE_URL OPS_URL ADMIN_TOKEN   as in rush.js
import { check } from 'k6';
import exec from 'k6/execution';
import http from 'k6/http';

import * as acks from './acks.js';
import * as api from './api.js';
import * as audit from './audit.js';
import { requireCluster } from './cluster.js';
import * as knobs from './knobs.js';
import * as outcomes from './outcomes.js';
import { hash, random } from './random.js';
import * as stock from './stock.js';

export const SEED = knobs.word('SEED', '1');
export const WARMUP = knobs.duration('WARMUP', '5s', { min: 0 });
const ACKS = knobs.choice('ACKS', '1', ['0', '1']) === '1';
const DROPS_ALLOWED = knobs.choice('DROPS', 'forbid', ['forbid', 'allow']) === 'allow';

// Half a second is far above the p99 of a service that keeps up, and a fifth more is for those that do not start at once.
const ANSWER_SECONDS = 0.5;
const SPARE = 1.2;
const VUS_MIN = 50;
// A virtual user takes half a megabyte, and those of two scenarios are kept while the first one ends.
const VUS_MAX = 2500;
export const RATE_MAX = 50000;
// nginx answers within 14 s, whatever replicas do.
const GRACE = '15s';

http.setResponseCallback(http.expectedStatuses(...outcomes.EXPECTED));

// Scenarios. Times are in seconds; `answerSeconds` is how long users may take for whom no further one is needed.
export function steady(rate, seconds, { answerSeconds, ...more } = {}) {
  return { executor: 'constant-arrival-rate', rate, duration: `${seconds}s`, ...shared(rate, answerSeconds), ...more };
}

export function changing(from, stages, { answerSeconds, ...more } = {}) {
  const highest = Math.max(from, ...stages.map(({ target }) => target));
  const inSeconds = stages.map(({ target, seconds }) => ({ target, duration: `${seconds}s` }));
  return { executor: 'ramping-arrival-rate', startRate: from, stages: inSeconds, ...shared(highest, answerSeconds), ...more };
}

function shared(rate, answerSeconds = ANSWER_SECONDS) {
  const vus = Math.min(Math.max(Math.ceil(rate * answerSeconds * SPARE), VUS_MIN), VUS_MAX);
  // No further users during the run: making them would disturb what is measured.
  return { timeUnit: '1s', preAllocatedVUs: knobs.count('VUS', vus, { max: VUS_MAX * 4 }), gracefulStop: GRACE };
}

// The scenarios after a warm-up at `rate`.
export function warmed(rate, scenarios, more = {}) {
  if (WARMUP === 0) return scenarios;
  const later = ([name, scenario]) => [name, { ...scenario, startTime: `${parseFloat(scenario.startTime || '0') + WARMUP}s` }];
  return { warmup: steady(rate, WARMUP, more), ...Object.fromEntries(Object.entries(scenarios).map(later)) };
}

// The options of a run whose numbers are those of the scenarios in `measured`.
export function optionsFor(measured, scenarios, thresholds = {}) {
  return {
    scenarios,
    thresholds: { ...verdict(), ...Object.assign({}, ...measured.map(numbersOf)), ...thresholds },
    summaryTrendStats: ['avg', 'min', 'med', 'max', 'p(90)', 'p(95)', 'p(99)', 'p(99.9)', 'count'],
    discardResponseBodies: true,
    systemTags: ['scenario', 'name', 'method', 'status', 'error_code', 'check', 'expected_response'],
    setupTimeout: '2m',
    teardownTimeout: '2m',
    ...stock.BATCH,
  };
}

function verdict() {
  return { checks: ['rate==1'], http_req_failed: ['rate==0'], ...outcomes.THRESHOLDS, ...audit.THRESHOLDS };
}

// k6 exports the numbers of a scenario only where a threshold asks for them; those that are always kept do just that.
function numbersOf(scenario) {
  const counters = ['http_reqs', 'iterations', ...outcomes.NAMES];
  return {
    [`http_req_duration{scenario:${scenario}}`]: ['max>=0'],
    [`dropped_iterations{scenario:${scenario}}`]: [DROPS_ALLOWED ? 'count>=0' : 'count==0'],
    ...Object.fromEntries(counters.map((name) => [`${name}{scenario:${scenario}}`, ['count>=0']])),
  };
}

// Before a run: a new round in which these coupons are open.
export function begin(coupons) {
  requireCluster();
  outcomes.startAtZero();
  stock.open(coupons);
}

// After it: the promises.
export function end() {
  audit.auditRun({ fresh: true });
}

// One user who asks once, for one of these coupons. "Busy" is an answer like any other here: asking again would be another rate.
export function askForOne(coupons) {
  const next = random(hash(`${SEED}-${exec.scenario.iterationInTest}`));
  const { code } = coupons[Math.floor(next() * coupons.length)];
  const { name, iterationInTest } = exec.scenario;
  const userId = `${name}-${SEED}-${iterationInTest}`;
  const order = { code, userId, key: userId };
  const answer = api.issue(order);
  outcomes.count(answer);
  if (answer.status === 403 || answer.status === 409) check(null, { [`a new user is not told ${answer.status} of a coupon that is open`]: () => false });
  if (ACKS) acks.writeDown(answer, order);
  return answer;
}
