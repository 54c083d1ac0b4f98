// The two charts, drawn by uPlot, and the sparkline.

import uPlot from './uplot.js';
import { OUTCOMES, OUTCOME_LABELS, byId, h, icon, setText } from './dom.js';
import * as format from './format.js';
import { request } from './api.js';
import { WINDOW_S } from './model.js';

const BARS = 60;
const CHART_HEIGHT_PX = 216;
const HISTORY_REFRESH_MS = 30_000;
/** What the pipeline aims at: nine hundred and ninety of a thousand decisions are faster. */
const LATENCY_GOAL_MS = 50;
const LATENCY_STEPS_MS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000];
/** Labels show hours and minutes, so no step is below a minute. */
const TIME_STEPS_S = [60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 14_400, 21_600, 43_200];
/** Drawn from the bottom up: the rare, serious outcomes share the base line and can be compared. */
const STACK = ['decline', 'challenge', 'review', 'approve'];

const cssVariable = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const reversed = (list) => [...list].reverse();

/** uPlot asks for colours while drawing, so a theme change needs a redraw only. */
const colour = (name) => () => cssVariable(name);

function axes(yValues, ySplits) {
  const font = () => `11px ${cssVariable('--font')}`;
  const shared = () => ({ stroke: colour('--muted'), font: font(), ticks: { show: false }, grid: { stroke: colour('--grid'), width: 1 } });
  return [
    { ...shared(), size: 26, gap: 6, space: 72, incrs: TIME_STEPS_S, grid: { show: false }, values: (_, splits) => splits.map((s) => format.minute(s * 1000)) },
    // A logarithmic axis would label powers of ten only.
    { ...shared(), size: 46, gap: 8, space: 34, values: yValues, splits: ySplits, filter: (_, splits) => splits },
  ];
}

/** Keeps a chart as wide as its place. */
function fitToWidth(chart, place) {
  new ResizeObserver(() => {
    const width = place.clientWidth;
    if (width > 0 && width !== chart.width) chart.setSize({ width, height: CHART_HEIGHT_PX });
  }).observe(place);
}

/** A legend whose items show the values under the pointer, or the latest ones. */
function legend(place, items) {
  const values = items.map(({ key, label, mark }) => {
    const value = h('span', { class: 'legend-value' });
    place.append(h('span', { class: `legend-item l-${key}` }, mark, h('span', {}, label), value));
    return value;
  });
  const when = h('span', { class: 'legend-when' });
  place.append(when);
  return (texts, whenText) => {
    texts.forEach((text, i) => setText(values[i], text));
    setText(when, whenText);
  };
}

/** Outcomes per second as stacked bars: live over five minutes, or longer periods from the warehouse. */
export class OutcomesChart {
  #place = byId('outcomes-chart');
  #chart;
  #legend;
  #minutes = WINDOW_S / 60;
  #history = null;
  #timer = 0;
  #bars = emptyBars();
  #onError;

