"""The Compose files as Compose understands them, for the tests that judge them."""

import json
import os
import shutil
from dataclasses import replace

import pytest

import composition
from script import ROOT, TOOLS, must_run, program, run_to_end
from settings import from_environment


class Files:
    """With all profiles and fresh secrets."""

    def __init__(self, db_members=1):
        os.environ["CLUSTER_DIR"] = f".cluster/check/docker-{db_members}"
        self.settings = replace(from_environment(), db_members=db_members)
        shutil.rmtree(self.settings.home, ignore_errors=True)
        self.given = composition.prepare(self.settings, rootless=False)
        self.project = json.loads(self.config(self.given, "--format", "json"))
        self.services = self.project["services"]

    def config(self, given, *more):
        # Nothing else of the caller's environment: the defaults are to be seen.
        environment = {"PATH": os.environ.get("PATH", ""), "HOME": os.environ.get("HOME", "/"), **given}
        named = [word for name in composition.files(self.settings) for word in ("--file", ROOT / name)]
        command = [*compose(), "--env-file", "/dev/null", *named, "--profile", "*", "config", *more]
        return must_run("Compose refuses", command, environment)

    def mounts(self):
        return [(name, mount) for name, one in self.services.items() for mount in one.get("volumes", []) if mount["type"] == "bind"]


def compose():
    own = TOOLS / "docker" / "usr/libexec/docker/cli-plugins/docker-compose"
    if own.exists():
        return [own]
    assert run_to_end([program("docker"), "compose", "version"]).returncode == 0, "there is no Compose: run `local/install docker-checks`"
    return ["docker", "compose"]


@pytest.fixture(scope="module")
def files():
    return Files()


@pytest.fixture(scope="module")
def grouped():
    return Files(db_members=3)


@pytest.fixture(params=["files", "grouped"])
def each(request):
    """With one server of the database, and with three."""
    return request.getfixturevalue(request.param)
