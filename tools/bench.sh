#!/usr/bin/env bash
# Measures a fresh system on this machine: starts `paystream up` in a temporary directory, sends RATE
# transactions a second for DURATION in open loop, prints the table, and compares what was accepted
# with what was decided and stored. Load and system share the machine, so the figures are modest.
set -euo pipefail

cd "$(dirname "$0")/.."
cargo=${CARGO:-cargo}
rate=${RATE:-3000}
duration=${DURATION:-30s}
start_deadline_seconds=60

"$cargo" build --release --locked
dir=$(mktemp -d)
pid=''

finish() {
    local status=$?
    if [[ -n $pid ]]; then
        kill -TERM "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    fi
    if [[ $status -ne 0 && -s $dir/up.log ]]; then
        printf '\nThe last lines of the system under test:\n' >&2
        tail -n 20 "$dir/up.log" >&2
    fi
    rm -rf "$dir"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

"$cargo" run --quiet --release --locked -- \
    up --no-demo --data-dir "$dir/data" --listen 127.0.0.1:0 >"$dir/up.log" 2>&1 &
pid=$!

# Once transactions are accepted, the lock file says where.
url=''
deadline=$((SECONDS + start_deadline_seconds))
until [[ -n $url ]]; do
    kill -0 "$pid" 2>/dev/null || { echo "bench: the system ended before it was ready" >&2; exit 1; }
    ((SECONDS < deadline)) || { echo "bench: not ready after ${start_deadline_seconds} s" >&2; exit 1; }
    sleep 0.2
    url=$(sed -n 's/.*"url":"\([^"]*\)".*/\1/p' "$dir/data/paystream.lock" 2>/dev/null || true)
done

cpu=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo 2>/dev/null | head -n 1)
printf '%s, %s processors, load and system on the same machine\n\n' \
    "${cpu:-$(uname -m)}" "$(getconf _NPROCESSORS_ONLN)"
"$cargo" run --quiet --release --locked -- loadtest --url "$url" --rate "$rate" --duration "$duration"
printf '\n'
"$cargo" run --quiet --release --locked -- reconcile --url "$url"
