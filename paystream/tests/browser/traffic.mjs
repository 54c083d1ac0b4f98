// Transactions that the checks need, sent as a merchant would.

const DEADLINE_MS = 20_000;
const POLL_MS = 100;
const MOST_ATTEMPTS = 15;

/** Submits one transaction and waits for its decision. */
export async function submit(base, { apiKey, card = '4242424242424242', amount = 10_050 } = {}) {
  const authorisation = apiKey ? { authorization: `Bearer ${apiKey}` } : {};
  const until = Date.now() + DEADLINE_MS;
  const response = await fetch(new URL('/v1/transactions', base), {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...authorisation },
    body: JSON.stringify({ amount, currency: 'USD', card: { number: card, exp_month: 12, exp_year: new Date().getFullYear() + 2, cvc: '123' } }),
    signal: AbortSignal.timeout(DEADLINE_MS),
  });
  let answer = await response.json();
  if (!response.ok) throw new Error(`POST /v1/transactions answered ${response.status}: ${JSON.stringify(answer)}`);
  while (answer.status === 'pending') {
    if (Date.now() > until) throw new Error(`${answer.id} is still pending`);
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    const poll = await fetch(new URL(`/v1/transactions/${answer.id}`, base), { headers: authorisation, signal: AbortSignal.timeout(DEADLINE_MS) });
    if (poll.ok) answer = await poll.json();
  }
  const { outcome, risk_score: riskScore, reasons } = answer.decision;
  return { id: answer.id, outcome, riskScore, reasons };
}

/** A transaction that nothing is wrong with. */
export async function accepted(base, options) {
  const answer = await submit(base, options);
  if (answer.outcome !== 'approve') throw new Error(`the approving test card was answered ${answer.outcome}`);
  return answer;
}

/** Many small amounts on one fresh card, until one of them is not approved. */
export async function cardTesting(base, options) {
  const card = freshCard();
  for (let attempts = 1; attempts <= MOST_ATTEMPTS; attempts += 1) {
    const answer = await submit(base, { ...options, card, amount: 100 + attempts });
    if (answer.outcome !== 'approve') return { ...answer, attempts };
  }
  throw new Error(`${MOST_ATTEMPTS} small amounts on one card within seconds were all approved`);
}

/** A card number that passes Luhn's check and that no earlier run has used. */
function freshCard() {
  const digits = [5, 2, 0, 0, 8, 2, ...Array.from({ length: 9 }, () => Math.floor(Math.random() * 10))];
  const sum = digits.reduce((total, digit, i) => {
    const doubled = i % 2 === 0 ? digit * 2 : digit;
    return total + (doubled > 9 ? doubled - 9 : doubled);
  }, 0);
  return [...digits, (10 - (sum % 10)) % 10].join('');
}
