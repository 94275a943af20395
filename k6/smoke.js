// The smoke test: one user walks through every endpoint and every documented answer once. It works on a coupon of its
// own (`SMOKE-1`, or `SMOKE-$ID`), so it may run beside a rush; local/k6 retires that coupon before the next run that
// begins a round, because its users hold it until then.
//
//   ID=1                           the coupon's name
//   BASE_URL OPS_URL ADMIN_TOKEN   where the cluster is
import { check, sleep } from 'k6';

import * as api from './lib/api.js';
import { requireCluster } from './lib/cluster.js';
import * as knobs from './lib/knobs.js';

const CODE = `SMOKE-${knobs.word('ID', '1')}`;
const LATER = `${CODE}-later`;
const PAST = '2020-01-01T00:00:00Z';
const FUTURE = '2100-01-01T00:00:00Z';
const NO_SUCH_CODE = 'SMOKE-none';
// What is issued at the start of the test is left alone; this much is added to it.
const STOCK = 2;
// Replicas show stock from memory; it may be a second old.
const SEEN_BY_ALL_MS = 2000;

export const options = {
  scenarios: { smoke: { executor: 'per-vu-iterations', vus: 1, iterations: 1, maxDuration: '2m' } },
  thresholds: { checks: ['rate==1'] },
};

export function setup() {
  requireCluster();
  const coupon = api.audit().json().coupons.find(({ code }) => code === CODE);
  // Users of the coupons of an event share its rule: only ids that nobody had before are sure to hold nothing.
  return { issued: coupon ? coupon.rows : 0, run: Date.now().toString(36) };
}

export default function smoke({ issued, run }) {
  const order = (name, code = CODE) => ({ code, userId: `smoke-${run}-${name}`, key: `${run}-${name}` });
  probes();
  administration(issued);
  issuing(order, issued);
  windows(order);
  retirement(order);
  nonsense(order);
}

function probes() {
  answers('GET /version', api.version(), 200, ({ name, version, strategy }) => Boolean(name && version && strategy));
  answers('GET /openapi.json', api.openapi(), 200, ({ openapi }) => openapi.startsWith('3.'));
  answers('GET /docs', api.docs(), 200);
  answers('GET /livez', api.live(), 200);
  answers('GET /readyz', api.ready(), 200);
  const metrics = api.metrics();
  answers('GET /metrics', metrics, 200);
  check(metrics, { 'GET /metrics counts issues': ({ body }) => body.includes('coupon_issue_total') });
}

function administration(issued) {
  answers('GET /admin/event', api.readEvent(), 200, ({ exclusive }) => typeof exclusive === 'boolean');
  answers('GET /admin/event, wrong token', api.readEvent('wrong'), 401);
  answers('GET /admin/event, no token', api.readEvent(''), 401);
  const put = api.putCoupon(CODE, { total: issued + STOCK });
  check(put, { 'PUT /admin/coupons/{code} creates or changes': ({ status }) => status === 201 || status === 200 });
  answers('PUT /admin/coupons/{code}, again', api.putCoupon(CODE, { total: issued + STOCK }), 200);
  refuses('PUT /admin/coupons/{code}, total too large', api.putCoupon(CODE, { total: 1000001 }), 422, 'invalid-request');
}

function issuing(order, issued) {
  check(null, { 'GET /coupons/{code}: open': () => shows(CODE, { remaining: STOCK, state: 'open' }) });
  // Under the `unlocked` strategy the serial is null.
  const numbered = ({ code, serial }) => code === CODE && (serial === null || serial >= 1);
  const first = answers('a first user', api.issue(order('a')), 201, numbered);
  answers('the same request again', api.issue(order('a')), 200, (entry) => api.isSame(entry, first));
  const another = api.issue({ ...order('a'), key: `${order('a').key}-2` });
  refuses('another request of the same user', another, 409, 'already-issued', ({ entry }) => api.isSame(entry, first));
  const wallet = api.readWallet(order('a').userId);
  answers('GET /users/{userId}/coupons', wallet, 200, (entries) => entries.length === 1 && api.isSame(entries[0], first));
  const empty = api.readWallet(order('nobody').userId);
  answers('GET /users/{userId}/coupons, nobody', empty, 200, (entries) => entries.length === 0);
  answers('a last user', api.issue(order('b')), 201);
  refuses('a user too late', api.issue(order('c')), 410, 'sold-out');
  answers('the first request when all is sold out', api.issue(order('a')), 200, (entry) => api.isSame(entry, first));
  check(null, { 'GET /coupons/{code}: sold out': () => shows(CODE, { remaining: 0, state: 'sold-out' }) });
  check(api.putCoupon(CODE, { total: issued + 1 }), { 'no total below what is issued: 409': ({ status }) => status === 409 });
  answers('more stock', api.putCoupon(CODE, { total: issued + STOCK + 1 }), 200);
  answers('the late user, now that there is more', api.issue(order('c')), 201);
  refuses('an unknown coupon', api.issue(order('d', NO_SUCH_CODE)), 404, 'unknown-coupon');
  refuses('GET /coupons/{code}, unknown', api.readCoupon(NO_SUCH_CODE), 404, 'unknown-coupon');
  answers('GET /coupons', api.listCoupons(), 200, (coupons) => coupons.some(({ code }) => code === CODE));
}

