#!/usr/bin/env bash
# A walk through the HTTP API: start `cargo run --release -- up`, then run this, or paste single lines.
#
#   examples/requests.sh
#   URL=https://pay.example API_KEY=sk_test_… examples/requests.sh
#
# All card numbers here are the card schemes' published test numbers.
set -euo pipefail

url=${URL:-http://127.0.0.1:8080}
run=$(date +%s)

# call WHAT CURL-ARGUMENTS...: says what it does, and prints status line, headers of interest and body.
call() {
    printf '\n# %s\n' "$1"
    shift
    curl -sS -D - -H "Content-Type: ${type:-application/json}" ${API_KEY:+-H "Authorization: Bearer $API_KEY"} "$@" |
        tr -d '\r' | grep -viE '^(date|content-length|connection|vary):'
    printf '\n'
}

call 'Is it up?' "$url/health"

call 'The short form: a decimal amount.' "$url/transaction" -d '{
  "amount": 100.50, "currency": "USD",
  "card_number": "4111111111111111", "expiry_month": 12, "expiry_year": 2030, "cvv": "123"
}'

canonical='{
  "amount": 2599, "currency": "EUR",
  "card": {"number": "4242 4242 4242 4242", "exp_month": 6, "exp_year": 2031, "cvc": "737"},
  "customer": {"id": "cus_81", "email": "ada@example.com"},
  "device": {"id": "dev_5f2", "ip": "203.0.113.7", "user_agent": "Mozilla/5.0"},
  "billing": {"country": "DE"}, "shipping": {"country": "DE"},
  "mcc": "5732", "terminal_id": "term_9", "metadata": {"order": "A-1047"}
}'
call 'The canonical form: minor units, and all that scoring can use. Test card 4242… approves.' \
    "$url/v1/transactions" -H "Idempotency-Key: order-$run" -d "$canonical"

call 'The same key and body again: the first answer, with Idempotent-Replayed: true.' \
    "$url/v1/transactions" -H "Idempotency-Key: order-$run" -d "$canonical"

call 'The same key with another amount: 422.' \
    "$url/v1/transactions" -H "Idempotency-Key: order-$run" -d "${canonical/2599/2600}"

for card in '4000000000000002 (declines)' '4100000000000019 (blocked as fraudulent)' '4000000000009235 (elevated risk)'; do
    call "Test card $card." "$url/transaction" -d '{
  "amount": 12.00, "currency": "USD",
  "card_number": "'"${card%% *}"'", "expiry_month": 12, "expiry_year": 2030, "cvc": "123"
}'
done

call 'JPY has no minor unit, so this is 5000 yen.' "$url/v1/transactions" -d '{
  "amount": 5000, "currency": "JPY",
  "card": {"number": "5555555555554444", "exp_month": 1, "exp_year": 2032, "cvc": "123"}
}'

call 'Everything wrong at once: one answer lists every field.' "$url/v1/transactions" -d '{
  "amount": -1, "currency": "XXZ",
  "card": {"number": "4111111111111112", "exp_month": 13, "exp_year": 2001, "cvc": "12"}
}'

# ask WHAT FIELD CURL-ARGUMENTS...: as call, and keeps the value of a field of the answer in `answer`.
ask() {
    local field=$2 body
    printf '\n# %s\n' "$1"
    shift 2
    body=$(curl -sS -H 'Content-Type: application/json' ${API_KEY:+-H "Authorization: Bearer $API_KEY"} "$@")
    printf '%s\n' "$body"
    answer=$(sed -n "s/^{.*\"$field\":\"\([^\"]*\)\".*/\1/p" <<<"$body")
}

ask 'Asynchronous: 202 at once, and an id to ask with.' id "$url/v1/transactions" \
    -H 'Prefer: respond-async' -H "Idempotency-Key: async-$run" -d "$canonical"
if [[ -n $answer ]]; then
    call 'Its status and decision.' "$url/v1/transactions/$answer"
    call 'It turned out to be fraud.' "$url/v1/transactions/$answer/labels" \
        -d '{"verdict": "fraud", "note": "chargeback of 21 November"}'
fi

type=application/x-ndjson call 'A batch, one transaction a line: each line is answered for itself.' \
    "$url/v1/transactions/batch" --data-binary @- <<'EOF'
{"amount": 1000, "currency": "USD", "card": {"number": "4242424242424242", "exp_month": 12, "exp_year": 2030, "cvc": "123"}}
{"amount": "ten", "currency": "USD", "card": {"number": "4242424242424242", "exp_month": 12, "exp_year": 2030, "cvc": "123"}}
EOF

printf '\n# A burst of small amounts on one card, as in card testing: the later ones are no longer approved.\n'
for i in 1 2 3 4 5 6 7 8; do
    curl -sS "$url/transaction" -H 'Content-Type: application/json' \
        ${API_KEY:+-H "Authorization: Bearer $API_KEY"} -d '{
  "amount": 1.0'"$i"', "currency": "USD",
  "card_number": "4000056655665556", "expiry_month": 12, "expiry_year": 2030, "cvv": "123"
}' | grep -oE '"outcome":"[a-z]*"|"detail":"[^"]*"' || true
done
