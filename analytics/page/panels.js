// The tiles, the alert feed and the two rankings: small views that show the model as it is.

import { byId, h, maskedCard, money, outcomeBadge, reconcile, setText, severityBadge } from './dom.js';
import * as format from './format.js';
import { drawSparkline } from './charts.js';

/** Long enough that a tile does not jitter, short enough that it follows a burst. */
const THROUGHPUT_OVER_S = 5;
const SPARKLINE_S = 90;
const RATES_OVER_S = 300;
const LATENCY_OVER_S = 60;
const ANNOUNCE_EVERY_MS = 15_000;

/** The row of tiles. */
export function updateTiles(model) {
  const { totals } = model;
  const recent = model.throughput(THROUGHPUT_OVER_S);
  const perSecond = recent.length === 0 ? NaN : recent.reduce((a, b) => a + b, 0) / recent.length;
  setText(byId('kpi-tps'), format.rate(perSecond));
  setText(byId('kpi-total'), format.count(totals.transactions ?? 0));
  drawSparkline(smoothed(model.throughput(SPARKLINE_S)));

  const sums = model.sums(RATES_OVER_S);
  const share = (n) => (sums.total === 0 ? NaN : n / sums.total);
  setText(byId('kpi-approve'), format.percent(share(sums.approve)));
  setText(byId('kpi-stopped'), format.percent(share(sums.decline + sums.review)));
  const declined = format.percent(share(sums.decline));
  setText(byId('kpi-stopped-note'), sums.total === 0 ? 'last 5 minutes' : `of which declined ${declined}`);
  for (const part of byId('mix').children) {
    part.style.flexGrow = String(sums[part.className.replace('o-', '')] || 0);
  }

  const { p50, p99 } = model.latency(LATENCY_OVER_S);
  setText(byId('kpi-p50'), format.millis(p50 ?? NaN));
  setText(byId('kpi-p99'), format.millis(p99 ?? NaN));

  setText(byId('kpi-alerts'), format.count(totals.alerts ?? 0));
  const newest = model.alerts[0];
  setText(byId('kpi-alerts-note'), newest ? `latest at ${format.time(newest.time_ms)}` : 'none yet');

  setText(byId('kpi-amount'), format.reporting(totals.amount_reporting_minor ?? 0));
  setText(byId('kpi-amount-note'), `${totals.reporting_currency ?? 'USD'} in total, converted`);
}

/** A running mean over five values. */
function smoothed(values) {
  return values.map((_, i) => {
    const part = values.slice(Math.max(0, i - 4), i + 1);
    return part.reduce((a, b) => a + b, 0) / part.length;
  });
}

/** The alert feed; also tells screen readers of new ones, at most four times a minute. */
export class AlertFeed {
  #model;
  #openTransaction;
  #items = new Map();
  #list = byId('alerts');
  #unannounced = 0;
  #announcedAtMs = 0;
  #first = true;

  constructor(model, openTransaction) {
    this.#model = model;
    this.#openTransaction = openTransaction;
  }

