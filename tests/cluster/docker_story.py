"""The cluster with Docker on a real engine, from its first start to its end: one story in the order of its tests.

It is the checkout's own cluster, on ports of its own, because by hand there is no other one: so it refuses to begin where that exists.
Images have to be there, or to be had; Grafana's is not asked for (GRAFANA=off), and its server has no part in this story.
"""

import functools
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

import composition
import containers
from script import ROOT
from settings import PORTS
from story import eventually, interrupted, must, refused, said_by

HOME = ROOT / ".cluster" / "docker"
OFFSET = int(os.environ.get("DOCKER_TESTS_PORT_OFFSET", "24000"))
# What a person's shell has, and no knobs.
SHELL = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "COUPON_LAB_BIN") or name.startswith("DOCKER_")}
KNOBS = {"GRAFANA": "off", "PORT_OFFSET": str(OFFSET)}
FILE = "docker-compose.scale.yml"
PROJECT = "coupon-rush"
# The cluster of a second checkout, which has a folder of its own, and so another name.
MINE = {"CLUSTER_DIR": ".cluster/mine", "PORT_OFFSET": str(OFFSET + 100), "REPLICAS": "2"}
MY_PROJECT = f"{PROJECT}-mine"
# Neither the caller nor anybody whom an image knows.
STRANGER = 31_234


def docker(*words):
    return subprocess.run(["docker", *words], check=True, capture_output=True, text=True).stdout.strip()


def run(script, *words, **knobs):
    environment = {**SHELL, **KNOBS, "CLUSTER_DIR": str(HOME), **{name: str(value) for name, value in knobs.items()}}
    return said_by([ROOT / "local" / script, *words], environment=environment)


def cluster(verb, **knobs):
    return run("docker", verb, **knobs)


def by_hand(command):
    """A command for a shell in the checkout, which has what .env says."""
    return said_by(["bash", "-c", command], environment=SHELL)


def of(project):
    return "--filter", f"label=com.docker.compose.project={project}"


def left():
    """What the engine has of the cluster."""
    kinds = (("ps", "--all"), ("volume", "ls"), ("network", "ls"))
    return [name for kind in kinds for name in docker(*kind, "--quiet", *of(PROJECT)).split()]


def found(service=None, project=PROJECT):
    """All containers of a cluster, or those of a service, as the engine describes them."""
    ids = docker("ps", "--all", "--quiet", *of(project), "--filter", "label=com.docker.compose.oneoff=False").split()
    return [one for one in containers.inspect(ids) if service in (None, containers.service(one))]


def ids(service=None, project=PROJECT):
    return {one["Id"] for one in found(service, project)}


def ask(path, body=None, port=PORTS["nginx_port"] + OFFSET):
    """Status, text and headers of an answer, by default through nginx."""
    headers = {"Content-Type": "application/json"} if body else {}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=body and json.dumps(body).encode(), headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), error.headers
    except OSError as error:
        return 0, str(error), {}


def order(user, code="A001"):
    return ask("/coupons/issue", {"code": code, "userId": user})[0]


def prometheus(query):
    """Labels and value of each series."""
    said = ask(f"/api/v1/query?{urllib.parse.urlencode({'query': query})}", port=PORTS["prometheus_port"] + OFFSET)[1]
    return [(one["metric"], float(one["value"][1])) for one in json.loads(said)["data"]["result"]]


@pytest.fixture(scope="session")
def interruptions():
    """An early end is an end: what was started is taken away. What a shell has in the background would ignore Ctrl-C."""
    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(sign, signal.default_int_handler)


@pytest.fixture(scope="session")
def engine(interruptions):
    """An engine without a cluster of ours, before and after."""
    if left() or composition.NOTE.exists():
        pytest.exit("a cluster of this name, its data or its .env is here: `make clean RUNTIME=docker` deletes it, and then this story can begin")
    yield
    must(cluster("clean"))


@pytest.fixture
def running(engine):
    """The cluster as a plain `up` makes it."""
    replicas = found("app")
    if len(replicas) != 3 or cluster("status")[0] != 0:
        must(cluster("up"))


