"""The laboratory's long commands, each on a cluster of its own: interrupted, they leave nothing; wrong knobs are named."""

import json
import subprocess

import psutil

from script import ROOT
from story import LAB, OFFSET, eventually, interrupted, lab, must, refused, refused_in_one_line, said_by

TWO_CELLS = "--replicas 2 --strategies batched --balances home --distances 0 --shapes few,rate --seconds 1 --rate 100".split()


def test_a_sweep_that_was_interrupted_goes_on_where_it_stopped(tmp_path):
    command, cells = [LAB, "sweep", "--port-offset", str(OFFSET + 1000)], tmp_path / "cells"
    done = lambda: {path: path.stat().st_mtime_ns for path in cells.glob("*/cell.json")}
    with interrupted([*command, *TWO_CELLS, "--into", tmp_path]) as sweep:
        eventually(lambda: done() or sweep.poll() is not None, 60)
    first = done()
    assert (sweep.returncode, len(first)) == (130, 1), sweep.said
    assert not (ROOT / ".cluster" / f"sweep-{OFFSET + 1000}" / "cluster.json").exists()
    must(lab("sweep", "--resume", tmp_path, "--dry-run"))
    must(said_by([*command, "--resume", tmp_path]))
    assert len(done()) == 2 and first.items() <= done().items()
    assert len((tmp_path / "cells.csv").read_text().splitlines()) == 3 and len(json.loads((tmp_path / "cells.json").read_text())) == 2


def test_wrong_knobs_of_a_sweep_are_named():
    refused(lab("sweep", "--dry-run", "--strategies", "fast"), "fast", "pessimistic")
    refused(lab("sweep", "--dry-run", "--replicas", "0"), "--replicas")
    refused(lab("sweep", "--dry-run", "--balances", "random"), "random", "scattered")
    refused(lab("sweep", "--resume", "/nowhere"), "/nowhere", "holds no sweep")


def test_a_bench_that_cannot_keep_its_figures_says_so_before_it_measures(tmp_path):
    (tmp_path / "file").touch()
    refused_in_one_line(lab("bench", "--into", tmp_path / "file"), f"cannot write to {tmp_path / 'file'}")


def test_a_reader_that_goes_away_changes_no_exit_status():
    with subprocess.Popen([LAB, "sweep", "--dry-run"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as planning:
        planning.stdout.close()
        assert (planning.wait(), planning.stderr.read()) == (0, b"")


def test_chaos_that_is_interrupted_while_the_database_hangs_leaves_nothing(tmp_path):
    command = [LAB, "chaos", "--port-offset", str(OFFSET + 2000), "--only", "database-hung", "--seed", "1", "--waves", "3", "--hung-minutes", "0", "--into", tmp_path]
    home = ROOT / ".cluster" / f"chaos-{OFFSET + 2000}"
    with interrupted(command) as chaos:
        eventually(lambda: something_hangs(home / "supervisord.pid") or chaos.poll() is not None, 90)
    assert chaos.returncode == 130, chaos.said
    assert not (home / "cluster.json").exists()


def something_hangs(pid_file):
    """Whether a process under a supervisor is stopped."""
    try:
        children = psutil.Process(int(pid_file.read_text())).children()
        return any(child.status() == psutil.STATUS_STOPPED for child in children)
    except (OSError, ValueError, psutil.Error):
        return False


def test_wrong_knobs_of_chaos_are_named():
    refused(lab("chaos", "--only", "earthquake"), "earthquake", "database-killed")
    refused(lab("chaos", "--only", "home-paused"), "RUNTIME and DB_MEMBERS as they are have no home-paused", "database-killed")
    refused(lab("chaos", "--strategy", "unlocked"), "unlocked breaks its promises")
