// The page's wiring: stream → model → panels, at most one drawing per frame.
//
// In the order data flows: stream.js (server-sent events), model.js (what is known, bounded),
// then the views: panels.js, charts.js, decisions.js, detail.js, console.js.
// Helpers of the views: dom.js, format.js, api.js. theme.js runs before all of them.

import { authorisation, rememberKey } from './api.js';
import { LatencyChart, OutcomesChart } from './charts.js';
import { SqlConsole } from './console.js';
import { DecisionsTable } from './decisions.js';
import { TransactionDialog } from './detail.js';
import { byId, setText } from './dom.js';
import * as format from './format.js';
import { Model } from './model.js';
import { AlertFeed, updateMerchants, updateRules, updateTiles } from './panels.js';
import { LiveStream } from './stream.js';

const model = new Model();
const dialog = new TransactionDialog(askForKey);
const outcomes = new OutcomesChart((error) => {
  if (error.status === 401 || error.status === 403) askForKey();
});
const latency = new LatencyChart();
const decisions = new DecisionsTable(model, dialog.open);
const alerts = new AlertFeed(model, dialog.open);
new SqlConsole(askForKey);

const stream = new LiveStream('/v1/dashboard/stream', {
  onState: showConnection,
  onEvent(name, data) {
    if (name === 'snapshot') {
      model.snapshot(data);
      decisions.reset();
      alerts.reset();
    } else if (name === 'tick' && model.ready) {
      model.tick(data);
    }
    schedule();
  },
});

let scheduled = false;

/** However many events arrive between two frames, they are drawn once. */
function schedule() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    draw();
  });
}

function draw() {
  const idle = model.ready && !(model.totals.transactions > 0);
  // Hidden charts have no width: show their place before they are drawn.
  byId('start').hidden = !idle;
  byId('live').hidden = idle || !model.ready;
  updateTiles(model);
  if (byId('connection').dataset.state === 'live') setText(byId('connection-note'), format.time(model.nowMs));
  if (byId('live').hidden) return;
  outcomes.update(model);
  latency.update(model);
  decisions.update();
  alerts.update();
  updateRules(model);
  updateMerchants(model);
}

// Connection state.

let countdown = 0;

function showConnection(state) {
  const place = byId('connection');
  if (state.kind === 'live' && place.dataset.state === 'live') return;
  clearInterval(countdown);
  place.dataset.state = state.kind;
  byId('retry').hidden = state.kind !== 'waiting';
  place.title = state.reason ? `Last attempt: ${state.reason}` : '';
  const text = { connecting: 'Connecting…', live: 'Live', waiting: 'Reconnecting', unauthorised: 'Key needed' }[state.kind];
  setText(byId('connection-text'), text);
  const note = byId('connection-note');
  if (state.kind === 'waiting') {
    const tick = () => setText(note, `in ${Math.max(0, Math.ceil((state.retryAtMs - Date.now()) / 1000))} s`);
    tick();
    countdown = setInterval(tick, 250);
  } else {
    setText(note, '');
  }
  if (state.kind === 'unauthorised') askForKey(state.refused);
}

byId('retry').addEventListener('click', () => stream.retryNow());
addEventListener('online', () => stream.retryNow());

// The key prompt.

function askForKey(refused = 'authorization' in authorisation()) {
  const prompt = byId('key');
  const error = byId('key-error');
  error.hidden = !refused;
  setText(error, refused ? 'The server refused this key. It may be revoked, or lack the right to read.' : '');
  if (!prompt.open) prompt.showModal();
}

byId('key-form').addEventListener('submit', (event) => {
  event.preventDefault();
  const input = byId('key-input');
  // Header values are Latin-1 without line breaks; anything else cannot be a key.
  const key = input.value.trim();
  if (!/^[\x21-\x7e]+$/.test(key)) {
    byId('key-error').hidden = false;
    setText(byId('key-error'), 'A key has only letters, digits and signs, without spaces.');
    return;
  }
  rememberKey(key);
  input.value = '';
  byId('key').close();
  stream.retryNow();
});

// Closed without a key, the page stays without data: the header says so and offers another try.
byId('key').addEventListener('close', () => {
  byId('retry').hidden = byId('connection').dataset.state !== 'unauthorised';
});

// Theme.

const theme = window.paystreamTheme;

function showTheme(name) {
  const other = name === 'dark' ? 'light' : 'dark';
  byId('theme').setAttribute('aria-label', `Switch to the ${other} theme`);
  byId('theme').title = `Switch to the ${other} theme`;
  byId('theme-icon').setAttribute('href', other === 'dark' ? '#i-moon' : '#i-sun');
  outcomes.redraw();
  latency.redraw();
}

byId('theme').addEventListener('click', () => theme.toggle());
theme.onChange(showTheme);
showTheme(theme.current());

// How to begin.

const expiryYear = new Date().getFullYear() + 2;
const body = JSON.stringify({ amount: 10050, currency: 'USD', card: { number: '4242424242424242', exp_month: 12, exp_year: expiryYear, cvc: '123' } });
setText(byId('start-curl'), `curl -sS ${location.origin}/v1/transactions \\\n  -H 'content-type: application/json' \\\n  -d '${body}'`);
setText(byId('start-demo'), `paystream loadtest --url ${location.origin} --rate 50 --duration 10m`);

for (const button of document.querySelectorAll('[data-copy]')) {
  button.addEventListener('click', async () => {
    const source = byId(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(source.textContent);
      setText(button, 'Copied');
      setTimeout(() => setText(button, 'Copy'), 2_000);
    } catch {
      // No clipboard outside https and loopback: select it, so that one key press copies it.
      getSelection().selectAllChildren(source);
      setText(button, 'Selected');
    }
  });
}

dialog.openFromAddress();
stream.retryNow();
