"""What this machine lacks, each with its cure, before anything is started."""

import re
import resource
import socket
import subprocess
from contextlib import suppress

import database
from programs import Supervisor, psutil, strays
from script import ROOT, VENV, Problem, which
from settings import Settings

# 10,000 users through nginx need two connections each, over two workers or more.
OPEN_FILES_NEEDED = 16_384
# Program and package have one name.
SERVERS = ("redis-server", "nginx", "prometheus")


def complaints(settings: Settings, supervisor: Supervisor) -> list:
    """Every complaint as one line; none means that `up` can work."""
    found = missing_programs(settings) + compiler() + open_files()
    # What a killed supervisor left behind holds its ports only until `up` ends it.
    return found if psutil is None or strays(settings) else found + used_ports(settings, supervisor)


def missing_programs(settings: Settings) -> list:
    found = [
        f"{name} is missing: run `make install`, or as root: apt-get install {name}"
        for name in SERVERS if which(name) is None
    ]
    found += [f"{name} is missing: run `make install`" for name in ("supervisord", "k6") if not (VENV / name).exists()]
    if psutil is None:
        found.append("Python's psutil is missing: run `make install`")
    if settings.db_members > 1 and which("mariadb") is None and which("mysql") is None:
        found.append("a client program of the database is missing, by which a group is formed: run `make install`")
    try:
        database.chosen(settings)
    except Problem as problem:
        found.append(str(problem))
    return found


def compiler() -> list:
    """The service needs the compiler that its Cargo.toml names; cargo's own complaint about it is hard to read."""
    needed = re.search(r'^rust-version = "([\d.]+)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE).group(1)
    if which("rustc") is None:
        return [f"no Rust compiler: install Rust {needed} or later (rustup, or your system's rustc and cargo)"]
    text = subprocess.run(["rustc", "--version"], capture_output=True, text=True, cwd=ROOT).stdout
    version = re.search(r"(\d+)\.(\d+)", text)
    if version is None:
        return ["rustc does not tell its version: look at `rustc --version`"]
    if tuple(map(int, version.groups())) < tuple(map(int, needed.split(".")[:2])):
        return [f"Rust {version.group(0)} is too old: {needed} or later is needed; run `rustup update stable`"]
    return ["no C compiler: run `make install`, or as root: apt-get install build-essential"] if which("cc") is None else []


def open_files() -> list:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY or hard >= OPEN_FILES_NEEDED:
        return []
    return [f"only {hard} open files are allowed: raise the hard limit to {OPEN_FILES_NEEDED} (`ulimit -Hn`, limits.conf)"]


def used_ports(settings: Settings, supervisor: Supervisor) -> list:
    """The ports that parts not running yet would need and another program holds."""
    running, taken = supervisor.pids(), {}
    for part, (port, knob) in settings.ports().items():
        if taken.setdefault(port, part) != part:
            return [f"port {port} would be that of {taken[port]} and of {part}: choose another with {knob}="]
    return [
        f"port {port} for {part} is in use{holder(port)}: end that, or choose another with {knob}="
        for part, (port, knob) in settings.ports().items()
        if part.split()[0] not in running and not is_free(port)
    ]


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        # Ports of connections that ended a moment ago are free for a server; it sets the same option.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            return True
        except OSError:
            return False


def holder(port: int) -> str:
    """The program that listens there, as far as this user may know."""
    for one in psutil.net_connections("tcp"):
        if one.status == psutil.CONN_LISTEN and one.laddr.port == port and one.pid:
            with suppress(psutil.Error):
                return f" by process {one.pid} ({psutil.Process(one.pid).name()})"
    return ""
