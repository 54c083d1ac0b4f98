#!/usr/bin/env bash
# Rebuilds when a source file changes and restarts `paystream up --demo` after each good build.
# Arguments go to `up`. Needs only bash, find and cargo; polls, because it then works on every
# system and in every container.
set -euo pipefail

cd "$(dirname "$0")/.."
cargo=${CARGO:-cargo}
poll_seconds=1
stamp=$(mktemp)
pid=''

stop() {
    [[ -n $pid ]] || return 0
    kill -TERM "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    pid=''
}
trap 'stop; rm -f "$stamp"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

sources() {
    find . \( -path ./.git -o -path ./target -o -path ./data -o -path ./docs -o -name node_modules \) -prune -o -type f \
        \( -name '*.rs' -o -name '*.toml' -o -name '*.lock' -o -name '*.sql' -o -name '*.yaml' \
        -o -name '*.html' -o -name '*.css' -o -name '*.js' -o -name '*.json' \) "$@" -print
}
# Which files there are, so that a deletion or a renaming counts as a change.
names() { sources | sort | cksum; }

known=''
while true; do
    if [[ $(names) == "$known" && -z $(sources -newer "$stamp") ]]; then
        sleep "$poll_seconds"
        continue
    fi
    # Taken before the build: what changes during it is built next.
    touch "$stamp"
    known=$(names)
    printf '\n[watch] %s building\n' "$(date +%T)"
    if "$cargo" build --release --locked; then
        stop
        # In a process group of its own: Ctrl-C reaches this script alone, which then stops the system
        # with one signal (a second one would end it without its ordered shutdown).
        set -m
        "$cargo" run --quiet --release --locked -- up --demo "$@" &
        pid=$!
        set +m
    else
        printf '[watch] the build failed; waiting for the next change\n'
    fi
done
