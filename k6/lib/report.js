// What a run of several scenarios says at its end, in place of k6's own summary, which knows no comparison of them.

// The numbers of a scenario, read from what k6 hands to `handleSummary`. Undefined when it never began.
export function numbersOf({ metrics }, scenario) {
  const of = (name) => metrics[`${name}{scenario:${scenario}}`];
  const sent = of('iterations');
  if (!sent || sent.values.count === 0) return undefined;
  const latency = of('http_req_duration').values;
  const count = (name) => (of(name) ? of(name).values.count : 0);
  return {
    sent: sent.values.count,
    dropped: count('dropped_iterations'),
    busy: count('coupon_busy'),
    median: latency.med,
    p95: latency['p(95)'],
    p99: latency['p(99)'],
    broken: Object.keys(LIMITED).filter((name) => !holds(of(name))).map((name) => LIMITED[name]),
  };
}

// What a scenario may have thresholds for, in words.
const LIMITED = {
  http_req_duration: 'the latency',
  dropped_iterations: 'requests that could not be sent',
  coupon_busy: 'users who were told "busy"',
};

function holds(metric) {
  return Object.values((metric && metric.thresholds) || {}).every(({ ok }) => ok);
}

const HEAD = ['', 'asked/s', 'sent', 'not sent', 'busy', 'median', 'p95', 'p99'];

// A line per scenario; `rows` are [name, asked per second, numbers].
export function table(rows) {
  const lines = rows.map(([name, rate, { sent, dropped, busy, median, p95, p99 }]) => [
    name, rate, sent, dropped, busy, milliseconds(median), milliseconds(p95), milliseconds(p99),
  ]);
  return [HEAD, ...lines].map((cells) => cells.map((cell, i) => (i ? String(cell).padStart(9) : cell.padEnd(10))).join(' ')).join('\n');
}

export function milliseconds(value) {
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
}

// The checks that failed, each a line; broken promises are among them.
export function failures({ root_group: { checks } }) {
  return checks.filter(({ fails }) => fails > 0).map(({ name, fails }) => `FAILED ${fails} times: ${name}`).join('\n');
}

// What k6 is to print.
export function said(...texts) {
  return { stdout: `${texts.filter((text) => text).join('\n')}\n` };
}
