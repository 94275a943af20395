// How issue requests ended, one counter per kind, so that the summary tells a crowd's story in ten lines.
import { check } from 'k6';
import { Counter } from 'k6/metrics';

import * as api from './api.js';
import * as knobs from './knobs.js';

const issued = new Counter('coupon_issued');
const replayed = new Counter('coupon_replayed');
const alreadyIssued = new Counter('coupon_already_issued');
const soldOut = new Counter('coupon_sold_out');
const notOpen = new Counter('coupon_not_open');
const busy = new Counter('coupon_busy');
// A user who was told "busy" as often as it was willing to ask; it never learned what became of its request.
const gaveUp = new Counter('coupon_gave_up');
// Any other status, or no answer at all.
const unexpected = new Counter('coupon_unexpected');

const BY_STATUS = { 200: replayed, 201: issued, 403: notOpen, 409: alreadyIssued, 410: soldOut, 503: busy };

export const NAMES = [...Object.values(BY_STATUS), unexpected].map(({ name }) => name);
export const EXPECTED = Object.keys(BY_STATUS).map(Number);

const STRICT = knobs.choice('STRICT', '0', ['0', '1']) === '1';
// STRICT=1 holds a rush to the promise that nobody is even told to come back.
export const THRESHOLDS = {
  coupon_unexpected: ['count==0'],
  ...(STRICT ? { coupon_busy: ['count==0'], coupon_gave_up: ['count==0'] } : {}),
};

// A counter that was never touched is missing in the summary; a zero is worth reading.
export function startAtZero() {
  for (const counter of [...Object.values(BY_STATUS), gaveUp, unexpected]) counter.add(0);
}

export function count(response) {
  const counter = BY_STATUS[response.status];
  if (counter) {
    counter.add(1);
    if (counter === busy && !(Number(response.headers['Retry-After']) > 0)) check(null, { '"not now" says when to ask again': () => false });
    if (counter === busy && STRICT) check(null, { [`nobody is told "not now": ${told(response)}`]: () => false });
    return;
  }
  const kind = response.status ? `status ${response.status}` : `no answer (${response.error})`;
  unexpected.add(1, { kind });
  // The summary shows no tags, but it lists failed checks by name.
  check(null, { [`no unexpected answer: ${kind}`]: () => false });
}

// Which refusal this was, whose, and after how long; rounded, because the summary has a line for each.
function told(response) {
  const { type, title, detail } = api.parsed(response);
  const seconds = response.timings.duration / 1000;
  const replica = response.headers['X-Replica'] || 'nginx';
  return `${type}, ${detail || title}, by ${replica} after ${seconds.toFixed(seconds < 1 ? 1 : 0)} s`;
}

export function countGivenUp() {
  gaveUp.add(1);
}
