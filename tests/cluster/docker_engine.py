"""The states of a real engine in which the stories with Docker begin. Sessions that tell several of them share the cluster."""

import signal

import pytest

import composition
from docker_cluster import are_well, cluster, found, left
from story import must


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
def plain(engine):
    """The cluster as a plain `up` makes it."""
    if len(found("app")) != 3 or not are_well():
        must(cluster("up"))