  constructor(onError) {
    this.#onError = onError;
    const shown = reversed(STACK);
    this.#legend = legend(byId('outcomes-legend'), shown.map((key) => ({ key, label: OUTCOME_LABELS[key], mark: icon(key) })));
    const bars = uPlot.paths.bars({ size: [0.74, 22] });
    this.#chart = new uPlot({
      width: Math.max(this.#place.clientWidth, 200),
      height: CHART_HEIGHT_PX,
      padding: [8, 22, 0, 0],
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { show: false } },
      scales: {
        x: { time: true, range: () => this.#bars.range },
        y: { range: (_, __, max) => [0, niceCeiling(max)] },
      },
      axes: axes((_, splits) => splits.map((s) => (s === 0 || s >= 1 || s * 10 === Math.round(s * 10) ? format.figure(s) : ''))),
      // The tallest sum first; each later one covers its lower part.
      series: [{}, ...shown.map((key) => ({ fill: colour(`--${key}-fill`), stroke: null, width: 0, paths: bars, points: { show: false } }))],
      hooks: { setCursor: [() => this.#describe()] },
    }, this.#bars.data, this.#place);
    fitToWidth(this.#chart, this.#place);
    this.#wireRange();
  }

  #wireRange() {
    const group = byId('range');
    group.addEventListener('click', (event) => {
      const button = event.target.closest('button[data-minutes]');
      if (!button) return;
      for (const other of group.children) other.setAttribute('aria-pressed', String(other === button));
      this.#minutes = Number(button.dataset.minutes);
      this.#history = null;
      clearTimeout(this.#timer);
      if (this.#minutes * 60 > WINDOW_S) this.#loadHistory(this.#minutes);
      else if (this.model) this.update(this.model);
    });
  }

  async #loadHistory(minutes) {
    try {
      const history = await request(`/v1/dashboard/history?minutes=${minutes}`);
      if (minutes !== this.#minutes) return; // another period was chosen meanwhile
      this.#history = history;
      if (this.model) this.update(this.model);
    } catch (error) {
      this.#onError(error);
    }
    if (minutes === this.#minutes) this.#timer = setTimeout(() => this.#loadHistory(minutes), HISTORY_REFRESH_MS);
  }

  update(model) {
    this.model = model;
    const live = this.#minutes * 60 <= WINDOW_S;
    if (!live && this.#history === null) return; // keeps what is shown until the answer is there
    const endS = (model.series.t_s.at(-1) ?? Math.floor(model.nowMs / 1000)) + 1;
    this.#bars = live
      ? barsOf(model.series, 1, this.#minutes * 60, endS)
      : barsOf(this.#history, 60, this.#minutes * 60, endS);
    this.#chart.setData(this.#bars.data);
    this.#describe();
  }

  /** Themes change colours only; the bars stay. */
  redraw() {
    this.#chart.redraw(false, true);
  }

  #describe() {
    const { data, values, widthS } = this.#bars;
    if (data[0].length === 0) return;
    const hovered = this.#chart.cursor.idx;
    const at = hovered ?? data[0].length - 1;
    const texts = reversed(STACK).map((key) => format.rate(values[key][at]));
    const fromMs = (data[0][at] - widthS / 2) * 1000;
    this.#legend(texts, hovered === null || hovered === undefined ? 'now' : format.time(fromMs));
    if (hovered === null || hovered === undefined) {
      const words = OUTCOMES.map((key) => `${format.rate(values[key][at])} ${OUTCOME_LABELS[key].toLowerCase()}`);
      this.#place.setAttribute('aria-label', `Outcomes per second over the last ${this.#minutes} minutes. Now: ${words.join(', ')}.`);
    }
  }
}

function emptyBars() {
  return { data: [[], ...STACK.map(() => [])], values: {}, widthS: 1, range: [0, 1] };
}

/**
 * `series` (a value per outcome and time, each standing for `stepS` seconds) as `BARS` bars of
 * averages per second, the newest one ending at or after `endS`.
 */
function barsOf(series, stepS, periodS, endS) {
  const widthS = Math.max(stepS, periodS / BARS);
  const rangeEnd = Math.ceil(endS / widthS) * widthS;
  const rangeStart = rangeEnd - BARS * widthS;
  const values = Object.fromEntries(STACK.map((key) => [key, new Array(BARS).fill(0)]));
  (series.t_s ?? []).forEach((t, i) => {
    const bar = Math.floor((t - rangeStart) / widthS);
    if (bar < 0 || bar >= BARS) return;
    for (const key of STACK) values[key][bar] += series[key]?.[i] ?? 0;
  });
  const times = [];
  for (let bar = 0; bar < BARS; bar += 1) {
    const start = rangeStart + bar * widthS;
    times.push(start + widthS / 2);
    // The last bar has only begun: its average is over the seconds that have passed.
    const seconds = Math.max(1, Math.min(widthS, endS - start));
    for (const key of STACK) values[key][bar] /= seconds;
  }
  let below = new Array(BARS).fill(0);
  const sums = STACK.map((key) => (below = below.map((sum, bar) => sum + values[key][bar])));
  return { data: [times, ...sums.reverse()], values, widthS, range: [rangeStart, rangeEnd] };
}

/** The next of 1, 2, 3, 5, 8 times a power of ten above `max`, so that the scale seldom jumps. */
function niceCeiling(max) {
  if (!(max > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(max));
  const step = [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10].find((s) => s * power >= max * 1.04) ?? 10;
  return step * power;
}

/** p50 and p99 of every second on a logarithmic scale, with the goal drawn in. */
export class LatencyChart {
  #place = byId('latency-chart');
  #chart;
  #legend;
  #series = null;

  constructor() {
    const line = (key) => h('i', { class: `line-mark line-${key}`, 'aria-hidden': 'true' });
    this.#legend = legend(byId('latency-legend'), [
      { key: 'p50', label: 'p50', mark: line('p50') },
      { key: 'p99', label: 'p99', mark: line('p99') },
    ]);
    const points = { show: (_, __, from, to) => to - from < 3, size: 4 };
    this.#chart = new uPlot({
      width: Math.max(this.#place.clientWidth, 200),
      height: CHART_HEIGHT_PX,
      padding: [8, 22, 0, 0],
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 } },
      scales: {
        x: { time: true, range: () => this.#range() },
        y: { distr: 3, log: 10, range: (_, min, max) => latencyRange(min, max) },
      },
      axes: axes(
        (_, splits) => splits.map((s) => (s >= 1_000 ? `${format.figure(s / 1_000)} s` : `${format.figure(s)} ms`)),
        (_, __, min, max) => latencySplits(min, max),
      ),
      series: [
        {},
        { stroke: colour('--p50'), width: 2, points, spanGaps: false },
        { stroke: colour('--p99'), width: 1.25, points, spanGaps: false },
      ],
      bands: [{ series: [2, 1], fill: colour('--latency-band') }],
      hooks: { setCursor: [() => this.#describe()], drawAxes: [(chart) => drawGoal(chart)] },
    }, [[], [], []], this.#place);
    fitToWidth(this.#chart, this.#place);
  }

  #range() {
    const end = this.#series?.t_s.at(-1) ?? 1;
    return [end - WINDOW_S, end];
  }

  update(model) {
    this.#series = model.series;
    const { t_s, p50_ms, p99_ms } = model.series;
    const positive = (values) => values.map((v) => (v === null ? null : Math.max(v, LATENCY_STEPS_MS[0])));
    this.#chart.setData([[...t_s], positive(p50_ms), positive(p99_ms)]);
    this.#describe();
  }

  redraw() {
    this.#chart.redraw(false, true);
  }

  #describe() {
    const series = this.#series;
    if (!series || series.t_s.length === 0) return;
    const hovered = this.#chart.cursor.idx;
    const live = hovered === null || hovered === undefined;
    const at = live ? series.p50_ms.findLastIndex((v) => v !== null) : hovered;
    const texts = ['p50_ms', 'p99_ms'].map((key) => `${format.millis(series[key][at] ?? NaN)} ms`);
    this.#legend(texts, live ? 'now' : format.time(series.t_s[at] * 1000));
    if (live) this.#place.setAttribute('aria-label', `Decision latency over the last five minutes. Now: p50 ${texts[0]}, p99 ${texts[1]}. Goal: p99 below ${LATENCY_GOAL_MS} ms.`);
  }
}

function latencyRange(min, max) {
  const low = LATENCY_STEPS_MS.findLast((step) => step <= (min ?? 1)) ?? LATENCY_STEPS_MS[0];
  const high = LATENCY_STEPS_MS.find((step) => step >= Math.max(max ?? 0, LATENCY_GOAL_MS * 1.6)) ?? LATENCY_STEPS_MS.at(-1);
  return [Math.min(low, 1), high];
}

/** 1-2-5 steps while they fit, else powers of ten. */
function latencySplits(min, max) {
  const within = LATENCY_STEPS_MS.filter((step) => step >= min && step <= max);
  return within.length <= 8 ? within : within.filter((step) => Number.isInteger(Math.log10(step)) || step === max);
}

function drawGoal(chart) {
  const { ctx, bbox } = chart;
  const y = Math.round(chart.valToPos(LATENCY_GOAL_MS, 'y', true)) + 0.5;
  if (y < bbox.top || y > bbox.top + bbox.height) return;
  const scale = devicePixelRatio;
  ctx.save();
  ctx.strokeStyle = cssVariable('--goal');
  ctx.fillStyle = cssVariable('--muted');
  ctx.lineWidth = scale;
  ctx.setLineDash([2 * scale, 3 * scale]);
  ctx.beginPath();
  ctx.moveTo(bbox.left, y);
  ctx.lineTo(bbox.left + bbox.width, y);
  ctx.stroke();
  ctx.font = `${11 * scale}px ${cssVariable('--font')}`;
  ctx.textAlign = 'right';
  ctx.textBaseline = 'bottom';
  ctx.fillText('p99 goal', bbox.left + bbox.width - 2 * scale, y - 3 * scale);
  ctx.restore();
}

/** Draws `values` into the sparkline of the first tile. */
export function drawSparkline(values) {
  const svg = byId('spark');
  const [width, height] = [120, 36];
  const top = Math.max(...values, 1);
  const x = (i) => (values.length < 2 ? width : (i / (values.length - 1)) * width);
  const y = (v) => height - 2 - (v / top) * (height - 5);
  const line = values.every((v) => v === 0) ? '' : values.map((v, i) => `${i === 0 ? 'M' : 'L'}${x(i).toFixed(1)} ${y(v).toFixed(1)}`).join('');
  svg.querySelector('.spark-line').setAttribute('d', line);
  svg.querySelector('.spark-area').setAttribute('d', line === '' ? '' : `${line}L${width} ${height}L0 ${height}Z`);
}
