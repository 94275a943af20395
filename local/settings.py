"""What a cluster is made of: its folders, its ports and its knobs, read once from the environment.

Every knob is an environment variable in upper case, so that `make up REPLICAS=5`, a shell and CI say it the same way.
`up` saves what it used; the other verbs read that back, so that they need no knobs at all.
"""

import json
import os
import shutil
import signal
import subprocess
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STRATEGIES = ("unlocked", "conditional", "optimistic", "pessimistic", "redlock", "batched")
ENGINES = ("mysql", "mariadb")
REPLICAS_MAX = 20
# The name of each exporter's process and of its program.
EXPORTERS = {f"exporter-{name}": f"prometheus-{name}-exporter" for name in ("node", "redis", "mysqld", "nginx")}
# Handed on to every replica when the caller set them; the service has its own defaults.
PASSED_THROUGH = (
    "LOCK_TTL_MS", "ON_LOCK_LOSS", "PROBE_TIMEOUT_MS", "POOL_SIZE", "REQUEST_DEADLINE_MS", "LAME_DUCK_MS", "DRAIN_MS", "THREADS", "LOG",
    "LOG_FORMAT", "RUST_BACKTRACE",
)

# Milliseconds, within what stands around a replica: an old worker of nginx, which may ask two replicas and waits a second longer than
# each may take, ends after 28 s, and Docker kills a replica after 15.
PATIENCE = {"REQUEST_DEADLINE_MS": (100, 7_000), "LAME_DUCK_MS": (0, 14_000), "DRAIN_MS": (0, 14_000)}
# The service's own.
REQUEST_DEADLINE_MS = 5_000
# What a stopping replica takes where nobody says otherwise, first to leave and then to drain; and how much of both fits in.
STOP_MS, STOP_MS_MAX = {"LAME_DUCK_MS": 0, "DRAIN_MS": 10_000}, 14_000


class Problem(Exception):
    """Something the person at the keyboard can cure; its text is one line that says how."""


@dataclass(frozen=True)
class Settings:
    """The knobs of one cluster. `home` holds all it ever writes; `tools` and `venv` are shared by all clusters."""

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
    exporter_port: int = 9110
    grafana_port: int = 3000  # Docker's alone.
    rate_limit: int = 0  # Requests of one client per second; 0 is without a limit.
    redis_urls_1: str = ""  # The first replica's own ways to the lock nodes, which `make chaos` cuts.

    @property
    def run(self) -> Path:
        """The working folder of the programs that bring none of their own."""
        return self.home / "run"

    @property
    def secrets(self) -> Path:
        return self.home / "secrets"

    @property
    def deadline_ms(self) -> int:
        """Longest time that a replica takes to answer."""
        return int(self.passed_through.get("REQUEST_DEADLINE_MS", REQUEST_DEADLINE_MS))

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    def save(self) -> None:
        values = {**asdict(self), "home": str(self.home), "binary": str(self.binary)}
        write(self.run / "knobs.json", json.dumps(values, indent=1) + "\n")

    def ports(self) -> dict:
        """The port of every part that `up` would start, and the knob that moves it."""
        ports = {"mysql": (self.mysql_port, "MYSQL_PORT")}
        for node in range(1, self.redis_nodes + 1):
            ports[f"redis-{node}"] = (self.redis_port + node, "REDIS_PORT")
        for number in range(1, self.replicas + 1):
            ports[f"replica-{number}"] = (self.replica_port + number, "REPLICA_PORT")
            ports[f"replica-{number} (ops)"] = (self.ops_port + number, "OPS_PORT")
        if self.replicas:
            ports["nginx"] = (self.nginx_port, "NGINX_PORT")
            ports["prometheus"] = (self.prometheus_port, "PROMETHEUS_PORT")
        if self.replicas and self.exporters:
            for name in EXPORTERS:
                ports[name] = (self.exporter(name), "EXPORTER_PORT")
        return ports

    def exporter(self, name: str) -> int:
        """The port of an exporter."""
        return self.exporter_port + 1 + list(EXPORTERS).index(name)


def home() -> Path:
    return (ROOT / os.environ.get("CLUSTER_DIR", ".cluster")).resolve()


