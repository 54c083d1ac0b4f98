"""Whether the files of the deployment agree with each other; called by check-deploy.sh.

check_deploy.py ASPECT SECRETS_DIR, where SECRETS_DIR holds what deploy/secrets/init.sh has made.
Prints what is wrong, one thing a line, and exits 1; or one line that says what was counted.
"""

import pathlib
import re
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent


def load(path):
    return yaml.safe_load((ROOT / path).read_text())


def rules():
    for path in sorted((ROOT / "prometheus/rules").glob("*.yml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                yield path.name, rule


def compose(secrets_dir):
    """Every service is confined, limited and watched; what it mounts is there."""
    document = load("docker-compose.yml")
    problems = []
    checked = 0
    for name, service in document["services"].items():
        checked += 1

        def require(condition, what, name=name):
            if not condition:
                problems.append(f"{name}: {what}")

        require(service.get("read_only") is True, "its root is not read-only")
        require(service.get("cap_drop") == ["ALL"], "it keeps capabilities")
        require("no-new-privileges:true" in service.get("security_opt", []), "no-new-privileges is not set")
        user = str(service.get("user", ""))
        require(re.fullmatch(r"[1-9]\d*:\d+", user), f"its user is {user!r}, not a number other than 0")
        require("mem_limit" in service, "it has no memory limit")
        require("restart" in service, "it has no restart policy")
        require(service.get("profiles"), "it is in no profile")
        health = service.get("healthcheck", {})
        one_shot = service["restart"] in ("no", "on-failure")
        require(one_shot or "test" in health, "it has no health check")
        image = service.get("image", "")
        default = re.fullmatch(r"\$\{\w+:-(.+)\}", image)
        tag = (default.group(1) if default else image).rpartition(":")[2]
        require(re.search(r"\d+\.\d+", tag), f"the image {image!r} is not pinned to a version")
        base = service.get("build", {}).get("args", {}).get("IMAGE")
        require(base is None or base.endswith(":" + tag), f"its image says {tag}, and is built from {base}")
        for port in service.get("ports", []):
            require(str(port).startswith("${BIND_ADDRESS:-127.0.0.1}:"), f"port {port} is not bound to BIND_ADDRESS")
        for volume in service.get("volumes", []):
            source = str(volume).split(":")[0]
            if source.startswith("."):
                require((ROOT / source).exists(), f"{source} is mounted and is not there")
            else:
                require(source in document["volumes"], f"volume {source} is not declared")
        for secret in service.get("secrets", []):
            require(secret in document["secrets"], f"secret {secret} is not declared")
        text = str(service.get("environment", {})) + str(service.get("command", ""))
        for secret in re.findall(r"/run/secrets/(\w+)", text):
            require(secret in service.get("secrets", []), f"it reads the secret {secret}, and is not given it")
        for other in service.get("depends_on", {}):
            uncovered = set(service["profiles"]) - set(document["services"][other]["profiles"])
            require(not uncovered, f"it needs {other}, which profile {', '.join(sorted(uncovered))} does not start")
    made = {path.name for path in pathlib.Path(secrets_dir).iterdir()}
    examples = {path.stem for path in (ROOT / "deploy/secrets").glob("*.example")}
    for secret in document["secrets"]:
        if secret not in made:
            problems.append(f"deploy/secrets/init.sh does not make {secret}")
        if secret not in examples:
            problems.append(f"deploy/secrets/{secret}.example is missing")
    known = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()))
    offered = set(re.findall(r"^(\w+)=", (ROOT / "deploy/env.example").read_text(), re.M)) - {"COMPOSE_PROFILES"}
    for variable in sorted(known ^ offered):
        problems.append(f"{variable}: in one of docker-compose.yml and deploy/env.example, not in the other")
    grafana = document["services"]["grafana"]
    for path in sorted((ROOT / "grafana/provisioning").glob("*/*.yml")):
        text = re.sub(r"^\s*#.*$", "", path.read_text(), flags=re.M)
        for variable in sorted(set(re.findall(r"\$\{(\w+)\}", text))):
            if variable not in grafana["environment"] and f"export {variable}" not in grafana["command"][0]:
                problems.append(f"grafana: {path.name} reads {variable}, which it is not given")
        for provider in yaml.safe_load(text).get("providers", []):
            folder = provider["options"]["path"]
            if not any(volume.split(":")[1] == folder for volume in grafana["volumes"]):
                problems.append(f"grafana: {path.name} reads {folder}, which is not mounted")
    for job in load("prometheus/prometheus.yml")["scrape_configs"]:
        targets = [n for d in job.get("dns_sd_configs", []) for n in d["names"]]
        targets += [t.split(":")[0] for s in job.get("static_configs", []) for t in s["targets"]]
        for target in targets:
            if target != "localhost" and target not in document["services"]:
                problems.append(f"Prometheus scrapes {target}, which is no service of docker-compose.yml")
    return problems, f"{checked} services, {len(document['secrets'])} secrets, {len(known)} variables"


