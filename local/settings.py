"""What a cluster is made of: its folders, its ports and its knobs, read once from the environment.

Every knob is an environment variable in upper case, so that `make up REPLICAS=5`, a shell and CI say it the same way.
`up` saves what it used; the other verbs read that back, so that they need no knobs at all.
"""

import json
import os
import secrets
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path

from script import ROOT, Problem, first_line, kept, which, write

STRATEGIES = ("unlocked", "conditional", "optimistic", "pessimistic", "redlock", "batched")
ENGINES = ("mysql", "mariadb")
BALANCES = ("home", "scattered")
# So many orders may be under way at a home. More go on to the next replica, so that a crowd has as many as it needs, and a home that
# freezes holds no more than these.
HOME_ORDERS = 500
REPLICAS_MAX = 20
# Beyond this a lock that is held across a call could not be kept alive.
DISTANCE_MS_MAX = 100
# As far as the database can count.
ROUND_MAX = 2**32 - 2
# The name of each exporter's process and of its program.
EXPORTERS = {f"exporter-{name}": f"prometheus-{name}-exporter" for name in ("node", "redis", "mysqld", "nginx")}
# The groups count on from theirs, so none is the last port there is.
PORT_MAX = 65_500
# Each knob is the name in upper case.
PORTS = {"nginx_port": 8000, "replica_port": 8100, "ops_port": 8200, "redis_port": 6390, "mysql_port": 3316, "prometheus_port": 9095,
         "exporter_port": 9110, "grafana_port": 3000, "distance_port": 6490}
# Handed on to every replica when the caller set them; the service has its own defaults.
PASSED_THROUGH = (
    "LOCK_TTL_MS", "ON_LOCK_LOSS", "PROBE_TIMEOUT_MS", "POOL_SIZE", "REQUEST_DEADLINE_MS", "LAME_DUCK_MS", "DRAIN_MS", "THREADS", "LOG",
    "LOG_FORMAT", "RUST_BACKTRACE",
)

# Milliseconds, within what stands around a replica: an old worker of nginx, which may ask two replicas and waits a second longer than
# each may take, ends after 29 s, and Docker kills a replica after 15.
PATIENCE = {"REQUEST_DEADLINE_MS": (100, 7_000), "LAME_DUCK_MS": (0, 14_000), "DRAIN_MS": (0, 14_000)}
# The service's own.
REQUEST_DEADLINE_MS = 5_000
# What a stopping replica takes where nobody says otherwise, first to leave and then to drain; and how much of both fits in.
STOP_MS, STOP_MS_MAX = {"LAME_DUCK_MS": 0, "DRAIN_MS": 10_000}, 14_000


@dataclass(frozen=True)
class Settings:
    """The knobs of one cluster. `home` holds all it ever writes."""

    home: Path
    replicas: int
    strategy: str
    engine: str
    redis_nodes: int
    nginx_port: int
    replica_port: int
    ops_port: int
    redis_port: int
    mysql_port: int
    prometheus_port: int
    access_log: bool
    binary: Path
    passed_through: dict
    # These have defaults, so that a cluster which an older version started can still be looked at and stopped.
    exporters: bool = False
    exporter_port: int = PORTS["exporter_port"]
    grafana: bool = True  # Docker's alone, and so is its port.
    grafana_port: int = PORTS["grafana_port"]
    balance: str = "scattered"  # As clusters were before it could be chosen.
    home_orders: int = HOME_ORDERS
    distance_ms: int = 0  # A round trip between the replicas and their servers, added by the laboratory.
    distance_port: int = PORTS["distance_port"]
    rate_limit: int = 0  # Requests of one client per second; 0 is without a limit.
    db_members: int = 1  # Servers of the database; three are a group.
    redis_urls_1: str = ""  # The first replica's own ways to the lock nodes, which `make chaos` cuts.

    @property
    def run(self) -> Path:
        """The working folder of the programs that bring none of their own."""
        return self.home / "run"

    @property
    def secrets(self) -> Path:
        return self.home / "secrets"

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    @property
    def deadline_ms(self) -> int:
        """Longest time that a replica takes to answer."""
        return int(self.passed_through.get("REQUEST_DEADLINE_MS", REQUEST_DEADLINE_MS))

    def secret(self, name: str) -> str:
        """A random secret, made once and kept in a file that only its owner can read."""
        path = self.secrets / name
        if not path.exists():
            self.secrets.mkdir(parents=True, exist_ok=True, mode=0o700)
            write(path, secrets.token_hex(24), 0o600)
        return first_line(path)

    def save(self) -> None:
        values = {**asdict(self), "home": str(self.home), "binary": str(self.binary)}
        write(self.run / "knobs.json", json.dumps(values, indent=1) + "\n")

    def ports(self) -> dict:
        """The port of every part that `up` would start, and the knob that moves it."""
        ports = {name: (port, "MYSQL_PORT") for name, port in self.members().items()}
        for node in range(1, self.redis_nodes + 1):
            ports[f"redis-{node}"] = (self.redis_port + node, "REDIS_PORT")
        for number in range(1, self.replicas + 1):
            ports[f"replica-{number}"] = (self.replica_port + number, "REPLICA_PORT")
            ports[f"replica-{number} (ops)"] = (self.ops_port + number, "OPS_PORT")
        if self.replicas and self.distance_ms:
            ports |= {f"distance to {name}": (port, "DISTANCE_PORT") for name, (port, _) in self.links().items()}
        if self.replicas:
            ports["nginx"] = (self.nginx_port, "NGINX_PORT")
            ports["prometheus"] = (self.prometheus_port, "PROMETHEUS_PORT")
        if self.replicas and self.exporters:
            ports |= {name: (self.exporter(name), "EXPORTER_PORT") for name in self.exporter_programs()}
        return ports

    def links(self) -> dict:
        """Where a replica finds each server: with a distance at another port, which leads to the server's own."""
        servers = self.members() | {f"redis-{node}": self.redis_port + node for node in range(1, self.redis_nodes + 1)}
        return {name: (self.distance_port + 1 + place if self.distance_ms else port, port)
                for place, (name, port) in enumerate(servers.items())}

    def members(self) -> dict:
        """The port of every server of the database: one, or the members of a group."""
        if self.db_members == 1:
            return {"mysql": self.mysql_port}
        return {f"mysql-{place + 1}": self.mysql_port + place for place in range(self.db_members)}

    def exporter(self, name: str) -> int:
        """The port of an exporter."""
        return self.exporter_port + 1 + list(self.exporter_programs()).index(name)

    def exporter_programs(self) -> dict:
        """Every exporter's name and program: one for each kind of server, and one more for each further server of the database."""
        further = {f"exporter-mysqld-{number}": EXPORTERS["exporter-mysqld"] for number in range(2, self.db_members + 1)}
        return EXPORTERS | further


