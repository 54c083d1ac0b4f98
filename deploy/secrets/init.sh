#!/bin/sh
# Makes the secrets that are missing, with random values. Those that are there stay as they are.
set -eu
cd "${1:-$(dirname "$0")}"

random() {
    # 256 bits, as letters and digits: one of them becomes part of an address.
    head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n'
}

put() {
    if [ -e "$1" ]; then
        printf 'kept  %s\n' "$1"
    else
        # Written under another name first: a file is whole or absent.
        printf '%s' "$2" >"$1.new"
        chmod 0444 "$1.new"
        mv "$1.new" "$1"
        printf 'made  %s\n' "$1"
    fi
}

chmod 0700 .
put clickhouse_password "$(random)"
put clickhouse_grafana_password "$(random)"
put redis_url "redis://paystream:$(random)@redis:6379/0"
put grafana_admin_password "$(random)"
put alertmanager_token "$(random)"
# Empty: Telegram is off.
put telegram_bot_token ''
