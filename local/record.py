"""`cluster.json`: the machine-readable truth about a cluster, for k6, the lab and the tests. An absent part is null."""

import json

from database import urls, version
from programs import Supervisor, number_of
from script import kept, write
from settings import Settings


def keep(settings: Settings, pids: dict, replicas=(), redis=(), mysql=None) -> None:
    """Writes the record. It holds passwords, so only its owner may read it."""
    ports = {"nginx": settings.nginx_port, "prometheus": settings.prometheus_port}
    single = {name: {"url": url(port), "pid": pids[name]} if name in pids else None for name, port in ports.items()}
    record = {
        **single, "replicas": list(replicas), "redis": list(redis), "mysql": mysql,
        "strategy": settings.strategy if replicas else None,
        "admin_token_file": str(settings.secrets / "admin-token") if replicas else None,
    }
    write(settings.home / "cluster.json", json.dumps(record, indent=2) + "\n", 0o600)


def read(settings: Settings) -> dict:
    path = settings.home / "cluster.json"
    nothing = {"nginx": None, "replicas": [], "redis": [], "mysql": None, "prometheus": None, "strategy": None, "admin_token_file": None}
    return kept(path) if path.exists() else nothing


def write_record(settings: Settings, supervisor: Supervisor) -> None:
    """Writes what runs at this moment."""
    pids = supervisor.pids()
    nodes = [{"url": f"redis://127.0.0.1:{settings.redis_port + number_of(name)}", "pid": pids[name]} for name in numbered("redis", pids)]
    ports = settings.members()
    found = next(filter(None, map(version, ports.values())), None)
    database = mysql(pids, ports, found, lambda *some: urls(settings, *some))
    keep(settings, pids, [replica(settings, name, pids[name]) for name in replicas(pids)], nodes, database)


def replica(settings: Settings, name: str, pid: int) -> dict:
    number = number_of(name)
    return {"name": name, "url": url(settings.replica_port + number), "ops_url": url(settings.ops_port + number), "pid": pid}


def mysql(pids: dict, places: dict, found, ways):
    """The servers of the database, each at its place, of the version that was found; `ways` leads to one or to all of them."""
    if not any(name in pids for name in places):
        return None
    engine = "mariadb" if found and "MariaDB" in found else "mysql"
    members = [{"name": name, **ways(place), "pid": pids.get(name)} for name, place in places.items()]
    return {"engine": engine, "version": found, **ways(*places.values()), "pid": members[0]["pid"], "members": members}


def replicas(names) -> list:
    return numbered("replica", names)


def numbered(kind: str, names) -> list:
    """The programs of one kind among these, in the order of their numbers."""
    return sorted((name for name in names if name.startswith(f"{kind}-")), key=number_of)


def url(port: int) -> str:
    return f"http://127.0.0.1:{port}"
