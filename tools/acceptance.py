#!/usr/bin/env python3
"""Runs the distributed system as processes on the real Kafka, ClickHouse and Redis, puts it under load, breaks it,
and compares what every part holds afterwards.

    tools/services.sh                                  start the components
    tools/acceptance.py                                                      the usual scenarios, short
    tools/acceptance.py --scenario steady --rate 3000 --duration 60          one, in full
    tools/acceptance.py --list

Each scenario has topics, a database, keys in Redis and a folder of its own. It passes when accepted = logged =
decided = stored, materialized views included, each transaction once. Only what a scenario started is stopped.
"""

import argparse
import http.server
import itertools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
READY_SECONDS = 90
SETTLE_SECONDS = 180
STOP_SECONDS = 40


class Failed(Exception):
    """A scenario did not come out as it has to."""


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def get(url: str, timeout=5.0) -> bytes:
    with urllib.request.urlopen(url, timeout=timeout) as answer:
        return answer.read()


def wait_for(what: str, seconds: float, check):
    """Asks until the answer is true. Returns it."""
    until = time.monotonic() + seconds
    while True:
        try:
            if found := check():
                return found
        except (OSError, ValueError):
            pass
        if time.monotonic() > until:
            raise Failed(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.1)


class Process:
    """One service. Started again under the same name it has the same folder and address."""

    def __init__(self, cluster, name, command):
        self.cluster, self.name, self.command = cluster, name, command
        self.port = free_port()
        self.dir = cluster.dir / name
        self.starts = 0
        self.child = None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self, env=None):
        self.starts += 1
        log = open(self.cluster.dir / f"{self.name}.log", "ab")
        arguments = [self.cluster.binary, self.command, "--data-dir", str(self.dir), "--listen", f"127.0.0.1:{self.port}"]
        self.child = subprocess.Popen(arguments, env=self.cluster.env | (env or {}), stdout=log, stderr=log)
        return self

    def signal(self, number):
        self.child.send_signal(number)

    def kill(self):
        self.child.kill()
        self.child.wait()

    def stop(self):
        if self.child and self.child.poll() is None:
            self.child.send_signal(signal.SIGCONT)
            self.child.terminate()
            try:
                self.child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
                raise Failed(f"{self.name} did not stop within {STOP_SECONDS} s of SIGTERM")

    def ready(self, seconds=READY_SECONDS):
        def check():
            if self.child.poll() is not None:
                raise Failed(f"{self.name} ended with status {self.child.returncode}:\n{self.tail()}")
            return urllib.request.urlopen(f"{self.url}/readyz", timeout=2).status == 200
        wait_for(f"{self.name} is ready", seconds, check)
        return self

    def metric(self, name):
        """The sum of a metric over its labels; 0 when there is none."""
        total = 0.0
        for line in get(f"{self.url}/metrics").decode().splitlines():
            if line.startswith(name) and line[len(name)] in " {":
                total += float(line.rsplit(" ", 1)[1])
        return total

    def cpu_seconds(self):
        """What it has taken of the processors so far, without those before it of the same name."""
        fields = Path(f"/proc/{self.child.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def tail(self, lines=15):
        text = (self.cluster.dir / f"{self.name}.log").read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])