def tools() -> Path:
    return ROOT / ".cluster" / "tools"


def venv() -> Path:
    return ROOT / ".cluster" / "venv" / "bin"


def from_environment() -> Settings:
    """The knobs as the caller gave them; a wrong one is named with the values that it may have."""
    offset = number("PORT_OFFSET", 0, 0, 50_000)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return Settings(
        home=home(),
        replicas=number("REPLICAS", 3, 1, REPLICAS_MAX),
        strategy=choice("STRATEGY", "batched", STRATEGIES),
        engine=choice("DB", "mysql", ENGINES),
        redis_nodes=int(choice("REDIS_NODES", "3", ("1", "3", "5"))),
        nginx_port=offset + number("NGINX_PORT", 8000, 1, 65_535),
        replica_port=offset + number("REPLICA_PORT", 8100, 1, 65_500),
        ops_port=offset + number("OPS_PORT", 8200, 1, 65_500),
        redis_port=offset + number("REDIS_PORT", 6390, 1, 65_500),
        mysql_port=offset + number("MYSQL_PORT", 3316, 1, 65_535),
        prometheus_port=offset + number("PROMETHEUS_PORT", 9095, 1, 65_535),
        access_log=choice("ACCESS_LOG", "off", ("on", "off")) == "on",
        binary=ROOT / os.environ.get("COUPON_RUSH_BIN", target / "release" / "coupon-rush"),
        passed_through=passed_through(),
        exporters=choice("EXPORTERS", "on" if all(which(name) for name in EXPORTERS.values()) else "off", ("on", "off")) == "on",
        exporter_port=offset + number("EXPORTER_PORT", 9110, 1, 65_500),
        grafana_port=offset + number("GRAFANA_PORT", 3000, 1, 65_535),
        rate_limit=0 if os.environ.get("RATE_LIMIT", "off") in ("", "off") else number("RATE_LIMIT", 0, 1, 10_000),
        redis_urls_1=os.environ.get("REDIS_URLS_1", ""),
    )


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
    values = json.loads(path.read_text())
    known = {field.name for field in fields(Settings)}
    needed = {field.name for field in fields(Settings) if field.default is MISSING}
    if not needed <= set(values) <= known:
        raise Problem(f"{path} is of another version of this tool: run `make clean`")
    return Settings(**{**values, "home": home(), "binary": Path(values["binary"])})


def number(name: str, default: int, low: int, high: int) -> int:
    text = os.environ.get(name) or str(default)
    if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
        raise Problem(f"{name}={text} will not do: give a whole number from {low} to {high}")
    return int(text)


def choice(name: str, default: str, allowed: tuple) -> str:
    text = os.environ.get(name) or default
    if text not in allowed:
        raise Problem(f"{name}={text} will not do: give one of {', '.join(allowed)}")
    return text


def program(name: str) -> str:
    """The path of a program: the one that was fetched because the installed one will not do, else the installed one."""
    found = which(name)
    if found is None:
        raise Problem(f"{name} is not installed: run `make install`")
    return found


def run_to_end(command: list, environment=None) -> subprocess.CompletedProcess:
    """Runs a helper and all that it starts; when we are interrupted, none of them is left behind."""
    words = [str(word) for word in command]
    helper = subprocess.Popen(words, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, start_new_session=True)
    try:
        output = helper.communicate()[0]
        return subprocess.CompletedProcess(words, helper.returncode, output)
    except BaseException:
        os.killpg(helper.pid, signal.SIGKILL)
        helper.wait()
        raise


def which(name: str):
    """Where a program lies, or None; servers often lie in sbin, which is not on everybody's PATH."""
    return shutil.which(name, path=f"{tools() / 'bin'}:{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin")


def first_line(path: Path) -> str:
    """The secret in a file that a person may have edited; the admin token's holds the old one below while callers change over."""
    return path.read_text().strip().partition("\n")[0].strip()


def write(path: Path, text: str, mode: int = 0o644) -> bool:
    """Writes a file so that a reader sees the old text or the new one, never half; tells whether the text is new."""
    if path.exists() and path.read_text() == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    os.replace(draft, path)
    return True
