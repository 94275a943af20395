// Fairness: many tiny rounds in one run. One coupon after the other is asked for by more users than there are pieces, at a
// fixed rate in an open model, so that each sells out under contention from all replicas. What came of "first come" is in
// the wallet and in every replica's GET /admin/audit afterwards; this script leaves the round as it is.
//
//   ROUNDS=200   so many coupons, `F-001` ... (1 to 999)
//   PIECES=20    of each
//   OVER=3       times as many users ask for each
//   RATE=1000    requests a second
//   and the knobs in lib/stream.js
import { check } from 'k6';
import exec from 'k6/execution';

import * as api from './lib/api.js';
import * as knobs from './lib/knobs.js';
import * as stock from './lib/stock.js';
import * as stream from './lib/stream.js';

const RATE = knobs.count('RATE', 1000, { max: stream.RATE_MAX });
const PIECES = knobs.count('PIECES', 20, { max: 10000 });
const CODES = stock.names('F', knobs.count('ROUNDS', 200, { max: 999 }), 3);
const ASKS = PIECES * knobs.count('OVER', 3, { min: 2, max: 100 });
// What is asked for late, because no virtual user was free at its time, still finds its turn.
const SPARE_SECONDS = 2;
const SECONDS = Math.ceil((CODES.length * ASKS) / RATE) + SPARE_SECONDS;

// For the warm-up.
const PLENTIFUL = stock.ofStream();

const fairness = stream.steady(RATE, SECONDS);
export const options = stream.optionsFor(['fairness'], stream.warmed(RATE, { fairness }, { exec: 'warmUp' }));

export function setup() {
  stream.begin([...CODES.map((code) => ({ code, total: PIECES })), ...PLENTIFUL]);
}

export function teardown() {
  if (!stream.DROPS_ALLOWED) checkSoldOut();
  stream.end();
}

// A coupon that did not sell out says nothing about order.
function checkSoldOut() {
  const left = api.audit().json().coupons.filter(({ code, remaining }) => remaining > 0 && CODES.includes(code));
  const message = left.length === 0 ? '' : `, but ${left.length} did not, among them ${left[0].code}`;
  check(left, { [`every coupon sold out${message}`]: () => left.length === 0 });
}

export function warmUp() {
  stream.askForOne(PLENTIFUL);
}

export default function ask() {
  const code = CODES[Math.floor(exec.scenario.iterationInTest / ASKS)];
  if (code !== undefined) stream.askFor(code);
}