def test_up_starts_everything_that_runs_without_grafana(engine):
    must(cluster("up"), "3 replicas")
    said = must(cluster("status"))
    services = {containers.service(one) for one in found()}
    assert services == {"nginx", "app", "migrate", "seed", "mysql", "redis-1", "redis-2", "redis-3", "prometheus",
                        *(f"exporter-{name}" for name in ("nginx", "host", "redis", "mysql"))}, said
    assert HOME.joinpath("cluster.json").stat().st_mode & 0o777 == 0o600


def test_up_and_run_once_more_replace_nothing(running):
    before = ids()
    must(cluster("up"))
    must(by_hand(f"docker compose -f {FILE} up -d"))
    must(by_hand(f"docker compose -f {FILE} run --rm migrate"))
    assert ids() == before
    must(cluster("scale", REPLICAS=4))
    after = ids()
    assert before < after
    must(cluster("up", REPLICAS=4))
    assert ids() == after
    must(cluster("scale", REPLICAS=3))


def test_the_crowd_of_the_files_header_is_sent_by_hand_and_moves_nothing(running):
    before = ids(), [one["NetworkSettings"]["Ports"] for one in found("nginx")]
    lines = (ROOT / FILE).read_text()
    command = re.search(r"#   (ADMIN_TOKEN=.+?)\\\n +#  (.+)\n", lines)
    said = must(by_hand("".join(command.groups()).replace("VUS=1000", "VUS=20").replace("DURATION=60s", "DURATION=2s")))
    assert "P2 never twice to a user" in said and "✗" not in said, said
    assert (ids(), [one["NetworkSettings"]["Ports"] for one in found("nginx")]) == before


def test_a_rush_from_this_host_is_proved_by_the_tables(running):
    must(cluster("record"))
    must(run("k6", "smoke"))
    must(run("k6", "rush", "--expect-sold-out", USERS=6000, VUS=200), "verdict: clean")


def test_every_container_may_open_as_many_files_as_the_engine_may_give(running):
    most = ulimit("--ulimit", "nofile=65535") or ulimit()
    limits = {limit["Hard"] for one in found() for limit in one["HostConfig"]["Ulimits"] if limit["Name"] == "nofile"}
    assert limits == {most}


def ulimit(*options):
    """What a container gets; 0 where it does not start."""
    command = ["docker", "run", "--rm", "--network=none", *options, "--entrypoint=sh", "coupon-rush:local", "-c", "ulimit -Hn"]
    return int(subprocess.run(command, capture_output=True, text=True).stdout or 0)


def test_status_shows_the_addresses_that_the_dashboards_show(running):
    must(cluster("scale", REPLICAS=3))
    shown = lambda: {labels["replica"] for labels, _ in prometheus('up{job="coupon"} == 1')}
    said = must(cluster("status"))
    in_status = set(re.findall(r"^coupon-rush-app-\d+ +\S+ +(\S+)", said, re.MULTILINE))
    assert len(in_status) == 3
    eventually(lambda: {one.split(":")[0] for one in shown()} == in_status)


def test_a_limit_starts_nginx_anew_and_no_replica(running):
    replicas = ids("app")
    must(cluster("up", RATE_LIMIT=5))
    answers = [ask("/users/u-1/coupons")[0] for _ in range(40)]
    assert 200 in answers and 429 in answers
    must(cluster("up"))
    assert {ask("/users/u-1/coupons")[0] for _ in range(40)} == {200}
    assert ids("app") == replicas


def test_scaling_under_load_refuses_nobody_and_ends_when_all_are_ready(running):
    must(cluster("scale", REPLICAS=3))
    must(cluster("record"))
    with arrivals(HOME):
        for replicas in (5, 1, 3):
            must(cluster("scale", REPLICAS=replicas))
            must(cluster("status"))
            assert len(found("app")) == replicas