def collector(_):
    """Pipelines of the collector and of Jaeger are made of what is declared, and all of it is used."""
    problems = []
    parts = 0
    for path in ("otel-collector/config.yaml", "deploy/jaeger/config.yaml"):
        document = load(path)
        service = document["service"]
        used = {"extensions": set(service["extensions"])}
        for pipeline in service["pipelines"].values():
            for kind in ("receivers", "processors", "exporters"):
                used.setdefault(kind, set()).update(pipeline[kind])
        for kind, names in used.items():
            declared = set(document.get(kind, {}))
            parts += len(declared)
            problems += [f"{path}: {kind}: {name} is used, and not declared" for name in sorted(names - declared)]
            problems += [f"{path}: {kind}: {name} is declared, and not used" for name in sorted(declared - names)]
    return problems, f"{parts} parts of pipelines"


def alerts(_):
    """Every alert says what, why and where to look, and is tested where it fires and where it does not."""
    problems = []
    names = []
    tested = {}
    for path in sorted((ROOT / "prometheus/tests").glob("*.yml")):
        for test in yaml.safe_load(path.read_text())["tests"]:
            for case in test.get("alert_rule_test", []):
                tested.setdefault(case["alertname"], set()).add(bool(case["exp_alerts"]))
    for file, rule in rules():
        name = rule.get("alert")
        if name is None:
            continue
        names.append(name)
        if rule.get("labels", {}).get("severity") not in ("critical", "warning", "info"):
            problems.append(f"{file}: {name}: severity is none of critical, warning, info")
        if "component" not in rule.get("labels", {}):
            problems.append(f"{file}: {name}: it has no component")
        for annotation in ("summary", "description", "runbook_url"):
            if not rule.get("annotations", {}).get(annotation):
                problems.append(f"{file}: {name}: it has no {annotation}")
        for fires, what in ((True, "fires"), (False, "must not fire")):
            if fires not in tested.get(name, ()):
                problems.append(f"{file}: {name}: no test has it where it {what}")
    problems += [f"{name}: two alerts of that name" for name in sorted({n for n in names if names.count(n) > 1})]
    problems += [f"prometheus/tests: {name} is no alert" for name in sorted(set(tested) - set(names))]
    for inhibition in load("alertmanager/alertmanager.yml")["inhibit_rules"]:
        for matcher in inhibition["source_matchers"] + inhibition["target_matchers"]:
            label, pattern = re.fullmatch(r'(\w+)=~?"(.*)"', matcher).groups()
            if label == "alertname":
                for part in pattern.split("|"):
                    if not any(re.fullmatch(part, name) for name in names):
                        problems.append(f"alertmanager.yml: {part} matches no alert")
    return problems, f"{len(names)} alerts, each tested where it fires and where it must not"


def runbook(_):
    """Every runbook_url leads to a heading, or an anchor, that is there."""
    problems = []
    anchors = {}
    urls = [(rule["alert"], rule["annotations"]["runbook_url"]) for _, rule in rules() if "alert" in rule]
    for alert, url in urls:
        page, _, anchor = url.partition("#")
        if page not in anchors:
            text = (ROOT / page).read_text()
            found = set(re.findall(r'<a (?:id|name)="([^"]+)"', text))
            for heading in re.findall(r"^#+ +(.+?) *$", text, re.M):
                # As GitHub makes them.
                found.add(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-"))
            anchors[page] = found
        if anchor not in anchors[page]:
            problems.append(f"{alert}: {page} has no #{anchor}")
    return problems, f"{len({url for _, url in urls})} places in the runbook"


def metrics(_):
    """Every metric of ours that a rule reads is one the code has."""
    recorded = {rule["record"] for _, rule in rules() if "record" in rule}
    # Names are given whole, or as what follows paystream_CRATE_ in the crate's metrics.rs.
    defined = set()
    for path in ROOT.glob("*/src/**/*.rs"):
        text = path.read_text()
        defined.update(re.findall(r'"(paystream_\w+)"', text))
        crate = path.relative_to(ROOT).parts[0].replace("-", "_")
        if path.name == "metrics.rs":
            defined.update(f"paystream_{crate}_{name}" for name in re.findall(r'"([a-z]\w*)"', text))
    problems = []
    used = set()
    for _, rule in rules():
        for name in re.findall(r"(?<![:\w])paystream_\w+(?![:\w])", rule["expr"]):
            used.add(name)
            if name not in defined and re.sub(r"_(bucket|sum|count)$", "", name) not in defined:
                problems.append(f"{rule.get('alert') or rule.get('record')}: no code has the metric {name}")
        for name in re.findall(r"\w+:\w+:\w+", rule["expr"]):
            if name not in recorded:
                problems.append(f"{rule.get('alert') or rule.get('record')}: nothing records {name}")
    return problems, f"{len(used)} metrics"


def main():
    aspect, secrets_dir = sys.argv[1:]
    problems, counted = globals()[aspect](secrets_dir)
    if problems:
        print("\n".join(dict.fromkeys(problems)))
        sys.exit(1)
    print(counted)


main()
