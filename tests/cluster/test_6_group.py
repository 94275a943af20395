"""Three servers of the database are one group: it forms, loses members, and begins anew, and nothing that was promised is lost."""

import json
import os
import re
import shutil
import signal

import pytest

from script import Problem
from settings import saved
from sql import ask as ask_server
from story import ENVIRONMENT, HOME, ask, cluster, eventually, lab, must, new_round, nothing_runs, order, record, refused, run, rush

pytestmark = pytest.mark.skipif(ENVIRONMENT.get("DB") == "mariadb", reason="only MySQL's servers can be a group")
THREE = {"DB_MEMBERS": 3}
# A member that was killed waits until the others have given it up; one that looked for its place in vain for a minute is called back.
JOIN_SECONDS = 120


@pytest.fixture
def grouped(folder):
    """A cluster with three servers of the database, each with its place in the group."""
    if "mysql-3" not in members() or cluster("status")[0] != 0:
        must(cluster("clean"))
        must(cluster("up", **THREE))


@pytest.fixture
def servers(grouped, monkeypatch):
    """Asks a member as its administrator."""
    monkeypatch.setenv("CLUSTER_DIR", str(HOME))
    knobs = saved()
    return lambda name, statement: ask_server(knobs, knobs.members()[name], statement)


def members():
    """The process and the words of `status` about each member."""
    said = cluster("status")[1]
    return {name: (pid, words) for name, pid, words in re.findall(r"^(mysql-\d) +(\d+|-) +[\d.:]+, (.+?) +(?:yes|no)$", said, re.MULTILINE)}


def with_role(role):
    return sorted(name for name, (_, words) in members().items() if words.startswith(f"{role} online"))


def kill(*names):
    found = members()
    for name in names:
        os.kill(int(found[name][0]), signal.SIGKILL)


def all_are_well():
    return cluster("status")[0] == 0


def held(user):
    return json.loads(ask(f"/users/{user}/coupons")[2])


def issue(user):
    status, _, text = order(user, "C001")
    assert status == 201, text
    return json.loads(text)


def test_one_server_becomes_a_group_and_keeps_its_data(running):
    new_round()
    entry = issue("early")
    must(cluster("down"))
    must(cluster("up", **THREE))
    assert len(with_role("primary")) == 1 and len(with_role("secondary")) == 2
    found = record()["mysql"]
    assert len({member["admin_url"] for member in found["members"]}) == 3
    assert found["url"].count("127.0.0.1") == 3 and found["pid"] == found["members"][0]["pid"]
    assert [entry] == held("early")
    refused(cluster("up"), "make down")


def test_a_group_is_scaled_like_one_server(grouped):
    must(cluster("scale", REPLICAS=1))
    must(cluster("up", **THREE))
    assert len(record()["replicas"]) == 2


def test_a_rush_loses_nothing_while_members_die(grouped):
    """First one that takes no writes, which comes back, and then the one that does."""
    before = with_role("primary")
    with rush():
        kill(with_role("secondary")[0])
        eventually(all_are_well, JOIN_SECONDS)
        assert with_role("primary") == before
        kill(*before)
        eventually(lambda: with_role("primary") not in ([], before))
    eventually(all_are_well, JOIN_SECONDS)


def test_a_member_that_is_out_is_called_back_but_for_one_that_a_person_keeps_out(grouped, servers):
    kept, out = with_role("secondary")
    servers(kept, "SET GLOBAL group_replication_start_on_boot = OFF; STOP GROUP_REPLICATION")
    servers(out, "STOP GROUP_REPLICATION")
    eventually(lambda: members()[out][1] == "secondary online")
    assert members()[kept][1] == "offline"
    must(cluster("up", **THREE))
    assert all_are_well()


def test_after_all_members_died_the_one_with_the_most_begins(grouped):
    new_round()
    issue("first")
    behind = with_role("secondary")[0]
    os.kill(int(members()[behind][0]), signal.SIGSTOP)
    last = issue("last")
    kill(*members())
    said = must(cluster("up", **THREE), "begins the group")
    assert f"{behind} begins" not in said
    eventually(all_are_well)
    assert [last] == held("last")


def test_a_backup_of_a_group_and_the_binlogs_of_any_member_are_enough(grouped, tmp_path):
    backup, binlogs = tmp_path / "backup", tmp_path / "binlogs"
    source = re.search(r"backup of (mysql-\d)", must(run("backup", "take", backup)))[1]
    assert source in with_role("secondary")
    last = issue("after-the-backup")
    binlogs.mkdir()
    for path in (HOME / "data" / with_role("primary")[0]).glob("binlog.[0-9]*"):
        shutil.copy(path, binlogs)
    must(cluster("clean"))
    must(run("backup", "restore", backup, binlogs, **THREE))
    must(cluster("up", **THREE))
    assert [last] == held("after-the-backup")
    must(lab("verify", "--cluster", HOME / "cluster.json"), "verdict: clean")


def test_members_that_went_apart_are_named_and_not_joined(servers):
    apart = with_role("secondary")
    for name in apart:
        servers(name, "SET GLOBAL group_replication_start_on_boot = OFF; STOP GROUP_REPLICATION; "
                      f"SET GLOBAL super_read_only = OFF; CREATE DATABASE {name.replace('-', '_')}")
    with pytest.raises(Problem):
        servers(apart[0], "START GROUP_REPLICATION")
    refused(cluster("status"), f"{apart[0]} is offline", "transactions not present in the group")
    must(cluster("down"))
    refused(cluster("up", **THREE), "have gone apart", *apart)
    nothing_runs()


def test_the_data_of_a_group_is_not_taken_for_that_of_one_server(nothing):
    if (HOME / "data" / "mysql-1").exists():
        refused(cluster("up"), "DB_MEMBERS=3")
        nothing_runs()
    must(cluster("clean"))
    assert not (HOME / "data").exists()
