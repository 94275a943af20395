"""The report on a sweep that is made up: every figure drawn, what spoils a cell named, nothing fetched."""

import csv
import json
import re
import tempfile
from itertools import product
from pathlib import Path
from xml.etree import ElementTree

import draw
import look
import pictures
from cells import BALANCES, SHAPES, STRATEGIES, TEXTS, Sweep

ROOT = Path(__file__).resolve().parent.parent
WRITTEN = (ROOT / "lab/src/sweep/table.rs").read_text()
NAMED, ENDS = re.search(r'format!\(\s*"(shape,.*),\{numbers\},(.*)\\n"\s*\)', WRITTEN).groups()
COLUMNS = NAMED.split(",") + re.findall(r'\("([^"]+)", \d, \|it', WRITTEN) + ENDS.split(",")
# What a quiet machine finds; the rest of the columns is empty.
QUIET = {"issued /s": 900, "latency p99 ms": 20, "loader CPU": 0.2, "processors": 2, "speed %": 97, "bypassed": 0, "lost updates": 0,
         "promises": "kept", "commit": "abc", "started": "2026-11-29T06:13:00Z"}
GRID = 6 * (1 + 3 * 2) * 2  # Cells of one shape, and its places: one replica has one cell and two places.
PLACES = 6 * 4 * 2 * 2


def cell(number, shape, strategy, replicas, balance, distance):
    row = dict.fromkeys(COLUMNS, "") | QUIET | {"shape": shape, "strategy": strategy, "replicas": replicas, "balance": balance, "distance ms": distance, "repeat": 1}
    row |= {"issued /s": 100 + number, "latency p99 ms": 1 + number / 7}
    if strategy not in ("unlocked", "optimistic"):
        row["lock wait p99 ms"] = 1 + number / 9
    if shape in ("rate", "contests"):
        row |= {"offered /s": 1000, "sent /s": 999.5, "unsent": 0, "late": 3}
    if shape == "contests":
        row |= {"queue-jump p50 ms": 0, "queue-jump p95 ms": number % 40, "queue-jump max ms": 40, "contests": 100}
    return row


def cells():
    """Every cell of a full sweep and of one of contests."""
    found = product(SHAPES, STRATEGIES, (1, 2, 4, 8), BALANCES, (0, 1))
    return [cell(number, *place) for number, place in enumerate(found) if place[2] > 1 or place[3] == "home"]


