#!/usr/bin/env python3
"""Checks Grafana's dashboards: their shape, and that each panel's query answers with data.

Each query is run as Grafana would run it: variables at their defaults, macros expanded. A query that
fails or answers nothing (no rows, or only nulls) is an error. Needs only Python's standard library.

  grafana-panels.py --shape-only
  grafana-panels.py --clickhouse http://127.0.0.1:8123 --database paystream --prometheus http://127.0.0.1:9090
  grafana-panels.py --clickhouse http://127.0.0.1:8123 --skip-prometheus --from now-1h --json
  grafana-panels.py … --var merchant=shop_1,shop_2 --var txn=txn_…      other values than the defaults

The password of ClickHouse's user is read from CLICKHOUSE_PASSWORD.
Exit status: 0 all well, 1 something is wrong, 2 wrong usage.
"""

import argparse
import json
import math
import os
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

CLICKHOUSE = {"type": "grafana-clickhouse-datasource", "uid": "paystream-clickhouse"}
PROMETHEUS = {"type": "prometheus", "uid": "paystream-prometheus"}
MIXED = {"type": "datasource", "uid": "-- Mixed --"}
ALL = "$__all"
GRID_COLUMNS = 24
HTTP_TIMEOUT_S = 60

# What Grafana itself defines; in links also what it knows of the point or cell that was clicked.
BUILT_IN = {"__from", "__to", "__interval", "__interval_ms", "__interval_s", "__rate_interval", "__range", "__range_s"}
IN_LINKS = {"__url_time_range", "__value", "__field", "__series", "__data", "__all_variables"}
MACROS = {"timeFilter", "timeFilter_ms", "fromTime", "toTime", "interval_s", "conditionalAll"}
REFERENCE = re.compile(r"\$\{(\w+)(?:\.[\w.]+)?(?::(\w+))?\}|\$(\w+)")
# Steps Grafana rounds an interval to, in seconds.
STEPS_S = [1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1200, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 604800]


class Problem(Exception):
    """Something in a dashboard, or an answer, that is not as it has to be."""


# ---------------------------------------------------------------- shape


def panels_of(dashboard):
    """All panels with data, those in collapsed rows included."""
    for panel in dashboard.get("panels", []):
        if panel["type"] == "row":
            yield from panel.get("panels", [])
        elif panel["type"] != "text":
            yield panel


def references(text, also=frozenset()):
    """Names of the variables a text refers to, without Grafana's own."""
    for match in REFERENCE.finditer(text):
        name = match[1] or match[3]
        if name.removeprefix("__") in MACROS and name.startswith("__"):
            continue
        if name not in BUILT_IN and name not in also:
            yield name


def links_of(panel):
    """The data links of a panel: of all its fields, and of single columns."""
    yield from panel["fieldConfig"]["defaults"].get("links", [])
    for override in panel["fieldConfig"].get("overrides", []):
        for prop in override["properties"]:
            if prop["id"] == "links":
                yield from prop["value"]


def shape_problems(dashboards):
    """Everything that is wrong with the dashboards' JSON, as (file, what)."""
    variables_by_uid = {d.get("uid"): {v["name"] for v in d["templating"]["list"]} for d in dashboards.values()}
    titles = [d.get("title") for d in dashboards.values()]
    for file, d in dashboards.items():
        def bad(what, file=file):
            return file, what
        uid = d.get("uid") or ""
        if not re.fullmatch(r"[a-z0-9-]{1,40}", uid):
            yield bad(f"uid {uid!r} is not 1 to 40 small letters, digits and dashes")
        if len(variables_by_uid) < len(dashboards):
            yield bad("two dashboards have the same uid")
        if not d.get("title") or titles.count(d.get("title")) > 1:
            yield bad("the title is missing or another dashboard's too")
        if not d.get("description"):
            yield bad("no description")
        yield from (bad(what) for what in grid_problems(d))
        used = set()
        for panel in panels_of(d):
            for what in panel_problems(panel, variables_by_uid, uid):
                yield bad(f"panel {panel.get('id')} {panel.get('title')!r}: {what}")
            for target in panel.get("targets", []):
                used |= set(references(json.dumps(target)))
            for link in links_of(panel):
                used |= set(references(link["url"], IN_LINKS))
        for variable in d["templating"]["list"]:
            name = variable["name"]
            if not variable.get("description"):
                yield bad(f"variable {name} has no description")
            if variable["type"] == "query" and variable.get("datasource") not in (CLICKHOUSE, PROMETHEUS):
                yield bad(f"variable {name} has no data source of ours")
            if name not in used:
                yield bad(f"variable {name} is defined and not used")


