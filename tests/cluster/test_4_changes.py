"""Replicas come, go and are replaced under a crowd; the supervisor, the server and its data are lost; nothing that was promised is."""

import http.client
import json
import os
import secrets
import shutil
import signal
import subprocess
import threading

import pytest

import nginx
from script import ROOT
from story import (ENVIRONMENT, HOME, LAB, ask, cluster, eventually, interrupted, lab, must, new_round, nothing_runs, record, refused,
                   refused_in_one_line, replica_pids, run, rush)


@pytest.mark.database
def test_a_rush_loses_nothing_while_the_cluster_is_scaled(running):
    before = replica_pids()
    with rush():
        must(cluster("scale", REPLICAS=3))
        assert len(replica_pids()) == 3
        must(cluster("scale", REPLICAS=2))
    assert replica_pids() == before


@pytest.mark.skipif(not nginx.keeps_idle_clients(), reason="not so with this nginx: see `make install`")
def test_scaling_breaks_no_request_of_clients_that_never_ask_again(running):
    """k6 and Go hide it: they ask again by themselves when a connection that was kept has closed."""
    crowd = [Persistent(number) for number in range(20)]
    for client in crowd:
        client.start()
    try:
        for replicas in (3, 2, 3, 2):
            must(cluster("scale", REPLICAS=replicas))
    finally:
        for client in crowd:
            client.over.set()
            client.join()
    assert [problem for client in crowd for problem in client.broken] == []
    assert sum(client.answers for client in crowd) > 2_000


class Persistent(threading.Thread):
    """A client that keeps its connection as long as the server does not say that it closes it, and never asks again."""

    def __init__(self, number):
        super().__init__()
        self.number, self.answers, self.broken, self.over = number, 0, [], threading.Event()

    def run(self):
        connection = http.client.HTTPConnection(record()["nginx"]["url"].removeprefix("http://"), timeout=20)
        while not self.over.is_set():
            body = json.dumps({"code": "C001", "userId": f"persistent-{self.number}-{self.answers}"})
            try:
                connection.request("POST", "/coupons/issue", body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                assert answer.status in (201, 410), answer.status
                self.answers += 1
            except (AssertionError, OSError, http.client.HTTPException) as error:
                self.broken.append(repr(error))
                connection.close()


def test_a_rush_loses_nothing_while_every_replica_is_replaced(running):
    """A rolling upgrade: each replica leaves nginx, drains and comes back as another one; meanwhile both kinds serve."""
    before = replica_pids()
    with rush():
        must(cluster("up", STRATEGY="redlock"))
        must(cluster("up"))
    all_replaced(before)


def test_a_knob_that_will_not_do_costs_no_replica(running):
    before, knobs = replica_pids(), (HOME / "run" / "knobs.json").read_text()
    with rush():
        refused(cluster("up", LOCK_TTL_MS=1, STRATEGY="redlock"), "LOCK_TTL_MS")
        after = replica_pids()
        assert [name for name in before if before[name] != after[name]] == ["replica-1"]
        refused(cluster("up", LOCK_TTL_MS=1, REPLICAS=1), "LOCK_TTL_MS")
        assert replica_pids().keys() == before.keys()
    assert (record()["strategy"], (HOME / "run" / "knobs.json").read_text()) == ("batched", knobs)
    must(cluster("status"))


def all_replaced(before):
    assert set(replica_pids().values()).isdisjoint(before.values())


def test_a_new_admin_token_replaces_the_replicas_once(running):
    file, before = HOME / "secrets" / "admin-token", replica_pids()
    file.write_text(f"{secrets.token_hex(32)}\n{file.read_text()}\n")
    must(cluster("up"))
    all_replaced(before)
    after = replica_pids()
    new_round()
    must(cluster("up"))
    assert replica_pids() == after


@pytest.mark.database
def test_a_reset_begins_a_round_and_may_be_made_again(running):
    first, second = new_round(), new_round()
    assert second == first + 1
    for _ in range(2):
        # A reset whose answer was lost may be made again.
        assert must(cluster("reset", ROUND=second)) == f"round {second + 1}\n"
    refused(cluster("reset", ROUND=first), f"this is round {second + 1}")
    refused(cluster("reset", ROUND="all"), "ROUND=all")


def test_a_killed_replica_comes_back(running):
    victim = replica_pids()["replica-1"]
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: cluster("status")[0] == 0)
    assert f" {victim} " not in must(cluster("status"))