def sweep(change=lambda rows: rows):
    """The cells, changed, in a folder as a sweep leaves it."""
    rows = change(cells())
    with tempfile.TemporaryDirectory() as folder:
        with open(Path(folder) / "cells.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
        machine = {"processors": 2, "model": "a machine", "kernel": "6.1", "commit": "abc"}
        (Path(folder) / "setting.json").write_text(json.dumps({"started": "2026-11-29T06:13:00Z", "machine": machine, "versions": []}))
        return Sweep(folder)


def drawn(node):
    """Every value that a specification draws, wherever it stands in it."""
    if isinstance(node, list):
        return [value for child in node for value in drawn(child)]
    if not isinstance(node, dict):
        return []
    here = node["data"].get("values", []) if isinstance(node.get("data"), dict) else []
    return here + [value for name, child in node.items() if name != "data" for value in drawn(child)]


def svg(picture):
    return draw.vl_convert.vegalite_to_svg(draw.specification(picture))


def test_every_picture_has_its_points():
    made_up = sweep()
    counts = {"lock-wait": 4 * PLACES * 4 // 6, "throughput": 4 * PLACES, "latency": 4 * PLACES, "overtaking": PLACES}
    found = pictures.all_of(made_up)
    assert {picture.name: picture.points for picture in found} == counts
    for picture in [*found, pictures.replicas(made_up)]:
        tree = ElementTree.fromstring(draw.both(svg(picture)))
        text = " ".join(tree.itertext())
        assert all(name in text for name in ("batched", "redlock")), picture.name
        assert "NaN" not in ElementTree.tostring(tree, "unicode") and "undefined" not in text, picture.name
        places = {tuple(value[name] for name in ("shape", "distance", "balance", "strategy", "replicas", "value")) for value in drawn(picture.chart.to_dict())
                  if "distance" in value and "name" not in value}
        assert len(places) == picture.points, picture.name


def test_the_cell_of_one_replica_stands_for_both_balances():
    alone = [point for point in sweep().points("issued /s") if point["replicas"] == 1 and point["strategy"] == "batched" and point["shape"] == "few"]
    assert sorted((point["distance"], point["balance"]) for point in alone) == [(0, "home"), (0, "scattered"), (1, "home"), (1, "scattered")]
    assert len({point["value"] for point in alone}) == 2


def test_a_cell_that_is_spoiled_is_hollow_and_one_that_failed_is_missing_and_each_says_how():
    hollow = [{"speed %": 89}, {"loader CPU": 0.51}, {"unsent": 40}, {"sent /s": 990}, {"unexpected": 1}]
    missing = [{"bypassed": 3}, {"promises": "BROKEN"}, {"answered /s": 0}]

    def spoil(rows):
        # Of two replicas, so that each has one mark.
        rows_of_two = [row for row in rows if row["replicas"] == 2 and row["shape"] == "rate"]
        for row, change in zip(rows_of_two, [*hollow, *missing]):
            row |= change
        return rows

    found = sweep(spoil)
    failed = [f"failed, for it {what}" for what in ("went on without its lock", "broke a promise", "answered nobody")]
    assert found.reasons() == {"processors below 90 % of their speed": 1, "load took over ¼ of the machine": 1, "offered rate not reached": 2,
                               "requests without an answer that was expected": 1, **dict.fromkeys(failed, 1)}
    marks = re.findall(rf'<path [^>]*fill="{look.PAPER}"', svg(pictures.throughput(found)))
    assert len(marks) == len(hollow) and pictures.throughput(found).points == 4 * PLACES - len(missing)
    page = draw.page(found, pictures.all_of(found))
    assert all(f"{reason} in 1 of {len(found.rows)} cells" in page for reason in failed)
    assert not sweep().reasons()


def test_repeats_are_a_median_between_the_least_and_the_most():
    def three(rows):
        return [row | {"repeat": n, "issued /s": n * 100} for row in rows for n in (1, 5, 3)]

    points = sweep(three).points("issued /s")
    assert len(points) == 5 * PLACES and all((point["low"], point["value"], point["high"], point["runs"]) == (100, 300, 500, 3) for point in points)


def test_only_replicas_with_shares_of_their_own_show_when_one_more_helps():
    def shared(rows):
        return [row | {"share": 0.1, "Redis CPU": 1.75 if row["replicas"] == 8 else 0.1} for row in rows if row["shape"] in ("codes", "crowd")]

    found = sweep(shared)
    picture = pictures.shares(found)
    assert picture.points == 2 * PLACES and "0.1 of a processor" in picture.caption
    assert ElementTree.fromstring(draw.both(svg(picture)))
    assert found.reasons() == {"the machine had nothing left to give": len([row for row in found.rows if row["replicas"] == 8])}
    assert not pictures.shares(sweep()).points


def test_a_part_of_the_grid_is_drawn_too():
    few = sweep(lambda rows: [row for row in rows if row["shape"] == "few" and row["balance"] == "home" and row["distance ms"] == 0])
    assert {picture.name for picture in pictures.all_of(few)} == {"lock-wait", "throughput", "latency"}
    assert all(svg(picture) for picture in [*pictures.all_of(few), pictures.replicas(few)])
    contests = sweep(lambda rows: [row for row in rows if row["shape"] == "contests"])
    assert [picture.name for picture in pictures.all_of(contests)] == ["overtaking"]


def test_names_at_the_ends_of_lines_do_not_overlap_and_lines_that_end_together_share_one():
    def part(rows):
        return [row | {"issued /s": 30} if (row["strategy"], row["balance"]) == ("batched", "scattered") else row for row in rows]

    points = [point for point in sweep(part).points("issued /s") if point["shape"] == "few" and point["distance"] == 1]
    scale = pictures.Scale.linear(points)
    ends = pictures.named_ends(points, scale)
    heights = sorted(scale.height(end["value"]) for end in ends)
    assert {end["name"] for end in ends} == {*STRATEGIES} - {"batched"} | {"batched, home", "batched, scattered"}
    assert all(above - below > 12 for below, above in zip(heights, heights[1:]))


def test_the_page_fetches_nothing_and_has_every_cell():
    made_up = sweep()
    page = draw.page(made_up, pictures.all_of(made_up))
    assert "default-src 'none'" in page
    ours = page.replace(draw.vega(), "")
    assert not re.findall(r"""(?:src|href|action)\s*=|url\(|@import|\bimport\(|fetch\(""", ours)
    addresses = set(re.findall(r"https?://[\w./-]+", ours))
    assert all("/schema/vega-lite/" in address for address in addresses), addresses  # A name, not a place: nobody asks it.
    assert ours.count("<tr>") == 5 * GRID + 1 and ours.count("<figure>") == 4


def test_every_colour_has_one_for_the_night():
    made_up = sweep()
    colours = {colour for colour, _ in look.STRATEGY.values()}
    for picture in [*pictures.all_of(made_up), pictures.replicas(made_up)]:
        colours |= set(re.findall(r"#[0-9a-f]{6}", json.dumps(picture.chart.to_dict())))
    assert colours <= set(look.DARK), colours - set(look.DARK)


def test_texts_are_columns_that_a_sweep_writes():
    assert TEXTS <= set(COLUMNS), TEXTS - set(COLUMNS)


if __name__ == "__main__":
    for name, test in list(globals().items()):
        if name.startswith("test_"):
            test()
            print(f"ok  {name[5:].replace('_', ' ')}")
