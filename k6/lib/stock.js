// The coupons of the streams of requests: `L-01` ... They are there while their run lasts: local/k6 retires them after the
// verdict, and before a run what an interrupted one left.
import { sleep } from 'k6';
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
// The coupons that runs make for themselves: here, in smoke.js, and `lab fairness`.
const EXPERIMENT = /^([LF]-\d+|SMOKE-.+)$/;
// Replicas that look for their database say "not now" for some seconds.
const SERVES_SECONDS = 15;

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
  change(wanted.map(({ code, ...to }) => api.putCouponRequest(code, to)), [200, 201]);
  const codes = new Set(wanted.map(({ code }) => code));
  const shut = listed().find(({ code, state }) => codes.has(code) && state !== 'open');
  if (shut) throw new Error(`${shut.code} is ${shut.state} although its window is open: the window of the event decides`);
}

// Takes the coupons that runs have made out of the event, in a new round, in which nobody holds them.
export function retire() {
  for (let left = SERVES_SECONDS; left > 0 && api.listCoupons().status !== 200; left -= 1) sleep(1);
  const codes = listed().map(({ code }) => code).filter((code) => EXPERIMENT.test(code));
  if (codes.length === 0) return;
  newRound();
  change(codes.map(api.retireCouponRequest), [204, 404]);
}

function listed() {
  const response = api.listCoupons();
  if (response.status !== 200) throw new Error(`the coupons cannot be listed: ${response.status} ${response.error || response.body}`);
  return response.json();
}

// Sends all of these requests until each has an answer with one of these statuses: every one of them may be made again.
function change(requests, done) {
  let left = requests;
  let refusal = '';
  for (let attempt = 1; left.length > 0 && attempt <= TRIES; attempt += 1) {
    const answers = http.batch(left);
    const failed = left.map((request, i) => ({ request, answer: answers[i] })).filter(({ answer }) => !done.includes(answer.status));
    left = failed.map(({ request }) => request);
    if (failed.length > 0) {
      const [{ request, answer }] = failed;
      refusal = `${request.method} ${request.url}: ${answer.status} ${answer.error || answer.body}`;
    }
  }
  if (left.length > 0) throw new Error(`${left.length} coupons could not be changed, among them ${refusal}`);
}
