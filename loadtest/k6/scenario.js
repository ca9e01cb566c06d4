// The k6 twin of a step: the same users, schedule, ids and classes of errors as `loadtest/src/run.rs`, told by another program.
// `testbed load --engine k6` runs it. By hand: k6 run -e PLAN=plan.json scenario.js (plan.json: K6Plan of loadtest/src/k6.rs).
//
// pacing "closed": constant VUs, each with one request outstanding, at phase + k × interval; instants that pass while it waits are
// skipped and counted. pacing "open": a constant arrival rate, whatever the answers take; an iteration dropped for want of a VU
// would make it a closed loop again, so one is enough to fail.
import http from 'k6/http';
import { sleep, randomSeed } from 'k6';
import { SharedArray } from 'k6/data';
import { Counter, Trend } from 'k6/metrics';

const order = JSON.parse(open(__ENV.PLAN));
const plan = order.step;
const closed = order.pacing === 'closed';
// One copy for all VUs: a list of 200,000 ids per VU would fill the memory.
const ids = new SharedArray('ids', () => open(plan.known_ids).split('\n').filter((id) => id !== ''));

// Small enough for exact products below: a seed has up to 53 bits.
const seed = plan.seed % 4294967296;
const warmUpMs = plan.warm_up_ms;
const endMs = plan.warm_up_ms + plan.measure_ms;
// Enough for the VUs of a step to hear of the common start.
const HEADWAY_MS = 1000;
const perInterval = plan.users;
// A request may wait for the whole timeout, and each needs a VU of its own.
const openVus = Math.ceil((perInterval * plan.timeout_ms) / plan.interval_ms) + 10;

export const options = {
  scenarios: closed
    ? {
        closed: {
          executor: 'constant-vus',
          vus: plan.users,
          duration: `${HEADWAY_MS + endMs}ms`,
          gracefulStop: `${plan.timeout_ms + 1000}ms`,
        },
      }
    : {
        open: {
          executor: 'constant-arrival-rate',
          rate: perInterval,
          timeUnit: `${plan.interval_ms}ms`,
          duration: `${endMs}ms`,
          startTime: `${HEADWAY_MS}ms`,
          preAllocatedVUs: openVus,
          gracefulStop: `${plan.timeout_ms + 1000}ms`,
          exec: 'arrival',
        },
      },
  thresholds: closed ? {} : { dropped_iterations: ['count==0'] },
  summaryTrendStats: ['avg', 'p(50)', 'p(90)', 'p(99)', 'p(99.9)', 'max', 'count'],
  // Tags cost more than the request.
  systemTags: [],
  userAgent: 'testbed-k6',
  maxRedirects: 0,
};

const latency = new Trend('latency_from_planned_ms');
const lag = new Trend('send_lag_ms');
const sent = new Counter('sent');
const skipped = new Counter('skipped');
const knownAnswered = new Counter('known_answered');
const errors = {};
for (const name of order.classes) {
  errors[name] = new Counter(`error_${name.replace(/-/g, '_')}`);
}
const sources = {};
for (const of of ['known', 'unknown']) {
  for (const source of order.sources) {
    sources[`${of} ${source}`] = new Counter(`source_${of}_${source}`);
  }
}

export function setup() {
  const start = Date.now() + HEADWAY_MS;
  // The parent reads counters of the service when the measured part begins and ends.
  console.log(`testbed start_ms=${start}`);
  return { start };
}

// Times below are ms since the common start.
let planned = null;
let requests = 0;
let knownRequests = 0;

