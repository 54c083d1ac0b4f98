// Building and updating elements. Every string that came from a transaction goes through
// textContent or a non-URL attribute, never through HTML.

/** The element with this id; a missing one is a mistake in index.html. */
export function byId(id) {
  const element = document.getElementById(id);
  if (!element) throw new Error(`index.html has no element #${id}`);
  return element;
}

/**
 * An element with attributes and children. Children are elements or texts; null is left out.
 * `class`, `dataset`-like and ARIA attributes are set as attributes, functions as listeners.
 */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === 'function') element.addEventListener(name, value);
    else element.setAttribute(name, value === true ? '' : value);
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined) element.append(child);
  }
  return element;
}

const SVG = 'http://www.w3.org/2000/svg';

/** An icon from the sprite in index.html; decoration, so hidden from screen readers. */
export function icon(name) {
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('class', 'icon');
  svg.setAttribute('aria-hidden', 'true');
  const use = document.createElementNS(SVG, 'use');
  use.setAttribute('href', `#i-${name}`);
  svg.append(use);
  return svg;
}

/** Writes a text only when it differs, which spares layout and screen readers. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export const OUTCOMES = ['approve', 'review', 'challenge', 'decline'];
export const OUTCOME_LABELS = { approve: 'Approve', review: 'Review', challenge: 'Challenge', decline: 'Decline' };
const SEVERITIES = ['low', 'medium', 'high', 'critical'];

/** An outcome as colour, shape and word. */
export function outcomeBadge(outcome) {
  const known = OUTCOMES.includes(outcome) ? outcome : 'review';
  return h('span', { class: `badge o-${known}` }, icon(known), OUTCOME_LABELS[outcome] ?? String(outcome));
}

/** A severity as colour, shape and word. */
export function severityBadge(severity) {
  const known = SEVERITIES.includes(severity) ? severity : 'medium';
  return h('span', { class: `severity s-${known}` }, icon(known), String(severity));
}

/** `411111••••••1111` with a head that narrow screens leave out. */
export function maskedCard(card) {
  const text = String(card ?? '');
  const tail = text.match(/^(.*?)(•{0,2}\d{4})$/u);
  return h('span', { class: 'mono card-number' }, tail && tail[1] ? [h('span', { class: 'card-head' }, tail[1]), tail[2]] : text);
}

/** An amount with its currency set apart. */
export function money(text, currency) {
  return h('span', { class: 'money' }, text, h('span', { class: 'currency' }, ` ${currency ?? ''}`));
}

/** A 0–100 bar with its number. */
export function scoreBar(score, level) {
  const fill = h('i', { class: `level-${['normal', 'elevated', 'highest'].includes(level) ? level : 'normal'}` });
  fill.style.width = `${Math.min(100, Math.max(0, Number(score) || 0))}%`;
  return h('span', { class: 'score' }, h('span', { class: 'score-number' }, String(score)), h('span', { class: 'score-track', 'aria-hidden': 'true' }, fill));
}

/**
 * Makes `parent` hold exactly the elements `wanted`, in that order, moving as little as possible:
 * what keeps its place keeps its focus and its scroll position.
 */
export function reconcile(parent, wanted) {
  const keep = new Set(wanted);
  for (const child of [...parent.children]) {
    if (!keep.has(child)) child.remove();
  }
  let at = parent.firstElementChild;
  for (const element of wanted) {
    if (element === at) at = at.nextElementSibling;
    else parent.insertBefore(element, at);
  }
}
