// The SQL panel: one query at a time, its result as a table.

import { ApiError, request } from './api.js';
import { byId, h, setText } from './dom.js';
import * as format from './format.js';

/** The server may send more; a page with thousands of rows helps nobody. */
const SHOWN_ROWS = 200;

const EXAMPLES = [
  {
    name: 'Outcomes of the last hour',
    sql: `SELECT outcome, count(*) AS transactions, round(avg(risk_score), 1) AS mean_score
FROM decisions
WHERE accepted_at > now() - INTERVAL '1 hour'
GROUP BY outcome
ORDER BY transactions DESC`,
  },
  {
    name: 'Rules by what they stopped',
    sql: `SELECT rule, code, count(*) AS hits,
       count(*) FILTER (WHERE outcome = 'decline') AS declined
FROM rule_hits
WHERE mode = 'live'
GROUP BY rule, code
ORDER BY hits DESC`,
  },
  {
    name: 'Cards with the most declines',
    sql: `SELECT card_masked, count(*) AS declines, count(DISTINCT merchant_id) AS merchants,
       min(accepted_at) AS first_seen, max(accepted_at) AS last_seen
FROM decisions
WHERE outcome = 'decline'
GROUP BY card_masked
ORDER BY declines DESC
LIMIT 20`,
  },
  {
    name: 'Latency per minute',
    sql: `SELECT date_trunc('minute', accepted_at) AS minute, count(*) AS transactions,
       round(approx_percentile_cont(latency_ms, 0.5), 2) AS p50_ms,
       round(approx_percentile_cont(latency_ms, 0.99), 2) AS p99_ms
FROM decisions
GROUP BY 1
ORDER BY 1 DESC
LIMIT 30`,
  },
  {
    name: 'Decline rate by billing country',
    sql: `SELECT t.billing_country AS country, count(*) AS transactions,
       round(100.0 * count(*) FILTER (WHERE d.outcome = 'decline') / count(*), 2) AS declined_percent
FROM transactions t
JOIN decisions d ON d.transaction_id = t.id
GROUP BY t.billing_country
ORDER BY transactions DESC
LIMIT 20`,
  },
  {
    name: 'Latest alerts',
    sql: `SELECT raised_at, severity, outcome, merchant_id, card_masked, amount_minor, currency
FROM alerts
ORDER BY raised_at DESC
LIMIT 20`,
  },
];

export class SqlConsole {
  #onUnauthorised;
  #running = false;

  constructor(onUnauthorised) {
    this.#onUnauthorised = onUnauthorised;
    const sql = byId('console-sql');
    sql.value = EXAMPLES[0].sql;
    const select = byId('console-example');
    EXAMPLES.forEach((example, i) => select.append(h('option', { value: String(i) }, example.name)));
    select.addEventListener('change', () => {
      if (select.value === '') return;
      sql.value = EXAMPLES[Number(select.value)].sql;
      select.value = '';
      sql.focus();
    });
    sql.addEventListener('keydown', (event) => {
      if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        this.#run();
      }
    });
    byId('console-form').addEventListener('submit', (event) => {
      event.preventDefault();
      this.#run();
    });
  }

  async #run() {
    const sql = byId('console-sql').value.trim();
    if (this.#running || sql === '') return;
    this.#setRunning(true);
    setText(byId('console-status'), 'Running…');
    const started = performance.now();
    try {
      const result = await request('/v1/query', { body: { sql } });
      this.#show(result, performance.now() - started);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.#fail(error);
    } finally {
      this.#setRunning(false);
    }
  }

  #setRunning(running) {
    this.#running = running;
    byId('console-run').disabled = running;
  }

  #fail(error) {
    setText(byId('console-status'), '');
    byId('console-result').hidden = true;
    const place = byId('console-error');
    place.hidden = false;
    setText(place, error.message);
    if (error.status === 401 || error.status === 403) this.#onUnauthorised();
  }

  #show(result, tookMs) {
    byId('console-error').hidden = true;
    const rows = Array.isArray(result.rows) ? result.rows : [];
    const place = byId('console-result');
    place.hidden = false;
    place.replaceChildren(resultTable(result.columns ?? [], rows.slice(0, SHOWN_ROWS)));
    place.scrollTop = 0;
    const total = result.row_count ?? rows.length;
    const parts = [`${format.count(total)} ${total === 1 ? 'row' : 'rows'} in ${format.millis(tookMs)} ms`];
    if (rows.length > SHOWN_ROWS) parts.push(`the first ${SHOWN_ROWS} are shown`);
    if (result.truncated) parts.push('the server stopped at its row limit');
    setText(byId('console-status'), parts.join('; '));
  }
}

function resultTable(columns, rows) {
  const numeric = columns.map((column, i) => isNumeric(column.type) && rows.every((row) => row[i] === null || typeof row[i] === 'number'));
  const cell = (value, i) => (value === null || value === undefined
    ? h('td', { class: numeric[i] ? 'null num' : 'null' }, 'null')
    : h('td', { class: numeric[i] ? 'num' : null }, typeof value === 'object' ? JSON.stringify(value) : String(value)));
  return h('table', { class: 'result' },
    h('thead', {}, h('tr', {}, columns.map((column, i) => h('th', { scope: 'col', class: numeric[i] ? 'num' : null, title: column.type }, column.name)))),
    h('tbody', {}, rows.map((row) => h('tr', {}, row.map(cell)))));
}

const isNumeric = (type) => /^(u?int|float|decimal|double)/i.test(String(type ?? ''));
