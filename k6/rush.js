// The rush: a crowd in a closed loop, each iteration a new user who wants one coupon and does not care which. It shows
// that the promises hold under a crowd; for latency claims an open model is needed.
//
//   VUS=1000 DURATION=60s   as many users at once, one after the other, for so long (the default)
//   VUS=1000 USERS=6000     so many users in all
//   SEED=1                  another crowd; the same seed is the same crowd
//   RESET=0                 go on with the round as it is, with new users, instead of a fresh one
//   STRICT=1                "busy" fails the run, too
//   STRATEGY=unlocked       entries come without a serial
//   BASE_URL OPS_URL ADMIN_TOKEN   where the cluster is
//
// The console has one JSON line per acknowledged coupon and nothing else: `--console-output FILE` makes it the evidence
// for `lab verify --acks FILE`. k6 appends to that file.
import { check, sleep } from 'k6';
import exec from 'k6/execution';
import http from 'k6/http';

import * as acks from './lib/acks.js';
import * as api from './lib/api.js';
import * as audit from './lib/audit.js';
import { newRound, offeredCodes, requireCluster } from './lib/cluster.js';
import * as knobs from './lib/knobs.js';
import * as outcomes from './lib/outcomes.js';
import { hash, random, shuffled } from './lib/random.js';

const VUS = knobs.count('VUS', 1000, { max: 20000 });
const USERS = knobs.count('USERS', 0, { min: 0 });
const SECONDS = knobs.duration('DURATION', '60s');
const RESET = knobs.choice('RESET', '1', ['0', '1']) === '1';
// Without a reset the users of the last run hold their coupons, so this run needs others.
const SEED = knobs.word('SEED', RESET ? '1' : Date.now().toString(36));

// How many users click twice; half of them on two different coupons.
const DOUBLE_CLICKS = 0.05;
// A user that is told "busy" asks this often in all, and waits no longer than this for the next time.
const ATTEMPTS_MAX = 5;
const PAUSE_MAX_SECONDS = 3;
// Longer than a request may take, so that the end of a run cuts nobody off.
const GRACE = '30s';

const byUsers = {
  executor: 'shared-iterations',
  vus: Math.min(VUS, USERS),
  iterations: USERS,
  maxDuration: '10m',
  gracefulStop: GRACE,
};
const byTime = { executor: 'constant-vus', vus: VUS, duration: `${SECONDS}s`, gracefulStop: GRACE };

export const options = {
  scenarios: { rush: USERS > 0 ? byUsers : byTime },
  thresholds: {
    checks: ['rate==1'],
    http_req_failed: ['rate==0'],
    // Only a run by users drops iterations, when its time was not enough for all of them.
    ...(USERS > 0 ? { dropped_iterations: ['count==0'] } : {}),
    ...outcomes.THRESHOLDS,
    ...audit.THRESHOLDS,
  },
  summaryTrendStats: ['avg', 'med', 'p(95)', 'p(99)', 'max'],
  // What nobody reads is not kept: at 10,000 VUs a kilobyte each is felt.
  discardResponseBodies: true,
  systemTags: ['scenario', 'name', 'method', 'status', 'error_code', 'check', 'expected_response'],
};

http.setResponseCallback(http.expectedStatuses(...outcomes.EXPECTED));

export function setup() {
  requireCluster();
  outcomes.startAtZero();
  if (RESET) newRound();
  // Every virtual user reads the knobs for itself; the seed of a run is one.
  return { seed: SEED, codes: offeredCodes(), exclusive: api.audit().json().exclusive };
}

export function teardown() {
  audit.auditRun({ fresh: RESET });
}

export default function rush({ seed, codes, exclusive }) {
  const userId = `u-${seed}-${exec.vu.idInTest}-${exec.vu.iterationInScenario}`;
  const next = random(hash(userId));
  const wishes = shuffled(codes, next).map((code) => ({ code, userId, key: `${userId}-${code}` }));
  const click = next();
  let left = wishes;
  if (click < DOUBLE_CLICKS / 2 && wishes.length > 1) {
    left = clickOnTwo(wishes, exclusive);
  } else if (click < DOUBLE_CLICKS) {
    left = clickTwice(wishes);
  }
  while (left.length > 0) left = clickOnce(left);
}

// Asks for the first wish. Returns the wishes that are worth asking for next: none once the user has a coupon or gave up.
function clickOnce([order, ...others]) {
  const [answer] = ask([order]);
  if (answer.status === 409) check(answer, { 'a new user holds nothing yet': () => false });
  acknowledged([answer], [order]);
  return isSoldOut(answer) ? others : [];
}

// The same request twice at once: one coupon, and both answers are about it.
function clickTwice([order, ...others]) {
  const orders = [order, order];
  const answers = ask(orders);
  const [first, second] = acknowledged(answers, orders);
  if (answers.every(isSettled)) {
    check(answers, {
      'a double click gets one coupon': (both) => both.filter(({ status }) => status === 201).length <= 1,
      'a double click gets one answer': (both) => (first && second ? api.isSame(first, second) : both.every(isSoldOut)),
    });
  }
  return answers.every(isSoldOut) ? others : [];
}

// Two coupons at once: under the exclusive rule one at most, and the refusal shows the one that the user got.
function clickOnTwo([one, other, ...others], exclusive) {
  const orders = [one, other];
  const answers = ask(orders);
  const entries = acknowledged(answers, orders).filter((entry) => entry);
  if (answers.every(isSettled)) {
    const held = answers.filter(({ status }) => status === 409).map((answer) => api.parsed(answer).entry || {});
    check(answers, {
      'two clicks get as many coupons as the rule allows': (both) => (exclusive ? entries.length <= 1 : held.length === 0),
      'two clicks get a coupon or find both sold out': (both) => entries.length > 0 || both.every(isSoldOut),
      'a refusal shows the coupon that the user holds': () => held.every((entry) => entries.some((got) => api.isSame(got, entry))),
    });
  }
  return answers.every(isSoldOut) ? others : [];
}

// Asks for all orders at once, and again, with the same key, for those that were told "busy". Answers in the same order.
function ask(orders) {
  const answers = [];
  let waiting = [...orders.keys()];
  for (let attempt = 1; waiting.length > 0; attempt += 1) {
    http.batch(waiting.map((place) => api.issueRequest(orders[place]))).forEach((answer, i) => {
      outcomes.count(answer);
      answers[waiting[i]] = answer;
    });
    waiting = waiting.filter((place) => answers[place].status === 503);
    if (attempt === ATTEMPTS_MAX) {
      waiting.forEach(outcomes.countGivenUp);
      break;
    }
    if (waiting.length > 0) sleep(Math.max(...waiting.map((place) => pauseSeconds(answers[place]))));
  }
  return answers;
}

function pauseSeconds({ headers }) {
  return Math.min(Number(headers['Retry-After']) || 1, PAUSE_MAX_SECONDS);
}

// One place per answer, undefined where no coupon was promised.
function acknowledged(answers, orders) {
  return answers.map((answer, i) => acks.writeDown(answer, orders[i]));
}

function isSettled({ status }) {
  return status === 200 || status === 201 || status === 409 || status === 410;
}

function isSoldOut({ status }) {
  return status === 410;
}
