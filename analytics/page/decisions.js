// The “Latest decisions” table: bounded, filtered, paused while someone reads it.

import { byId, h, icon, maskedCard, money, outcomeBadge, reconcile, scoreBar, setText } from './dom.js';
import * as format from './format.js';

const SHOWN = 50;
/** When more rows than this arrive at once, marking them all as new would only flicker. */
const MARKED_NEW = 12;

export class DecisionsTable {
  #model;
  #openTransaction;
  #body = byId('decisions');
  #rows = new Map();
  #open = new Set();
  #text = '';
  #outcome = '';
  #paused = false;
  #hovered = false;
  #frozenAt = 0;
  #shownVersion = -1;
  #current = null;

  constructor(model, openTransaction) {
    this.#model = model;
    this.#openTransaction = openTransaction;
    this.#wireTools();
    this.#wireReading();
    this.#body.addEventListener('keydown', (event) => this.#onKey(event));
    addEventListener('resize', () => {
      for (const { detail } of this.#rows.values()) if (detail) detail.cells[0].colSpan = visibleColumns();
    });
  }

  #wireTools() {
    byId('filter-text').addEventListener('input', (event) => {
      this.#text = event.target.value.trim().toLowerCase();
      this.#draw();
    });
    byId('filter-outcome').addEventListener('change', (event) => {
      this.#outcome = event.target.value;
      this.#draw();
    });
    const pause = byId('pause');
    pause.addEventListener('click', () => {
      this.#paused = !this.#paused;
      pause.setAttribute('aria-pressed', String(this.#paused));
      pause.querySelector('use').setAttribute('href', this.#paused ? '#i-play' : '#i-pause');
      setText(pause.querySelector('span'), this.#paused ? 'Resume' : 'Pause');
      this.update();
    });
  }

  /** A pointer over the rows or the keyboard's focus in them holds them still. Touch has no hover to leave. */
  #wireReading() {
    this.#body.addEventListener('pointerenter', (event) => {
      if (event.pointerType === 'mouse') this.#hover(true);
    });
    this.#body.addEventListener('pointerleave', () => this.#hover(false));
    this.#body.addEventListener('focusout', () => requestAnimationFrame(() => this.update()));
  }

  #hover(over) {
    this.#hovered = over;
    this.update();
  }

