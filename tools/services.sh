#!/usr/bin/env bash
# Kafka, the ClickHouse engine and Redis as processes of this machine, for tests and development.
# All they need and write is in the folder services/ of the project; `tools/services.sh help` lists the commands.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: tools/services.sh [COMMAND]

  start             start what does not run yet, after fetching what is missing (the default)
  stop              stop all of it; the data stays
  status            say what runs; exit 1 if something does not answer
  env               print KAFKA_BROKERS, CLICKHOUSE_URL and REDIS_URL (also in services/env)
  restart NAME      stop and start one of kafka, clickhouse, redis
  kill NAME         end one of them with SIGKILL, as a crash would
  reset             stop all of it and remove the data; what was downloaded stays
  kafka-tool CLASS  run one of Kafka's own tools, for example
                    kafka-tool org.apache.kafka.tools.TopicCommand --list

Environment: PAYSTREAM_KAFKA_PORT (19092), PAYSTREAM_KAFKA_CONTROLLER_PORT (19093),
PAYSTREAM_CLICKHOUSE_PORT (18123), PAYSTREAM_REDIS_PORT (16379),
PAYSTREAM_SERVICES_DIR (services/ in the project).

Exit codes: 0 done, 1 something does not run or does not answer, 2 something is missing or a wrong argument.
TEXT
}

root=$(cd "$(dirname "$0")/.." && pwd)
tools=$root/tools
services=${PAYSTREAM_SERVICES_DIR:-$root/services}
names=(kafka clickhouse redis)
chdb_version=26.9.0
start_deadline_seconds=60
stop_deadline_seconds=30

say() { printf 'services: %s\n' "$*"; }
fail() {
    printf 'services: %s\n' "$2" >&2
    exit "$1"
}

# A port is what the environment says, else what the service was last started on, else the default.
port_of() {
    local name=$1 given default recorded=$services/$1.port
    case $name in
        kafka) given=${PAYSTREAM_KAFKA_PORT:-} default=19092 ;;
        controller) given=${PAYSTREAM_KAFKA_CONTROLLER_PORT:-} default=19093 ;;
        clickhouse) given=${PAYSTREAM_CLICKHOUSE_PORT:-} default=18123 ;;
        redis) given=${PAYSTREAM_REDIS_PORT:-} default=16379 ;;
    esac
    if [[ -n $given ]]; then
        printf '%s' "$given"
    elif [[ -s $recorded ]]; then
        cat "$recorded"
    else
        printf '%s' "$default"
    fi
}

port_variable() {
    case $1 in
        kafka) printf 'PAYSTREAM_KAFKA_PORT' ;;
        clickhouse) printf 'PAYSTREAM_CLICKHOUSE_PORT' ;;
        redis) printf 'PAYSTREAM_REDIS_PORT' ;;
    esac
}

# When a process began. With it a pid that was given to another process is told from ours.
began_at() {
    if [[ -r /proc/self/stat ]]; then
        # The second field, the name, may hold spaces: count from behind its bracket.
        sed -e 's/^.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20
    else
        ps -o lstart= -p "$1" 2>/dev/null
    fi
}

# Prints the pid if the process that we started still runs.
pid_of() {
    local file=$services/$1.pid pid began
    [[ -s $file ]] || return 1
    { read -r pid && read -r began; } <"$file" || return 1
    [[ -n $began && $(began_at "$pid") == "$began" ]] || return 1
    # A zombie is not running, only not waited for yet.
    if [[ -r /proc/$pid/stat && $(sed -e 's/^.*) //' "/proc/$pid/stat" | cut -c 1) == Z ]]; then return 1; fi
    printf '%s' "$pid"
}

# Sends bytes to a port of this machine and prints the first bytes of the answer as hex.
# shellcheck disable=SC2016 # the inner shell expands it
ask_port() {
    local port=$1 request=$2
    timeout 5 bash -c '
        exec 3<>"/dev/tcp/127.0.0.1/$0" || exit 1
        printf "$1" >&3
        head -c 5 <&3 | od -An -tx1 | tr -d " \n"
    ' "$port" "$request" 2>/dev/null
}

# shellcheck disable=SC2016
port_is_open() { timeout 2 bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$0"' "$1" 2>/dev/null; }

answers() {
    case $1 in
        # ApiVersions, which a broker answers once it takes requests.
        kafka) [[ -n $(ask_port "$(port_of kafka)" '\0\0\0\012\0\022\0\0\0\0\0\001\377\377') ]] ;;
        clickhouse) [[ $(ask_port "$(port_of clickhouse)" 'GET /ping HTTP/1.0\r\n\r\n') == 485454502f ]] ;;
        redis) [[ $(ask_port "$(port_of redis)" 'PING\r\n') == 2b504f4e47 ]] ;;
    esac
}

