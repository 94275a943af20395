// After a run: does GET /admin/audit keep the promises? Every broken one is a failed check that says what is wrong, and
// a count in `audit_violations`, whose threshold fails the run. The audit has sums per code; what only the rows can show
// (one coupon per user over all codes, every serial, acknowledged coupons) is proved by `lab verify`.
import { check } from 'k6';
import { Counter } from 'k6/metrics';

import * as api from './api.js';

const violations = new Counter('audit_violations');

export const THRESHOLDS = { audit_violations: ['count==0'] };

const PROMISES = {
  P1: 'P1 never oversold, serials 1 to the number of rows',
  P2: 'P2 never twice to a user',
  P4: 'P4 nobody is told "sold out" while stock is left',
  P5: 'P5 total = remaining + rows',
};

// `fresh`: the round began with this run, so nobody can have topped up stock after a refusal and P4 can be judged.
export function auditRun({ fresh }) {
  const response = api.audit();
  if (response.status !== 200) {
    fail(`the audit was not answered: ${response.status} ${response.error || response.body}`);
    return;
  }
  const judged = Object.keys(PROMISES).filter((promise) => fresh || promise !== 'P4');
  const broken = response.json().coupons.flatMap(brokenPromises);
  for (const promise of judged) {
    const found = broken.filter((violation) => violation.promise === promise);
    if (found.length === 0) check(null, { [PROMISES[promise]]: () => true });
    for (const { message } of found) fail(`${promise} is broken: ${message}`);
  }
}

// A failed check is the only message that reaches the summary when the console goes to a file.
function fail(message) {
  violations.add(1);
  check(null, { [message]: () => false });
}

function brokenPromises(coupon) {
  const { code, total, remaining, rows, distinctUsers, lowestSerial, highestSerial, earliestLoserArrival } = coupon;
  const found = [];
  const broken = (promise, message) => found.push({ promise, message: `${code}: ${message}` });
  if (rows > total) broken('P1', `${rows} issued of ${total}`);
  // Under the `unlocked` strategy there are no serials.
  if (rows > 0 && highestSerial !== null && (lowestSerial !== 1 || highestSerial !== rows)) {
    broken('P1', `serials ${lowestSerial} to ${highestSerial} for ${rows} issued`);
  }
  if (distinctUsers !== rows) broken('P2', `${rows} issued to ${distinctUsers} users`);
  if (remaining > 0 && earliestLoserArrival !== null) broken('P4', `somebody was told "sold out" and ${remaining} are left`);
  const lost = rows - (total - remaining);
  const sums = `total ${total}, remaining ${remaining}, issued ${rows}`;
  if (lost > 0) broken('P5', `${lost} lost updates (${sums})`);
  if (lost < 0) broken('P5', `${-lost} pieces are gone that nobody holds (${sums})`);
  return found;
}