@pytest.mark.database
def test_down_recovers_from_a_killed_supervisor(running):
    os.kill(int((HOME / "supervisord.pid").read_text()), signal.SIGKILL)
    must(cluster("down"))
    nothing_runs()


@pytest.mark.database
def test_up_down_up_keeps_the_data(running):
    must(cluster("down"))
    nothing_runs()
    found = record()
    assert found["nginx"] is None and found["mysql"] is None and found["replicas"] == []
    must(cluster("up"))
    must(cluster("status"))


@pytest.mark.database
def test_a_backup_is_not_made_of_mariadb(running):
    if ENVIRONMENT.get("DB") != "mariadb":
        pytest.skip("MySQL is tried next")
    refused(run("backup", "take", "nowhere"), "mariadb-backup")


@pytest.mark.skipif(ENVIRONMENT.get("DB") == "mariadb", reason="only MySQL clones itself")
def test_what_was_promised_after_a_backup_is_in_the_binlog_alone(running, tmp_path):
    """Backup under load, the server dies, its data folder is lost but for the binlogs."""
    acks, backup, binlogs = tmp_path / "acks", tmp_path / "backup", tmp_path / "binlogs"
    here = ("--cluster", HOME / "cluster.json")
    new_round()
    full = remaining("C001")
    load = [LAB, "load", *here, "--connections", "20", "--rate", "100", "--seconds", "6", "issue", "C001", "--acks", acks]
    with subprocess.Popen(load, stdout=subprocess.DEVNULL) as sending:
        eventually(lambda: remaining("C001") < full)
        must(run("backup", "take", backup))
        assert sending.poll() is None, "the load ended before the backup did"
    assert sending.returncode == 0
    os.kill(record()["mysql"]["pid"], signal.SIGKILL)
    binlogs.mkdir()
    for path in (HOME / "data" / "mysql").glob("binlog.*"):
        shutil.copy(path, binlogs)
    must(cluster("clean"))
    refused(run("backup", "restore", backup, tmp_path), "holds no binlog")
    half = backup / "#clone" / "#status_in_progress"
    half.touch()
    refused_in_one_line(run("backup", "restore", backup), "no backup that")
    half.unlink()
    assert not (HOME / "data").exists()
    promised = ("verify", *here, "--acks", acks)
    for since, verdict in ([], "ack-lost"), ([binlogs], "verdict: clean"):
        must(cluster("clean"))
        must(run("backup", "restore", backup, *since))
        said = lab(*promised)[1]
        assert verdict in said, said
        must(cluster("up"))
        must(lab("verify", *here), "verdict: clean")
    must(lab("load", *here, "--count", "50", "issue", "C001"))
    must(lab(*promised), "verdict: clean")


@pytest.mark.skipif(ENVIRONMENT.get("DB") == "mariadb", reason="only MySQL clones itself")
def test_a_backup_is_whole_or_none(running, tmp_path):
    with interrupted([ROOT / "local" / "backup", "take", tmp_path / "backup"]) as taking:
        eventually(lambda: list(tmp_path.iterdir()) or taking.poll() is not None)
    assert list(tmp_path.iterdir()) == ([] if taking.returncode else [tmp_path / "backup"]), taking.said
    refused_in_one_line(run("backup", "take", "/proc/nowhere"), "/proc/nowhere")
    must(run("backup", "take", tmp_path / "another"))


def remaining(code):
    return next(coupon["remaining"] for coupon in json.loads(ask("/coupons")[2]) if coupon["code"] == code)


def test_clean_leaves_the_results_alone(running):
    (HOME / "runs" / "kept").mkdir(parents=True, exist_ok=True)
    results = sorted((HOME / "runs").rglob("*"))
    must(cluster("clean"), "runs stay")
    nothing_runs()
    assert list(HOME.iterdir()) == [HOME / "runs"]
    assert sorted((HOME / "runs").rglob("*")) == results != []
    must(cluster("clean", ALL=1))
    assert list(HOME.iterdir()) == []