def grid_problems(dashboard):
    taken, ids = {}, set()
    for panel in dashboard["panels"]:
        title = panel.get("title")
        if panel.get("id") in ids or not isinstance(panel.get("id"), int):
            yield f"panel {title!r}: the id {panel.get('id')} is missing or taken"
        ids.add(panel.get("id"))
        g = panel["gridPos"]
        if g["x"] < 0 or g["w"] < 1 or g["h"] < 1 or g["x"] + g["w"] > GRID_COLUMNS:
            yield f"panel {title!r} is outside of the grid: {g}"
        for cell in ((x, y) for x in range(g["x"], g["x"] + g["w"]) for y in range(g["y"], g["y"] + g["h"])):
            if cell in taken:
                yield f"panels {taken[cell]!r} and {title!r} overlap"
                break
            taken[cell] = title


def panel_problems(panel, variables_by_uid, uid):
    for key in ("title", "description"):
        if not panel.get(key):
            yield f"no {key}"
    defaults = panel["fieldConfig"]["defaults"]
    if not defaults.get("unit"):
        yield "no unit"
    if not defaults.get("thresholds", {}).get("steps"):
        yield "no thresholds"
    targets = panel.get("targets", [])
    if not targets:
        yield "no query"
    if len({t.get("refId") for t in targets}) < len(targets):
        yield "two queries have the same refId"
    for target in targets:
        source = target.get("datasource")
        if source not in (CLICKHOUSE, PROMETHEUS):
            yield f"query {target.get('refId')} has no data source of ours: {source}"
        elif panel.get("datasource") not in (source, MIXED):
            yield f"query {target.get('refId')} has another data source than the panel"
        elif not target.get("rawSql" if source == CLICKHOUSE else "expr"):
            yield f"query {target.get('refId')} is empty"
        for macro in re.findall(r"\$__(\w+)\(", target.get("rawSql", "")):
            if macro not in MACROS:
                yield f"macro $__{macro} is not one this check can expand"
        for name in references(json.dumps(target)):
            if name not in variables_by_uid[uid]:
                yield f"variable {name} is not defined"
    for link in links_of(panel):
        for name in references(link["url"], IN_LINKS):
            if name not in variables_by_uid[uid]:
                yield f"link {link['title']!r} uses variable {name}, which is not defined"
        to = re.match(r"/d/([\w-]+)/", link["url"])
        if not to or to[1] not in variables_by_uid:
            yield f"link {link['title']!r} leads to no dashboard of ours"
            continue
        passed = re.findall(r"var-(\w+)=", link["url"]) + re.findall(r"\$\{(\w+):queryparam\}", link["url"])
        for name in passed:
            if name not in variables_by_uid[to[1]]:
                yield f"link {link['title']!r} passes {name}, which {to[1]} does not have"
        if len(set(passed)) < len(passed):
            yield f"link {link['title']!r} passes a variable twice"


# ---------------------------------------------------------------- expansion


def epoch_s(text, now_s):
    """now, now-6h, or seconds since the Unix epoch."""
    match = re.fullmatch(r"now(?:-(\d+)([smhdw]))?", text)
    if match:
        return now_s - int(match[1] or 0) * {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}[match[2] or "s"]
    try:
        return int(float(text))
    except ValueError:
        raise Problem(f"{text!r} is neither now, now-6h nor seconds since the Unix epoch") from None