java_bin() {
    if [[ -n ${JAVA_HOME:-} && -x $JAVA_HOME/bin/java ]]; then
        printf '%s' "$JAVA_HOME/bin/java"
    else
        command -v java
    fi
}

java_is_recent() {
    local java version
    java=$(java_bin) || return 1
    version=$("$java" -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' | head -n 1)
    [[ -n $version && $version -ge 17 ]]
}

venv_works() {
    command -v python3 >/dev/null && python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 9))' 2>/dev/null
}

# What is missing on this machine, by the word of `missing`: a line for people, and the Debian package.
describe() {
    case $1 in
        java) printf 'a Java runtime, version 17 or later (command java, or JAVA_HOME)' ;;
        maven) printf 'Apache Maven (command mvn)' ;;
        python) printf 'Python 3.9 or later with its venv module (command python3)' ;;
        redis) printf 'Redis 6 or later (command redis-server)' ;;
        timeout) printf 'GNU coreutils (command timeout)' ;;
    esac
}

debian_package() {
    case $1 in
        java)
            local candidate
            for candidate in openjdk-17-jre-headless openjdk-21-jre-headless openjdk-25-jre-headless; do
                if [[ -n $(apt-cache show "$candidate" 2>/dev/null) ]]; then
                    printf '%s' "$candidate"
                    return
                fi
            done
            printf 'default-jre-headless'
            ;;
        maven) printf 'maven' ;;
        python) printf 'python3-venv' ;;
        redis) printf 'redis-server' ;;
        timeout) printf 'coreutils' ;;
    esac
}

missing() {
    java_is_recent || echo java
    [[ -f $services/kafka/libs/.complete ]] || command -v mvn >/dev/null || echo maven
    [[ -f $services/clickhouse/venv/.complete ]] || venv_works || echo python
    command -v redis-server >/dev/null || echo redis
    command -v timeout >/dev/null || echo timeout
}

is_debian() {
    # shellcheck disable=SC1091
    [[ -r /etc/os-release ]] && (. /etc/os-release && [[ " ${ID:-} ${ID_LIKE:-} " == *" debian "* || ${ID:-} == ubuntu ]])
}