  #held() {
    return this.#paused || this.#hovered || this.#open.size > 0 || this.#body.querySelector(':focus-visible') !== null;
  }

  /** Called when the model changed; draws unless the table is held. */
  update() {
    const held = this.#held();
    const waiting = this.#model.decisionsVersion - this.#frozenAt;
    const note = byId('paused-note');
    note.hidden = !held;
    if (held) {
      setText(note, waiting > 0 ? `Paused · ${format.count(waiting)} new` : 'Paused');
      return;
    }
    if (this.#shownVersion !== this.#model.decisionsVersion) this.#draw();
  }

  /** Starts over after a reconnect: what was shown may be gone. */
  reset() {
    this.#shownVersion = -1;
    this.#frozenAt = this.#model.decisionsVersion;
  }

  #draw() {
    this.#frozenAt = this.#model.decisionsVersion;
    const first = this.#shownVersion === -1;
    this.#shownVersion = this.#model.decisionsVersion;
    const decisions = this.#model.decisions((row) => this.#matches(row), SHOWN);
    const fresh = decisions.filter((row) => !this.#rows.has(row.transaction_id));
    const mark = !first && fresh.length <= MARKED_NEW;

    for (const { row } of this.#rows.values()) row.classList.remove('is-new');
    const wanted = new Map();
    for (const row of decisions) {
      wanted.set(row.transaction_id, this.#rows.get(row.transaction_id) ?? this.#build(row, mark));
    }
    for (const id of this.#open) if (!wanted.has(id)) this.#open.delete(id);
    this.#rows = wanted;
    reconcile(this.#body, [...wanted.values()].flatMap(({ row, detail }) => (detail ? [row, detail] : [row])));
    this.#keepOneTabStop();

    const empty = byId('decisions-empty');
    empty.hidden = decisions.length > 0;
    setText(empty, this.#text || this.#outcome ? 'No recent decision matches the filter.' : 'No decisions yet.');
  }

  #matches(row) {
    if (this.#outcome === 'flagged' ? row.outcome === 'approve' : this.#outcome && row.outcome !== this.#outcome) return false;
    if (!this.#text) return true;
    const reasons = (row.reasons ?? []).flatMap((r) => [r.code, r.rule, r.message]);
    return [row.transaction_id, row.merchant_id, row.card, row.amount, row.currency, ...reasons]
      .some((field) => String(field ?? '').toLowerCase().includes(this.#text));
  }

  #build(decision, isNew) {
    const toggle = h('button', {
      type: 'button',
      class: 'row-toggle',
      tabindex: '-1',
      'aria-expanded': 'false',
      'aria-label': `Reasons for ${decision.outcome} of ${decision.amount} ${decision.currency} at ${decision.merchant_id}`,
    }, icon('chevron'));
    const top = decision.reasons?.[0];
    const more = (decision.reasons?.length ?? 0) - 1;
    const row = h('tr', { class: isNew ? 'decision is-new' : 'decision' },
      h('td', { class: 'c-toggle' }, toggle),
      h('td', { class: 'c-time num' },
        h('span', { class: 'time-full' }, format.time(decision.time_ms)),
        h('span', { class: 'time-short' }, format.shortTime(decision.time_ms))),
      h('td', { class: 'c-id mono', title: decision.transaction_id }, format.shortId(decision.transaction_id)),
      h('td', { class: 'c-merchant', title: decision.merchant_id }, String(decision.merchant_id)),
      h('td', { class: 'c-card' }, maskedCard(decision.card)),
      h('td', { class: 'c-amount num' }, money(format.amount(decision.amount), decision.currency)),
      h('td', { class: 'c-outcome' }, outcomeBadge(decision.outcome)),
      h('td', { class: 'c-score' }, scoreBar(decision.risk_score, decision.risk_level)),
      h('td', { class: 'c-reason', title: top?.message ?? null }, top ? [top.message, more > 0 ? h('span', { class: 'more' }, ` +${more}`) : null] : h('span', { class: 'muted' }, '–')));
    const entry = { decision, row, toggle, detail: null };
    row.dataset.id = decision.transaction_id;
    row.addEventListener('click', (event) => {
      // Selecting text in a row must not open it; the button's own click arrives here too.
      if (event.target.closest('button') || String(getSelection()) === '') this.#toggle(entry);
    });
    return entry;
  }

  #toggle(entry, open = entry.detail === null) {
    if (open === (entry.detail !== null)) return;
    entry.toggle.setAttribute('aria-expanded', String(open));
    entry.row.classList.toggle('is-open', open);
    const id = entry.decision.transaction_id;
    if (open) {
      entry.detail = this.#buildDetail(entry.decision);
      entry.toggle.setAttribute('aria-controls', entry.detail.id);
      entry.row.after(entry.detail);
      this.#open.add(id);
    } else {
      entry.detail.remove();
      entry.detail = null;
      entry.toggle.removeAttribute('aria-controls');
      this.#open.delete(id);
    }
    this.update();
  }

  #buildDetail(decision) {
    const facts = [
      ['Transaction', h('span', { class: 'mono' }, decision.transaction_id)],
      ['Merchant', String(decision.merchant_id)],
      ['Accepted', format.dateTime(decision.time_ms)],
      ['Risk', `${decision.risk_score} of 100, ${decision.risk_level}`],
      ['Decided in', `${format.millis(decision.latency_ms)} ms`],
    ];
    const inner = h('div', { class: 'detail' },
      reasonsTable(decision.reasons),
      h('dl', { class: 'facts' }, facts.map(([name, value]) => h('div', {}, h('dt', {}, name), h('dd', {}, value)))),
      h('button', { type: 'button', class: 'button', click: (event) => {
        event.stopPropagation();
        this.#openTransaction(decision.transaction_id);
      } }, 'Open transaction'));
    return h('tr', { class: 'detail-row', id: `reasons-${decision.transaction_id}` }, h('td', { colspan: visibleColumns() }, inner));
  }

  #onKey(event) {
    const entries = [...this.#rows.values()];
    const row = event.target.closest('tr');
    const at = entries.findIndex((entry) => entry.row === row || entry.detail === row);
    if (at < 0) return;
    if (event.key === 'Escape' && entries[at].detail) {
      this.#toggle(entries[at], false);
      this.#focus(entries[at]);
      event.preventDefault();
      return;
    }
    if (!event.target.classList.contains('row-toggle')) return;
    const next = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: entries.length - 1 }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    if (entries[next]) this.#focus(entries[next]);
  }

  #focus(entry) {
    this.#current = entry;
    this.#keepOneTabStop();
    entry.toggle.focus();
  }

  /** Fifty rows are one stop of the Tab key; arrow keys move within. */
  #keepOneTabStop() {
    const entries = [...this.#rows.values()];
    if (!entries.includes(this.#current)) this.#current = entries[0] ?? null;
    for (const entry of entries) entry.toggle.tabIndex = entry === this.#current ? 0 : -1;
  }
}

/** Narrow screens hide columns; a cell that spans hidden ones would make empty ones beside it. */
const visibleColumns = () => [...document.querySelectorAll('.decisions > thead th')].filter((th) => th.offsetWidth > 0).length;

/** All reasons of a decision: what was seen, what is allowed, and what it cost. */
export function reasonsTable(reasons) {
  if (!Array.isArray(reasons) || reasons.length === 0) return h('p', { class: 'muted no-reasons' }, 'No rule matched.');
  return h('table', { class: 'reasons' },
    h('thead', {}, h('tr', {},
      h('th', { scope: 'col' }, 'Reason'),
      h('th', { scope: 'col', class: 'num' }, 'Observed'),
      h('th', { scope: 'col', class: 'num' }, 'Limit'),
      h('th', { scope: 'col', class: 'num' }, 'Points'))),
    h('tbody', {}, reasons.map((reason) => h('tr', {},
      h('td', {}, h('span', { class: 'reason-message' }, String(reason.message ?? reason.code)), h('code', { class: 'code-chip', title: `Rule ${reason.rule}` }, String(reason.code))),
      h('td', { class: 'num' }, format.figure(reason.observed)),
      h('td', { class: 'num' }, format.figure(reason.limit)),
      h('td', { class: 'num points' }, `+${format.figure(reason.points)}`)))));
}
