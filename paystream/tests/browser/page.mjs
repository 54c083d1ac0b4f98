// Tests the live page of a running system in headless Chromium.
//
//   node page.mjs BASE_URL [SCREENSHOT_DIR]
//
// Prints one line per check; exit status 1 when one failed. PAYSTREAM_API_KEY is used when the system
// wants a key, CHROMIUM names another browser than /usr/bin/chromium.

import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { chromium } from 'playwright-core';

import { accepted, cardTesting, submit } from './traffic.mjs';
import { isolatedChecks } from './isolated.mjs';

const DEADLINE_MS = 20_000;
const BLOCKED_TEST_CARD = '4100000000000019';

const [base, screenshots] = process.argv.slice(2);
if (!base) {
  console.error('usage: node page.mjs BASE_URL [SCREENSHOT_DIR]');
  process.exit(2);
}
const url = new URL('/', base);
const apiKey = process.env.PAYSTREAM_API_KEY;

let failed = 0;

/** Runs one check, prints its line, and goes on whatever comes of it. */
async function check(name, run) {
  try {
    const note = await run();
    console.log(`ok    ${name}${note ? ` (${note})` : ''}`);
  } catch (error) {
    failed += 1;
    console.log(`FAIL  ${name}: ${String(error.message).split('\n').slice(0, 4).join(' | ')}`);
  }
}

function expect(condition, message) {
  if (!condition) throw new Error(message);
}

/** What a page must not do: complain, fail to load, or talk to anyone else. */
function observe(page) {
  const seen = { problems: [], foreign: [] };
  page.on('console', (message) => {
    if (message.type() === 'error' || message.type() === 'warning') seen.problems.push(`console: ${message.text()}`);
  });
  page.on('pageerror', (error) => seen.problems.push(`exception: ${error.message}`));
  page.on('requestfailed', (request) => {
    // The stream ends with its page: leaving or reloading one breaks it off.
    const aborted = request.failure()?.errorText === 'net::ERR_ABORTED';
    if (!(aborted && request.url().endsWith('/stream'))) seen.problems.push(`failed: ${request.url()} ${request.failure()?.errorText}`);
  });
  page.on('response', (response) => {
    if (response.status() >= 400) seen.problems.push(`status ${response.status()}: ${response.url()}`);
  });
  page.on('request', (request) => {
    if (new URL(request.url()).origin !== url.origin) seen.foreign.push(request.url());
  });
  return seen;
}

async function screenshot(page, name, options = {}) {
  if (!screenshots) return;
  await mkdir(screenshots, { recursive: true });
  await page.screenshot({ path: path.join(screenshots, `${name}.png`), ...options });
}

async function open(browser, options) {
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, colorScheme: 'light', reducedMotion: 'reduce', ...options });
  context.setDefaultTimeout(DEADLINE_MS);
  if (apiKey) await context.addInitScript((key) => sessionStorage.setItem('paystream.api_key', key), apiKey);
  return context.newPage();
}

/** The number a tile shows, whatever the locale's separators. */
const shownTotal = (page) => page.locator('#kpi-total').textContent().then((text) => Number(text.replace(/\D/g, '')));

