"""The cluster with Docker as its stories call it: the scripts, the engine, requests through nginx, and a crowd."""

import json
import os
import re
import shutil
import signal
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from contextlib import contextmanager

import containers
from script import ROOT
from settings import PORTS
from story import content, eventually, interrupted, must, said_by

HOME = ROOT / ".cluster" / "docker"
OFFSET = int(os.environ.get("DOCKER_TESTS_PORT_OFFSET", "24000"))
# What a person's shell has, and no knobs.
SHELL = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "COUPON_LAB_BIN") or name.startswith("DOCKER_")}
KNOBS = {"GRAFANA": "off", "PORT_OFFSET": str(OFFSET)}
FILE = "docker-compose.scale.yml"
PROJECT = "coupon-rush"


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


def left(project=PROJECT):
    """What the engine has of a cluster."""
    kinds = (("ps", "--all"), ("volume", "ls"), ("network", "ls"))
    return [name for kind in kinds for name in docker(*kind, "--quiet", *of(project)).split()]


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


def new_round():
    ends = re.search(r"make reset ROUND=(\d+)", cluster("reset")[1])[1]
    must(cluster("reset", ROUND=ends))


def killed(service):
    """Ends the first process of a container from outside, as a crash would; `docker kill` would count as a wish that it stays away."""
    one = found(service)[0]
    os.kill(one["State"]["Pid"], signal.SIGKILL)
    return one


def back(one):
    """Whether a container was started again by itself."""
    now = next(other for other in found() if other["Id"] == one["Id"])
    return now["State"]["Pid"] not in (0, one["State"]["Pid"])


def all_is_well():
    """As `status` tells a person."""
    return cluster("status")[0] == 0


def are_well(project=PROJECT):
    """Whether the containers of a cluster are as they should be, as the engine tells a test before it begins."""
    return all(containers.state(one)[1] == "yes" for one in found(project=project))


@contextmanager
def arrivals(home):
    """150 requests a second to the cluster of this folder, as long as the block does, of which none may be refused."""
    folder = HOME / "runs" / "arrivals"
    shutil.rmtree(folder, ignore_errors=True)
    knobs = {"CLUSTER_DIR": str(home), "RATE": "150", "DURATION": "10m", "CODES": "8", "STRICT": "1", "DROPS": "allow", "VUS": "600"}
    with interrupted([ROOT / "local" / "k6", "arrival", "--into", folder], KNOBS | knobs) as crowd:
        eventually(lambda: (folder / "acks.log").exists() and (folder / "acks.log").stat().st_size > 0)
        yield
    content(crowd.said, "the verdict with 0")
    metrics = json.loads((folder / "summary.json").read_text())["metrics"]
    # A machine with much else to do asks some later than it should, or not at all.
    assert metrics["dropped_iterations"]["count"] <= metrics["coupon_issued"]["count"] / 10, "too few were asked"