class Expansion:
    """What Grafana puts in the place of variables and macros, for one panel."""

    def __init__(self, values, from_s, to_s, interval_s, rate_interval_s):
        self.values, self.from_s, self.to_s = values, from_s, to_s
        self.interval_s, self.rate_interval_s = interval_s, rate_interval_s

    def text(self, template):
        built_in = {
            "__interval": f"{self.interval_s}s", "__interval_ms": str(self.interval_s * 1000),
            "__interval_s": str(self.interval_s), "__rate_interval": f"{self.rate_interval_s}s",
            "__range": f"{self.to_s - self.from_s}s", "__range_s": str(self.to_s - self.from_s),
            "__from": str(self.from_s * 1000), "__to": str(self.to_s * 1000),
            "__fromTime": f"toDateTime({self.from_s})", "__toTime": f"toDateTime({self.to_s})",
        }

        def one(match):
            name, form = match[1] or match[3], match[2]
            if name in built_in:
                return built_in[name]
            if name not in self.values:
                raise Problem(f"variable {name} is not defined")
            return formatted(self.values[name]["items"], form)

        return REFERENCE.sub(one, template)

    def sql(self, template):
        template = self.calls(template, "conditionalAll", self.conditional_all)
        template = self.calls(template, "timeFilter_ms", lambda column: self.between(
            column, f"fromUnixTimestamp64Milli({self.from_s * 1000})", f"fromUnixTimestamp64Milli({self.to_s * 1000})"))
        template = self.calls(template, "timeFilter", lambda column: self.between(
            column, f"toDateTime({self.from_s})", f"toDateTime({self.to_s})"))
        return self.text(template)

    @staticmethod
    def between(column, low, high):
        return f"{column} >= {low} AND {column} <= {high}"

    def conditional_all(self, arguments):
        condition, _, variable = arguments.rpartition(",")
        name = variable.strip().lstrip("$")
        if name not in self.values:
            raise Problem(f"variable {name} of $__conditionalAll is not defined")
        return "1=1" if self.values[name]["all"] else condition

    @staticmethod
    def calls(template, macro, replacement):
        """Replaces $__macro(arguments), with parentheses among the arguments."""
        start = f"$__{macro}("
        while (at := template.find(start)) >= 0:
            depth, end = 1, at + len(start)
            while depth and end < len(template):
                depth += {"(": 1, ")": -1}.get(template[end], 0)
                end += 1
            if depth:
                raise Problem(f"$__{macro}( is never closed")
            template = template[:at] + replacement(template[at + len(start):end - 1]) + template[end:]
        return template


def formatted(items, form):
    if form == "singlequote":
        return ",".join("'" + i.replace("'", "\\'") + "'" for i in items)
    if form == "sqlstring":
        return ",".join("'" + i.replace("'", "''") + "'" for i in items)
    if form in (None, "csv", "raw"):
        return ",".join(items)
    raise Problem(f"this check does not know the format :{form}")


def interval_s(panel, target, expansion_of_minimum, from_s, to_s):
    points = panel.get("maxDataPoints") or 1000
    minimum = re.fullmatch(r"(\d+)([smh])", expansion_of_minimum(target.get("interval") or panel.get("interval") or "1s"))
    least = int(minimum[1]) * {"s": 1, "m": 60, "h": 3600}[minimum[2]] if minimum else 1
    wanted = max((to_s - from_s) / points, 1)
    return max(min(STEPS_S, key=lambda step: abs(step - wanted)), least)


# ---------------------------------------------------------------- answers


def http(url, form, headers=None):
    data = urllib.parse.urlencode(form).encode() if isinstance(form, dict) else form.encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=data, headers=headers or {}), timeout=HTTP_TIMEOUT_S) as r:
            return json.load(r)
    except urllib.error.HTTPError as error:
        raise Problem(error.read().decode(errors="replace").strip()[:1500]) from None
    except (urllib.error.URLError, TimeoutError) as error:
        raise Problem(f"no answer from {url.split('?')[0]}: {getattr(error, 'reason', error)}") from None
    except ValueError:
        raise Problem(f"{url.split('?')[0]} did not answer with JSON") from None


class Answer:
    def __init__(self, rows, values):
        self.rows = rows
        # Without the times of points, which are there even when nothing else is.
        self.values = [v for v in values if v is not None and not (isinstance(v, float) and math.isnan(v))]

    @property
    def empty(self):
        return self.rows == 0 or not self.values

    @property
    def all_zero(self):
        numbers = [v for v in self.values if isinstance(v, (int, float)) and not isinstance(v, bool)]
        return bool(numbers) and len(numbers) == len(self.values) and not any(numbers)


def ask_clickhouse(options, sql):
    query = urllib.parse.urlencode({
        "database": options.database, "default_format": "JSONCompact", "output_format_json_quote_64bit_integers": 0,
        "output_format_json_quote_denormals": 0,
    })
    headers = {"X-ClickHouse-User": options.user}
    if os.environ.get("CLICKHOUSE_PASSWORD"):
        headers["X-ClickHouse-Key"] = os.environ["CLICKHOUSE_PASSWORD"]
    answer = http(f"{options.clickhouse}/?{query}", sql, headers)
    return answer["meta"], answer["data"]


