"""The states in which a test begins. Each makes what it needs, so that a test also runs alone, and after one that failed."""

import json
from contextlib import suppress

import psutil
import pytest

from story import HOME, cluster, must, processes, record


def pytest_configure(config):
    config.addinivalue_line("markers", "database: would end otherwise if the database were another one")


@pytest.fixture(scope="session")
def folder():
    """A folder that nobody has used yet."""
    cluster("clean", ALL=1)
    yield HOME
    cluster("clean", ALL=1)


@pytest.fixture
def nothing(folder):
    """Nothing of the cluster runs; its data may be there."""
    if processes():
        must(cluster("down"))


@pytest.fixture
def running(folder):
    """The cluster runs as a plain `up` makes it."""
    if not runs_as_up_makes_it():
        must(cluster("up"))


def runs_as_up_makes_it():
    with suppress(OSError, TypeError):  # There is no cluster, or no nginx in it.
        knobs, found = json.loads((HOME / "run" / "knobs.json").read_text()), record()
        pids = [found["nginx"]["pid"], *(replica["pid"] for replica in found["replicas"])]
        plain = {"strategy": "batched", "replicas": 2, "rate_limit": 0, "db_members": 1, "passed_through": {}}
        return {name: knobs[name] for name in plain} == plain and all(map(psutil.pid_exists, pids))
    return False