install_missing() {
    local what=() packages=() item
    while read -r item; do [[ -n $item ]] && what+=("$item"); done < <(missing)
    ((${#what[@]})) || return 0
    if is_debian && [[ $(id -u) -eq 0 ]]; then
        say "installing what is missing by apt: ${what[*]}"
        apt-get update -qq >>"$services/install.log" 2>&1 || true
        for item in "${what[@]}"; do packages+=("$(debian_package "$item")"); done
        apt_install "${packages[@]}"
        what=()
        while read -r item; do [[ -n $item ]] && what+=("$item"); done < <(missing)
        ((${#what[@]})) || return 0
    fi
    {
        echo "services: these are missing on this machine:"
        for item in "${what[@]}"; do printf '  - %s\n' "$(describe "$item")"; done
        if is_debian; then
            packages=()
            for item in "${what[@]}"; do packages+=("$(debian_package "$item")"); done
            printf 'Install them, for example with:  sudo apt-get install %s\n' "${packages[*]}"
        elif [[ $(uname -s) == Darwin ]]; then
            echo "Install them, for example with:  brew install openjdk@17 maven python redis coreutils"
        else
            echo "Install them with your system's packages, for example:"
            echo "  Fedora:  dnf install java-21-openjdk-headless maven python3 redis"
            echo "  Arch:    pacman -S jre21-openjdk-headless maven python redis"
        fi
        echo "Then run this again."
    } >&2
    exit 2
}

# The distribution's Redis must not start by itself, now or at the next boot: ours has a port of its own.
apt_install() {
    local policy=/usr/sbin/policy-rc.d made=0 had_redis=0 status=0
    command -v redis-server >/dev/null && had_redis=1
    if [[ ! -e $policy ]]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        made=1
    fi
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" \
        >>"$services/install.log" 2>&1 || status=$?
    ((made == 0)) || rm -f "$policy"
    ((status == 0)) || fail 1 "apt-get install $* failed: see $services/install.log"
    if ((had_redis == 0)) && command -v update-rc.d >/dev/null; then
        update-rc.d redis-server disable >>"$services/install.log" 2>&1 || true
    fi
}

fetch_kafka() {
    local dir=$services/kafka wanted
    # Fetched again when the pom asks for something else.
    wanted=$(cksum <"$tools/kafka/pom.xml")
    [[ -f $dir/libs/.complete && $(cat "$dir/libs/.complete") == "$wanted" ]] && return
    say "fetching Kafka with Maven"
    rm -rf "$dir/libs"
    mkdir -p "$dir"
    mvn -q -B -f "$tools/kafka/pom.xml" -Dmaven.repo.local="$dir/maven" dependency:copy-dependencies \
        -DoutputDirectory="$dir/libs" -DincludeScope=runtime >>"$services/install.log" 2>&1 \
        || fail 1 "fetching Kafka with Maven failed: see $services/install.log"
    rm -rf "$dir/maven"
    printf '%s' "$wanted" >"$dir/libs/.complete"
}

fetch_clickhouse() {
    local venv=$services/clickhouse/venv
    [[ -f $venv/.complete && $(cat "$venv/.complete") == "$chdb_version" ]] && return
    say "fetching the ClickHouse engine with pip (about 200 MB)"
    rm -rf "$venv"
    mkdir -p "$services/clickhouse"
    {
        python3 -m venv "$venv" && "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
            "chdb-core==$chdb_version"
    } >>"$services/install.log" 2>&1 || fail 1 "fetching chdb-core $chdb_version with pip failed: see $services/install.log"
    printf '%s' "$chdb_version" >"$venv/.complete"
}

write_kafka_properties() {
    local port controller
    port=$(port_of kafka)
    controller=$(port_of controller)
    cat >"$services/kafka/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$port
controller.listener.names=CONTROLLER
log.dirs=$services/kafka/data

# Topics are declared; a misspelt name is to be an error.
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0

# One broker, few partitions of what Kafka keeps for itself: it starts faster.
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
log.cleaner.dedupe.buffer.size=16777216
PROPERTIES
}

kafka_java() {
    local heap=$1 logging=$2
    shift 2
    printf '%s\n' "$(java_bin)" "-Xmx$heap" "-Dlog4j2.configurationFile=$tools/kafka/$logging" \
        "-Dkafka.logs.dir=$services/kafka/log" -cp "$services/kafka/libs/*" "$@"
}

# Runs a program of its own session, so that it outlives this script and the terminal.
launch() {
    local name=$1 own_session=(nohup)
    shift
    command -v setsid >/dev/null && own_session=(setsid nohup)
    mkdir -p "$services/$name"
    "${own_session[@]}" "$@" >"$services/$name/out.log" 2>&1 </dev/null 9>&- &
    printf '%s\n%s\n' "$!" "$(began_at "$!")" >"$services/$name.pid"
}

launch_named() {
    local command=() line data
    case $1 in
        kafka)
            mkdir -p "$services/kafka/data" "$services/kafka/log"
            write_kafka_properties
            if [[ ! -f $services/kafka/data/meta.properties ]]; then
                local id
                while read -r line; do command+=("$line"); done \
                    < <(kafka_java 256m log4j2-tools.properties kafka.tools.StorageTool)
                id=$("${command[@]}" random-uuid)
                "${command[@]}" format -t "$id" -c "$services/kafka/server.properties" >>"$services/install.log" 2>&1 \
                    || fail 1 "formatting Kafka's folder $services/kafka/data failed: see $services/install.log"
            fi
            command=()
            while read -r line; do command+=("$line"); done < <(kafka_java 1g log4j2.properties kafka.Kafka)
            launch kafka "${command[@]}" "$services/kafka/server.properties"
            ;;
        clickhouse)
            data=$services/clickhouse/data
            launch clickhouse "$services/clickhouse/venv/bin/python" -B "$tools/clickhouse/server.py" \
                "$(port_of clickhouse)" "$data"
            ;;
        redis)
            mkdir -p "$services/redis"
            launch redis redis-server --port "$(port_of redis)" --bind 127.0.0.1 --dir "$services/redis" \
                --save '' --appendonly no --daemonize no
            ;;
    esac
}

start_one() {
    local name=$1 pid port deadline
    port=$(port_of "$name")
    if pid=$(pid_of "$name"); then
        if [[ $(cat "$services/$name.port" 2>/dev/null) == "$port" ]] && answers "$name"; then
            say "$name runs already (pid $pid, port $port)"
            return
        fi
        say "$name (pid $pid) does not answer on port $port: starting it again"
        stop_one "$name"
    fi
    # The kernel closes the port of a killed process a moment after its pid is gone.
    deadline=$((SECONDS + 10))
    while port_is_open "$port"; do
        ((SECONDS < deadline)) || fail 1 "port $port, wanted for $name, is taken by another program: stop it, or set $(port_variable "$name")"
        sleep 0.2
    done
    printf '%s' "$port" >"$services/$name.port"
    [[ $name != kafka ]] || port_of controller >"$services/controller.port.new"
    [[ $name != kafka ]] || mv "$services/controller.port.new" "$services/controller.port"
    launch_named "$name"
    deadline=$((SECONDS + start_deadline_seconds))
    until answers "$name"; do
        if ! pid_of "$name" >/dev/null; then
            tail -n 15 "$services/$name/out.log" >&2
            fail 1 "$name ended while it started: see $services/$name/ for its logs"
        fi
        ((SECONDS < deadline)) || fail 1 "$name did not answer on port $port within $start_deadline_seconds s: see $services/$name/"
        sleep 0.2
    done
    say "$name started (pid $(pid_of "$name"), port $port)"
}

stop_one() {
    local name=$1 signal=${2:-TERM} pid deadline
    if ! pid=$(pid_of "$name"); then
        rm -f "$services/$name.pid"
        say "$name does not run"
        return
    fi
    kill "-$signal" "$pid" 2>/dev/null || true
    # A stopped process (SIGSTOP) takes its signal once it goes on.
    kill -CONT "$pid" 2>/dev/null || true
    deadline=$((SECONDS + stop_deadline_seconds))
    while pid_of "$name" >/dev/null; do
        if ((SECONDS >= deadline)); then
            say "$name did not end within $stop_deadline_seconds s of SIG$signal: SIGKILL"
            kill -KILL "$pid" 2>/dev/null || true
            deadline=$((SECONDS + stop_deadline_seconds))
        fi
        sleep 0.1
    done
    rm -f "$services/$name.pid"
    say "$name ended by SIG$signal (pid $pid)"
}

print_env() {
    printf 'KAFKA_BROKERS=127.0.0.1:%s\n' "$(port_of kafka)"
    printf 'CLICKHOUSE_URL=http://127.0.0.1:%s\n' "$(port_of clickhouse)"
    printf 'REDIS_URL=redis://127.0.0.1:%s\n' "$(port_of redis)"
}

start_all() {
    install_missing
    fetch_kafka
    fetch_clickhouse
    for name in "${names[@]}"; do start_one "$name"; done
    print_env | tee "$services/env"
}

show_status() {
    local status=0 name pid
    for name in "${names[@]}"; do
        if ! pid=$(pid_of "$name"); then
            printf '%-11s does not run\n' "$name"
            status=1
        elif answers "$name"; then
            printf '%-11s answers on 127.0.0.1:%s (pid %s)\n' "$name" "$(port_of "$name")" "$pid"
        else
            printf '%-11s runs (pid %s) but does not answer on 127.0.0.1:%s\n' "$name" "$pid" "$(port_of "$name")"
            status=1
        fi
    done
    return "$status"
}

kafka_tool() {
    local class=${1:-} command=() line
    [[ -n $class ]] || fail 2 "kafka-tool needs the name of a class, for example org.apache.kafka.tools.TopicCommand"
    [[ -f $services/kafka/libs/.complete ]] || fail 1 "Kafka is not there yet: run 'make services' first"
    shift
    [[ $class == *.* ]] || class=org.apache.kafka.tools.$class
    while read -r line; do command+=("$line"); done < <(kafka_java 256m log4j2-tools.properties "$class")
    # These two read files, and know no broker.
    case " $class $* " in
        *" kafka.tools.StorageTool "* | *" kafka.tools.DumpLogSegments "* | *" --bootstrap-server "*) ;;
        *) set -- "$@" --bootstrap-server "127.0.0.1:$(port_of kafka)" ;;
    esac
    exec "${command[@]}" "$@"
}

check_name() {
    case ${1:-} in
        kafka | clickhouse | redis) ;;
        *) fail 2 "expected one of: ${names[*]}; got '${1:-}'" ;;
    esac
}

