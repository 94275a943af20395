// The evidence: every coupon that the service promised, one JSON line on the console, which has nothing else.
// `--console-output FILE` keeps it for `lab verify --acks FILE`; k6 appends to that file.
// Environment: STRATEGY (entries of `unlocked` come without a serial).
import { check } from 'k6';

import * as api from './api.js';

const SERIALS = __ENV.STRATEGY !== 'unlocked';

// The entry that was promised, undefined where none was.
export function writeDown(answer, order) {
  if (answer.status !== 201 && answer.status !== 200) return undefined;
  const entry = api.parsed(answer);
  check(entry, {
    'an entry is what was asked for': ({ code, userId }) => code === order.code && userId === order.userId,
    'an entry has its serial': ({ serial }) => (SERIALS ? serial >= 1 : serial === null),
  });
  const { code, userId, serial, round, requestId, issuedAt } = entry;
  console.log(JSON.stringify({ code, userId, serial, round, requestId, issuedAt }));
  return entry;
}