@contextmanager
def arrivals(home):
    """300 requests a second to the cluster of this folder, as long as the block does, of which none may be refused."""
    folder = HOME / "runs" / "arrivals"
    shutil.rmtree(folder, ignore_errors=True)
    knobs = {"CLUSTER_DIR": str(home), "RATE": "300", "DURATION": "10m", "CODES": "8", "STRICT": "1", "DROPS": "allow", "VUS": "600"}
    with interrupted([ROOT / "local" / "k6", "arrival", "--into", folder], KNOBS | knobs) as crowd:
        eventually(lambda: (folder / "acks.log").exists() and (folder / "acks.log").stat().st_size > 0)
        yield
    # How k6 ends when it is interrupted and every threshold holds.
    assert "k6 ended with 105, the verdict with 0" in crowd.said, crowd.said
    metrics = json.loads((folder / "summary.json").read_text())["metrics"]
    assert metrics["coupon_busy"]["count"] == metrics["coupon_unexpected"]["count"] == 0
    assert metrics["dropped_iterations"]["count"] <= metrics["coupon_issued"]["count"] / 300, "too few were asked"


def test_a_version_that_does_not_start_replaces_nobody(running):
    before = ids("app")
    refused(cluster("up", LOG_FORMAT="none"), "does not become ready", "those before it serve on")
    assert ids("app") == before
    must(cluster("status"))
    must(by_hand(f"docker compose -f {FILE} up -d"))
    assert ids("app") == before


def killed(service):
    """Ends the first process of a container from outside, as a crash would; `docker kill` would count as a wish that it stays away."""
    one = found(service)[0]
    os.kill(one["State"]["Pid"], signal.SIGKILL)
    return one


def back(one):
    """Whether a container was started again by itself, and all is well."""
    now = next(other for other in found() if other["Id"] == one["Id"])
    return now["State"]["Pid"] not in (0, one["State"]["Pid"]) and cluster("status")[0] == 0


def test_a_killed_nginx_comes_back_and_its_exporters_hear_it(running):
    start = time.time()
    one = killed("nginx")
    eventually(lambda: back(one), 60)
    fresh = f"and on(instance, job) timestamp(up) > {start + 10:.0f}"
    heard = lambda: {labels["job"] for query in (f'up{{job="host"}} == 1 {fresh}', f"nginx_up == 1 {fresh}") for labels, _ in prometheus(query)}
    eventually(lambda: heard() == {"host", "nginx"}, 60)
    assert order("after-nginx") in (201, 410)


def test_a_killed_replica_comes_back_and_costs_nobody_an_answer(running):
    new_round()
    one = killed("app")
    assert {order(f"killed-{number}", code) for number in range(10) for code in ("A001", "B001", "C001")} <= {201, 409}
    eventually(lambda: back(one), 60)


def test_a_killed_database_comes_back_with_what_it_promised(running):
    new_round()
    assert order("before-the-crash") == 201
    one = killed("mysql")
    eventually(lambda: back(one), 90)
    eventually(lambda: order("before-the-crash") == 409)


def new_round():
    ends = re.search(r"make reset ROUND=(\d+)", cluster("reset")[1])[1]
    must(cluster("reset", ROUND=ends))


def test_an_order_for_a_paused_home_is_answered_by_another_replica_in_time(running):
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
    eventually(lambda: cluster("status")[0] == 0)


def test_a_server_with_other_settings_is_not_well(running):
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


def test_idle_checks_ask_the_database_with_a_password(running):
    [(_, failed)] = prometheus("mysql_global_status_aborted_connects")
    assert failed <= 3, f"{failed:g} failed logins"


