"""Calls Docker for one cluster: the engine itself, and Compose with this cluster's knobs, once it is clear that the cluster is ours."""

import argparse
import json
import os
import subprocess
from pathlib import Path

import composition
import containers
from composition import OWN_FOLDER, project
from script import ROOT, Problem, first_line, say, wait, which, write
from settings import PASSED_THROUGH, Settings, home

REMOVE_SECONDS = 60
# What a person may say about a crowd.
CROWD = ("VUS", "USERS", "DURATION", "SEED", "RESET", "STRICT", "RATE", "CODES", "DROPS")


def carry_out(verbs: dict, folder: Path, description: str):
    """Does what the command line says, with the cluster in this folder where the caller names no other one."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=list(verbs))
    os.environ["CLUSTER_DIR"] = os.environ.get("CLUSTER_DIR") or str(folder)
    # Containers read what is written here as other users; secrets have a mode of their own.
    os.umask(0o022)
    return verbs[parser.parse_args().verb]()


def engine() -> bool:
    """Whether the engine is a rootless one; without an engine, or without Compose, an error that names the cure."""
    if which("docker") is None:
        raise Problem("there is no Docker here: install Docker Engine with its Compose plugin, or leave RUNTIME=docker out; "
                      "the local cluster needs none")
    done = subprocess.run(["docker", "info", "--format", "{{json .SecurityOptions}}"], capture_output=True, text=True)
    if done.returncode != 0:
        raise Problem(f"the Docker engine does not answer ({last_line(done.stderr)}): start it, for example with `systemctl start "
                      "docker`, and see that you may use it (group docker); or leave RUNTIME=docker out")
    version = subprocess.run(["docker", "compose", "version", "--short"], capture_output=True, text=True)
    if version.returncode != 0:
        raise Problem("Docker has no Compose here: install its plugin (Debian: docker-compose, Docker's own: docker-compose-plugin)")
    return "name=rootless" in done.stdout


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[-1]


def docker(*words: str) -> str:
    done = subprocess.run(["docker", *words], capture_output=True, text=True)
    if done.returncode != 0:
        raise Problem(f"`docker {words[0]}` failed: {last_line(done.stderr)}")
    return done.stdout.strip()


def remove(listing: tuple, *steps: str) -> None:
    """Does this to all that is listed, until nothing is. What somebody else removes meanwhile, as the engine does what has ended, is gone
    as well; and what is still in use may be free a moment later."""
    said = ""

    def is_done() -> bool:
        nonlocal said
        left = docker(*listing).split()
        for step in steps if left else ():
            said = subprocess.run(["docker", *step.split(), *left], capture_output=True, text=True).stderr
        return not left

    if not wait(is_done, REMOVE_SECONDS):
        raise Problem(f"`docker {steps[-1]}` still fails after {REMOVE_SECONDS} s: {last_line(said)}")


def compose(settings: Settings, *words: str, capture: bool = False) -> str:
    """Runs `docker compose` with these knobs, not with whatever the caller's shell has under the same names."""
    rootless = engine()
    refuse_what_is_not_ours()
    values = composition.prepare(settings, rootless) | composition.knobs(settings)
    environment = {name: value for name, value in os.environ.items() if name not in PASSED_THROUGH}
    environment |= noted(values)
    command = ["docker", "compose", "--project-name", project(), *words]
    done = subprocess.run(command, env=environment, cwd=ROOT, text=True, stdout=subprocess.PIPE if capture else None)
    if done.returncode != 0:
        raise Problem(f"`docker compose {words[0]}` ended with {done.returncode}: see above, and `make logs RUNTIME=docker`")
    return done.stdout


def read(settings: Settings, *options: str) -> dict:
    """The Compose files as Compose understands them."""
    return json.loads(compose(settings, *options, "config", "--format", "json", capture=True))