async function liveChecks(browser) {
  const page = await open(browser);
  const seen = observe(page);

  await check('the page loads under a strict content security policy', async () => {
    const response = await page.goto(url.href);
    expect(response.ok(), `status ${response.status()}`);
    const policy = response.headers()['content-security-policy'] ?? '';
    expect(/default-src '(self|none)'/.test(policy) && !/unsafe-/.test(policy), `policy is “${policy}”`);
  });

  await check('it is live', async () => {
    await page.locator('#connection[data-state="live"]').waitFor();
    // The time of the last event is drawn with its figures.
    await page.locator('#connection-note', { hasText: /\d/ }).waitFor();
  });

  await check('the transaction counter moves', async () => {
    // Of its own, so that it moves without demonstration traffic too.
    const before = await shownTotal(page);
    await accepted(url, { apiKey });
    await page.waitForFunction((n) => Number(document.getElementById('kpi-total').textContent.replace(/\D/g, '')) > n, before);
    return `${before} → ${await shownTotal(page)}`;
  });

  await check('charts are drawn', async () => {
    for (const chart of ['#outcomes-chart', '#latency-chart']) {
      await page.locator(`${chart} canvas`).waitFor();
      const painted = await page.locator(`${chart} canvas`).evaluate((canvas) => {
        const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        return data.some((byte) => byte !== 0);
      });
      expect(painted, `${chart} is blank`);
    }
  });

  let flagged = null;
  await check('card testing is noticed', async () => {
    flagged = await cardTesting(url, { apiKey });
    return `${flagged.outcome} after ${flagged.attempts} attempts, score ${flagged.riskScore}`;
  });

  await check('the suspicious transaction appears with its reasons', () => appearsWithReasons(page, flagged));
  await check('its row opens and closes by keyboard, and arrow keys move', () => keyboard(page, flagged));
  await check('its alert appears, and opens the transaction', () => alertOpensTransaction(page, flagged));

  let blocked = null;
  await check('the blocked test card is declined and alerted on', async () => {
    blocked = await submit(url, { apiKey, card: BLOCKED_TEST_CARD });
    expect(blocked.outcome === 'decline', `outcome is ${blocked.outcome}`);
    await page.locator(`#alerts li[data-transaction="${blocked.id}"]`).waitFor();
  });

  await check('a transaction can be linked to', async () => {
    const linked = await page.context().newPage();
    await linked.goto(`${url.href}#${blocked.id}`);
    await linked.locator('#detail .detail-amount').waitFor();
    expect((await linked.locator('#detail').textContent()).includes(blocked.id), 'the dialog shows another transaction');
    await linked.close();
  });

  await check('a query runs with Ctrl+Enter', async () => {
    await page.locator('#console-sql').fill('SELECT outcome, count(*) AS n FROM decisions GROUP BY outcome ORDER BY outcome');
    await page.locator('#console-sql').press('Control+Enter');
    await page.locator('#console-result tbody tr').first().waitFor();
    return page.locator('#console-status').textContent();
  });

  await check('every example query runs', () => everyExample(page));
  await check('longer periods of the chart load', async () => {
    for (const minutes of ['60', '1440']) {
      const answer = page.waitForResponse((response) => response.url().includes(`history?minutes=${minutes}`));
      await page.locator(`#range [data-minutes="${minutes}"]`).click();
      expect((await answer).ok(), `history of ${minutes} min: status ${(await answer).status()}`);
    }
    await page.locator('#range [data-minutes="5"]').click();
  });

  await check('the table is paused while a pointer is on it, and never holds more than 50 rows', async () => {
    await page.locator('.decision').first().hover();
    await page.locator('#paused-note').waitFor();
    await page.mouse.move(2, 2);
    await page.locator('#paused-note').waitFor({ state: 'hidden' });
    expect((await page.locator('.decision').count()) <= 50, 'more than 50 rows');
  });

  await screenshot(page, 'page-light');
  await screenshot(page, 'page-light-full', { fullPage: true });

  await check('the dark theme is chosen by the button and remembered', async () => {
    await page.locator('#theme').click();
    expect((await page.evaluate(() => document.documentElement.dataset.theme)) === 'dark', 'still light');
    await page.reload();
    await page.locator('.decision').first().waitFor();
    const [theme, background] = await page.evaluate(() => [document.documentElement.dataset.theme, getComputedStyle(document.body).backgroundColor]);
    expect(theme === 'dark', 'forgotten after a reload');
    const brightness = background.match(/\d+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0);
    expect(brightness < 150, `background is ${background}`);
    await screenshot(page, 'page-dark');
  });

  await check('no console message, failed request or error status', () => expect(seen.problems.length === 0, seen.problems.join('; ')));
  await check('nothing is requested from another origin', () => expect(seen.foreign.length === 0, seen.foreign.join('; ')));
  await page.context().close();
}

async function appearsWithReasons(page, flagged) {
  expect(flagged, 'there is none');
  await page.locator('#filter-text').fill(flagged.id);
  const row = page.locator(`.decision[data-id="${flagged.id}"]`);
  await row.waitFor();
  const text = await row.textContent();
  expect(text.toLowerCase().includes(flagged.outcome), `the row says “${text}”`);
  await row.locator('.row-toggle').click();
  const reasons = page.locator(`#reasons-${flagged.id} .reasons tbody tr`);
  await reasons.first().waitFor();
  expect((await reasons.count()) === flagged.reasons.length, `${await reasons.count()} reasons shown, ${flagged.reasons.length} answered`);
  const shown = await page.locator(`#reasons-${flagged.id}`).textContent();
  for (const reason of flagged.reasons) {
    expect(shown.includes(reason.code) && shown.includes(reason.message), `${reason.code} or its message is not shown`);
    expect(shown.includes(`+${reason.points}`), `the points of ${reason.code} are not shown`);
  }
  await screenshot(page, 'reasons');
  await row.locator('.row-toggle').click();
  await reasons.first().waitFor({ state: 'detached' });
  return flagged.reasons.map((reason) => reason.code).join(', ');
}

