"""The cluster with Docker on a real engine, from its first start on: one story in the order of its tests. `docker_group` goes on with it.

It is the checkout's own cluster, on ports of its own, because by hand there is no other one: so it refuses to begin where that exists.
Images have to be there, or to be had; Grafana's is not asked for (GRAFANA=off), and its server has no part in this story.
"""

import re
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import compose
import containers
from docker_checkout import MINE, MY_PROJECT, clone, other
from docker_cluster import (FILE, HOME, all_is_well, are_well, arrivals, ask, back, by_hand, cluster, docker, found, ids, killed, left, new_round,
                            order, prometheus, run)
from script import ROOT, Problem
from story import eventually, must, refused

pytest_plugins = ["docker_engine"]


def test_up_starts_everything_that_runs_without_grafana(engine):
    must(cluster("prepare"))
    must(by_hand(f"docker compose -f {FILE} build app"))
    # As many files as any engine may give: which limit this one has is found out by `up`.
    must(by_hand(f"COUPON_NOFILE=1024 docker compose -f {FILE} up --detach --wait mysql"))
    must(cluster("up"), "3 replicas")
    said = must(cluster("status"))
    services = {containers.service(one) for one in found()}
    assert services == {"nginx", "app", "migrate", "seed", "mysql", "redis-1", "redis-2", "redis-3", "prometheus",
                        *(f"exporter-{name}" for name in ("nginx", "host", "redis", "mysql"))}, said
    assert HOME.joinpath("cluster.json").stat().st_mode & 0o777 == 0o600


def test_up_and_run_once_more_replace_nothing(plain):
    before = ids()
    must(cluster("up"))
    must(by_hand(f"docker compose -f {FILE} up -d"))
    must(by_hand(f"docker compose -f {FILE} run --rm migrate"))
    assert ids() == before


def test_the_crowd_of_the_files_header_is_sent_by_hand_and_moves_nothing(plain):
    before = ids(), [one["NetworkSettings"]["Ports"] for one in found("nginx")]
    lines = (ROOT / FILE).read_text()
    command = re.search(r"#   (ADMIN_TOKEN=.+?)\\\n +#  (.+)\n", lines)
    said = must(by_hand("".join(command.groups()).replace("VUS=1000", "VUS=20").replace("DURATION=60s", "DURATION=2s")))
    assert "P2 never twice to a user" in said and "✗" not in said, said
    assert (ids(), [one["NetworkSettings"]["Ports"] for one in found("nginx")]) == before


def test_a_rush_from_this_host_is_proved_by_the_tables(plain):
    must(cluster("record"))
    must(run("k6", "smoke"))
    must(run("k6", "rush", "--expect-sold-out", USERS=6000, VUS=200), "verdict: clean")


def test_every_container_may_open_as_many_files_as_the_engine_may_give(plain):
    most = ulimit("--ulimit", "nofile=65535") or ulimit()
    limits = {limit["Hard"] for one in found() for limit in one["HostConfig"]["Ulimits"] if limit["Name"] == "nofile"}
    assert limits == {most}


def ulimit(*options):
    """What a container gets; 0 where it does not start."""
    command = ["docker", "run", "--rm", "--network=none", *options, "--entrypoint=sh", "coupon-rush:local", "-c", "ulimit -Hn"]
    return int(subprocess.run(command, capture_output=True, text=True).stdout or 0)


def test_status_shows_the_addresses_that_the_dashboards_show(plain):
    shown = lambda: {labels["replica"] for labels, _ in prometheus('up{job="coupon"} == 1')}
    said = must(cluster("status"))
    in_status = set(re.findall(r"^coupon-rush-app-\d+ +\S+ +(\S+)", said, re.MULTILINE))
    assert len(in_status) == 3
    eventually(lambda: {one.split(":")[0] for one in shown()} == in_status)


