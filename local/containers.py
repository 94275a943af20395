"""What Docker says of the cluster's containers: as a table for people, and as cluster.json for programs."""

import json
import socket
import subprocess
from contextlib import suppress

import composition
import database
import record
from script import Problem
from settings import Settings

# The image's ports, as the Dockerfile sets them.
REPLICA_PORT, OPS_PORT = 8080, 8081


def inspect(ids: list) -> list:
    """Every container in full, in the order of services and numbers."""
    if not ids:
        return []
    done = subprocess.run(["docker", "inspect", *ids], capture_output=True, text=True)
    # What has gone since it was listed is missing, and no failure.
    if any("no such object" not in line.lower() for line in done.stderr.splitlines()):
        raise Problem(f"docker inspect failed: {done.stderr.strip()}")
    return sorted(json.loads(done.stdout), key=lambda one: (service(one), int(label(one, "container-number"))))


def label(one: dict, name: str) -> str:
    return one["Config"]["Labels"][f"com.docker.compose.{name}"]


def service(one: dict) -> str:
    return label(one, "service")


def address(one: dict) -> str:
    """A container's address in `front`, where nginx and Prometheus know it, else in the network that it has. On Linux this host
    reaches it; elsewhere the engine hides in a machine."""
    networks = (one["NetworkSettings"]["Networks"] or {}).items()
    front_first = sorted(networks, key=lambda found: not found[0].endswith("_front"))
    return next((network["IPAddress"] for _, network in front_first if network["IPAddress"]), "")


def row(one: dict, member=None) -> tuple:
    """A line of `status`; its last word is whether the container is as it should be, and has its place if it is a `group.Member`."""
    said, ready = state(one)
    if member:
        said, ready = str(member), ready if member.well else "no"
    return one["Name"].lstrip("/"), one["Config"]["Hostname"][:12] or "-", address(one) or "-", said, ready


def state(one: dict) -> tuple:
    """The state, and whether it is right: running, and healthy where it tells; the steps before the replicas are to have ended well."""
    status = one["State"]["Status"]
    if service(one) in ("migrate", "seed"):
        return status, "yes" if status == "exited" and one["State"]["ExitCode"] == 0 else "no"
    health = (one["State"].get("Health") or {}).get("Status", "healthy")
    return status, "yes" if status == "running" and health == "healthy" else "no"


def keep_record(settings: Settings, every: list) -> list:
    """Writes cluster.json and returns its replicas; what Docker publishes has its published address, the rest that of its container."""
    running = [one for one in every if one["State"]["Running"]]
    single = {service(one): one for one in running}
    nodes = [{"url": f"redis://{address(single[name])}:6379", "pid": pid(single[name])} for name in record.numbered("redis", single)]
    replicas = [replica(one) for one in running if service(one) == "app"]
    # Of a member that does not run the name stands in the place of the address.
    places = {name: address(single[name]) if name in single else name for name in composition.members(settings)}
    found = next(filter(None, (database.version(composition.MYSQL_PORT, places[name]) for name in places if name in single)), None)
    pids = {name: pid(one) for name, one in single.items()}
    record.keep(settings, pids, replicas, nodes, record.mysql(pids, places, found, lambda *some: composition.urls(settings, *some)))
    return replicas


def pid(one: dict) -> int:
    return one["State"]["Pid"]


def replica(one: dict) -> dict:
    """Its name is what it calls itself in `x-replica`."""
    urls = {"url": f"http://{address(one)}:{REPLICA_PORT}", "ops_url": f"http://{address(one)}:{OPS_PORT}"}
    return {"name": one["Config"]["Hostname"], **urls, "pid": pid(one)}


def reachable(replica: dict) -> bool:
    host, port = replica["ops_url"].removeprefix("http://").rsplit(":", 1)
    with suppress(OSError), socket.create_connection((host, int(port)), timeout=2):
        return True
    return False