async function keyboard(page, flagged) {
  expect(flagged, 'there is none');
  await page.locator('#filter-text').fill(flagged.id);
  const toggle = page.locator(`.decision[data-id="${flagged.id}"] .row-toggle`);
  await toggle.waitFor();
  // From the filter by Tab alone: the outcome list, the pause button, then the rows.
  await page.locator('#filter-text').focus();
  for (let presses = 0; presses < 6 && !(await toggle.evaluate((el) => el === document.activeElement)); presses += 1) {
    await page.keyboard.press('Tab');
  }
  expect(await toggle.evaluate((el) => el === document.activeElement), 'Tab does not reach the row');
  const outline = await toggle.evaluate((el) => getComputedStyle(el).outlineStyle);
  expect(outline !== 'none', 'the focus cannot be seen');
  await page.keyboard.press('Enter');
  expect((await toggle.getAttribute('aria-expanded')) === 'true', 'Enter does not open it');
  await page.locator(`#reasons-${flagged.id}`).waitFor();
  await page.keyboard.press('Escape');
  expect((await toggle.getAttribute('aria-expanded')) === 'false', 'Escape does not close it');

  // Focus in the table holds it still, so these rows stay where they are.
  await page.locator('#filter-text').fill('');
  await page.waitForFunction(() => document.querySelectorAll('.decision').length > 1);
  await page.locator('.decision .row-toggle[tabindex="0"]').focus();
  await page.keyboard.press('Home');
  await page.keyboard.press('ArrowDown');
  const at = await page.evaluate(() => [...document.querySelectorAll('.decision')].indexOf(document.activeElement.closest('.decision')));
  expect(at === 1, `the arrow key leads to row ${at}`);
  await page.evaluate(() => document.activeElement.blur());
}

async function alertOpensTransaction(page, flagged) {
  expect(flagged, 'there is none');
  const alert = page.locator(`#alerts li[data-transaction="${flagged.id}"]`);
  await alert.waitFor();
  expect((await alert.textContent()).includes(flagged.reasons[0].message), 'the alert does not say why');
  await alert.locator('button').click();
  await page.locator('#detail .reasons tbody tr').first().waitFor();
  const text = await page.locator('#detail').textContent();
  expect(text.includes(flagged.id) && text.includes(flagged.reasons[0].code), 'the dialog shows something else');
  await screenshot(page, 'transaction');
  await page.keyboard.press('Escape');
  await page.locator('#detail').waitFor({ state: 'hidden' });
}

async function everyExample(page) {
  const values = await page.locator('#console-example option').evaluateAll((options) => options.map((option) => option.value).filter(Boolean));
  for (const value of values) {
    await page.locator('#console-example').selectOption(value);
    const answer = page.waitForResponse((response) => response.url().endsWith('/v1/query'));
    await page.locator('#console-run').click();
    const response = await answer;
    expect(response.ok(), `example ${value}: ${await response.text()}`);
    await page.locator('#console-run:not([disabled])').waitFor();
  }
  return `${values.length} of them`;
}

async function narrowChecks(browser) {
  for (const width of [390, 360]) {
    const page = await open(browser, { viewport: { width, height: 844 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true });
    await check(`${width} px wide needs no horizontal scrolling, with a row open as well`, async () => {
      await page.goto(url.href);
      await page.locator('.decision').first().waitFor();
      await page.locator('.decision').first().tap();
      await page.locator('.detail-row').waitFor();
      const excess = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      expect(excess <= 0, `${excess} px too wide`);
      const table = await page.locator('#decisions-scroll').evaluate((el) => el.scrollWidth - el.clientWidth);
      expect(table <= 0, `the table is ${table} px too wide`);
      if (width === 390) {
        await page.locator('.decision .row-toggle[aria-expanded="true"]').tap();
        await page.evaluate(() => scrollTo(0, 0));
        await screenshot(page, 'page-phone');
      }
    });
    await page.context().close();
  }
}

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  // No sandbox: containers and root have none to offer. The page under test is our own.
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});
try {
  await liveChecks(browser);
  await narrowChecks(browser);
  await isolatedChecks({ open: (options) => open(browser, options), url, check, expect });
} finally {
  await browser.close();
}
console.log(failed === 0 ? 'all checks passed' : `${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