  update() {
    const { alerts } = this.#model;
    for (const item of this.#items.values()) item.classList.remove('is-new');
    const wanted = new Map();
    let fresh = 0;
    for (const alert of alerts) {
      const known = this.#items.get(alert.id);
      if (!known) fresh += 1;
      wanted.set(alert.id, known ?? this.#build(alert));
    }
    if (fresh > 0 || wanted.size !== this.#items.size) {
      this.#items = wanted;
      reconcile(this.#list, [...wanted.values()]);
    }
    byId('alerts-empty').hidden = alerts.length > 0;
    setText(byId('alerts-note'), alerts.length > 0 ? `newest ${alerts.length}` : '');
    if (!this.#first) this.#announce(fresh);
    this.#first = false;
  }

  /** What a snapshot brings after a reconnect is not news. */
  reset() {
    this.#first = true;
  }

  #announce(fresh) {
    this.#unannounced += fresh;
    const now = performance.now();
    if (this.#unannounced === 0 || now - this.#announcedAtMs < ANNOUNCE_EVERY_MS) return;
    const newest = this.#model.alerts[0];
    byId('announcer').textContent = this.#unannounced === 1
      ? `New ${newest.severity} alert at ${newest.merchant_id}: ${newest.reasons?.[0]?.message ?? newest.outcome}`
      : `${this.#unannounced} new alerts`;
    this.#unannounced = 0;
    this.#announcedAtMs = now;
  }

  #build(alert) {
    const [top, ...more] = alert.reasons ?? [];
    return h('li', { class: this.#first ? 'alert' : 'alert is-new', 'data-transaction': alert.transaction_id },
      h('button', { type: 'button', class: 'alert-button', click: () => this.#openTransaction(alert.transaction_id) },
        h('span', { class: 'alert-line' },
          severityBadge(alert.severity),
          outcomeBadge(alert.outcome),
          h('span', { class: 'alert-time num' }, format.time(alert.time_ms))),
        h('span', { class: 'alert-line' },
          h('span', { class: 'alert-merchant' }, String(alert.merchant_id)),
          maskedCard(alert.card),
          h('span', { class: 'alert-amount num' }, money(format.amount(alert.amount), alert.currency))),
        top ? h('span', { class: 'alert-reason' }, String(top.message)) : null,
        more.length > 0 ? h('span', { class: 'alert-more' }, `and ${more.map((r) => r.code).join(', ')}`) : null));
  }
}

/** Rules by hits, with bars in proportion to the first. */
export function updateRules(model) {
  const rules = model.topRules;
  byId('rules-empty').hidden = rules.length > 0;
  const most = Math.max(1, ...rules.map((r) => r.hits));
  fill(byId('rules'), rules, buildRule, (item, rule) => {
    setText(item.rule, String(rule.rule));
    setText(item.code, rule.code === rule.rule ? '' : String(rule.code));
    setText(item.hits, format.count(rule.hits));
    item.bar.style.width = `${(rule.hits / most) * 100}%`;
  });
}

function buildRule() {
  const parts = { rule: h('span', { class: 'ranking-name' }), code: h('span', { class: 'ranking-code' }), hits: h('span', { class: 'ranking-value num' }), bar: h('i') };
  parts.element = h('li', {}, h('span', { class: 'ranking-text' }, parts.rule, parts.code), parts.hits, h('span', { class: 'ranking-track', 'aria-hidden': 'true' }, parts.bar));
  return parts;
}

/** Merchants by transactions, with their share of declines. */
export function updateMerchants(model) {
  const merchants = model.topMerchants;
  byId('merchants-empty').hidden = merchants.length > 0;
  fill(byId('merchants'), merchants, buildMerchant, (item, merchant) => {
    setText(item.merchant, String(merchant.merchant));
    setText(item.transactions, format.count(merchant.transactions));
    const share = merchant.transactions > 0 ? merchant.declined / merchant.transactions : 0;
    setText(item.declined, merchant.declined > 0 ? `${format.count(merchant.declined)} · ${format.percent(share)}` : '0');
    item.declined.classList.toggle('is-high', share >= 0.1 && merchant.declined >= 3);
    setText(item.amount, format.reporting(merchant.amount_reporting_minor));
  });
}

function buildMerchant() {
  const parts = { merchant: h('th', { scope: 'row' }), transactions: h('td', { class: 'num' }), declined: h('td', { class: 'num' }), amount: h('td', { class: 'num c-volume' }) };
  parts.element = h('tr', {}, parts.merchant, parts.transactions, parts.declined, parts.amount);
  return parts;
}

const built = new WeakMap();

/** Reuses the parent's rows: as many as there are values, each updated in place. */
function fill(parent, values, build, update) {
  const rows = built.get(parent) ?? [];
  built.set(parent, rows);
  while (rows.length < values.length) {
    const row = build();
    rows.push(row);
    parent.append(row.element);
  }
  while (rows.length > values.length) rows.pop().element.remove();
  values.forEach((value, i) => update(rows[i], value));
}
