#!/usr/bin/env bash
# All tests, after `make services` has started the real components. Further arguments go to `cargo test`.
set -euo pipefail
cd "$(dirname "$0")/.."

set -a
# shellcheck source=/dev/null
. services/env
set +a
export PAYSTREAM_TEST_KAFKA=$KAFKA_BROKERS PAYSTREAM_TEST_CLICKHOUSE=$CLICKHOUSE_URL PAYSTREAM_TEST_REDIS=$REDIS_URL

read -ra packages <<<"${PACKAGES:---workspace}"
"${CARGO:-cargo}" test --release --locked "${packages[@]}" "$@"
# The binary that the tests were run with.
export PAYSTREAM_BINARY="${CARGO_TARGET_DIR:-target}/release/paystream"
# First, as it installs the Prometheus that the dashboards are tried on.
tools/check-deploy.sh
tools/acceptance.py
