"""Draws what `lab sweep` measured: `make report FOLDER=results/…` writes report.html and pictures/ into that folder.

report.html is one file that asks for nothing else. With `--only NAME --into FOLDER` one SVG is written elsewhere, for a document."""

import argparse
import functools
import json
import sys
from pathlib import Path

import jinja2
import vl_convert

import pictures
from cells import Sweep
from look import DARK, PAPER, both, dark

HERE = Path(__file__).parent


@functools.cache
def vega():
    """Vega in one script, which takes seconds to put together."""
    return vl_convert.javascript_bundle()


def specification(picture, **changes):
    return json.dumps(picture.chart.to_dict() | changes)


def titled(picture, **changes):
    return specification(picture, title={"text": picture.title, "fontSize": 16, "offset": 18}, **changes)


def write_svg(picture, folder):
    """For both themes in one file."""
    folder.mkdir(parents=True, exist_ok=True)
    svg = vl_convert.vegalite_to_svg(titled(picture), config={"aria": False})
    (folder / f"{picture.name}.svg").write_text(both(svg) + "\n")


def write_pngs(picture, folder):
    """One for each theme."""
    day = titled(picture, background=PAPER)
    for name, text in ((picture.name, day), (f"{picture.name}-dark", dark(day))):
        (folder / f"{name}.png").write_bytes(vl_convert.vegalite_to_png(text, scale=2))


def page(sweep, drawn):
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined,
                                     trim_blocks=True, lstrip_blocks=True)
    columns = list(sweep.rows[0]["texts"])
    return environment.get_template("page.html").render(
        sweep=sweep, columns=columns, drawn=drawn, vega=vega(), dark=DARK,
        specifications=[picture.chart.to_dict() for picture in drawn])


def main():
    parser = argparse.ArgumentParser(description="Draw what a sweep measured.")
    parser.add_argument("folder", type=Path, help="the folder of the sweep, which holds cells.csv")
    parser.add_argument("--only", metavar="NAME", help="write this picture alone, as SVG")
    parser.add_argument("--into", type=Path, metavar="FOLDER", help="write there instead")
    arguments = parser.parse_args()
    if not (arguments.folder / "cells.csv").exists():
        sys.exit(f"report: {arguments.folder} holds no cells.csv of a sweep")
    if "balance" not in (arguments.folder / "cells.csv").read_text().partition("\n")[0]:
        sys.exit(f"report: {arguments.folder} holds the cells of an older sweep: the laboratory of its commit draws them")
    sweep, into = Sweep(arguments.folder), arguments.into or arguments.folder
    if not sweep.rows:
        sys.exit(f"report: no cell of {arguments.folder} is measured yet")
    drawn = pictures.all_of(sweep)
    every = [picture for picture in [*drawn, pictures.replicas(sweep), pictures.shares(sweep)] if picture.points]
    if arguments.only:
        wanted = [picture for picture in every if picture.name == arguments.only]
        if not wanted:
            sys.exit(f"report: there is no picture {arguments.only}")
        write_svg(wanted[0], into)
        return
    for picture in every:
        write_svg(picture, into / "pictures")
        write_pngs(picture, into / "pictures")
    (into / "report.html").write_text(page(sweep, drawn))
    print(f"{len(sweep.rows)} cells drawn: {into / 'report.html'}")


if __name__ == "__main__":
    main()
