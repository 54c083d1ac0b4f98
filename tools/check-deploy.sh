#!/usr/bin/env bash
# Checks what the distributed system is deployed with: the compose file under every combination of
# profiles, Prometheus's configuration, rules and their tests, Alertmanager's configuration and routes,
# and that these files agree with each other, with the metrics in the code and with the runbook.
#
# Needs promtool, amtool, docker-compose and Python with PyYAML, which docker-compose brings; as root on
# Debian it installs what is missing. Exit status: 0 all well, 1 a check failed, 2 something is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

# Program and the Debian package that has it.
needed=(promtool:prometheus amtool:prometheus-alertmanager)
# Either Docker Compose will do.
compose=(docker compose)
if ! "${compose[@]}" version >/dev/null 2>&1; then
    compose=(docker-compose)
    needed+=(docker-compose:docker-compose)
fi

missing_packages() {
    local pair
    for pair in "${needed[@]}"; do
        command -v "${pair%%:*}" >/dev/null || printf '%s\n' "${pair##*:}"
    done
    # Python with PyYAML: where docker-compose is not Debian's package it may be missing.
    /usr/bin/python3 -c 'import yaml' 2>/dev/null || python3 -c 'import yaml' 2>/dev/null || printf 'python3-yaml\n'
}

# The packages start their programs as services, which must not happen for a check: a policy that
# forbids it stands while they are installed, unless the machine has one of its own.
install_packages() {
    local policy=/usr/sbin/policy-rc.d ours='' status=0
    if [[ ! -e $policy ]]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 0755 "$policy"
        ours=yes
    fi
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update -q && apt-get install -q -y --no-install-recommends "$@"; } >"$scratch/apt.log" 2>&1 || status=$?
    [[ -z $ours ]] || rm -f "$policy"
    if ((status != 0)); then
        tail -n 20 "$scratch/apt.log" >&2
        printf 'Installing %s failed; see above.\n' "$*" >&2
        exit 2
    fi
    # Enabled units would start with the machine.
    if command -v systemctl >/dev/null; then
        systemctl disable prometheus prometheus-alertmanager >/dev/null 2>&1 || true
    fi
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

mapfile -t missing < <(missing_packages)
if ((${#missing[@]} > 0)); then
    if [[ $(id -u) == 0 ]] && grep -qx 'ID=debian' /etc/os-release 2>/dev/null; then
        printf 'installing %s\n' "${missing[*]}"
        install_packages "${missing[@]}"
        mapfile -t missing < <(missing_packages)
    fi
    if ((${#missing[@]} > 0)); then
        printf 'Not found: what these Debian packages have: %s.\n' "${missing[*]}" >&2
        printf 'Install them: apt-get install --no-install-recommends %s\n' "${missing[*]}" >&2
        printf 'Elsewhere: Prometheus (promtool), Alertmanager (amtool), docker-compose, and PyYAML for python3.\n' >&2
        exit 2
    fi
fi
python=python3
/usr/bin/python3 -c 'import yaml' 2>/dev/null && python=/usr/bin/python3

passed=0
failed=0
# check NAME COMMAND...: runs the command. Its last line of output is what was counted; all of it is
# shown when it fails.
check() {
    local name=$1
    shift
    if "$@" >"$scratch/out" 2>&1; then
        passed=$((passed + 1))
        printf 'ok      %-34s %s\n' "$name" "$(tail -n 1 "$scratch/out")"
    else
        failed=$((failed + 1))
        printf 'FAILED  %s\n' "$name"
        sed 's/^/        /' "$scratch/out"
    fi
}

prometheus_config() {
    promtool check config prometheus/prometheus.yml || return
    printf '%s scrape jobs\n' "$(grep -c -e '- job_name:' prometheus/prometheus.yml)"
}

prometheus_rules() {
    # 2.42 warns of duplicates and goes on.
    promtool check rules --lint=all --lint-fatal prometheus/rules/*.yml || return
    printf '%s recorded series, %s alerts\n' "$(cat prometheus/rules/*.yml | grep -c -e '- record:')" \
        "$(cat prometheus/rules/*.yml | grep -c -e '- alert:')"
}

prometheus_tests() {
    promtool test rules prometheus/tests/*.yml || return
    printf '%s tests in %s files\n' "$(cat prometheus/tests/*.yml | grep -c -e '- name: ')" \
        "$(find prometheus/tests -name '*.yml' | wc -l)"
}

alertmanager_config() {
    amtool check-config alertmanager/alertmanager.yml || return
    printf '%s receivers\n' "$(grep -c -E '^  - name:' alertmanager/alertmanager.yml)"
}

# route RECEIVER LABEL=VALUE...: an alert with these labels goes there.
route() {
    local receiver=$1
    shift
    amtool config routes test --config.file=alertmanager/alertmanager.yml --verify.receivers="$receiver" "$@" || {
        printf 'an alert with %s does not go to %s\n' "$*" "$receiver"
        return 1
    }
}

alertmanager_routes() {
    route alerter severity=critical component=gateway || return
    route alerter severity=warning component=warehouse || return
    route alerter severity=info component=fraud-analyzer || return
    route alerter-watch severity=critical component=alerter || return
    route alerter-watch severity=warning component=alerter || return
    printf '5 sample alerts\n'
}

# The real secrets are not in the repository; the compose file names them, and none is read.
compose_profiles() {
    local profiles=(core observability load tools) combinations=0 bits i arguments file
    : >"$scratch/empty.env"
    for ((bits = 0; bits < 1 << ${#profiles[@]}; bits++)); do
        arguments=()
        for ((i = 0; i < ${#profiles[@]}; i++)); do
            ((bits >> i & 1)) && arguments+=(--profile "${profiles[i]}")
        done
        # Not the reader's own .env: the defaults are checked, then the example.
        for file in "$scratch/empty.env" deploy/env.example; do
            env -u COMPOSE_PROFILES "${compose[@]}" --env-file "$file" "${arguments[@]}" config -q || {
                printf 'with %s and --env-file %s\n' "${arguments[*]:-no profile}" "$file"
                return 1
            }
        done
        combinations=$((combinations + 1))
    done
    printf '%s combinations of profiles, each with defaults and with env.example\n' "$combinations"
}

shell_scripts() {
    sh -n deploy/secrets/init.sh && bash -n tools/check-deploy.sh || return
    # What init.sh makes is what the compose file wants.
    mkdir "$scratch/secrets" && sh deploy/secrets/init.sh "$scratch/secrets" || return
    printf '%s secrets made\n' "$(find "$scratch/secrets" -type f | wc -l)"
}

check 'compose profiles' compose_profiles
check 'secrets' shell_scripts
check 'prometheus configuration' prometheus_config
check 'prometheus rules' prometheus_rules
check 'prometheus rule tests' prometheus_tests
check 'alertmanager configuration' alertmanager_config
check 'alertmanager routes' alertmanager_routes
for aspect in compose collector alerts runbook metrics; do
    check "agreement: $aspect" "$python" tools/check_deploy.py "$aspect" "$scratch/secrets"
done

printf '%s passed, %s failed\n' "$passed" "$failed"
((failed == 0))
