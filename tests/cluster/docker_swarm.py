"""The cluster in a swarm on a real engine, from its first start to its end: one story in the order of its tests.

One node is all of it: the engine of the Docker story, which is a swarm as long as this lasts, unless it was one before.
"""

import subprocess
from contextlib import contextmanager

import pytest

from compose import remove
from docker_cluster import KNOBS, OFFSET, SHELL, docker
from script import ROOT
from story import content, eventually, must, refused, said_by

pytest_plugins = ["docker_engine"]

HOME = ROOT / ".cluster" / "swarm"
STACK = "coupon-rush-swarm"
APP = f"{STACK}_app"
MINE = f"label=com.docker.stack.namespace={STACK}"


def environment(**knobs):
    return {**SHELL, **KNOBS, "PORT_OFFSET": str(OFFSET + 200), **knobs}


def swarm(verb, **knobs):
    return said_by([ROOT / "local" / "swarm", verb], environment=environment(**knobs))


def left():
    """What the engine has of the stack, and this checkout."""
    kinds = (("ps", "--all"), ("network", "ls"), ("volume", "ls"), ("config", "ls"), ("secret", "ls"), ("service", "ls"))
    things = [one for kind in kinds for one in docker(*kind, "--quiet", "--filter", MINE).split()]
    return things + docker("image", "ls", "--quiet", STACK).split() + [str(HOME)] * HOME.exists()


@pytest.fixture(scope="session")
def node(interruptions):
    """An engine that is a swarm's only node, without a stack of ours, before and after."""
    begun = docker("info", "--format", "{{.Swarm.LocalNodeState}}") != "active"
    bridges = docker("network", "ls", "--quiet", "--filter", "name=^docker_gwbridge$")
    if begun:
        docker("swarm", "init", "--advertise-addr", "127.0.0.1")
    try:
        if left():
            pytest.exit("a stack of this name or its data is here: `local/swarm clean` deletes it, and then this story can begin")
        yield
        must(swarm("clean"))
    finally:
        if begun:
            docker("swarm", "leave", "--force")
        if not bridges:
            remove(("network", "ls", "--quiet", "--filter", "name=^docker_gwbridge$"), "network rm")


@pytest.fixture
def running(node):
    if not docker("service", "ls", "--quiet", "--filter", f"name={APP}"):
        must(swarm("up"), "3 replicas")


def tasks():
    """The image of each replica that is ready."""
    said = docker("service", "ps", "--filter", "desired-state=running", "--format", "{{.Image}} {{.CurrentState}}", APP)
    return [image for image, state, *_ in map(str.split, said.splitlines()) if state == "Running"]


def test_a_stack_of_the_compose_file_starts_and_a_crowd_gets_what_there_is(running):
    must(swarm("rush", USERS="1800", VUS="50"), "the audit found no promise broken")
    published = {one.split()[0]: one.split()[1:] for one in docker("ps", "--filter", MINE, "--format", "{{.Names}} {{.Ports}}").splitlines()}
    reached = {name.split(".")[0] for name, ports in published.items() if any("->" in port for port in ports)}
    assert reached == {f"{STACK}_nginx"}


def test_scaling_a_new_image_and_one_that_does_not_start_refuse_nobody(running):
    with arrivals():
        for replicas in (5, 2):
            docker("service", "scale", "--detach", f"{APP}={replicas}")
            eventually(lambda: len(tasks()) == replicas, 60)
        second = derived("second", "LABEL coupon-rush.version=second")
        must(swarm("up", IMAGE=second, REPLICAS="2"), second)
        assert tasks() == [second] * 2
        third = derived("third", "ENV LISTEN=nowhere")
        refused(swarm("up", IMAGE=third, REPLICAS="2"), "did not become ready", "gone back to what ran before")
        assert tasks() == [second] * 2


def derived(version, line):
    """An image of the service that differs by one line."""
    name, first = f"{STACK}:{version}", docker("service", "inspect", "--format", "{{.Spec.TaskTemplate.ContainerSpec.Image}}", APP)
    subprocess.run(["docker", "build", "--tag", name, "-"], input=f"FROM {first}\n{line}\n", check=True, text=True, capture_output=True)
    return name


@contextmanager
def arrivals():
    """150 requests a second, as long as the block does, of which none may be refused."""
    knobs = environment(RATE="150", DURATION="10m", CODES="8", STRICT="1", DROPS="allow", VUS="600")
    with subprocess.Popen([ROOT / "local" / "swarm", "arrival"], env=knobs, text=True, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as crowd:
        try:
            eventually(sender)
            yield
        finally:
            for one in sender().split():
                docker("kill", "--signal", "INT", one)
        said = crowd.communicate()[0]
    content(said)


def sender():
    """The crowd's container, which is in the stack's network and not of the stack."""
    return docker("ps", "--quiet", "--filter", f"network={STACK}_front", "--filter", "ancestor=grafana/k6:1.1.0")


def test_clean_leaves_nothing(running):
    must(swarm("clean"))
    assert left() == []