def clickhouse_answer(options, target, expansion):
    meta, rows = ask_clickhouse(options, expansion.sql(target["rawSql"]))
    if target.get("queryType") == "timeseries":
        if meta[0]["name"] != "time" or not meta[0]["type"].startswith("Date"):
            raise Problem(f"the first column of a time series has to be the time, called time; it is {meta[0]}")
        if not any(re.match(r"(Nullable\()?(U?Int|Float|Decimal)", m["type"]) for m in meta[1:]):
            raise Problem("a time series without a number")
    return Answer(len(rows), [v for row in rows for m, v in zip(meta, row) if m["name"] != "time"])


def prometheus_answer(options, target, expansion):
    expr = expansion.text(target["expr"])
    if target.get("instant"):
        form, path = {"query": expr, "time": expansion.to_s}, "query"
    else:
        form = {"query": expr, "start": expansion.from_s, "end": expansion.to_s, "step": expansion.interval_s}
        path = "query_range"
    result = http(f"{options.prometheus}/api/v1/{path}", form)["data"]["result"]
    samples = [s for r in result for s in (r.get("values") or [r["value"]])]
    return Answer(len(samples), [float(value) for _, value in samples])


# ---------------------------------------------------------------- run


def variable_values(options, dashboard, given):
    """The values of a dashboard's variables: those given, else the defaults."""
    values, problems = {}, []
    for variable in dashboard["templating"]["list"]:
        name = variable["name"]
        chosen = variable.get("current", {}).get("value", "")
        items = chosen if isinstance(chosen, list) else [chosen]
        if name in given:
            items = given[name].split(",")
        is_all = items == [ALL]
        if is_all:
            if variable["type"] == "custom":
                items = [o["value"] for o in variable["options"] if o["value"] != ALL]
            elif options.clickhouse:
                try:
                    items = [str(row[0]) for row in ask_clickhouse(options, variable["query"])[1]]
                    if not items:
                        raise Problem("empty: no value to choose from")
                except Problem as problem:
                    problems.append((name, str(problem)))
        values[name] = {"items": items, "all": is_all}
    return values, problems


def run(options, dashboards, given):
    now_s = int(time.time())
    results = []
    for file, dashboard in dashboards.items():
        from_s = epoch_s(options.from_ or dashboard["time"]["from"], now_s)
        to_s = epoch_s(options.to or dashboard["time"]["to"], now_s)
        values, problems = variable_values(options, dashboard, given)
        for name, problem in problems:
            results.append({"dashboard": dashboard["title"], "panel": f"variable {name}", "query": "", "status": "error", "detail": problem})
        for panel in panels_of(dashboard):
            for target in panel["targets"]:
                results.append({"dashboard": dashboard["title"], "panel": panel["title"], "query": target["refId"],
                                **one(options, panel, target, values, from_s, to_s)})
    return results


def one(options, panel, target, values, from_s, to_s):
    """Runs one query of one panel."""
    source, began = target["datasource"], time.monotonic()
    base, ask = ((options.clickhouse, clickhouse_answer) if source == CLICKHOUSE else (options.prometheus, prometheus_answer))
    kind = "ClickHouse" if source == CLICKHOUSE else "Prometheus"
    if not base:
        return {"source": kind, "status": "skipped", "detail": f"no --{kind.lower()} given"}
    try:
        plain = Expansion(values, from_s, to_s, 1, 60)
        step = interval_s(panel, target, plain.text, from_s, to_s)
        answer = ask(options, target, Expansion(values, from_s, to_s, step, max(step + 15, options.rate_interval_s)))
    except Problem as problem:
        return {"source": kind, "status": "error", "detail": str(problem)}
    status = "empty" if answer.empty else "zero" if answer.all_zero else "ok"
    return {"source": kind, "status": status, "rows": answer.rows, "ms": round((time.monotonic() - began) * 1000), "detail": ""}