# Two starts at the same time would start everything twice.
lock() {
    mkdir -p "$services"
    exec 9>"$services/lock"
    ! command -v flock >/dev/null || flock -w 600 9 || fail 1 "another services.sh has worked for 10 minutes: see $services"
}

action=${1:-start}
[[ $# -eq 0 ]] || shift
case $action in
    start)
        lock
        start_all
        ;;
    stop)
        lock
        for name in redis clickhouse kafka; do stop_one "$name"; done
        ;;
    status) show_status ;;
    env)
        mkdir -p "$services"
        print_env | tee "$services/env"
        ;;
    restart)
        check_name "${1:-}"
        lock
        install_missing
        stop_one "$1"
        fetch_kafka
        fetch_clickhouse
        start_one "$1"
        ;;
    kill)
        check_name "${1:-}"
        lock
        stop_one "$1" KILL
        ;;
    reset)
        lock
        for name in redis clickhouse kafka; do stop_one "$name"; done
        rm -rf "$services/kafka/data" "$services/kafka/log" "$services/clickhouse/data"
        rm -f "$services"/*.port "$services/env"
        say "the data is removed"
        ;;
    kafka-tool) kafka_tool "$@" ;;
    help | -h | --help) usage ;;
    *)
        usage >&2
        exit 2
        ;;
esac
