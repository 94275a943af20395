// Arrival: requests at a fixed rate in an open model, each from a new user, for coupons of which there is plenty. This is
// what latency is measured with.
//
//   RATE=1000 DURATION=30s   so many requests a second, for so long (the default)
//   RAMP_TO=4000             rise to this rate over the duration
//   CODES=1                  spread over so many coupons, `L-01` ... (1 to 64)
//   and the knobs in lib/stream.js
//
// The numbers that count carry `{scenario:arrival}`, for example `http_req_duration{scenario:arrival}` in the summary.
import * as knobs from './lib/knobs.js';
import * as stock from './lib/stock.js';
import * as stream from './lib/stream.js';

const RATE = knobs.count('RATE', 1000, { max: stream.RATE_MAX });
const RAMP_TO = __ENV.RAMP_TO ? knobs.count('RAMP_TO', 1, { max: stream.RATE_MAX }) : 0;
const SECONDS = knobs.duration('DURATION', '30s');
const COUPONS = stock.ofStream();

const arrival = RAMP_TO ? stream.changing(RATE, [{ target: RAMP_TO, seconds: SECONDS }]) : stream.steady(RATE, SECONDS);
export const options = stream.optionsFor(['arrival'], stream.warmed(RATE, { arrival }));

export function setup() {
  stream.begin(COUPONS);
}

export function teardown() {
  stream.end();
}

export default function ask() {
  return stream.askForOne(COUPONS);
}