class Cluster:
    def __init__(self, options, name):
        self.options, self.binary = options, options.binary
        self.name = f"{name}-{os.getpid()}-{random.randrange(10**6)}"
        self.dir = Path(tempfile.mkdtemp(prefix=f"paystream-{name}-"))
        self.database = "acceptance_" + self.name.replace("-", "_")
        self.processes = {}
        self.extra = []
        config = {
            "KAFKA__BROKERS": options.kafka, "KAFKA__TOPIC_PREFIX": f"{self.name}.",
            "CLICKHOUSE__URL": options.clickhouse, "CLICKHOUSE__DATABASE": self.database,
            "REDIS__URL": options.redis, "REDIS__KEY_PREFIX": f"{self.name}:",
            "SERVER__WORKER_THREADS": "2",
        }
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PAYSTREAM_") or k.startswith("PAYSTREAM__")}
        self.env = kept | {f"PAYSTREAM__{k}": str(v) for k, v in config.items()} | {"RUST_LOG": "info"}

    def set(self, **settings):
        self.env |= {f"PAYSTREAM__{k.upper()}": str(v) for k, v in settings.items()}
        return self

    def run(self, *arguments, check=True, timeout=600):
        done = subprocess.run([self.binary, *arguments], env=self.env, cwd=self.dir, capture_output=True, text=True, timeout=timeout)
        if check and done.returncode:
            raise Failed(f"paystream {' '.join(arguments)}: status {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def prepare(self, lanes=1):
        topics = (ROOT / "eventlog/topics.default.yaml").read_text()
        changed = topics.replace("  - name: members.fraud-analyzer\n    partitions: 1", f"  - name: members.fraud-analyzer\n    partitions: {lanes}")
        file = self.dir / "topics.yaml"
        file.write_text(changed)
        self.set(analyzer__lanes=lanes, analyzer__checkpoint_url=f"file://{self.dir}/checkpoints")
        self.run("topics", "apply", "--file", str(file))
        self.run("warehouse", "migrate")
        return self

    def add(self, name, command=None):
        self.processes[name] = Process(self, name, command or name)
        return self.processes[name]

    def start_all(self):
        for name in ("gateway", "fraud-analyzer", "alerter", "analytics"):
            self.add(name).start()
        for process in self.processes.values():
            process.ready()
        return self

    def __getitem__(self, name):
        return self.processes[name]

    def load(self, rate, seconds, *more):
        """Starts the load. `finish_load` waits for it."""
        accepted = self.dir / "accepted.txt"
        arguments = [self.binary, "loadtest", "--url", self["gateway"].url, "--rate", str(rate), "--duration", f"{seconds}s",
                     "--accepted-out", str(accepted), "--json", *more]
        # Not killed with anything else: it measures the others.
        return subprocess.Popen(arguments, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def finish_load(self, load, seconds):
        try:
            out, err = load.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            load.kill()
            raise Failed("the load did not end")
        try:
            return json.loads(out)
        except ValueError:
            raise Failed(f"loadtest: status {load.returncode}\n{out}{err}")

    def query(self, sql):
        url = f"{self.options.clickhouse}/?" + urllib.parse.urlencode({"database": self.database, "query": sql + " FORMAT JSONCompact"})
        return json.loads(get(url, 60))["data"]

    def settle(self):
        """Waits until every part agrees. Returns the figures."""
        accepted = self.dir / "accepted.txt"
        def agree():
            done = self.run("reconcile", "--accepted", str(accepted), "--json", check=False)
            self.last_report = done.stdout + done.stderr
            return json.loads(done.stdout) if done.returncode == 0 else None
        try:
            report = wait_for("every part agrees", SETTLE_SECONDS, agree)
        except Failed as failed:
            raise Failed(f"{failed}\n{self.last_report}")
        ids = sum(1 for line in accepted.read_text().splitlines() if line)
        distinct = len(set(accepted.read_text().split()))
        # Counted once more, by none of our own code.
        rows = {
            "transactions": "SELECT toUInt64(count()), toUInt64(uniqExact(id)) FROM transactions",
            "decisions": "SELECT toUInt64(count()), toUInt64(uniqExact(transaction_id)) FROM decisions",
            "decisions_per_minute": "SELECT toUInt64(sum(transactions)), toUInt64(sum(transactions)) FROM decisions_per_minute",
            "decisions_per_day": "SELECT toUInt64(sum(transactions)), toUInt64(sum(transactions)) FROM decisions_per_day",
        }
        counts = {table: [int(n) for n in self.query(sql)[0]] for table, sql in rows.items()}
        alerts = [int(n) for n in self.query(
            "SELECT count(), uniqExact(id), (SELECT sum(alerts) FROM alerts_per_minute), (SELECT count() FROM rule_hits),"
            " (SELECT sum(hits) FROM rule_hits_per_minute) FROM alerts")[0]]
        if len({n for pair in counts.values() for n in pair}) != 1:
            raise Failed(f"the tables and views of ClickHouse disagree: {counts}")
        if len(set(alerts[:3])) != 1 or alerts[3] != alerts[4]:
            raise Failed(f"alerts or rule hits and their views disagree: {alerts}")
        if ids != distinct or counts["decisions"][0] < distinct:
            raise Failed(f"accepted {ids}, distinct {distinct}, decisions {counts}")
        figures = {k: report[k] for k in ("accepted", "logged", "decided", "stored", "missing", "duplicated") if k in report}
        figures["views"] = counts["decisions_per_minute"][0]
        figures["alerts"] = alerts[0]
        return figures

    def tail_of(self, topic, limit):
        return self.run("tail", topic, "--from", "start", "--limit", str(limit), "--no-follow", "--json", "--unmasked").stdout.splitlines()

    def dead_letters(self, topic):
        found = json.loads(self.run("dlq", "list", "--json").stdout)
        return next(entry for entry in found if entry["topic"] == f"{topic}.dlq")

    def services(self, *arguments):
        subprocess.run([ROOT / "tools/services.sh", *arguments], check=True, stdout=subprocess.DEVNULL)

    def tear_down(self, keep):
        failures = []
        for process in self.processes.values():
            try:
                process.stop()
            except Failed as failed:
                failures.append(str(failed))
        for child in self.extra:
            child.kill()
        if not keep:
            try:
                self.query_raw(f"DROP DATABASE IF EXISTS {self.database}")
            except OSError:
                pass
            # A broker with thousands of partitions takes long to start again.
            subprocess.run([ROOT / "tools/services.sh", "kafka-tool", "org.apache.kafka.tools.TopicCommand", "--bootstrap-server",
                            self.options.kafka, "--delete", "--topic", f"{self.name}[.].*"],
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60)
            shutil.rmtree(self.dir, ignore_errors=True)
        if failures:
            raise Failed("; ".join(failures))

    def query_raw(self, sql):
        request = urllib.request.Request(self.options.clickhouse + "/", data=sql.encode(), method="POST")
        urllib.request.urlopen(request, timeout=60).read()


def during(cluster, options, disturb, *more):
    """Load, and a disturbance meanwhile; then everything has to agree."""
    load = cluster.load(options.rate, options.duration, "--retry", *more)
    began = time.monotonic()
    try:
        time.sleep(min(2, options.duration / 10))
        disturb(began + options.duration)
    except BaseException:
        load.kill()
        raise
    result = cluster.finish_load(load, options.duration + 300)
    figures = cluster.settle()
    if figures["accepted"] == 0:
        raise Failed("nothing was accepted")
    latency = result.get("latency_ms", {})
    return figures | {"sent": result.get("sent"), "retried": result.get("retried"), "p50_ms": result.get("p50_ms"), "p99_ms": result.get("p99_ms")}


def steady(cluster, options):
    """Load without a disturbance."""
    cluster.prepare().start_all()
    return during(cluster, options, lambda until: None)


def kills(name):
    def scenario(cluster, options):
        cluster.prepare().start_all()
        def disturb(until):
            pause = max(0.5, (until - time.monotonic()) / (options.times + 1))
            for _ in range(options.times):
                time.sleep(pause)
                cluster[name].kill()
                cluster[name].start()
            cluster[name].ready()
        return during(cluster, options, disturb) | {"kills": options.times}
    scenario.__doc__ = f"SIGKILL of {name}, again and again."
    return scenario


def kafka_restart(cluster, options):
    """Kafka is killed and started again."""
    cluster.prepare().start_all()
    return during(cluster, options, lambda until: (time.sleep(options.duration / 4), cluster.services("restart", "kafka")))


def away(component, seconds):
    def scenario(cluster, options):
        cluster.prepare().start_all()
        gone = min(seconds, options.duration * 0.6) if not options.full else seconds
        def disturb(until):
            cluster.services("kill", component)
            time.sleep(gone)
            cluster.services("start")
        return during(cluster, options, disturb) | {"seconds_away": gone}
    scenario.__doc__ = f"{component} is away for a while (with --full {seconds} s)."
    return scenario


def swallow(cluster, options):
    """Every third answer of ClickHouse to an insert is lost."""
    port, target = free_port(), urllib.parse.urlsplit(options.clickhouse).port
    proxy = subprocess.Popen([sys.executable, ROOT / "tools/fault_proxy.py", str(port), str(target), "--swallow-every", "3"],
                             stdout=subprocess.DEVNULL)
    cluster.extra.append(proxy)
    cluster.prepare()
    cluster.set(clickhouse__url=f"http://127.0.0.1:{port}", clickhouse__batch_max_ms=200)
    wait_for("the proxy answers", 20, lambda: get(f"http://127.0.0.1:{port}/ping"))
    cluster.start_all()
    figures = during(cluster, options, lambda until: None)
    lost = json.loads(get(f"http://127.0.0.1:{port}/fault-proxy/counts"))["swallowed"]
    if lost == 0:
        raise Failed("no answer was lost")
    return figures | {"answers_lost": lost}


def stall(cluster, options):
    """An analyzer is stopped for longer than its session, another takes over, then the first goes on."""
    cluster.set(kafka__session_timeout_ms=6000)
    cluster.prepare().start_all()
    second = cluster.add("fraud-analyzer-2", "fraud-analyzer").start().ready()
    def disturb(until):
        names = ["fraud-analyzer", "fraud-analyzer-2"]
        wait_for("one has the lane", 30, lambda: any(cluster[n].metric("paystream_lanes_owned") for n in names))
        holder = next(n for n in names if cluster[n].metric("paystream_lanes_owned"))
        other = next(n for n in names if n != holder)
        cluster[holder].signal(signal.SIGSTOP)
        wait_for("the other took over", 60, lambda: cluster[other].metric("paystream_lanes_owned"))
        time.sleep(2)
        cluster[holder].signal(signal.SIGCONT)
        wait_for("the first let go", 60, lambda: cluster[holder].metric("paystream_lanes_owned") == 0)
    return during(cluster, options, disturb)


def rebalance(cluster, options):
    """Analyzers come and go while they share the lanes."""
    cluster.prepare(lanes=4).start_all()
    def disturb(until):
        running = []
        pause = max(1.0, (until - time.monotonic()) / (options.times + 1))
        for turn in range(options.times):
            if len(running) < 2 and turn % 3 != 2:
                running.append(cluster.add(f"fraud-analyzer-{turn + 2}", "fraud-analyzer").start().ready())
            else:
                running.pop(0).stop()
            time.sleep(pause)
    return during(cluster, options, disturb) | {"rebalances": options.times}


def undecodable(cluster, options):
    """Undecodable records among good ones: dead letters each once, and after a fix each brought through once."""
    cluster.prepare().start_all()
    bad, topic = 1000, "transactions.created"

    def disturb(until):
        # Each is a good transaction of this run but for its version, as a producer of another version would write it.
        lines = wait_for("there are records", 30, lambda: cluster.tail_of("created", 50))
        value = json.loads(lines[0])["value"]
        records = cluster.dir / "bad.txt"
        with open(records, "w") as file:
            for i in range(bad):
                other = json.loads(json.dumps(value))
                other["data"]["id"] = "txn_" + "%032x" % random.getrandbits(128)
                other["v"] = 99
                file.write(f"{other['data']['card']['token']}\t{json.dumps(other)}\n")
        with open(records) as source:
            subprocess.run([ROOT / "tools/services.sh", "kafka-tool", "ConsoleProducer", "--topic", f"{cluster.name}.{topic}",
                            "--property", "parse.key=true", "--bootstrap-server", options.kafka],
                           stdin=source, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    figures = during(cluster, options, disturb)
    letters = cluster.dead_letters(topic)
    if letters["open"] != bad or not all("version 99" in reason["reason"] for reason in letters["reasons"]):
        raise Failed(f"dead letters: {letters}")
    before = figures["decided"]
    cluster.run("dlq", "retry", topic, "--pipe", "sed 's/\"v\": *99/\"v\": 1/'", "--yes")
    wait_for("every dead letter is decided and stored", SETTLE_SECONDS,
             lambda: int(cluster.query("SELECT count() FROM decisions")[0][0]) == before + bad)
    again = cluster.run("dlq", "retry", topic, "--yes").stdout
    left = cluster.dead_letters(topic)["open"]
    time.sleep(3)
    rows, distinct = (int(n) for n in cluster.query("SELECT count(), uniqExact(transaction_id) FROM decisions")[0])
    if left or rows != distinct or rows != before + bad:
        raise Failed(f"after the retry: {left} letters left, {rows} decisions of {distinct}; {again}")
    return figures | {"dead_letters": bad, "decided_after_retry": rows}


def trace(cluster, options):
    """One trace, collected by an OTLP receiver, from the HTTP request through Kafka to the call to Telegram."""
    outside = Outside()
    token = "123456789:AAF7-g0gYncWnm5IyfZlpPRqRRv6kNAGlao"
    cluster.set(telemetry__otlp_endpoint=outside.url, telemetry__trace_sample_ratio=1.0, alerter__telegram__bot_token=token,
                alerter__telegram__chat_id="-1001", alerter__telegram__api_url=outside.url)
    cluster.prepare().start_all()
    body = {"amount": 100.50, "currency": "USD", "card_number": "4100000000000019", "expiry_month": 12,
            "expiry_year": time.gmtime().tm_year + 4, "cvv": "123"}
    request = urllib.request.Request(cluster["gateway"].url + "/transaction", data=json.dumps(body).encode(),
                                     headers={"Content-Type": "application/json"})
    answer = json.loads(urllib.request.urlopen(request, timeout=30).read())
    wait_for("Telegram is called", 60, lambda: outside.messages)

    def whole():
        spans = outside.spans
        for call in (span for span in spans if span["service"] == "alerter" and span["name"] == "notify telegram"):
            chain = [call]
            while chain[-1]["parent"]:
                above = [s for s in spans if s["id"] == chain[-1]["parent"] and s["trace"] == call["trace"]]
                if not above:
                    break
                chain.append(above[0])
            services = [span["service"] for span in reversed(chain)]
            if services[0] == "gateway" and "fraud-analyzer" in services and not chain[-1]["parent"]:
                return [f"{span['service']}: {span['name']}" for span in reversed(chain)]
    chain = wait_for("the trace is whole", 60, whole)
    return {"transaction": answer.get("id") or answer.get("transaction_id"), "trace": chain}


class Outside:
    """An OTLP receiver and Telegram's Bot API."""

    def __init__(self):
        self.spans, self.messages = [], []
        outside = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.body()
                if self.path == "/v1/traces":
                    outside.spans += spans_of(body)
                    answer, kind = b"", "application/x-protobuf"
                else:
                    outside.messages.append(self.path.rsplit("/", 1)[1])
                    message = {"message_id": len(outside.messages), "date": 0, "text": "x",
                               "chat": {"id": -1001, "type": "group", "title": "on call"}}
                    answer, kind = json.dumps({"ok": True, "result": message}).encode(), "application/json"
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_GET = do_POST

            def body(self):
                if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                    return self.rfile.read(int(self.headers.get("Content-Length") or 0))
                chunks = []
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    chunks.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(chunks)

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, daemon=True).start()


def fields(message):
    """The fields of a protobuf message: (number, value), nested messages as bytes."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value
    while at < len(message):
        key = varint()
        number, kind = key >> 3, key & 7
        if kind == 0:
            value = varint()
        else:
            size = {1: 8, 5: 4}.get(kind)
            if size is None:
                size = varint()
            value = message[at:at + size]
            at += size
        yield number, value


def spans_of(request):
    """The spans of an ExportTraceServiceRequest (opentelemetry/proto/trace/v1/trace.proto)."""
    def all_of(message, number):
        return [value for n, value in fields(message) if n == number]
    found = []
    for resource_spans in all_of(request, 1):
        attributes = [dict(fields(a)) for resource in all_of(resource_spans, 1) for a in all_of(resource, 1)]
        service = next((dict(fields(a[2]))[1].decode() for a in attributes if a[1] == b"service.name"), "")
        for scope_spans in all_of(resource_spans, 2):
            for span in all_of(scope_spans, 2):
                of = dict(fields(span))
                found.append({"service": service, "trace": of[1].hex(), "id": of[2].hex(), "parent": of.get(4, b"").hex(),
                              "name": of[5].decode(), "kind": of.get(6, 0)})
    return found


def dashboards(cluster, options):
    """Every panel of the Grafana dashboards against the engines, with data in them."""
    cluster.prepare().start_all()
    figures = during(cluster, options, lambda until: None)
    for outcome, verdict in (("decline", "fraud"), ("decline", "legit"), ("review", "fraud"), ("approve", "fraud"), ("approve", "legit")):
        ids = cluster.query(f"SELECT transaction_id FROM decisions WHERE outcome = '{outcome}' ORDER BY cityHash64(transaction_id, '{verdict}') LIMIT 20")
        for (id,) in ids:
            request = urllib.request.Request(f"{cluster['gateway'].url}/v1/transactions/{id}/labels", method="POST",
                                             data=json.dumps({"verdict": verdict}).encode(), headers={"Content-Type": "application/json"})
            urllib.request.urlopen(request, timeout=30).read()
    wait_for("the labels are stored", SETTLE_SECONDS, lambda: int(cluster.query("SELECT count() FROM labels")[0][0]) > 0)
    arguments = [sys.executable, ROOT / "tools/grafana-panels.py", "--clickhouse", options.clickhouse, "--database", cluster.database, "--from", "now-1h"]
    prometheus = shutil.which("prometheus")
    if prometheus:
        port, config = free_port(), cluster.dir / "prometheus.json"
        jobs = [{"job_name": p.command, "static_configs": [{"targets": [f"127.0.0.1:{p.port}"]}]} for p in cluster.processes.values()]
        rules = [str(file) for file in sorted((ROOT / "prometheus/rules").glob("*.yml"))]
        config.write_text(json.dumps({"global": {"scrape_interval": "1s", "evaluation_interval": "1s"}, "rule_files": rules, "scrape_configs": jobs}))
        cluster.extra.append(subprocess.Popen([prometheus, f"--config.file={config}", f"--storage.tsdb.path={cluster.dir}/prometheus",
                                               f"--web.listen-address=127.0.0.1:{port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        url = f"http://127.0.0.1:{port}"
        load = cluster.load(options.rate, 25, "--retry")
        wait_for("Prometheus has rates", 60, lambda: json.loads(get(url + "/api/v1/query?query=rate(paystream_gateway_accepted_total[20s])>0"))["data"]["result"])
        time.sleep(15)
        cluster.finish_load(load, 120)
        arguments += ["--prometheus", url]
    else:
        arguments.append("--skip-prometheus")
    done = subprocess.run([str(a) for a in arguments], capture_output=True, text=True)
    last = done.stdout.strip().splitlines()[-1:] or [done.stderr]
    if done.returncode:
        raise Failed(done.stdout[-3000:] + done.stderr[-500:])
    return {"panels": last[0]}


def throughput(cluster, options):
    """How fast an analyzer alone goes through a topic of --events transactions, from Kafka to Kafka and ClickHouse."""
    cluster.set(analyzer__max_batch_transactions=16384)
    cluster.prepare()
    cluster.add("gateway").start().ready()
    cluster.finish_load(cluster.load(500, 8), 60)
    cluster["gateway"].stop()
    fill(cluster, options.events)
    total = options.events + len((cluster.dir / "accepted.txt").read_text().split())
    cluster.add("analytics").start().ready()
    analyzer = cluster.add("fraud-analyzer").start()

    def decided():
        return analyzer.metric("paystream_analyzer_decisions_total")

    wait_for("it begins", 120, lambda: decided() > 0)
    first, started = decided(), time.monotonic()
    wait_for("all are decided", 3600, lambda: decided() >= total)
    in_kafka = time.monotonic() - started
    wait_for("all are stored", 3600, lambda: int(cluster.query("SELECT count() FROM decisions")[0][0]) >= total)
    in_clickhouse = time.monotonic() - started
    rows, distinct = (int(n) for n in cluster.query("SELECT count(), uniqExact(transaction_id) FROM decisions")[0])
    if rows != total or distinct != total:
        raise Failed(f"{total} transactions, {rows} decisions of {distinct}")
    cpu = {name: round(process.cpu_seconds() / total * 1e6, 1) for name, process in cluster.processes.items() if process.child.poll() is None}
    return {"events": total, "cpu_us_per_event": cpu, "decided_per_s": round((total - first) / in_kafka), "stored_per_s": round((total - first) / in_clickhouse)}


def fill(cluster, events):
    """Puts transactions into transactions.created: those that a gateway wrote, again and again, with other ids and times."""
    templates = []
    for line in cluster.tail_of("created", 2000):
        value = json.loads(line)["value"]
        key = value["data"]["card"]["token"]
        value["data"]["id"], value["data"]["accepted_at_us"] = "txn_IDHERE", 1234512345
        text = json.dumps(value, separators=(",", ":"))
        # The tail's objects have their keys in alphabetical order.
        before, rest = text.split("1234512345", 1)
        middle, after = rest.split("txn_IDHERE", 1)
        templates.append((f"{key}\t{before}", f"{middle}txn_", after + "\n"))
    now = int(time.time() * 1e6)
    arguments = [ROOT / "tools/services.sh", "kafka-tool", "ConsoleProducer", "--topic", f"{cluster.name}.transactions.created",
                 "--property", "parse.key=true", "--bootstrap-server", cluster.options.kafka,
                 "--producer-property", "compression.type=lz4", "--producer-property", "batch.size=262144", "--producer-property", "linger.ms=20"]
    producer = subprocess.Popen([str(a) for a in arguments], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    step, endless = 2000, itertools.cycle(templates)
    for at in range(0, events, step):
        lines = [f"{before}{now + i * 100}{middle}{random.getrandbits(128):032x}{after}"
                 for i, (before, middle, after) in zip(range(at, min(events, at + step)), endless)]
        producer.stdin.write("".join(lines).encode())
    producer.stdin.close()
    if producer.wait(3600):
        raise Failed("the topic could not be filled")


SCENARIOS = {
    "steady": steady,
    "kill-gateway": kills("gateway"),
    "kill-fraud-analyzer": kills("fraud-analyzer"),
    "kill-alerter": kills("alerter"),
    "kill-analytics": kills("analytics"),
    "kafka-restart": kafka_restart,
    "clickhouse-away": away("clickhouse", 120),
    "redis-away": away("redis", 60),
    "swallow": swallow,
    "stall": stall,
    "rebalance": rebalance,
    "undecodable": undecodable,
    "trace": trace,
    "dashboards": dashboards,
    "throughput": throughput,
}
# What runs when nothing is asked for: the others take components away that other tests use, or take long.
USUAL = ["steady", "kill-fraud-analyzer", "kill-analytics", "stall", "swallow", "undecodable", "trace", "dashboards"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=os.environ.get("PAYSTREAM_BINARY", str(ROOT / "target/release/paystream")))
    parser.add_argument("--kafka", default=os.environ.get("PAYSTREAM_TEST_KAFKA", "127.0.0.1:19092"))
    parser.add_argument("--clickhouse", default=os.environ.get("PAYSTREAM_TEST_CLICKHOUSE", "http://127.0.0.1:18123"))
    parser.add_argument("--redis", default=os.environ.get("PAYSTREAM_TEST_REDIS", "redis://127.0.0.1:16379"))
    parser.add_argument("--scenario", action="append", choices=SCENARIOS)
    parser.add_argument("--all", action="store_true", help="every scenario, also those that take components away")
    parser.add_argument("--rate", type=float, default=300.0, help="transactions per second")
    parser.add_argument("--duration", type=float, default=12.0, help="seconds of load in each scenario")
    parser.add_argument("--times", type=int, default=3, help="how often a process is killed, or comes and goes")
    parser.add_argument("--events", type=int, default=1_000_000, help="transactions in the topic of the scenario throughput")
    parser.add_argument("--full", action="store_true", help="components stay away as long as the scenario says")
    parser.add_argument("--keep", action="store_true", help="leave folders and databases behind")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    # Processes run in folders of their own.
    options.binary = str(Path(options.binary).resolve())
    if options.list:
        for name, scenario in SCENARIOS.items():
            print(f"{name:22} {scenario.__doc__}")
        return 0
    failed = []
    names = options.scenario or (list(SCENARIOS) if options.all else USUAL)
    for name in names:
        began = time.monotonic()
        cluster = Cluster(options, name)
        keep = options.keep
        try:
            try:
                figures = SCENARIOS[name](cluster, options)
            except BaseException:
                keep = True
                raise
            finally:
                cluster.tear_down(keep)
            print(json.dumps({"scenario": name, "passed": True, "seconds": round(time.monotonic() - began, 1)} | figures), flush=True)
        except (Failed, subprocess.SubprocessError, OSError) as error:
            failed.append(name)
            print(json.dumps({"scenario": name, "passed": False, "error": str(error)}), flush=True)
            print(f"{name} FAILED: {error}\nlogs: {cluster.dir}", file=sys.stderr, flush=True)
            for process in cluster.processes.values():
                print(f"--- {process.name}\n{process.tail(8)}", file=sys.stderr, flush=True)
    print(f"{len(names) - len(failed)} passed, {len(failed)} failed{': ' + ', '.join(failed) if failed else ''}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
