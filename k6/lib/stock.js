// The coupons of the experiments: `L-01` ... for streams of requests, `F-001` ... for the tiny rounds of the fairness run.
// They are open while their run lasts. A coupon cannot be deleted, so afterwards its window lies in the past; a rush, which
// asks for whatever is open, does not meet it then.
//
//   KEEP_OPEN=1   nothing is closed, before or after: a series of runs then need not open hundreds of coupons anew
import http from 'k6/http';

import * as api from './api.js';
import * as knobs from './knobs.js';

export const OURS = /^[LF]-\d+$/;
// As much as a coupon may have: it does not sell out.
const PLENTY = 1000000;
const PAST = '2020-01-01T00:00:00Z';
// Every change is answered after 1.1 s, so they are made side by side; the replica makes them one after the other, and the
// last of so many stays well within its deadline.
const AT_ONCE = 128;
const TRIES = 3;
const KEEP_OPEN = knobs.choice('KEEP_OPEN', '0', ['0', '1']) === '1';

export const BATCH = { batch: AT_ONCE, batchPerHost: AT_ONCE };

// The coupons of a stream of requests, which do not sell out, as CODES= asks for.
export function ofStream() {
  return names('L', knobs.count('CODES', 1, { max: 64 }), 2).map((code) => ({ code, total: PLENTY }));
}

export function names(prefix, number, digits) {
  return Array.from({ length: number }, (_, i) => `${prefix}-${String(i + 1).padStart(digits, '0')}`);
}

// A new round in which the `wanted` coupons are open with their `total` and no other coupon of an experiment is.
// The round begins first: a total must not fall below what the last one issued.
export function openOnly(wanted) {
  newRound();
  const known = new Map(all().map((coupon) => [coupon.code, coupon]));
  const codes = new Set(wanted.map(({ code }) => code));
  const opened = wanted.filter(({ code, total }) => !isOpen(known.get(code), total));
  const closed = KEEP_OPEN ? [] : [...known.values()].filter((coupon) => !codes.has(coupon.code)).filter(isUnclosed).map(closing);
  try {
    put([...opened, ...closed]);
    requireOpen(codes);
  } catch (error) {
    // k6 runs no teardown after a setup that failed.
    closeAll();
    throw error;
  }
}

// Takes every coupon of an experiment out of the event.
export function closeAll() {
  if (KEEP_OPEN) return;
  put(all().filter(isUnclosed).map(closing));
}

function all() {
  const response = api.listCoupons();
  if (response.status !== 200) throw new Error(`the coupons cannot be listed: ${response.status} ${response.error || response.body}`);
  return response.json().filter(({ code }) => OURS.test(code));
}

function requireOpen(codes) {
  const shut = all().find(({ code, state }) => codes.has(code) && state !== 'open');
  if (shut) throw new Error(`${shut.code} is ${shut.state} although its window is open: the window of the event decides`);
}

function isOpen(coupon, total) {
  return coupon !== undefined && coupon.total === total && coupon.opensAt === null && coupon.closesAt === null;
}

function isUnclosed({ closesAt }) {
  return closesAt === null || Date.parse(closesAt) > Date.now();
}

function closing({ code, total, discountPercent }) {
  return { code, total, discountPercent, closesAt: PAST };
}

function put(changes) {
  let left = changes;
  let refusal = '';
  for (let attempt = 1; left.length > 0 && attempt <= TRIES; attempt += 1) {
    const answers = http.batch(left.map(({ code, ...change }) => api.putCouponRequest(code, change)));
    const failed = left.map((change, i) => ({ change, answer: answers[i] })).filter(({ answer }) => ![200, 201].includes(answer.status));
    left = failed.map(({ change }) => change);
    if (failed.length > 0) {
      const [{ change, answer }] = failed;
      refusal = `${change.code}: ${answer.status} ${answer.error || answer.body}`;
    }
  }
  if (left.length > 0) throw new Error(`${left.length} coupons could not be changed, among them ${refusal}`);
}
