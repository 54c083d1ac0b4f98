// The dialog with all that the warehouse knows of one transaction. It can be linked to: /#txn_….

import { request } from './api.js';
import { byId, h, maskedCard, money, outcomeBadge } from './dom.js';
import { reasonsTable } from './decisions.js';
import * as format from './format.js';

const ID = /^txn_[0-9a-f]{32}$/;
/** Beyond this depth an answer is shown as JSON. */
const DEPTH = 4;

export class TransactionDialog {
  #dialog = byId('detail');
  #body = byId('detail-body');
  #onUnauthorised;
  #asked = null;

  constructor(onUnauthorised) {
    this.#onUnauthorised = onUnauthorised;
    byId('detail-close').addEventListener('click', () => this.#dialog.close());
    // A click on the backdrop has the dialog itself as its target.
    this.#dialog.addEventListener('click', (event) => {
      if (event.target === this.#dialog) this.#dialog.close();
    });
    this.#dialog.addEventListener('close', () => {
      this.#asked = null;
      if (location.hash !== '') history.replaceState(null, '', location.pathname + location.search);
    });
    addEventListener('hashchange', () => this.openFromAddress());
  }

  /** Opens the transaction that the address names, if it names one. */
  openFromAddress() {
    const id = location.hash.slice(1);
    if (ID.test(id)) this.open(id);
  }

  open = async (id) => {
    this.#asked = id;
    history.replaceState(null, '', `#${id}`);
    this.#body.replaceChildren(h('p', { class: 'muted', role: 'status' }, 'Loading…'));
    if (!this.#dialog.open) this.#dialog.showModal();
    let content;
    try {
      content = describe(id, await request(`/v1/dashboard/transactions/${encodeURIComponent(id)}`));
    } catch (error) {
      content = [h('p', { class: 'error', role: 'alert' }, error.status === 404 ? `${id} is not stored. It may belong to another merchant, or be older than the retention.` : error.message)];
      if (error.status === 401 || error.status === 403) this.#onUnauthorised();
    }
    if (this.#asked === id) this.#body.replaceChildren(...content);
  };
}

/** A head with what matters, the reasons, and every other field under its own name. */
function describe(id, answer) {
  const find = (name) => lookUp(answer, name);
  const outcome = find('outcome');
  const amount = find('amount');
  const card = find('card_masked') ?? find('card');
  const shadow = find('shadow_reasons') ?? [];
  return [
    h('div', { class: 'detail-head' },
      outcome ? outcomeBadge(outcome) : null,
      amount ? h('span', { class: 'detail-amount' }, money(format.amount(amount), find('currency'))) : null,
      typeof card === 'string' ? maskedCard(card) : null,
      find('merchant_id') ? h('span', {}, String(find('merchant_id'))) : null),
    h('p', { class: 'mono detail-id' }, id),
    h('h3', {}, 'Reasons'),
    reasonsTable(find('reasons')),
    ...(shadow.length > 0 ? [h('h3', {}, 'Shadow rules: recorded, without effect'), reasonsTable(shadow)] : []),
    ...facts(answer, DEPTH),
  ];
}

/** The value of a name at the top level or one level below it. */
function lookUp(answer, name) {
  if (isObject(answer) && answer[name] !== undefined) return answer[name];
  return Object.values(answer ?? {}).filter(isObject).map((part) => part[name]).find((value) => value !== undefined);
}

const isObject = (value) => value !== null && typeof value === 'object' && !Array.isArray(value);
const SHOWN_APART = new Set(['reasons', 'shadow_reasons']);
const isEmpty = (value) => [null, undefined, '', '{}', '[]'].includes(value) || (Array.isArray(value) && value.length === 0);
/** `device_ip` as `Device IP`. The unit of a time goes, for it is shown as a date. */
const words = (name) => {
  const text = (isTime(name) ? name.replace(/_[mu]s$/, '') : name).replaceAll('_', ' ').replace(/\b(id|ip|mcc|bin)\b/g, (word) => word.toUpperCase());
  return text.charAt(0).toUpperCase() + text.slice(1);
};
const isTime = (name) => /(^|_)(at|time|now)_[mu]s$/.test(name);

/** Plain fields as a list, nested ones under a heading of their own. */
function facts(value, depth, title = 'All fields') {
  const entries = Object.entries(value ?? {}).filter(([name, field]) => !isEmpty(field) && !SHOWN_APART.has(name));
  const nested = ([, field]) => isObject(field) || (Array.isArray(field) && field.some(isObject));
  const plain = entries.filter((entry) => !nested(entry));
  const blocks = [];
  if (plain.length > 0) {
    blocks.push(h('h3', {}, title), h('dl', { class: 'facts' }, plain.map(([name, field]) => h('div', {}, h('dt', {}, words(name)), h('dd', {}, fieldText(name, field))))));
  }
  for (const [name, field] of entries.filter(nested)) {
    if (depth <= 1) blocks.push(h('h3', {}, words(name)), h('pre', { class: 'code' }, JSON.stringify(field, null, 2)));
    else if (Array.isArray(field)) field.forEach((part, i) => blocks.push(...facts(isObject(part) ? part : { value: part }, depth - 1, field.length === 1 ? words(name) : `${words(name)} ${i + 1}`)));
    else blocks.push(...facts(field, depth - 1, words(name)));
  }
  return blocks;
}

/** Times in the viewer's zone, everything else as it came. */
function fieldText(name, field) {
  if (typeof field === 'string' && /^\d{4}-\d\d-\d\dT[\d:.]+Z$/.test(field)) return format.dateTime(Date.parse(field));
  if (typeof field === 'number') {
    if (isTime(name)) return format.dateTime(name.endsWith('_us') ? field / 1000 : field);
    if (name.endsWith('_ms')) return format.millis(field);
  }
  return typeof field === 'object' ? JSON.stringify(field) : String(field);
}