def test_a_limit_starts_nginx_anew_and_no_replica(plain):
    replicas = ids("app")
    must(cluster("up", RATE_LIMIT=5))
    answers = [ask("/users/u-1/coupons")[0] for _ in range(40)]
    assert 200 in answers and 429 in answers
    must(cluster("up"))
    assert {ask("/users/u-1/coupons")[0] for _ in range(40)} == {200}
    assert ids("app") == replicas


def test_scaling_under_load_refuses_nobody_and_ends_when_all_are_ready(plain):
    must(cluster("record"))
    before = ids()
    with arrivals(HOME):
        must(cluster("scale", REPLICAS=4))
        more = ids()
        assert before < more
        must(cluster("up", REPLICAS=4))
        assert ids() == more
        # Down one after the other, to the only one, and up by more than one at once.
        for replicas in (1, 3):
            must(cluster("scale", REPLICAS=replicas))
            must(cluster("status"))
            assert len(found("app")) == replicas


def test_killed_programs_come_back_and_cost_nobody_an_answer_or_what_was_promised(plain):
    new_round()
    assert order("before-the-crash") == 201
    replica = killed("app")
    assert {order(f"killed-{number}", code) for number in range(10) for code in ("A001", "B001", "C001")} <= {201, 409}
    start, database, nginx = time.time(), killed("mysql"), killed("nginx")
    eventually(lambda: all(map(back, (replica, database, nginx))) and all_is_well(), 90)
    eventually(lambda: order("before-the-crash") == 409)
    assert order("after-the-crash") in (201, 410)
    # The exporter of the host lives in nginx's network, which is another one now.
    fresh = f"and on(instance, job) timestamp(up) > {start + 10:.0f}"
    heard = lambda: {labels["job"] for query in (f'up{{job="host"}} == 1 {fresh}', f"nginx_up == 1 {fresh}") for labels, _ in prometheus(query)}
    eventually(lambda: heard() == {"host", "nginx"}, 60)


def test_an_order_for_a_paused_home_is_answered_by_another_replica_in_time(plain):
    new_round()
    home = ask("/coupons/issue", {"code": "A001", "userId": "finds-the-home"})[2]["x-replica"]
    docker("pause", home)
    try:
        start = time.monotonic()
        assert order("meets-the-paused") == 201
        took = time.monotonic() - start
    finally:
        docker("unpause", home)
    assert took < 13, f"{took:.1f} s"
    eventually(all_is_well)


def test_a_server_with_other_settings_is_not_well(plain):
    one = found("mysql")[0]
    check = ["exec", one["Id"], "sh", "-c", one["Config"]["Healthcheck"]["Test"][1]]
    docker(*check)
    set_isolation("REPEATABLE-READ")
    try:
        with pytest.raises(subprocess.CalledProcessError):
            docker(*check)
    finally:
        set_isolation("READ-COMMITTED")


def set_isolation(level):
    client = "MYSQL_PWD=$(cat /run/secrets/admin-password) mysql --user=root --host=127.0.0.1"
    docker("exec", found("mysql")[0]["Id"], "sh", "-c", f"""{client} -e "SET GLOBAL transaction_isolation='{level}'" """)


def test_idle_checks_ask_the_database_with_a_password(plain):
    [(_, failed)] = prometheus("mysql_global_status_aborted_connects")
    assert failed <= 3, f"{failed:g} failed logins"


@pytest.fixture(scope="session")
def checkout(engine):
    """A second checkout, whose cluster is gone at the end."""
    with clone() as folder:
        yield folder
        must(other(folder, "local/docker clean", **MINE))
    subprocess.run(["docker", "image", "rm", f"{MY_PROJECT}:local"], capture_output=True)


@pytest.fixture
def mine(checkout):
    """The second checkout's own cluster."""
    if not found("app", MY_PROJECT) or not are_well(MY_PROJECT):
        must(other(checkout, "chmod -R go+rX . && local/docker up", **MINE))


