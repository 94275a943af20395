// The coupons of the streams of requests: `L-01` ... They are there while their run lasts: local/k6 retires them after the
// verdict, and before a run what an interrupted one left.
import http from 'k6/http';

import * as api from './api.js';
import { newRound } from './cluster.js';
import * as knobs from './knobs.js';

// As much as a coupon may have: it does not sell out.
const PLENTY = 1000000;
// Every change is answered after 1.1 s, so they are made side by side; the replica makes them one after the other, and the
// last of so many stays well within its deadline.
const AT_ONCE = 128;
const TRIES = 3;

export const BATCH = { batch: AT_ONCE, batchPerHost: AT_ONCE };

// The coupons of a stream of requests, which do not sell out, as CODES= asks for.
export function ofStream() {
  const length = knobs.count('CODES', 1, { max: 64 });
  return Array.from({ length }, (_, i) => ({ code: `L-${String(i + 1).padStart(2, '0')}`, total: PLENTY }));
}

// A new round in which the `wanted` coupons are open with their `total`.
// The round begins first: a total must not fall below what the last one issued.
export function open(wanted) {
  newRound();
  put(wanted);
  const response = api.listCoupons();
  if (response.status !== 200) throw new Error(`the coupons cannot be listed: ${response.status} ${response.error || response.body}`);
  const codes = new Set(wanted.map(({ code }) => code));
  const shut = response.json().find(({ code, state }) => codes.has(code) && state !== 'open');
  if (shut) throw new Error(`${shut.code} is ${shut.state} although its window is open: the window of the event decides`);
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
