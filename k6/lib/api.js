// One function per endpoint, each with a `name` tag so that a URL with an id in it does not become a series of its own; and how
// an answer is read.
// Environment: BASE_URL (nginx), OPS_URL (the operations listener of one replica), ADMIN_TOKEN (bearer of the admin calls).
import http from 'k6/http';

export const BASE_URL = __ENV.BASE_URL || 'http://127.0.0.1:8000';
export const OPS_URL = __ENV.OPS_URL || 'http://127.0.0.1:8081';

// Three times the service's own deadline: a request that has no answer by then was forgotten.
export const TIMEOUT_SECONDS = 15;

// Every body is read, also where a script sets `discardResponseBodies`.
function params(name, headers) {
  return { tags: { name }, headers, timeout: `${TIMEOUT_SECONDS}s`, responseType: 'text' };
}

// The request as `http.batch` takes it. The key is what makes asking again safe, and what lets k6's HTTP client resend on
// a connection that the server closed meanwhile.
export function issueRequest({ code, userId, key }) {
  const headers = { 'Content-Type': 'application/json', 'Idempotency-Key': key };
  const body = JSON.stringify({ code, userId });
  return { method: 'POST', url: `${BASE_URL}/coupons/issue`, body, params: params('issue', headers) };
}

export function issue(order) {
  const { url, body, params: issueParams } = issueRequest(order);
  return http.post(url, body, issueParams);
}

// Anything at all as an issue request, to see how it is refused.
export function issueRaw(body, contentType, key) {
  const headers = { 'Idempotency-Key': key };
  if (contentType) headers['Content-Type'] = contentType;
  return http.post(`${BASE_URL}/coupons/issue`, body, params('issue', headers));
}

export function listCoupons() {
  return http.get(`${BASE_URL}/coupons`, params('coupons'));
}

export function readCoupon(code) {
  return http.get(`${BASE_URL}/coupons/${encodeURIComponent(code)}`, params('coupon'));
}

export function readWallet(userId) {
  return http.get(`${BASE_URL}/users/${encodeURIComponent(userId)}/coupons`, params('wallet'));
}

export function version() {
  return http.get(`${BASE_URL}/version`, params('version'));
}

export function openapi() {
  return http.get(`${BASE_URL}/openapi.json`, params('openapi'));
}

export function docs() {
  return http.get(`${BASE_URL}/docs`, params('docs'));
}

export function live() {
  return http.get(`${OPS_URL}/livez`, params('livez'));
}

export function ready() {
  return http.get(`${OPS_URL}/readyz`, params('readyz'));
}

export function metrics() {
  return http.get(`${OPS_URL}/metrics`, params('metrics'));
}

function admin(token = __ENV.ADMIN_TOKEN) {
  return { 'Content-Type': 'application/json', ...(token ? { Authorization: `Bearer ${token}` } : {}) };
}

// The request as `http.batch` takes it.
export function putCouponRequest(code, { discountPercent = 100, total, opensAt = null, closesAt = null }) {
  const url = `${OPS_URL}/admin/coupons/${encodeURIComponent(code)}`;
  const body = JSON.stringify({ discountPercent, total, opensAt, closesAt });
  return { method: 'PUT', url, body, params: params('admin-coupon', admin()) };
}

export function putCoupon(code, change) {
  const { url, body, params: putParams } = putCouponRequest(code, change);
  return http.put(url, body, putParams);
}

export function retireCouponRequest(code) {
  return { method: 'DELETE', url: `${OPS_URL}/admin/coupons/${encodeURIComponent(code)}`, params: params('admin-coupon', admin()) };
}

export function retireCoupon(code) {
  const { url, params: deleteParams } = retireCouponRequest(code);
  return http.del(url, null, deleteParams);
}

export function readEvent(token) {
  return http.get(`${OPS_URL}/admin/event`, params('admin-event', admin(token)));
}

// Ends this round, and no other one.
export function reset(round) {
  return http.post(`${OPS_URL}/admin/reset`, JSON.stringify({ round }), params('admin-reset', admin()));
}

export function audit() {
  return http.get(`${OPS_URL}/admin/audit`, params('admin-audit', admin()));
}

// The body of an answer; one that is no JSON has no fields, and the checks on them tell.
export function parsed(response) {
  try {
    return response.json();
  } catch {
    return {};
  }
}

// Whether two entries are about one coupon, all of it.
export function isSame(one, other) {
  return ['code', 'userId', 'serial', 'round', 'requestId', 'issuedAt'].every((field) => one[field] === other[field]);
}
