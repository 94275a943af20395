"""The cells of a sweep as `lab sweep` writes them (cells.csv), what spoiled them, and what repeats of one place in the grid come to."""

import csv
import json
from collections import Counter, defaultdict
from pathlib import Path
from statistics import median

STRATEGIES = ["unlocked", "conditional", "optimistic", "pessimistic", "redlock", "batched"]
BALANCES = ["scattered", "home"]
SHAPES = ["few", "crowd", "rate", "codes", "contests"]
TEXTS = {"shape", "strategy", "balance", "promises", "commit", "started"}
# What tells one place in the grid from another.
PLACE = ("shape", "distance ms", "balance", "strategy", "replicas")

LOADER_MAX = 0.25     # of the machine: beyond it the load takes what the service would need
SPEED_MIN = 90        # % of the fastest that the sweep saw: below it the host has slowed the processors
IDLE_MIN = 0.05       # of the machine: below it replicas that have shares of their own have no use of them
SHORT_MAX = 0.001     # of the requests that were offered: so many may go after the window, and none never
CONTESTS_MIN = 20     # of fewer tiny coupons the 95th percentile is only the most that was seen


class Sweep:
    """One folder of a sweep: its cells, and the setting where it was kept."""

    def __init__(self, folder):
        self.folder = Path(folder)
        with open(self.folder / "cells.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        self.rows = [{name: read(name, text) for name, text in row.items()} | {"texts": row} for row in rows]
        setting = self.folder / "setting.json"
        self.setting = json.loads(setting.read_text()) if setting.exists() else {}
        machine = self.setting.get("machine", {}).get("processors")
        for row in self.rows:
            row["processors"] = row["processors"] or machine
            row["spoiled"] = spoiled(row)
        self.rows.sort(key=place)
        self.replicas, self.distances = (sorted({row[name] for row in self.rows}) for name in ("replicas", "distance ms"))
        self.balances, self.shapes, self.strategies = (
            [value for value in values if any(row[name] == value for row in self.rows)]
            for name, values in (("balance", BALANCES), ("shape", SHAPES), ("strategy", STRATEGIES)))

    def reasons(self):
        """What spoiled cells, and how many."""
        return Counter(reason for row in self.rows for reason in row["spoiled"])

    def offered(self):
        """Requests a second of the open model; None where no cell had it."""
        return next((row["offered /s"] for row in self.rows if row["shape"] == "rate"), None)

    def share(self):
        """Of the processors, for each replica; None where they share the machine."""
        return next((row["share"] for row in self.rows if row.get("share")), None)

    def points(self, column):
        """Of every place in the grid where the column has a figure: median, least and most over the repeats."""
        return [point for cells in self.places() if (point := of_repeats(cells, column))]

    def places(self):
        """The cells of each place that did not fail. With one replica there is nothing to scatter, so its cell stands for every balance."""
        groups = defaultdict(list)
        for row in (row for row in self.rows if not failed(row)):
            for balance in self.balances if row["replicas"] == 1 else [row["balance"]]:
                groups[tuple(row[name] for name in PLACE if name != "balance") + (balance,)].append(row | {"balance": balance})
        return groups.values()

    def jumps(self):
        """Queue-jump of the tiny coupons."""
        found = []
        for cells in self.places():
            cells = [row for row in cells if (row["contests"] or 0) >= CONTESTS_MIN]
            if point := of_repeats(cells, "queue-jump p95 ms"):
                half, most = (column(cells, f"queue-jump {name} ms") for name in ("p50", "max"))
                found.append(point | {"p50": median(half), "most": max(most), "contests": sum(row["contests"] for row in cells)})
        return found


def place(row):
    return SHAPES.index(row["shape"]), row["distance ms"], row["balance"], STRATEGIES.index(row["strategy"]), row["replicas"], row["repeat"]


def read(name, text):
    """Numbers as numbers; an empty field was not measured."""
    if name in TEXTS:
        return text
    return None if text == "" else int(text) if text.lstrip("-").isdigit() else float(text)


def column(cells, name):
    return [row[name] for row in cells if row[name] is not None]


def of_repeats(cells, name):
    values = column(cells, name)
    if not values:
        return None
    reasons = sorted({reason for row in cells for reason in row["spoiled"]})
    first = {key.removesuffix(" ms"): cells[0][key] for key in PLACE}
    return first | {"value": median(values), "low": min(values), "high": max(values), "runs": len(values), "spoiled": bool(reasons),
                    "why": "; ".join(reasons) or "no"}


# What a strategy did in a cell that has no figure.
FAILURES = {
    "went on without its lock": lambda row: row["bypassed"],
    "broke a promise": lambda row: row["promises"] == "BROKEN",
    "answered nobody": lambda row: row["answered /s"] == 0,
}


def failed(row):
    return [f"failed, for it {what}" for what, did in FAILURES.items() if did(row)]


def spoiled(row):
    """Why this cell's figures are not those of its strategy: the machine made them, the load was not answered as it should, or it failed."""
    reasons = []
    if row["processors"] and (row["loader CPU"] or 0) > LOADER_MAX * row["processors"]:
        reasons.append("load took over ¼ of the machine")
    if row["speed %"] is not None and row["speed %"] < SPEED_MIN:
        reasons.append(f"processors below {SPEED_MIN} % of their speed")
    if row.get("share") and sum(row[part] or 0 for part in row if part.endswith(" CPU")) > (1 - IDLE_MIN) * row["processors"]:
        reasons.append("the machine had nothing left to give")
    if row["offered /s"] and (row["unsent"] or row["sent /s"] < (1 - SHORT_MAX) * row["offered /s"]):
        reasons.append("offered rate not reached")
    if row["unexpected"]:
        reasons.append("requests without an answer that was expected")
    return reasons + failed(row)