// One request of a user who keeps to the schedule; the next one is the next iteration.
export default function (data) {
  const now = () => Date.now() - data.start;
  if (planned === null) {
    randomSeed(seed * 1000003 + __VU);
    // Even phases, in an order that is not that of the VUs' start.
    planned = (((__VU - 1) * coprime(plan.users)) % plan.users) * (plan.interval_ms / plan.users);
    if (plan.arrival_grid_ms > 0) planned -= planned % plan.arrival_grid_ms;
  }
  if (planned >= endMs) {
    sleep(Math.max(0, (endMs + 2000 - now()) / 1000));
    return;
  }
  sleep(Math.max(0, (planned - now()) / 1000));
  ask(data, planned, now);
  const steps = Math.max(1, Math.ceil((now() - planned) / plan.interval_ms));
  for (let n = 1; n < steps; n += 1) {
    if (measured(planned + n * plan.interval_ms)) skipped.add(1);
  }
  planned += steps * plan.interval_ms;
}

// One request of nobody in particular. k6 starts it on time or drops it: planned is now.
export function arrival(data) {
  if (planned === null) randomSeed(seed * 1000003 + __VU);
  planned = Date.now() - data.start;
  ask(data, planned, () => Date.now() - data.start);
}

function ask(data, at, now) {
  const known = ids.length > 0 && Math.random() >= plan.unknown_share;
  const id = known ? nextKnown() : `x-${plan.seed}-k6-${__VU}-${requests}`;
  requests += 1;
  const sentAt = now();
  if (measured(sentAt)) {
    sent.add(1);
    lag.add(Math.max(0, sentAt - at));
  }
  const url = `${plan.base_url}/recommendations?user_id=${encodeURIComponent(id)}`;
  const answer = http.get(url, { timeout: plan.timeout_ms });
  if (!measured(now())) return;
  // The clock has whole milliseconds, the timings have parts of them.
  const { blocked, connecting, duration } = answer.timings;
  latency.add(Math.max(0, sentAt - at) + (blocked || 0) + (connecting || 0) + duration);
  if (known) knownAnswered.add(1);
  const [good, name] = judge(answer);
  if (good) sources[`${known ? 'known' : 'unknown'} ${name}`].add(1);
  else errors[name].add(1);
}

function measured(at) {
  return at >= warmUpMs && at < endMs;
}

// [true, source] or [false, class], as loadtest/src/answer.rs has them.
function judge(answer) {
  if (answer.status === 0) {
    if (answer.error_code === 1050) return [false, 'client_timeout'];
    return [false, answer.error_code >= 1210 && answer.error_code <= 1213 ? 'connect' : 'connection_reset'];
  }
  const body = answer.body || '';
  if (answer.status >= 200 && answer.status < 300) {
    const source = order.sources.find((name) => body.startsWith(`{"source":"${name}"`));
    return source ? [true, source] : [false, 'bad_body'];
  }
  try {
    const name = String(JSON.parse(body).type).split('/').pop();
    if (errors[name]) return [false, name];
  } catch (_) {
    // No problem document of ours.
  }
  return [false, 'bad_status'];
}

// "once": known request k of VU v has the number k × VUs + v, led through the list by a stride that meets every id before any comes again.
// In an open loop VUs are used as they come free, so some ids may come again before others have come.
function nextKnown() {
  const n = ids.length;
  if (plan.known.kind === 'zipf') return ids[zipf(n, plan.known.exponent)];
  const number = knownRequests * plan.users + (__VU - 1) + seed * 7919;
  knownRequests += 1;
  return ids[(number * coprime(n)) % n];
}

// The law's continuous form: close to, not the same as, the load generator's.
function zipf(n, exponent) {
  const u = Math.random();
  const power = 1 - exponent;
  const rank = Math.abs(power) < 1e-9 ? (n + 1) ** u : (u * ((n + 1) ** power - 1) + 1) ** (1 / power);
  return Math.min(n, Math.max(1, Math.floor(rank))) - 1;
}

const strides = {};
function coprime(n) {
  const gcd = (a, b) => (b === 0 ? a : gcd(b, a % b));
  if (!strides[n]) {
    let stride = Math.max(1, Math.floor(n * 0.618));
    while (gcd(stride, n) !== 1) stride += 1;
    strides[n] = stride;
  }
  return strides[n];
}

export function handleSummary(data) {
  return { [order.summary]: JSON.stringify(data) };
}