def home() -> Path:
    """The cluster's folder. `clean` deletes folders in it by their names, such as `nginx` and `etc`, which others have, too."""
    folder = (ROOT / (os.environ.get("CLUSTER_DIR") or ".cluster")).resolve()
    if folder in (ROOT, *ROOT.parents):
        raise Problem(f"CLUSTER_DIR={folder} will not do: give a folder for the cluster alone")
    return folder


def from_environment() -> Settings:
    """The knobs as the caller gave them; a wrong one is named with the values that it may have."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return Settings(
        home=home(),
        replicas=number("REPLICAS", 3, 1, REPLICAS_MAX),
        strategy=choice("STRATEGY", "batched", STRATEGIES),
        engine=choice("DB", "mysql", ENGINES),
        redis_nodes=int(choice("REDIS_NODES", "3", ("1", "3", "5"))),
        db_members=int(choice("DB_MEMBERS", "1", ("1", "3"))),
        distance_ms=number("DISTANCE_MS", 0, 0, DISTANCE_MS_MAX),
        balance=choice("BALANCE", "home", BALANCES),
        home_orders=number("HOME_ORDERS", HOME_ORDERS, 1, 100_000),
        access_log=choice("ACCESS_LOG", "off", ("on", "off")) == "on",
        binary=ROOT / os.environ.get("COUPON_RUSH_BIN", target / "release" / "coupon-rush"),
        passed_through=passed_through(),
        exporters=choice("EXPORTERS", "on" if all(which(name) for name in EXPORTERS.values()) else "off", ("on", "off")) == "on",
        grafana=choice("GRAFANA", "on", ("on", "off")) == "on",
        rate_limit=0 if os.environ.get("RATE_LIMIT", "off") in ("", "off") else number("RATE_LIMIT", 0, 1, 10_000, "off, or "),
        redis_urls_1=os.environ.get("REDIS_URLS_1", ""),
        **ports(),
    )


def ports() -> dict:
    offset = number("PORT_OFFSET", 0, 0, 50_000)
    found = {name: offset + number(name.upper(), default, 1, PORT_MAX) for name, default in PORTS.items()}
    for name, port in found.items():
        if port > PORT_MAX:
            raise Problem(f"{name.upper()}={port - offset} and PORT_OFFSET={offset} will not do: together at most {PORT_MAX}")
    return found


def passed_through() -> dict:
    for name, (low, high) in PATIENCE.items():
        number(name, low, low, high)
    stop = {name: number(name, default, *PATIENCE[name]) for name, default in STOP_MS.items()}
    if sum(stop.values()) > STOP_MS_MAX:
        given = " and ".join(f"{name}={value}" for name, value in stop.items())
        raise Problem(f"{given} will not do: together at most {STOP_MS_MAX}, or a stopping replica is killed before it is done")
    return {name: os.environ[name] for name in PASSED_THROUGH if os.environ.get(name)}


def saved() -> Settings:
    """The knobs of the last `up` in this folder, or the caller's when there was none."""
    path = home() / "run" / "knobs.json"
    if not path.exists():
        return from_environment()
    values = kept(path)
    known = {field.name for field in fields(Settings)}
    needed = {field.name for field in fields(Settings) if field.default is MISSING}
    if not needed <= set(values) <= known:
        raise Problem(f"{path} is of another version of this tool: run `make clean`")
    return Settings(**{**values, "home": home(), "binary": Path(values["binary"])})


def number(name: str, default: int, low: int, high: int, otherwise: str = "") -> int:
    text = os.environ.get(name) or str(default)
    if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
        raise Problem(f"{name}={text} will not do: give {otherwise}a whole number from {low} to {high}")
    return int(text)


def choice(name: str, default: str, allowed: tuple) -> str:
    text = os.environ.get(name) or default
    if text not in allowed:
        raise Problem(f"{name}={text} will not do: give one of {', '.join(allowed)}")
    return text