def crowd(settings: Settings, script: str) -> None:
    """Sends a crowd from a container, and lets k6 audit the tables: for a host that has nothing but Docker, and for a swarm."""
    one = read(settings, "--profile", "k6")["services"]["k6"]
    os.environ["ADMIN_TOKEN"] = first_line(settings.secrets / "admin-token")
    variables = [f"{name}={value}" for name, value in one["environment"].items() if value is not None]
    given = [name for name in (*CROWD, "ADMIN_TOKEN") if os.environ.get(name)]
    words = ["--rm", "--network", f"{project()}_front", "--volume", f"{ROOT / 'k6'}:/k6:ro", *bounds(one),
             *(f"--env={variable}" for variable in variables + given), one["image"]]
    # The console would have a line for each coupon.
    done = subprocess.run(["docker", "run", *words, "run", "--quiet", "--console-output", "/dev/null", f"/k6/{script}.js"])
    if done.returncode != 0:
        raise Problem(f"k6 ended with {done.returncode}: see above")
    say(f"{script}: k6 is content: every answer was right, and the audit found no promise broken")


def bounds(one: dict) -> list:
    """What a service may not do and how much it may take, as the engine is told for a container that Compose does not start."""
    return ["--user", one["user"], "--read-only", *(f"--tmpfs={path}" for path in one["tmpfs"]),
            *(f"--cap-drop={right}" for right in one["cap_drop"]), *(f"--security-opt={option}" for option in one["security_opt"]),
            "--memory", str(one["deploy"]["resources"]["limits"]["memory"]), "--ulimit", f"nofile={one['ulimits']['nofile']['hard']}"]


def differing(settings: Settings, every: list) -> list:
    """Those of these containers that Compose would replace."""
    hashes = dict(map(str.split, compose(settings, "config", "--hash", "*", capture=True).splitlines()))
    images = {name: docker("image", "inspect", "--format", "{{.Id}}", name) for name in {one["Config"]["Image"] for one in every}}
    wanted = lambda one: (images[one["Config"]["Image"]], hashes.get(containers.service(one)))
    return [one for one in every if (one["Image"], containers.label(one, "config-hash")) != wanted(one)]


def learn_limit(settings: Settings) -> None:
    """Notes how many files a container may open where the engine may not give as many as the Compose file wants."""
    run = ["run", "--rm", "--network", "none", "--entrypoint", "sh"]
    limit = settings.home / composition.OPEN_FILES
    if limit.exists() or subprocess.run(["docker", *run, "--ulimit", "nofile=65535", composition.image(), "-c", ":"], capture_output=True).returncode == 0:
        return
    write(limit, docker(*run, composition.image(), "-c", "ulimit -Hn"))
    say(f"the engine may not let a container open 65,535 files, so it may open {limit.read_text()}")


def refuse_what_is_not_ours() -> None:
    """One project name is one cluster. What another checkout has under it has other files and other passwords."""
    label, own_folder = "com.docker.compose.project", "or give this one a folder of its own: CLUSTER_DIR=.cluster/mine"
    mine = f"label={label}={project()}"
    for folder in docker("ps", "--all", "--filter", mine, "--format", f'{{{{.Label "{label}.working_dir"}}}}').splitlines():
        if os.path.realpath(folder) != str(ROOT):
            raise Problem(f"the cluster {project()} is of the checkout in {folder}: stop it there, or, if that is gone, with "
                          f"`docker compose --project-name {project()} down`; {own_folder}")
    volumes = docker("volume", "ls", "--quiet", "--filter", mine).split()
    if volumes and not (home() / "secrets" / "admin-password").exists():
        raise Problem(f"the data of {project()} has passwords that are not here, as after another checkout's `down`: delete it there with "
                      f"`clean`, or here with `docker volume rm {' '.join(volumes)}`; {own_folder}")


def noted(values: dict) -> dict:
    """The same values, when .env has them for a person that calls Compose by hand."""
    if home() == OWN_FOLDER and not composition.note(values):
        say(".env is not ours and stays as it is; `docker compose` by hand needs " + " ".join(f"{k}={v}" for k, v in values.items()))
    return values
