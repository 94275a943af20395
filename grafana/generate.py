#!/usr/bin/env python3
"""Writes Grafana's dashboards into grafana/dashboards/. With --check nothing is written: a difference is an error."""

import json
import sys
from pathlib import Path

sys.dont_write_bytecode = True

import board_k6
import board_scale
import board_servers
import board_service
from grafana_foundation_sdk.cog.encoder import JSONEncoder

FOLDER = Path(__file__).resolve().parent / "dashboards"
BOARDS = {"scale-overview": board_scale, "service-and-lock": board_service, "servers": board_servers, "k6-run": board_k6}


def text(module) -> str:
    """A board as JSON. The panels get their ids here, in order, so that a board's diff shows what was meant and no more."""
    board = json.loads(json.dumps(module.build().build(), cls=JSONEncoder))
    for number, panel in enumerate(board["panels"], start=1):
        panel["id"] = number
    for annotation in board.get("annotations", {}).get("list", []):
        # The SDK does not know these keys of a Prometheus annotation yet.
        annotation.update(step="2s", titleFormat="Replicas changed", textFormat="")
    return json.dumps(board, indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    check = sys.argv[1:] == ["--check"]
    wrong = []
    for name, module in BOARDS.items():
        path = FOLDER / f"{name}.json"
        wanted = text(module)
        if check and (not path.exists() or path.read_text() != wanted):
            wrong.append(path.name)
        elif not check:
            path.write_text(wanted)
    wrong += [path.name for path in FOLDER.glob("*.json") if path.stem not in BOARDS]
    if wrong:
        print(f"{', '.join(wrong)} in {FOLDER.name}/ is not what grafana/generate.py makes: run `make dashboards`", file=sys.stderr)
        return 1
    print(f"{len(BOARDS)} dashboards are {'up to date' if check else 'written'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
