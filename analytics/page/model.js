// What the page knows. Fed by the stream, read by the panels; every list in it is bounded.

import { OUTCOMES } from './dom.js';

export const WINDOW_S = 300;
/** Kept per outcome, so that a flood of approvals does not push the last declines out. */
const KEPT_PER_OUTCOME = 200;
const KEPT_ALERTS = 50;
const SERIES = [...OUTCOMES, 'p50_ms', 'p99_ms'];

const list = (value) => (Array.isArray(value) ? value : []);
const number = (value) => (Number.isFinite(value) ? value : 0);
const latency = (value) => (Number.isFinite(value) ? value : null);

export class Model {
  /** False until the first snapshot. */
  ready = false;
  nowMs = 0;
  series = emptySeries();
  alerts = [];
  topRules = [];
  topMerchants = [];
  totals = {};
  /** Rows seen since the page was opened; tells views that there is something new. */
  decisionsVersion = 0;
  alertsVersion = 0;

  #byOutcome = new Map();
  #known = new Set();
  #arrival = 0;

  snapshot(event) {
    this.ready = true;
    this.series = emptySeries();
    const times = list(event.series?.t_s);
    times.forEach((t_s, i) => {
      const point = { t_s };
      for (const name of SERIES) point[name] = event.series[name]?.[i];
      this.#addPoint(point);
    });
    this.#byOutcome.clear();
    this.#known.clear();
    this.alerts = [];
    this.#take(event);
  }

  tick(event) {
    if (event.point) this.#addPoint(event.point);
    this.#take(event);
  }

  /** What snapshot and tick have in common. Returns nothing; bumps the versions. */
  #take(event) {
    this.nowMs = number(event.now_ms);
    // Lists come newest first; they are taken in oldest first, so that arrival order is time order.
    for (const row of list(event.latest).toReversed()) this.#addDecision(row);
    const newAlerts = list(event.alerts).filter((alert) => !this.alerts.some((known) => known.id === alert.id));
    if (newAlerts.length > 0) this.alerts = [...newAlerts, ...this.alerts].slice(0, KEPT_ALERTS);
    this.alertsVersion += 1;
    this.topRules = list(event.top_rules).slice(0, 10);
    this.topMerchants = list(event.top_merchants).slice(0, 10);
    if (event.totals) this.totals = event.totals;
  }

  #addDecision(row) {
    if (!row?.transaction_id || this.#known.has(row.transaction_id)) return;
    this.#arrival += 1;
    this.#known.add(row.transaction_id);
    const kept = this.#byOutcome.get(row.outcome) ?? [];
    this.#byOutcome.set(row.outcome, kept);
    kept.unshift({ ...row, arrival: this.#arrival });
    if (kept.length > KEPT_PER_OUTCOME) this.#known.delete(kept.pop().transaction_id);
    this.decisionsVersion += 1;
  }

  /** At most `limit` decisions, newest first, of those that `matches` accepts. */
  decisions(matches, limit) {
    const found = [];
    for (const rows of this.#byOutcome.values()) {
      let taken = 0;
      for (const row of rows) {
        if (taken === limit) break;
        if (matches(row)) {
          found.push(row);
          taken += 1;
        }
      }
    }
    return found.sort((a, b) => b.arrival - a.arrival).slice(0, limit);
  }

  #addPoint(point) {
    const { t_s: times } = this.series;
    const last = times.at(-1);
    if (!Number.isFinite(point.t_s) || (last !== undefined && point.t_s < last)) return;
    if (point.t_s === last) {
      for (const name of SERIES) this.series[name][times.length - 1] = this.#value(name, point);
      return;
    }
    // Seconds the server did not report are seconds without traffic.
    const from = last === undefined ? point.t_s : Math.max(last + 1, point.t_s - WINDOW_S);
    for (let t = from; t < point.t_s; t += 1) this.#push({ t_s: t });
    this.#push(point);
  }

  #push(point) {
    this.series.t_s.push(point.t_s);
    for (const name of SERIES) this.series[name].push(this.#value(name, point));
    if (this.series.t_s.length > WINDOW_S) {
      for (const values of Object.values(this.series)) values.shift();
    }
  }

  #value(name, point) {
    return OUTCOMES.includes(name) ? number(point[name]) : latency(point[name]);
  }

  /** Sums of each outcome over the last `seconds`, with their `total`. */
  sums(seconds) {
    const sums = { total: 0 };
    for (const outcome of OUTCOMES) {
      sums[outcome] = this.series[outcome].slice(-seconds).reduce((a, b) => a + b, 0);
      sums.total += sums[outcome];
    }
    return sums;
  }

  /** Transactions per second, oldest first. */
  throughput(seconds) {
    const from = Math.max(0, this.series.t_s.length - seconds);
    return this.series.t_s.slice(from).map((_, i) => OUTCOMES.reduce((sum, outcome) => sum + this.series[outcome][from + i], 0));
  }

  /** p50 and p99 of a typical second (the median one) of the last `seconds`; null without traffic. */
  latency(seconds) {
    const known = (name) => this.series[name].slice(-seconds).filter((v) => v !== null).sort((a, b) => a - b);
    const [p50, p99] = [known('p50_ms'), known('p99_ms')];
    return { p50: p50[p50.length >> 1] ?? null, p99: p99[p99.length >> 1] ?? null };
  }
}

function emptySeries() {
  return Object.fromEntries(['t_s', ...SERIES].map((name) => [name, []]));
}
