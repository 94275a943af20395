"""The report on the published sweep, and on one that is made up: every figure drawn, what spoils a cell named, nothing fetched."""

import csv
import json
import re
import tempfile
from pathlib import Path
from xml.etree import ElementTree

import draw
import look
import pictures
from cells import OUTCOMES, PARTS, TEXTS, Sweep

ROOT = Path(__file__).resolve().parent.parent
PUBLISHED = ROOT / "docs/experiments/2026-11-27/cells.csv"
NUMBERS = ["replicas", "repeat", "offered /s", "sent /s", "issued /s", "late", "unsent", "lock wait p99 ms", "latency p99 ms", "queue-jump p50 ms", "queue-jump p95 ms",
           "queue-jump max ms", "contests", "speed %", "processors", "lost updates"]


def sweep(change=lambda rows: rows, processors=2):
    """The published cells, changed, in a folder as a sweep leaves it."""
    with open(PUBLISHED, newline="") as file:
        rows = change(list(csv.DictReader(file)))
    with tempfile.TemporaryDirectory() as folder:
        with open(Path(folder) / "cells.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        machine = {"processors": processors, "model": "a machine", "kernel": "6.1", "commit": "abc"}
        (Path(folder) / "setting.json").write_text(json.dumps({"started": "2026-11-27T06:13:00Z", "machine": machine, "versions": []}))
        return Sweep(folder)


def clean(rows):
    """As a quiet machine would have measured them."""
    return [row | {"speed %": "97", "k6 CPU": "0.20", "dropped": "0"} for row in rows]


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
    published = sweep()
    counts = {"lock-wait": 48, "throughput": 72, "latency": 72, "overtaking": 20, "processors": 72 * 7, "answers": 72 * 6}
    found = pictures.all_of(published)
    assert {picture.name: picture.points for picture in found} == counts
    for picture in [*found, pictures.replicas(published)]:
        specification = picture.chart.to_dict()
        tree = ElementTree.fromstring(draw.both(svg(picture)))
        text = " ".join(tree.itertext())
        assert all(name in text for name in ("batched", "redlock")), picture.name
        assert "NaN" not in ElementTree.tostring(tree, "unicode") and "undefined" not in text, picture.name
        seen = {(value["strategy"], value["replicas"], value["shape"]) for value in drawn(specification) if "replicas" in value and "strategy" in value}
        assert len(seen) >= 20, picture.name


def test_a_cell_that_the_machine_spoiled_is_hollow_and_says_how():
    def spoil(rows):
        rows = clean(rows)
        rows[0] |= {"speed %": "89"}
        rows[1] |= {"k6 CPU": "0.51"}
        rows[2] |= {"offered /s": "1000", "dropped": "40"}
        # A sweep of today says what was sent, too.
        for row in rows:
            row["sent /s"] = row["offered /s"] and "999.5"
        rows[3] |= {"offered /s": "1000", "sent /s": "990"}
        return rows

    spoiled = sweep(spoil)
    assert spoiled.reasons() == {"processors below 90 % of their speed": 1, "load took over ¼ of the machine": 1, "offered rate not reached": 2}
    assert sum(bool(row["spoiled"]) for row in spoiled.rows) == 4
    hollow = re.findall(rf'<path [^>]*fill="{look.PAPER}"', svg(pictures.throughput(spoiled)))
    assert len(hollow) == 4
    page = draw.page(spoiled, pictures.all_of(spoiled))
    assert "offered rate not reached in 2 of 72 cells" in page
    assert not sweep(clean).reasons()


def test_repeats_are_a_median_between_the_least_and_the_most():
    def three(rows):
        return [row | {"repeat": str(n), "issued /s": str(n * 100)} for row in clean(rows) for n in (1, 5, 3)]

    points = sweep(three).points("issued /s")
    assert len(points) == 72 and all((point["low"], point["value"], point["high"], point["runs"]) == (100, 300, 500, 3) for point in points)


def test_answers_that_were_not_open_are_drawn():
    closed = sweep(lambda rows: [row | {"not open": "50"} for row in rows])
    pieces = [value for value in drawn(pictures.answers(closed).chart.to_dict()) if value.get("piece") == "not open"]
    assert len(pieces) == 72 and all(piece["value"] > 0 for piece in pieces)


def test_names_at_the_ends_of_lines_do_not_overlap():
    points = sweep().points("issued /s")
    for shape in ("hot", "many", "rush"):
        here = [point for point in points if point["shape"] == shape]
        scale = pictures.Scale.linear(points)
        heights = sorted(scale.height(end["value"]) for end in pictures.named_ends(here, scale))
        assert len(heights) == 6 and all(above - below > 12 for below, above in zip(heights, heights[1:])), shape


def test_the_page_fetches_nothing_and_has_every_cell():
    published = sweep()
    page = draw.page(published, pictures.all_of(published))
    assert "default-src 'none'" in page
    ours = page.replace(draw.vega(), "")
    assert not re.findall(r"""(?:src|href|action)\s*=|url\(|@import|\bimport\(|fetch\(""", ours)
    addresses = set(re.findall(r"https?://[\w./-]+", ours))
    assert all("/schema/vega-lite/" in address for address in addresses), addresses  # A name, not a place: nobody asks it.
    assert ours.count("<tr>") == 73 and ours.count("<figure>") == 6


def test_every_colour_has_one_for_the_night():
    published = sweep(clean)
    colours = {colour for colour, _ in look.STRATEGY.values()} | set(look.PARTS) | set(look.OUTCOMES.values())
    for picture in pictures.all_of(published):
        colours |= set(re.findall(r"#[0-9a-f]{6}", json.dumps(picture.chart.to_dict())))
    assert colours <= set(look.DARK), colours - set(look.DARK)
    assert len(PARTS) == len(look.PARTS) and set(OUTCOMES) < set(look.OUTCOMES)


def test_the_columns_that_are_drawn_are_those_that_a_sweep_writes():
    table = (ROOT / "lab/src/sweep/table.rs").read_text()
    written = re.search(r'format!\("(shape,.*)\\n"\)', table)[1].split(",") + re.findall(r'\("([^"]+)", \d, \|it', table)
    missing = {*PARTS, *OUTCOMES, *TEXTS, *NUMBERS} - set(written)
    assert not missing, missing


if __name__ == "__main__":
    for name, test in list(globals().items()):
        if name.startswith("test_"):
            test()
            print(f"ok  {name[5:].replace('_', ' ')}")