def test_data_outlives_down_and_a_second_checkout_gets_neither_it_nor_the_cluster_but_its_own_when_its_files_can_be_read(plain, checkout):
    before = ids()
    for verb in ("up", "scale", "down", "clean", "rush"):
        refused(other(checkout, f"local/docker {verb}"), f"is of the checkout in {ROOT}", "CLUSTER_DIR=")
    assert ids() == before
    new_round()
    assert order("stays") == 201
    must(cluster("down"))
    assert found() == []
    refused(other(checkout, "local/docker up"), "has passwords that are not here", "docker volume rm coupon-rush_")
    said = other(checkout, "local/docker up", **MINE)
    refused(said, "cannot read what is mounted", "chmod -R go+rX ", " mysql/common.cnf ")
    must(other(checkout, re.search(r"`(chmod .+?)`", said[1])[1]))
    # A start mostly waits, and so they do it together.
    with ThreadPoolExecutor(1) as beside:
        again = beside.submit(cluster, "up")
        must(other(checkout, "local/docker up", **MINE), "2 replicas")
    must(again.result())
    assert order("stays") == 409
    must(other(checkout, "local/docker status", **MINE))
    must(other(checkout, "local/docker rush", USERS="1800", VUS="50", **MINE), "the audit found no promise broken")


def test_a_new_image_with_another_knob_refuses_nobody_under_load_and_what_does_not_start_is_forgotten(plain, mine, checkout):
    dockerfile = checkout / "Dockerfile"
    first = dockerfile.read_text()
    before, others = ids("app", MY_PROJECT), ids("app")
    with arrivals(checkout / MINE["CLUSTER_DIR"]):
        dockerfile.write_text(first + "LABEL coupon-rush.version=second\n")
        must(other(checkout, "make upgrade RUNTIME=docker", **MINE, LOCK_TTL_MS="2000"))
        second = ids("app", MY_PROJECT)
        assert versions() == [("second", True)] * 2 and before.isdisjoint(second)
        # It can migrate and not serve. In the first cluster a knob is to blame.
        dockerfile.write_text(first + "LABEL coupon-rush.version=third\nENV LISTEN=nowhere\n")
        for said in (other(checkout, "make upgrade RUNTIME=docker", **MINE), cluster("up", LOG_FORMAT="none")):
            refused(said, "does not become ready", "those before it serve on")
        assert (ids("app", MY_PROJECT), ids("app")) == (second, others)
    must(other(checkout, "local/docker scale", **MINE | {"REPLICAS": "3"}))
    assert versions() == [("second", True)] * 3
    must(cluster("status"))
    must(by_hand(f"docker compose -f {FILE} up -d"))
    assert ids("app") == others


def versions():
    """The version of each replica, and whether it has the knob."""
    every = [one["Config"] for one in found("app", MY_PROJECT)]
    return [(one["Labels"].get("coupon-rush.version"), "LOCK_TTL_MS=2000" in one["Env"]) for one in every]


def test_what_the_engine_removes_itself_meanwhile_is_removed_and_what_is_in_use_is_named(plain, monkeypatch):
    docker("run", "--detach", "--rm", "--label=coupon-rush.vanishes", "--stop-signal=KILL", "--entrypoint=sleep", "coupon-rush:local", "600")
    listing = ("ps", "--all", "--quiet", "--filter", "label=coupon-rush.vanishes")
    with monkeypatch.context() as impatient, pytest.raises(Problem, match="`docker rm` still fails after 1 s: .*running"):
        impatient.setattr(compose, "REMOVE_SECONDS", 1)
        compose.remove(listing, "rm")
    compose.remove(listing, "stop", "rm")
    assert docker(*listing) == ""


def test_clean_leaves_nothing_but_the_results(mine, checkout):
    must(other(checkout, "local/docker clean", **MINE))
    assert left(MY_PROJECT) == []
    assert {path.name for path in (checkout / MINE["CLUSTER_DIR"]).iterdir()} <= {"runs"}