def unseen_metrics(options, dashboards):
    """Our metrics that panels name and Prometheus has no series of: a mistyped name, or none counted yet."""
    named = {m for d in dashboards.values() for p in panels_of(d) for t in p["targets"]
             for m in re.findall(r"\b(?:paystream|process)_\w+", t.get("expr", ""))}
    # A query over the last hour, as the list of all names also has those long gone.
    query = 'count by (__name__) (last_over_time({__name__=~"' + "|".join(sorted(named)) + '"}[1h]))'
    found = http(f"{options.prometheus}/api/v1/query", {"query": query})["data"]["result"]
    seen = {series["metric"]["__name__"] for series in found}
    return sorted(named - seen)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dashboards", type=Path, default=Path(__file__).resolve().parent.parent / "grafana" / "dashboards", help="folder of the dashboards' JSON")
    parser.add_argument("--clickhouse", metavar="URL", help="ClickHouse's HTTP interface")
    parser.add_argument("--database", default="paystream", help="ClickHouse's database [default: paystream]")
    parser.add_argument("--user", default="default", help="ClickHouse's user [default: default]")
    parser.add_argument("--prometheus", metavar="URL")
    parser.add_argument("--skip-prometheus", action="store_true", help="do not run queries to Prometheus, and say how many")
    parser.add_argument("--shape-only", action="store_true", help="check the JSON, run nothing")
    parser.add_argument("--from", dest="from_", metavar="TIME", help="now-6h, or seconds since the Unix epoch [default: the dashboard's]")
    parser.add_argument("--to", metavar="TIME", help="[default: the dashboard's]")
    parser.add_argument("--rate-interval-s", type=int, default=60, help="value of $__rate_interval, at least [default: 60]")
    parser.add_argument("--var", action="append", default=[], metavar="NAME=VALUE", help="a variable's value; several separated by commas")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if not options.shape_only and not options.clickhouse:
        parser.error("give --clickhouse URL, or --shape-only")
    if not options.shape_only and not options.prometheus and not options.skip_prometheus:
        parser.error("give --prometheus URL, or --skip-prometheus")
    if any("=" not in v for v in options.var):
        parser.error("--var takes NAME=VALUE")
    for name in ("clickhouse", "prometheus"):
        setattr(options, name, (getattr(options, name) or "").rstrip("/"))
    if options.skip_prometheus:
        options.prometheus = ""
    return options


def main():
    options = arguments()
    files = sorted(options.dashboards.glob("*.json"))
    if not files:
        sys.exit(f"There is no dashboard in {options.dashboards}.")
    dashboards = {f.name: json.loads(f.read_text(encoding="utf-8")) for f in files}
    wrong = [{"file": file, "detail": what} for file, what in shape_problems(dashboards)]
    try:
        results = [] if options.shape_only or wrong else run(options, dashboards, dict(v.split("=", 1) for v in options.var))
        unseen = unseen_metrics(options, dashboards) if options.prometheus and results else []
    except Problem as problem:
        sys.exit(str(problem))
    count = {status: sum(r["status"] == status for r in results) for status in ("ok", "zero", "empty", "error", "skipped")}
    summary = {"dashboards": len(dashboards), "panels": sum(1 for d in dashboards.values() for _ in panels_of(d)),
               "queries": len(results) - count["skipped"], "empty": count["empty"], "errors": count["error"] + len(wrong),
               "zero": count["zero"], "skipped": count["skipped"]}
    if options.json:
        print(json.dumps({"summary": summary, "shape": wrong, "queries": results, "unseen_metrics": unseen}, indent=2, ensure_ascii=False))
    else:
        report(wrong, results, summary, unseen)
    sys.exit(1 if summary["errors"] or summary["empty"] else 0)


def report(wrong, results, summary, unseen):
    for problem in wrong:
        print(f"SHAPE   {problem['file']}: {problem['detail']}")
    for r in results:
        name = f"{r['dashboard']} / {r['panel']}" + (f" [{r['query']}]" if r["query"] not in ("", "A") else "")
        line = f"{r['status']:7} {r.get('rows', ''):>6} rows {r.get('ms', ''):>5} ms  {name}"
        print(line if r["status"] not in ("error",) else f"{line}\n        {r['detail']}")
    if summary["zero"]:
        print(f"note: {summary['zero']} queries answered only zeros.")
    if unseen:
        print(f"note: Prometheus has no series of {', '.join(unseen)}: nothing counted yet, or a wrong name.")
    if summary["skipped"]:
        print(f"\nSKIPPED: {summary['skipped']} queries were NOT run, as no address of their data source was given.\n")
    print("panels {panels} queries {queries} empty {empty} errors {errors}".format(**summary))


if __name__ == "__main__":
    main()
