"""A second checkout beside the one of the story, and somebody who has it."""

import functools
import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

from docker_cluster import KNOBS, OFFSET, PROJECT, SHELL
from script import ROOT

# The cluster of a second checkout, which has a folder of its own, and so another name.
MINE = {"CLUSTER_DIR": ".cluster/mine", "PORT_OFFSET": str(OFFSET + 100), "REPLICAS": "2"}
MY_PROJECT = f"{PROJECT}-mine"
# Neither the caller nor anybody whom an image knows.
STRANGER = 31_234


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
