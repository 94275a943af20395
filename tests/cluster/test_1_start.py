"""A cluster starts whole or not at all, and every command says in a line what it lacks."""

import fcntl
import os
import shutil
import socket
import subprocess

import pytest

from script import ROOT
from story import ENVIRONMENT, HOME, OFFSET, cluster, interrupted, must, nothing_runs, processes, record, refused, refused_in_one_line, run, said_by, wait

WRONG = (("STRATEGY", "fast"), ("REDIS_NODES", "4"), ("DB", "oracle"), ("REPLICAS", "0"), ("REPLICAS", "21"), ("REPLICAS", "two"),
         ("NGINX_PORT", "-1"), ("ACCESS_LOG", "maybe"), ("RATE_LIMIT", "0"), ("RATE_LIMIT", "fast"), ("REQUEST_DEADLINE_MS", "8000"),
         ("DRAIN_MS", "20000"), ("LAME_DUCK_MS", "4001"), ("DB_MEMBERS", "2"), ("NGINX_PORT", "60000"), ("CLUSTER_DIR", "/"),
         ("CLUSTER_DIR", str(ROOT)))


def test_wrong_knobs_are_named_in_one_line(nothing):
    for name, value in WRONG:
        refused_in_one_line(cluster("up", **{name: value}), f"{name}={value}")
    refused_in_one_line(cluster("up", DB="mariadb", DB_MEMBERS=3), "DB_MEMBERS=3 needs MySQL")
    refused_in_one_line(cluster("up", REDIS_PORT=8100), f"port {8101 + OFFSET} would be that of redis-1 and of replica-1")
    refused(cluster("upp"), "invalid choice")
    nothing_runs()


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path):
    (tmp_path / "etc").mkdir()
    for verb in ("up", "down", "clean"):
        refused_in_one_line(cluster(verb, CLUSTER_DIR=tmp_path), f"CLUSTER_DIR={tmp_path} will not do")
    assert list(tmp_path.iterdir()) == [tmp_path / "etc"]


def test_without_a_cluster_every_verb_says_how_to_get_one(nothing):
    for verb in ("status", "scale", "reset"):
        refused(cluster(verb), "make up")
    refused(run("k6", "rush"), "make up")
    must(cluster("down"))


def test_a_machine_that_lacks_something_is_told_before_anything_is_built(tmp_path):
    shutil.copytree(ROOT / "local", tmp_path / "local")
    for file in ("Makefile", "Cargo.toml"):
        shutil.copy(ROOT / file, tmp_path)
    result = made(tmp_path, "up")
    refused(result, "supervisord is missing: run `make install`")
    assert "cargo was called" not in result[1], result[1]
    for target in ("demo", "sweep", "bench", "chaos", "test", "check"):
        assert must(made(tmp_path, "-n", target)).startswith("local/install\n"), target
    for target in ("verify", "fairness"):
        refused_in_one_line(made(tmp_path, target), "target/release/lab is missing: run `make build`")
    alone = [tmp_path / "local" / "cluster", "down"]
    refused_in_one_line(said_by(alone, tmp_path, bare(tmp_path)), "local/requirements.txt are missing: run `make install`")


def made(tree, *words):
    """What `make` says in a copy of the tree on a machine that has a compiler and nothing else of ours."""
    programs = tree / "programs"
    programs.mkdir(exist_ok=True)
    (programs / "cargo").write_text("#!/bin/sh\necho cargo was called\nexit 1\n")
    (programs / "cargo").chmod(0o755)
    return said_by(["make", *words], tree, bare(tree))


def bare(tree):
    # The tests run under the venv's Python, and the first one on the path is not to be that.
    path = [folder for folder in os.environ["PATH"].split(":") if not folder.endswith(".cluster/venv/bin")]
    return {"PATH": ":".join([str(tree / "programs"), *path]), "HOME": os.environ["HOME"], "PORT_OFFSET": str(OFFSET)}


def test_a_missing_binary_is_named(nothing):
    refused(cluster("up", COUPON_RUSH_BIN="no/such/binary"), "no/such/binary", "make build")
    nothing_runs()


def test_a_port_in_use_is_named_and_nothing_is_started(nothing):
    port = 8000 + OFFSET
    with socket.create_server(("127.0.0.1", port)):
        refused(cluster("up"), f"port {port} for nginx", f"process {os.getpid()}", "NGINX_PORT=")
    nothing_runs()


@pytest.mark.parametrize("moment", ["supervisord.conf", "data/m*", "conf.d/replica-1.conf"])
def test_a_start_that_is_interrupted_leaves_nothing(nothing, moment):
    with interrupted([ROOT / "local" / "cluster", "up"]) as starting:
        assert wait(lambda: list(HOME.glob(moment)) or starting.poll() is not None, 60)
    assert starting.returncode == 130, starting.said
    nothing_runs()


@pytest.mark.database
def test_a_failed_start_leaves_nothing(nothing):
    refused(cluster("up", COUPON_RUSH_BIN="/bin/false"), "`coupon-rush migrate` failed")
    nothing_runs()


def test_a_start_whose_reader_goes_away_goes_on(nothing):
    """As `tee` goes away at a Ctrl-C: what was begun is carried out, or taken back."""
    with subprocess.Popen([ROOT / "local" / "cluster", "up", "--only", "servers"], env=ENVIRONMENT, stdout=subprocess.PIPE) as starting:
        starting.stdout.close()
        assert starting.wait() == 0
    assert record()["mysql"]
    must(cluster("down"))


@pytest.mark.database
def test_up_starts_everything(nothing):
    must(cluster("up"))
    must(cluster("status"))
    found = record()
    assert set(found) == {"nginx", "replicas", "redis", "mysql", "prometheus", "strategy", "admin_token_file"}
    one = {name: found["mysql"][name] for name in ("url", "admin_url", "pid")}
    assert found["mysql"]["members"] == [{"name": "mysql", **one}]
    assert [replica["name"] for replica in found["replicas"]] == ["replica-1", "replica-2"]
    assert len(found["redis"]) == 3 and found["strategy"] == "batched"
    assert (HOME / "cluster.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.database
def test_no_secret_is_in_a_command_line(running):
    known = [path.read_text().strip() for path in (HOME / "secrets").iterdir() if path.name != "init.sql"]
    for command in processes().values():
        assert not any(secret in command for secret in known), command


def test_a_second_up_touches_nothing(running):
    before = record()
    must(cluster("up"))
    assert record() == before


def test_a_damaged_file_of_ours_is_named(running):
    for file, verb in (HOME / "cluster.json", "reset"), (HOME / "run" / "knobs.json", "status"):
        whole = file.read_text()
        file.write_text(whole[:100])
        refused_in_one_line(cluster(verb), f"{file} is damaged: delete it")
        file.write_text(whole)


def test_two_commands_do_not_race(running):
    with open(HOME / "lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused(cluster("up"), "wait until it has ended")


@pytest.mark.database
def test_another_shape_needs_another_start(running):
    before = record()
    refused(cluster("up", REDIS_NODES=5), "make down")
    refused(cluster("up", MYSQL_PORT=3317), "make down")
    assert record() == before
