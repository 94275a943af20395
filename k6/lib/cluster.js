// What every script needs to know of the cluster before it starts, each lack named with its cure.
import * as api from './api.js';

const TRIES = 3;

export function requireCluster() {
  if (!__ENV.ADMIN_TOKEN) throw new Error('ADMIN_TOKEN is not set; `make smoke` and `make rush` set it');
  for (const [url, response] of [[api.OPS_URL, api.ready()], [api.BASE_URL, api.version()]]) {
    if (response.status === 0) throw new Error(`nothing answers at ${url}; \`make up\` starts a cluster`);
    if (response.status !== 200) throw new Error(`${response.url} answers ${response.status}; see \`make status\``);
  }
  const event = api.readEvent();
  if (event.status !== 200) throw new Error(`ADMIN_TOKEN is refused (${event.status}); \`make rush\` sets the right one`);
}

// Begins a new round. The round to end is looked up once, so that asking again for want of an answer ends no other one.
export function newRound() {
  const { round } = api.readEvent().json();
  let answer;
  for (let attempt = 1; attempt <= TRIES; attempt += 1) {
    answer = api.reset(round);
    const isOver = answer.status === 409 && api.parsed(answer).round === round + 1;
    if (answer.status === 200 || isOver) return;
  }
  throw new Error(`no new round: ${answer.status} ${answer.error || answer.body}`);
}

// What can be asked for now. Sold out counts: refusing is work too, and a run without a reset may find nothing else.
export function offeredCodes() {
  const offered = api.listCoupons().json().filter(({ state }) => state === 'open' || state === 'sold-out');
  const codes = offered.map(({ code }) => code);
  if (codes.length === 0) throw new Error('no coupon is open; `make reset` and the windows of event and coupons decide');
  return codes;
}
