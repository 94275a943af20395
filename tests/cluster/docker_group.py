"""Three servers of the database as one group, in the cluster with Docker: one story in the order of its tests. It begins where
`docker_story` has ended, with nothing, and leaves nothing."""

import os
import re
import signal

import pytest

from docker_cluster import HOME, PROJECT, by_hand, cluster, docker, found, ids, left, order, run
from docker_story import engine, interruptions  # noqa: F401, fixtures
from story import eventually, lab, must, refused

THREE = {"DB_MEMBERS": 3, "REPLICAS": 2}
NAMES = ["mysql", "mysql-2", "mysql-3"]
# A member that was killed waits until the others have given it up; one that looked for its place in vain for a minute is called back.
JOIN_SECONDS = 120
CLIENT = "MYSQL_PWD=$(cat /run/secrets/admin-password) mysql --user=root --host=127.0.0.1 --skip-column-names"


@pytest.fixture
def grouped(engine):
    """A cluster with three servers of the database, each with its place in the group."""
    if len(members()) != len(NAMES) or cluster("status")[0] != 0:
        must(cluster("clean"))
        must(cluster("up", **THREE))


def members():
    """What `status` says of each."""
    return dict(re.findall(rf"^{PROJECT}-(mysql(?:-\d)?)-1 +\S+ +\S+ +(.+?) +(?:yes|no)$", cluster("status")[1], re.MULTILINE))


def with_role(role):
    return [name for name, words in members().items() if words == f"{role} online"]


def says(name, statement):
    return docker("exec", found(name)[0]["Id"], "sh", "-c", f'{CLIENT} --execute="{statement}"')


def kill(*names):
    for name in names:
        os.kill(found(name)[0]["State"]["Pid"], signal.SIGKILL)


def all_are_well():
    return cluster("status")[0] == 0


def test_one_server_becomes_a_group_and_keeps_its_data(engine):
    must(cluster("prepare"))
    # As many files as any engine may give: which limit this one has is found out by `up`.
    must(by_hand("COUPON_NOFILE=1024 docker compose up --detach --wait mysql"))
    says("mysql", "CREATE TABLE coupon_rush.kept (n INT PRIMARY KEY)")
    must(cluster("down"))
    must(cluster("up", **THREE), "mysql begins the group")
    assert (with_role("primary"), with_role("secondary")) == (["mysql"], ["mysql-2", "mysql-3"])
    assert [says(name, "SELECT COUNT(*) FROM coupon_rush.kept") for name in NAMES] == ["0"] * 3


def test_a_rush_loses_nothing_while_the_primary_dies_and_comes_back(grouped):
    before, primary = ids(), with_role("primary")
    must(cluster("record"))
    said = must(run("k6", "rush", "--expect-sold-out", "--lose-primary", USERS=6000, VUS=200), "verdict: clean")
    assert f"killed {primary[0]}" in said
    assert with_role("primary") not in ([], primary)
    eventually(all_are_well, JOIN_SECONDS)
    assert ids() == before


def test_up_once_more_replaces_nothing(grouped):
    before = ids()
    must(cluster("up", **THREE))
    must(by_hand("docker compose up --detach"))
    assert ids() == before and all_are_well()


def test_after_all_members_died_a_group_is_begun_anew_with_all_that_was_promised(grouped):
    before = ids()
    must(cluster("reset", ROUND=re.search(r"make reset ROUND=(\d+)", cluster("reset")[1])[1]))
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


def test_clean_leaves_nothing(engine):
    must(cluster("clean"))
    assert left() == []
