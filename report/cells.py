"""The cells of a sweep as `lab sweep` writes them (cells.csv), what spoiled them, and what repeats of one place in the grid come to."""

import csv
import json
from collections import Counter, defaultdict
from pathlib import Path
from statistics import median

STRATEGIES = ["unlocked", "conditional", "optimistic", "pessimistic", "redlock", "batched"]
SHAPES = {"hot": "one hot coupon", "many": "32 coupons", "rush": "the rush"}
# Processors in use, in the order of a request's way: the column, and what the picture calls it.
PARTS = {"loader CPU": "loader", "nginx CPU": "nginx", "replicas CPU": "replicas", "database CPU": "database", "Redis CPU": "Redis",
         "watching CPU": "watching", "others CPU": "others", "host CPU": "taken by the host"}
OUTCOMES = ["issued", "replayed", "already issued", "sold out", "not open", "busy", "unexpected"]
TEXTS = {"shape", "strategy", "promises", "commit", "started"}
# What columns were called in the sweeps until 2026-11-27, whose load was k6.
FORMERLY = {"k6 CPU": "loader CPU", "dropped": "unsent", "fairness rounds": "contests"}

LOADER_MAX = 0.25     # of the machine: beyond it the load takes what the service would need
SPEED_MIN = 90        # % of the fastest that the sweep saw: below it the host has slowed the processors
SHORT_MAX = 0.001     # of the requests that were offered: so many may go after the window, and none never
CONTESTS_MIN = 20     # of fewer tiny coupons the 95th percentile is only the most that was seen


class Sweep:
    """One folder of a sweep: its cells, and the setting where it was kept."""

    def __init__(self, folder):
        self.folder = Path(folder)
        with open(self.folder / "cells.csv", newline="") as file:
            rows = [{FORMERLY.get(name, name): text for name, text in row.items()} for row in csv.DictReader(file)]
        self.rows = [{name: read(name, text) for name, text in row.items()} | {"texts": row} for row in rows]
        setting = self.folder / "setting.json"
        self.setting = json.loads(setting.read_text()) if setting.exists() else {}
        machine = self.setting.get("machine", {}).get("processors")
        for row in self.rows:
            row["processors"] = row.get("processors") or machine
            row["spoiled"] = spoiled(row)
        self.rows.sort(key=lambda row: (list(SHAPES).index(row["shape"]), STRATEGIES.index(row["strategy"]), row["replicas"], row["repeat"]))
        self.replicas = sorted({row["replicas"] for row in self.rows})
        self.shapes = [shape for shape in SHAPES if any(row["shape"] == shape for row in self.rows)]
        self.strategies = [name for name in STRATEGIES if any(row["strategy"] == name for row in self.rows)]

    def reasons(self):
        """What spoiled cells, and how many."""
        return Counter(reason for row in self.rows for reason in row["spoiled"])

    def points(self, column):
        """Of every place in the grid where the column has a figure: median, least and most over the repeats."""
        return [point for cells in self.places("shape", "strategy", "replicas") if (point := of_repeats(cells, column))]

    def places(self, *names):
        groups = defaultdict(list)
        for row in self.rows:
            groups[tuple(row[name] for name in names)].append(row)
        return groups.values()

    def pieces(self, columns):
        """The median of each column at every place, one piece of a bar each; a column that nobody counted is left out."""
        found = []
        for cells in self.places("shape", "strategy", "replicas"):
            for place, (column, name) in enumerate(columns.items()):
                if point := of_repeats(cells, column):
                    found.append(point | {"piece": name, "place": place})
        return found

    def jumps(self):
        """Queue-jump by strategy and number of replicas: the contests are the same after every shape, so shapes are repeats here."""
        found = []
        for cells in self.places("strategy", "replicas"):
            cells = [row for row in cells if (row["contests"] or 0) >= CONTESTS_MIN]
            if point := of_repeats(cells, "queue-jump p95 ms"):
                half, most = (column(cells, f"queue-jump {name} ms") for name in ("p50", "max"))
                found.append(point | {"p50": median(half), "most": max(most), "contests": sum(row["contests"] for row in cells)})
        return found


def read(name, text):
    """Numbers as numbers; an empty field was not measured."""
    if name in TEXTS:
        return text
    return None if text == "" else int(text) if text.lstrip("-").isdigit() else float(text)


def column(cells, name):
    return [row[name] for row in cells if row.get(name) is not None]


def of_repeats(cells, name):
    values = column(cells, name)
    if not values:
        return None
    reasons = sorted({reason for row in cells for reason in row["spoiled"]})
    first = {key: cells[0][key] for key in ("shape", "strategy", "replicas")}
    return first | {"value": median(values), "low": min(values), "high": max(values), "runs": len(values), "spoiled": bool(reasons),
                    "why": "; ".join(reasons) or "no"}


def spoiled(row):
    """Why the machine, not the service, made this cell's figures."""
    reasons = []
    if row["processors"] and (row.get("loader CPU") or 0) > LOADER_MAX * row["processors"]:
        reasons.append("load took over ¼ of the machine")
    if row["speed %"] is not None and row["speed %"] < SPEED_MIN:
        reasons.append(f"processors below {SPEED_MIN} % of their speed")
    if row["offered /s"] and (row["unsent"] or row.get("sent /s", row["offered /s"]) < (1 - SHORT_MAX) * row["offered /s"]):
        reasons.append("offered rate not reached")
    return reasons
