#!/usr/bin/env python3
"""Proves the dashboards on a running cluster: sends a rush and asks its Prometheus for every panel.

Every metric must be one that a target really serves, and every expression must answer with numbers; `may-be-empty.txt` lists
the exceptions. The cluster is that of CLUSTER_DIR, and it gets a new round. VUS and DURATION change the rush.
"""

import json
import math
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

sys.dont_write_bytecode = True

import lint

HOME = lint.ROOT / os.environ.get("CLUSTER_DIR", ".cluster")
EXCEPTIONS = Path(__file__).resolve().parent / "may-be-empty.txt"
# Prometheus and k6 make these themselves.
BUILT_IN = {"up", "scrape_duration_seconds"}


def main() -> int:
    prometheus = address()
    if prometheus is None:
        print(f"dashboards-check: no cluster with a Prometheus runs in {HOME.name}: run `make up`", file=sys.stderr)
        return 1
    if not watched(prometheus):
        print("dashboards-check: Prometheus does not see every replica: look at `make status`", file=sys.stderr)
        return 1
    start = time.time()
    if rush() != 0:
        print("dashboards-check: the rush failed, so there is nothing to look at: try `make rush`", file=sys.stderr)
        return 1
    time.sleep(4)  # The last scrape and the last remote write.
    known = served(prometheus) | pushed(prometheus, start) | BUILT_IN
    complaints, counted = [], 0
    for path in sorted(lint.FOLDER.glob("*.json")):
        board = json.loads(path.read_text())
        for place, expression in lint.expressions(board):
            counted += 1
            complaints += [f"{path.name}: {place}: {text}" for text in judge(prometheus, path.name, place, expression, known, start)]
    complaints += broken_rules(prometheus)
    print("\n".join(complaints) or f"{counted} expressions answered with numbers under load")
    return 1 if complaints else 0


def address():
    """Where Prometheus is, or None."""
    record = HOME / "cluster.json"
    found = record.exists() and json.loads(record.read_text())["prometheus"]
    return found["url"] if found else None


def watched(prometheus, seconds=30) -> bool:
    """Whether every replica was scraped twice; just after `make up` what the rush issues would be in the first sample already."""
    replicas = len(json.loads((HOME / "cluster.json").read_text())["replicas"])
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        seen = ask(prometheus, "query", {"query": 'count(count_over_time(up{job="coupon"}[10s]) >= 2)'})[1]["data"]["result"]
        if seen and int(seen[0]["value"][1]) >= replicas:
            return True
        time.sleep(0.5)
    return False


def rush() -> int:
    """A crowd for as long as a curve needs; its own verdict counts, too."""
    environment = {"VUS": "40", "DURATION": "20s", **os.environ}
    return subprocess.run([lint.ROOT / "local" / "k6", "rush"], env=environment, stdout=subprocess.DEVNULL).returncode


def judge(prometheus, board, place, expression, known, start):
    missing = sorted(name for name in lint.metrics(expression) if name not in known)
    if missing:
        if not excused(board, place):
            yield f"no target serves {', '.join(missing)}"
        return
    window = {"query": lint.concrete(expression), "start": start, "end": time.time(), "step": 2}
    status, answer = ask(prometheus, "query_range", window)
    if status != 200:
        yield f"Prometheus refuses it: {answer.get('error')}"
    elif not has_numbers(answer["data"]["result"]) and not excused(board, place):
        yield f"empty under load: {window['query']}"


def has_numbers(series) -> bool:
    return any(not math.isnan(float(value)) for one in series for _, value in one["values"])


def excused(board: str, place: str) -> bool:
    """Annotations mark events, and a rush has none; panels are excused by name and with a reason."""
    if place.startswith("annotation"):
        return True
    lines = [line for line in EXCEPTIONS.read_text().splitlines() if line and not line.startswith("#")]
    for line in lines:
        name, panel, reason = (part.strip() for part in line.split("|", 2))
        if reason and name == board and place.startswith(f"{panel!r} "):
            return True
    return False


def served(prometheus) -> set:
    """The names in the /metrics of every live target: asked there, because Prometheus remembers old names."""
    names = set()
    for target in ask(prometheus, "targets", {"state": "active"})[1]["data"]["activeTargets"]:
        with urllib.request.urlopen(target["scrapeUrl"], timeout=10) as answer:
            names |= set(re.findall(r"^([a-zA-Z_:][\w:]*)[{ ]", answer.read().decode(), re.MULTILINE))
    return names


def pushed(prometheus, start) -> set:
    names = ask(prometheus, "label/__name__/values", {"start": start, "end": time.time()})[1]["data"]
    # k6 makes this one when the first iteration is dropped.
    return {name for name in names if name.startswith("k6_")} | {"k6_dropped_iterations_total"}


def broken_rules(prometheus) -> list:
    groups = ask(prometheus, "rules", {})[1]["data"]["groups"]
    return [f"rule {rule['name']}: {rule.get('lastError')}" for group in groups for rule in group["rules"] if rule["health"] == "err"]


def ask(prometheus, call, parameters):
    try:
        with urllib.request.urlopen(f"{prometheus}/api/v1/{call}?{urllib.parse.urlencode(parameters)}", timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


if __name__ == "__main__":
    sys.exit(main())
