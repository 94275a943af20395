"""Three servers of the database as one group, in the cluster with Docker: one story in the order of its tests. It begins where
`docker_story` has ended, with a cluster that has one server, and leaves nothing."""

import os
import re
import signal

import pytest

import composition
from docker_cluster import HOME, PROJECT, all_is_well, by_hand, cluster, docker, found, ids, left, new_round, order, run
from story import eventually, lab, must, refused

pytest_plugins = ["docker_engine"]

THREE = {"DB_MEMBERS": 3, "REPLICAS": 2}
NAMES = ["mysql", "mysql-2", "mysql-3"]
# A member that was killed waits until the others have given it up; one that looked for its place in vain for a minute is called back.
JOIN_SECONDS = 120
CLIENT = "MYSQL_PWD=$(cat /run/secrets/admin-password) mysql --user=root --host=127.0.0.1 --skip-column-names"


@pytest.fixture
def grouped(engine):
    """A cluster with three servers of the database, each with its place in the group."""
    if not found(NAMES[-1]) or not all_is_well():
        must(cluster("clean"))
        must(cluster("up", **THREE))


def members():
    """What `status` says of each."""
    return dict(re.findall(rf"^{PROJECT}-(mysql(?:-\d)?)-1 +\S+ +\S+ +(.+?) +(?:yes|no)$", cluster("status")[1], re.MULTILINE))


def primary():
    """The one that takes writes, if there is one."""
    return [name for name, words in members().items() if words == "primary online"]


def says(name, statement):
    return docker("exec", found(name)[0]["Id"], "sh", "-c", f'{CLIENT} --execute="{statement}"')


def kill(*names):
    for name in names:
        os.kill(found(name)[0]["State"]["Pid"], signal.SIGKILL)


def test_one_server_becomes_a_group_and_keeps_its_data(plain):
    new_round()
    assert order("before-the-group") == 201
    must(cluster("down"))
    must(cluster("up", **THREE), "mysql begins the group")
    assert members() == {"mysql": "primary online", "mysql-2": "secondary online", "mysql-3": "secondary online"}
    assert order("before-the-group") == 409
    assert [says(name, "SELECT COUNT(*) FROM coupon_rush.wallet WHERE user_id = 'before-the-group'") for name in NAMES] == ["1"] * 3


def test_a_rush_loses_nothing_while_the_primary_dies_and_comes_back(grouped):
    before, first = ids(), primary()
    must(cluster("record"))
    said = must(run("k6", "rush", "--expect-sold-out", "--lose-primary", USERS=6000, VUS=200), "verdict: clean")
    assert f"killed {first[0]}" in said
    assert primary() not in ([], first)
    eventually(all_is_well, JOIN_SECONDS)
    assert ids() == before


def test_up_once_more_replaces_nothing(grouped):
    before = ids()
    must(cluster("up", **THREE))
    must(by_hand("docker compose up --detach"))
    assert ids() == before and all_is_well()


def test_after_all_members_died_a_group_is_begun_anew_with_all_that_was_promised(grouped):
    before = ids()
    new_round()
    assert order("before-the-crash") == 201
    kill(*NAMES)
    must(cluster("group"), "begins the group")
    assert ids() == before
    eventually(lambda: order("before-the-crash") == 409)
    must(cluster("record"))
    must(lab("verify", "--cluster", HOME / "cluster.json"), "verdict: clean")


def test_a_group_is_neither_taken_for_one_server_nor_given_to_a_swarm(grouped):
    refused(cluster("up", REPLICAS=2), "make down")
    must(cluster("down"))
    refused(cluster("up", REPLICAS=2), "DB_MEMBERS=3", "make clean")
    refused(run("swarm", "stack", **THREE), "will not do in a swarm")
    assert found() == []


def test_clean_leaves_nothing_but_the_results(engine):
    must(cluster("clean"))
    assert left() == []
    assert {path.name for path in HOME.iterdir()} <= {"runs"}
    assert not composition.NOTE.exists()
