// Checks of what a healthy system does not show: an empty start, hostile strings, refused keys and a
// server that goes away. The page comes from the system under test; its stream is made up here.

const STREAM = '**/v1/dashboard/stream';
const TOTALS = { transactions: 0, approve: 0, review: 0, challenge: 0, decline: 0, alerts: 0, amount_reporting_minor: 0 };

const snapshot = (changes = {}) => ({
  now_ms: Date.now(),
  series: { t_s: [], approve: [], review: [], challenge: [], decline: [], p50_ms: [], p99_ms: [] },
  latest: [],
  alerts: [],
  top_rules: [],
  top_merchants: [],
  totals: TOTALS,
  ...changes,
});

/** Answers the stream with one snapshot; the answer then ends, as if the server had gone away. */
const answerWith = (page, event) => page.route(STREAM, (route) => route.fulfill({
  contentType: 'text/event-stream',
  body: `event: snapshot\ndata: ${JSON.stringify(event)}\n\n`,
}));

export async function isolatedChecks({ open, url, check, expect }) {
  const isolated = (name, run) => check(name, async () => {
    const page = await open();
    try {
      return await run(page);
    } finally {
      await page.context().close();
    }
  });

  await isolated('before any traffic it says how to send some', async (page) => {
    await answerWith(page, snapshot());
    await page.goto(url.href);
    await page.locator('#start').waitFor();
    const command = await page.locator('#start-curl').textContent();
    expect(command.includes(`${url.origin}/v1/transactions`), `the command is “${command}”`);
    expect(await page.locator('#live').isHidden(), 'empty charts are shown as well');
  });

  await isolated('strings of a transaction are shown as text, never as markup', async (page) => {
    const hostile = '<img src=x onerror="document.title=\'owned\'">';
    const reason = { code: hostile, rule: hostile, message: hostile, observed: 2, limit: 1, points: 10 };
    const row = { transaction_id: `txn_${'0'.repeat(32)}`, merchant_id: hostile, time_ms: Date.now(), amount: '1.00', currency: 'USD', card: hostile, outcome: 'decline', risk_score: 90, risk_level: 'highest', reasons: [reason], latency_ms: 3 };
    await answerWith(page, snapshot({
      latest: [row],
      alerts: [{ ...row, id: hostile, severity: hostile }],
      top_rules: [{ rule: hostile, code: hostile, hits: 1 }],
      top_merchants: [{ merchant: hostile, transactions: 1, declined: 1, amount_reporting_minor: 100 }],
      totals: { ...TOTALS, transactions: 1, decline: 1, alerts: 1 },
    }));
    await page.goto(url.href);
    await page.locator('.decision').click();
    await page.locator('.detail-row .reasons').waitFor();
    expect((await page.locator('img[src="x"]').count()) === 0, 'markup was built');
    expect((await page.locator('.c-merchant', { hasText: '<img' }).count()) === 1, 'the text is missing');
  });

  await isolated('a server that goes away is retried with a countdown, and found again', async (page) => {
    await page.route(STREAM, (route) => route.abort());
    await page.goto(url.href);
    await page.locator('#connection[data-state="waiting"]').waitFor();
    await page.locator('#connection-note', { hasText: /in \d+/ }).waitFor();
    await page.unroute(STREAM);
    await page.locator('#connection[data-state="live"]').waitFor();
  });

  await isolated('a refused request asks for a key and sends it', async (page) => {
    const sent = [];
    await page.addInitScript(() => sessionStorage.removeItem('paystream.api_key'));
    await page.route(STREAM, async (route) => {
      sent.push(route.request().headers().authorization ?? null);
      if (sent.at(-1) === 'Bearer sk_test_right') await route.fulfill({ contentType: 'text/event-stream', body: `event: snapshot\ndata: ${JSON.stringify(snapshot())}\n\n` });
      else await route.fulfill({ status: sent.at(-1) === null ? 401 : 403, contentType: 'application/problem+json', body: '{}' });
    });
    await page.goto(url.href);
    for (const key of ['sk_test_wrong', 'sk_test_right']) {
      await page.locator('#key[open]').waitFor();
      await page.locator('#key-input').fill(key);
      await page.locator('#key-input').press('Enter');
      if (key === 'sk_test_wrong') await page.locator('#key-error:not([hidden])').waitFor();
    }
    await page.locator('#start').waitFor();
    expect(sent.slice(0, 3).join() === ',Bearer sk_test_wrong,Bearer sk_test_right', `sent ${sent.join()}`);
    const stored = await page.evaluate(() => [sessionStorage.getItem('paystream.api_key'), localStorage.getItem('paystream.api_key')]);
    expect(stored[0] === 'sk_test_right' && stored[1] === null, 'the key is not in the session storage alone');
  });

  await isolated('events cut anywhere are read whole', async (page) => {
    await answerWith(page, snapshot());
    await page.goto(url.href);
    const mistakes = await page.evaluate(async () => {
      const { EventParser } = await import('/stream.js');
      const text = ': hello\r\nevent: tick\r\ndata: {"a":\r\ndata: 1}\r\n\r\ndata:x\n\nevent: unfinished\ndata: y';
      const want = JSON.stringify([['tick', '{"a":\n1}'], ['message', 'x']]);
      const wrong = [];
      for (let cut = 0; cut <= text.length; cut += 1) {
        const got = [];
        const parser = new EventParser((...event) => got.push(event));
        parser.push(text.slice(0, cut));
        parser.push(text.slice(cut));
        if (JSON.stringify(got) !== want) wrong.push(cut);
      }
      return wrong;
    });
    expect(mistakes.length === 0, `misread when cut at ${mistakes.join()}`);
  });
}
