#!/usr/bin/env python3
"""Judges the dashboards without a cluster: the rules of Grafana's dashboard-linter and a few of our own.

Expressions are parsed by promtool, as rules of a file that is thrown away.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

sys.dont_write_bytecode = True

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "grafana" / "dashboards"
UNITS = {"s", "reqps", "ops", "percentunit", "short", "bytes", "Bps"}
KINDS = {"row", "timeseries", "stat", "heatmap"}
# Every expression selects by one of these.
MATCHERS = ("job=", "testid=~")
# `$__range` is the whole time shown: right for a sum over it, wrong for a curve.
WINDOWS = {"timeseries": {"$__rate_interval"}, "heatmap": {"$__rate_interval"}, "stat": {"$__rate_interval", "$__range"}}
SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\{([^}]*)\}")


def main() -> int:
    boards = {path.name: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
    complaints = [f"{name}: {text}" for name, board in boards.items() for text in (*of_board(board), *of_panels(board))]
    complaints += unique(boards) + unparsable(boards) + undocumented(boards) + without_runbook()
    print("\n".join(complaints) or f"{len(boards)} dashboards with {sum(len(panels(board)) for board in boards.values())} panels are in order")
    return 1 if complaints else 0


def panels(board: dict) -> list:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def expressions(board: dict):
    """Every expression of a board with the name of its place."""
    for panel in panels(board):
        for target in panel["targets"]:
            yield f"{panel['title']!r} {target['refId']}", target["expr"]
    for annotation in board.get("annotations", {}).get("list", []):
        yield f"annotation {annotation['name']!r}", annotation["expr"]


def concrete(expression: str) -> str:
    """The expression with its variables filled in, each at its widest."""
    expression = expression.replace("$__rate_interval", "15s").replace("$__range", "5m")
    return re.sub(r"\$(job|instance|testid)\b", ".+", expression)


def metrics(expression: str) -> set:
    return {name for name, _ in SELECTOR.findall(expression)}


def of_board(board: dict):
    variables = {variable["name"] for variable in board["templating"]["list"]}
    if "datasource" not in variables:
        yield "has no variable `datasource`"
    for name in ("uid", "title", "description"):
        if not board.get(name):
            yield f"has no {name}"
    if board.get("editable", True):
        yield "can be edited, though the file is the truth"
    for place, expression in expressions(board):
        unknown = set(re.findall(r"\$(\w+)", expression)) - variables - {"__rate_interval", "__range"}
        if unknown:
            yield f"{place}: unknown variable {', '.join(sorted(unknown))}"


def of_panels(board: dict):
    ids = [panel["id"] for panel in board["panels"]]
    if len(set(ids)) != len(ids):
        yield "two panels have one id"
    yield from overlaps(board)
    for panel in board["panels"]:
        if panel["type"] not in KINDS:
            yield f"{panel['title']!r}: /lab/ cannot draw a {panel['type']}"
    for panel in panels(board):
        title = panel.get("title")
        if not title or not panel.get("description", "").endswith("."):
            yield f"{title!r}: needs a title and a description in whole sentences"
        if panel["fieldConfig"]["defaults"].get("unit") not in UNITS:
            yield f"{title!r}: unit {panel['fieldConfig']['defaults'].get('unit')!r} is none of {', '.join(sorted(UNITS))}"
        if panel.get("datasource", {}).get("uid") != "${datasource}" or not panel.get("targets"):
            yield f"{title!r}: needs targets, and the variable as its data source"
        for target in panel["targets"]:
            yield from (f"{title!r} {target['refId']}: {text}" for text in of_target(panel, target))


def of_target(panel: dict, target: dict):
    expression = target["expr"]
    for window in re.findall(r"\[([^\]]+)\]", expression):
        if window not in WINDOWS[panel["type"]]:
            yield f"the window is {window}, not $__rate_interval"
    for name, labels in SELECTOR.findall(expression):
        if not any(re.search(rf"(^|[ ,]){re.escape(matcher)}", labels) for matcher in MATCHERS):
            yield f"{name} is selected without a job or run"
        # k6's counters begin with their run; counting the series of a counter is no use of its value.
        if name.endswith("_total") and not re.search(rf"\b(rate|increase|count)\({name}\{{", expression) and not name.startswith("k6_"):
            yield f"{name} is a counter: take its rate or increase"
    if panel["type"] == "heatmap" and target.get("format") != "heatmap":
        yield "a heatmap needs the format `heatmap`"


def overlaps(board: dict):
    taken = {}
    for panel in board["panels"]:
        place = panel["gridPos"]
        if place["x"] + place["w"] > 24:
            yield f"{panel['title']!r} is wider than the board"
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                if (x, y) in taken:
                    yield f"{panel['title']!r} lies over {taken[x, y]!r}"
                    return
                taken[x, y] = panel["title"]


def unique(boards: dict) -> list:
    names = [board["uid"] for board in boards.values()]
    return ["two boards have one uid"] if len(set(names)) != len(names) else []


def unparsable(boards: dict) -> list:
    found = []
    for name, board in boards.items():
        places = list(expressions(board))
        rules = [{"record": f"lint:{number}", "expr": concrete(text)} for number, (_, text) in enumerate(places)]
        with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
            json.dump({"groups": [{"name": "lint", "rules": rules}]}, file)  # JSON is YAML, too.
            file.flush()
            done = subprocess.run(["promtool", "check", "rules", file.name], capture_output=True, text=True)
        if done.returncode:
            said = re.sub(r'"lint:(\d+)"', lambda match: places[int(match[1])][0], done.stderr)
            found.append(f"{name}: {said.strip()}")
    return found


def undocumented(boards: dict) -> list:
    """The service's own metrics are a contract, and docs/METRICS.md is its text."""
    documented = set(re.findall(r"^\| `(\w+)`", (ROOT / "docs" / "METRICS.md").read_text(), re.MULTILINE))
    found = []
    for name, board in boards.items():
        for place, expression in expressions(board):
            for metric in sorted(metrics(expression)):
                if metric.startswith(("coupon_", "http_")) and family(metric) not in documented:
                    found.append(f"{name}: {place}: {metric} is not in docs/METRICS.md")
    return found


def without_runbook() -> list:
    """Every alert names a place in docs/OPERATIONS.md, and the place exists."""
    rules = (ROOT / "prometheus" / "rules" / "alerts.yml").read_text()
    titles = re.findall(r"^#+ (.+)$", (ROOT / "docs" / "OPERATIONS.md").read_text(), re.MULTILINE)
    headings = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    found = []
    for alert, text in re.findall(r"- alert: (\w+)\n(.*?)(?=- alert:|- name:|\Z)", rules, re.DOTALL):
        anchor = re.search(r"runbook_url: docs/OPERATIONS\.md#(\S+)", text)
        if not anchor or "summary:" not in text:
            found.append(f"alerts.yml: {alert} needs a summary and a runbook_url")
        elif anchor[1] not in headings:
            found.append(f"alerts.yml: {alert}: docs/OPERATIONS.md has no heading for #{anchor[1]}")
    return found


def family(metric: str) -> str:
    return re.sub(r"_(bucket|sum|count)$", "", metric)


if __name__ == "__main__":
    sys.exit(main())