@contextmanager
def clone():
    """A second checkout, made by somebody with a strict umask."""
    folder = Path(tempfile.mkdtemp(prefix="coupon-rush-"))
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    tracked = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    try:
        for name in filter(None, tracked.split("\0")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
        # The page's curves, which nobody has to fetch here.
        shutil.copytree(ROOT / ".cluster" / "tools" / "uplot", folder / ".cluster" / "tools" / "uplot", dirs_exist_ok=True)
        for path in [folder, *folder.rglob("*")]:
            path.chmod(path.stat().st_mode & 0o700)
            if os.getuid() == 0:
                os.chown(path, STRANGER, STRANGER)
        yield folder
    finally:
        shutil.rmtree(folder)


def other(folder, command, **knobs):
    """What somebody is told in a second checkout who has neither our venv nor a compiler."""
    done = subprocess.run(["bash", "-c", command], env=bare(folder) | KNOBS | knobs, cwd=folder, text=True, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **stranger())
    assert "Traceback" not in done.stdout, done.stdout
    return done.returncode, done.stdout


def bare(folder):
    path = f"/usr/local/bin:/usr/bin:/bin:{Path(shutil.which('docker')).parent}"
    return {"PATH": path, "HOME": str(folder), **{name: value for name, value in SHELL.items() if name.startswith("DOCKER_")}}


@functools.cache
def stranger():
    """Another user of this machine, if that one can reach the engine; else the caller."""
    if os.getuid() != 0:
        return {}
    door = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")
    user = {"user": STRANGER, "group": STRANGER, "extra_groups": [os.stat(door).st_gid]}
    reached = subprocess.run(["docker", "compose", "ls"], env=bare("/nonexistent"), capture_output=True, cwd="/", **user).returncode == 0
    print("as another user" if reached else "another user cannot reach this engine")
    return user if reached else {}


@pytest.fixture(scope="session")
def checkout(engine):
    """A second checkout, whose cluster is gone at the end."""
    with clone() as folder:
        yield folder
        must(other(folder, "local/docker clean", **MINE))
    subprocess.run(["docker", "image", "rm", f"{MY_PROJECT}:local"], capture_output=True)


def test_a_second_checkout_may_not_touch_the_first_and_gets_a_cluster_of_its_own_when_its_files_can_be_read(running, checkout):
    before = ids()
    for verb in ("up", "scale", "down", "clean", "rush"):
        refused(other(checkout, f"local/docker {verb}"), f"is of the checkout in {ROOT}", "CLUSTER_DIR=")
    assert ids() == before
    said = other(checkout, "local/docker up", **MINE)
    refused(said, "cannot read what is mounted", "chmod -R go+rX ", " mysql/common.cnf ")
    must(other(checkout, re.search(r"`(chmod .+?)`", said[1])[1]))
    must(other(checkout, "local/docker up", **MINE), "2 replicas")
    must(other(checkout, "local/docker status", **MINE))
    must(other(checkout, "local/docker rush", USERS="1800", VUS="50", **MINE), "the audit found no promise broken")


def test_a_new_image_under_load_refuses_nobody_and_one_that_does_not_start_is_forgotten(checkout):
    must(other(checkout, "chmod -R go+rX . && local/docker up", **MINE))
    dockerfile = checkout / "Dockerfile"
    first = dockerfile.read_text()
    before = ids("app", MY_PROJECT)
    with arrivals(checkout / MINE["CLUSTER_DIR"]):
        dockerfile.write_text(first + "LABEL coupon-rush.version=second\n")
        must(other(checkout, "make upgrade RUNTIME=docker", **MINE))
        second = ids("app", MY_PROJECT)
        assert versions() == ["second"] * 2 and before.isdisjoint(second)
        # It can migrate and not serve.
        dockerfile.write_text(first + "LABEL coupon-rush.version=third\nENV LISTEN=nowhere\n")
        refused(other(checkout, "make upgrade RUNTIME=docker", **MINE), "does not become ready", "those before it serve on")
        assert ids("app", MY_PROJECT) == second
    must(other(checkout, "local/docker scale", **MINE | {"REPLICAS": "3"}))
    assert versions() == ["second"] * 3


def versions():
    return [one["Config"]["Labels"].get("coupon-rush.version") for one in found("app", MY_PROJECT)]


def test_data_outlives_down_and_is_given_to_no_other_checkout(running, checkout):
    new_round()
    assert order("stays") == 201
    must(cluster("down"))
    assert found() == []
    refused(other(checkout, "local/docker up"), "has passwords that are not here", "docker volume rm coupon-rush_")
    must(cluster("up"))
    assert order("stays") == 409


def test_clean_leaves_nothing_but_the_results(running):
    must(cluster("clean"))
    assert left() == []
    assert {path.name for path in HOME.iterdir()} <= {"runs"}
    assert not composition.NOTE.exists()
