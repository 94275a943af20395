"""`cluster.json`: the machine-readable truth about a cluster, for k6, the lab and the tests. An absent part is null."""

import json

from database import urls, version
from parts import number_of
from settings import Settings, write
from supervisor import Supervisor

EMPTY = {"nginx": None, "replicas": [], "redis": [], "mysql": None, "prometheus": None, "strategy": None, "admin_token_file": None}


def write_record(settings: Settings, supervisor: Supervisor) -> None:
    """Writes what runs at this moment. The file holds passwords, so only its owner may read it."""
    pids = supervisor.pids()
    record = dict(EMPTY)
    if "nginx" in pids:
        record["nginx"] = {"url": url(settings.nginx_port), "pid": pids["nginx"]}
    record["replicas"] = [replica(settings, name, pids[name]) for name in replicas(pids)]
    record["redis"] = [
        {"url": f"redis://127.0.0.1:{settings.redis_port + node}", "pid": pids[f"redis-{node}"]}
        for node in range(1, settings.redis_nodes + 1) if f"redis-{node}" in pids
    ]
    if "mysql" in pids:
        record["mysql"] = mysql(settings, pids["mysql"])
    if "prometheus" in pids:
        record["prometheus"] = {"url": url(settings.prometheus_port), "pid": pids["prometheus"]}
    if record["replicas"]:
        record["strategy"] = settings.strategy
        record["admin_token_file"] = str(settings.secrets / "admin-token")
    write(settings.home / "cluster.json", json.dumps(record, indent=2) + "\n", 0o600)


def replica(settings: Settings, name: str, pid: int) -> dict:
    number = number_of(name)
    return {"name": name, "url": url(settings.replica_port + number), "ops_url": url(settings.ops_port + number), "pid": pid}


def mysql(settings: Settings, pid: int) -> dict:
    found = version(settings.mysql_port)
    engine = "mariadb" if found and "MariaDB" in found else "mysql"
    return {"engine": engine, "version": found, **urls(settings), "pid": pid}


def replicas(names) -> list:
    """The replicas among these programs, in the order of their numbers."""
    found = [name for name in names if name.startswith("replica-")]
    return sorted(found, key=number_of)


def url(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def read(settings: Settings) -> dict:
    path = settings.home / "cluster.json"
    return json.loads(path.read_text()) if path.exists() else dict(EMPTY)