function windows(order) {
  const put = api.putCoupon(LATER, { total: 1, opensAt: FUTURE });
  check(put, { 'a coupon for later': ({ status }) => status === 201 || status === 200 });
  check(null, { 'GET /coupons/{code}: scheduled': () => shows(LATER, { remaining: 1, state: 'scheduled' }) });
  const early = api.issue(order('e', LATER));
  refuses('a user too early', early, 403, 'not-open');
  check(early, { 'a user too early is told when': ({ headers }) => Number(headers['Retry-After']) > 0 });
  answers('the coupon closes', api.putCoupon(LATER, { total: 1, closesAt: PAST }), 200);
  check(null, { 'GET /coupons/{code}: closed': () => shows(LATER, { remaining: 1, state: 'closed' }) });
  refuses('a user after the end', api.issue(order('e', LATER)), 403, 'not-open');
}

function retirement(order) {
  refuses('DELETE /admin/coupons/{code}, held', api.retireCoupon(CODE), 409, 'held');
  check(api.retireCoupon(LATER), { 'DELETE /admin/coupons/{code}, held by nobody': ({ status }) => status === 204 });
  refuses('DELETE /admin/coupons/{code}, again', api.retireCoupon(LATER), 404, 'unknown-coupon');
  refuses('a user of a retired coupon', api.issue(order('e', LATER)), 404, 'unknown-coupon');
  refuses('POST /admin/reset, a round that is over', api.reset(0), 409, 'another-round', ({ round }) => round >= 1);
}

// What is not a request, or names nobody: refused before it touches anything.
function nonsense(order) {
  const { userId, key } = order('f');
  const ids = { '37 characters': 'x'.repeat(37), 'a space': 'u 1', 'an accent': 'ü-1', 'a quote': "u'1", 'nothing in it': '' };
  for (const [what, id] of Object.entries(ids)) {
    refuses(`a user id with ${what}`, api.issue({ code: CODE, userId: id, key }), 422, 'invalid-request');
    refuses(`a code with ${what}`, api.issue({ code: id, userId, key }), 422, 'invalid-request');
  }
  refuses('GET /users/{userId}/coupons, no id', api.readWallet('u 1'), 422, 'invalid-request');
  const body = JSON.stringify({ code: CODE, userId });
  refuses('a number as user id', api.issueRaw(`{"code":"${CODE}","userId":1}`, 'application/json', key), 422, 'invalid-request');
  refuses('no user id', api.issueRaw(`{"code":"${CODE}"}`, 'application/json', key), 422, 'invalid-request');
  refuses('half a body', api.issueRaw(body.slice(0, -5), 'application/json', key), 400);
  refuses('plain text', api.issueRaw(body, 'text/plain', key), 415);
  refuses('a body of 1 MB', api.issueRaw(`{"code":"${'x'.repeat(1048576)}"}`, 'application/json', key), 413);
}

// Whether the coupon is shown so within the time in which every replica has seen a change.
function shows(code, wanted) {
  for (const deadline = Date.now() + SEEN_BY_ALL_MS; ; sleep(0.1)) {
    const response = api.readCoupon(code);
    const coupon = api.parsed(response);
    if (response.status === 200 && Object.keys(wanted).every((field) => coupon[field] === wanted[field])) return true;
    if (Date.now() > deadline) return false;
  }
}

// Checks the status and, if given, the body; hands back the body.
function answers(what, response, status, holds = () => true) {
  const body = api.parsed(response);
  check(response, {
    [`${what}: ${status}`]: (answer) => answer.status === status,
    [`${what}: as documented`]: () => holds(body),
  });
  return body;
}

// A refusal is a problem document with a stable type.
function refuses(what, response, status, type, holds = () => true) {
  const problem = answers(what, response, status, holds);
  check(response, {
    [`${what}: a problem document`]: ({ headers }) => (headers['Content-Type'] || '').startsWith('application/problem+json'),
    [`${what}: has its type`]: () => (type ? problem.type === `/problems/${type}` : typeof problem.type === 'string'),
  });
}
