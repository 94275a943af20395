"""The programs around database and nginx: Redis, the replicas, Prometheus and the exporters, and how each shows that it serves."""

import json
import os
import resource
import shutil
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

from programs import Program, Supervisor, digest
from script import ROOT, Problem, get, must_run, program, write
from settings import Settings

OPEN_FILES_MAX = 65_535
# What is the same in both ways to run.
REDIS_FILE = ROOT / "redis" / "redis.conf"
EXPORTER_OPTIONS = ROOT / "prometheus" / "exporters"


def redis(settings: Settings, node: int) -> Program:
    """One of the independent lock nodes."""
    folder = settings.home / "data" / f"redis-{node}"
    folder.mkdir(parents=True, exist_ok=True)
    port = settings.redis_port + node
    command = [program("redis-server"), REDIS_FILE, "--bind", "127.0.0.1", "--port", port, "--dir", folder]
    return Program(f"redis-{node}", command, folder, lambda: pong(port), note=f"configuration {digest([REDIS_FILE])}")


def pong(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        connection.sendall(b"PING\r\n")
        return connection.recv(16).startswith(b"+PONG")
    return False


def replica(settings: Settings, number: int) -> Program:
    """One process of the service. The note makes its file change, and so the replica restart, when the binary or a secret does."""
    name = f"replica-{number}"
    redis_urls = [f"redis://127.0.0.1:{port}" for server, (port, _) in settings.links().items() if server.startswith("redis")]
    ops = settings.ops_port + number
    environment = {
        "LOG": "warn",
        # nginx is told first: `local/cluster` takes a replica out of it and only then stops it.
        "LAME_DUCK_MS": "0",
        **settings.passed_through,
        "LISTEN": f"127.0.0.1:{settings.replica_port + number}",
        "OPS_LISTEN": f"127.0.0.1:{ops}",
        "REPLICA": name,
        "STRATEGY": settings.strategy,
        "DATABASE_URL_FILE": settings.secrets / "database-url",
        "REDIS_URLS": (settings.redis_urls_1 if number == 1 else "") or ",".join(redis_urls),
        "ADMIN_TOKEN_FILE": settings.secrets / "admin-token",
    }
    settings.secret("admin-token")
    secrets = [settings.secrets / name for name in ("admin-token", "database-url")]
    note = f"binary of {binary(settings).stat().st_mtime_ns}, secrets {digest(secrets)}"
    command = [settings.binary, "serve"]
    return Program(name, command, settings.run, lambda: get(ops, "/readyz") == 200, environment, note=note)


def distance(settings: Settings) -> Program:
    """What delays all that replicas and servers say to each other. It is the laboratory's, and lies beside the service."""
    links = [word for port, server in settings.links().values() for word in ("--link", f"127.0.0.1:{port}=127.0.0.1:{server}")]
    command = [binary(settings).with_name("lab"), "distance", "--round-trip-ms", settings.distance_ms, *links]
    nodes = [port for name, (port, _) in settings.links().items() if name.startswith("redis")]
    return Program("distance", command, settings.run, lambda: all(map(pong, nodes)))


def binary(settings: Settings) -> Path:
    if not os.access(settings.binary, os.X_OK):
        raise Problem(f"{settings.binary} is missing: run `make build`")
    return settings.binary


def migrate(settings: Settings) -> None:
    """Brings the schema and the service's account up to date, and makes the laboratory's event when there is none; before any replica."""
    for step in ("migrate", "seed"):
        must_run(f"`coupon-rush {step}` failed", [binary(settings), step], administrator(settings))


def step(settings: Settings, *words: str) -> int:
    """Lets the service's program do something to the database and tell a person about it; its exit status."""
    return subprocess.run([binary(settings), *words], env=administrator(settings)).returncode


def administrator(settings: Settings) -> dict:
    """The environment of the steps that need more rights than a replica has."""
    files = {f"{name.upper().replace('-', '_')}_FILE": str(settings.secrets / name) for name in ("admin-database-url", "database-url")}
    return {"PATH": os.environ.get("PATH", ""), "LOG": "warn", **files}


def prometheus(settings: Settings) -> Program:
    """The note makes its file change, and so Prometheus restart, when its configuration does."""
    folder = settings.home / "prometheus"
    shutil.copytree(ROOT / "prometheus", folder, dirs_exist_ok=True)
    note = f"configuration {digest((ROOT / 'prometheus').rglob('*.yml'))}"
    address = f"127.0.0.1:{settings.prometheus_port}"
    write_targets(settings, "prometheus", [{"targets": [address]}])
    command = [program("prometheus"), f"--config.file={folder / 'prometheus.yml'}", f"--web.listen-address={address}",
               f"--storage.tsdb.path={settings.home / 'data' / 'prometheus'}", "--storage.tsdb.retention.time=2d",
               "--web.enable-remote-write-receiver", "--log.level=warn"]
    return Program("prometheus", command, settings.run, lambda: get(settings.prometheus_port, "/-/ready") == 200, note=note)


def set_exporters(settings: Settings, supervisor: Supervisor) -> None:
    """Makes all exporters run, or none, and Prometheus know them. nginx comes before them: one of them asks it at once.

    They are Debian's, one process each, and optional: EXPORTERS=on|off; without it they run where they are installed.
    """
    if settings.exporters:
        supervisor.ensure(*exporters(settings))
    else:
        supervisor.remove(*settings.exporter_programs())
    for job, targets in exporter_targets(settings).items():
        write_targets(settings, job, targets if settings.exporters else [])


def exporters(settings: Settings) -> list:
    url = f"http://127.0.0.1:{settings.nginx_port}/nginx_status"
    return [
        exporter(settings, "exporter-node", f"@{EXPORTER_OPTIONS / 'host'}"),
        exporter(settings, "exporter-redis", "--redis.addr="),
        *(of_database(settings, name, port) for name, port in zip(database_exporters(settings), settings.members().values())),
        exporter(settings, "exporter-nginx", f"--nginx.scrape-uri={url}", "--nginx.retries=5"),
    ]


def of_database(settings: Settings, name: str, port: int) -> Program:
    """The exporter's own account reaches it in a file, because everybody can read a command line."""
    account, password = settings.secrets / f"{name}.cnf", settings.secret("exporter-password")
    write(account, f"[client]\nuser=exporter\npassword={password}\nhost=127.0.0.1\nport={port}\n", 0o600)
    files = ("mysql", "group") if settings.db_members > 1 else ("mysql",)
    return exporter(settings, name, f"--config.my-cnf={account}", *(f"@{EXPORTER_OPTIONS / file}" for file in files))


def database_exporters(settings: Settings) -> list:
    """In the order of the servers that they ask."""
    return [name for name in settings.exporter_programs() if name.startswith("exporter-mysqld")]


def exporter(settings: Settings, name: str, *options: str) -> Program:
    port = settings.exporter(name)
    command = [program(settings.exporter_programs()[name]), f"--web.listen-address=127.0.0.1:{port}", *options]
    note = f"options {digest(EXPORTER_OPTIONS.iterdir())}"
    return Program(name, command, settings.run, lambda: get(port, "/metrics") == 200, note=note)


def exporter_targets(settings: Settings) -> dict:
    """Per job the targets. One exporter asks every lock node, so that a node is a target with the exporter's address. The one server of
    the database is known by its exporter's address, a member of a group by its name."""
    at = {name: [f"127.0.0.1:{settings.exporter(name)}"] for name in settings.exporter_programs()}
    nodes = [
        {"targets": at["exporter-redis"], "labels": {"instance": f"redis-{node}", "__param_target": f"redis://127.0.0.1:{settings.redis_port + node}"}}
        for node in range(1, settings.redis_nodes + 1)
    ]
    servers = [{"targets": at[name], "labels": {"instance": member} if settings.db_members > 1 else {}}
               for name, member in zip(database_exporters(settings), settings.members())]
    return {"host": [{"targets": at["exporter-node"]}], "nginx": [{"targets": at["exporter-nginx"]}], "mysql": servers, "redis": nodes}


def write_targets(settings: Settings, job: str, targets: list) -> None:
    write(settings.home / "prometheus" / "targets" / f"{job}.json", json.dumps(targets) + "\n")


def raise_open_files() -> int:
    """Raises the soft limit of open files as far as it may go; every program that we start inherits it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = OPEN_FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES_MAX)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted
