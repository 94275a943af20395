"""The programs around the database: Redis, the replicas, nginx and Prometheus, and how each shows that it serves."""

import hashlib
import http.client
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

from database import secret
from settings import ROOT, Problem, Settings, program, run_to_end, tools, write
from supervisor import Program, Supervisor, wait

# Enough for 10,000 users: each takes a client's and a replica's connection, spread over the workers.
WORKER_CONNECTIONS = 16_384
OPEN_FILES_MAX = 65_535
# The part of nginx's configuration that is the same everywhere.
NGINX_FILES = sorted((ROOT / "nginx").glob("*.conf"))
# nginx learned to keep idle clients through a reload in this version.
KEEPALIVE_MIN_TIMEOUT_SINCE = (1, 27, 4)
# A little over nginx's own worker_shutdown_timeout.
OLD_WORKERS_SECONDS = 30
# How much longer than a replica's own deadline nginx waits for it, and its proxy_connect_timeout.
NGINX_SPARE_MS, CONNECT_MS = 1_000, 500


def redis(settings: Settings, node: int) -> Program:
    """One of the independent lock nodes. Leases outlive nobody, so nothing is written to disk and nothing is evicted."""
    folder = settings.home / "data" / f"redis-{node}"
    folder.mkdir(parents=True, exist_ok=True)
    port = settings.redis_port + node
    command = [program("redis-server"), "--bind", "127.0.0.1", "--port", port, "--dir", folder, "--save", "",
               "--appendonly", "no", "--maxmemory", "64mb", "--maxmemory-policy", "noeviction", "--daemonize", "no"]
    return Program(f"redis-{node}", command, folder, lambda: pong(port))


def pong(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        connection.sendall(b"PING\r\n")
        return connection.recv(16).startswith(b"+PONG")
    return False


def replica(settings: Settings, number: int) -> Program:
    """One process of the service. The note makes its file change, and so the replica restart, when the binary or a secret does."""
    name = f"replica-{number}"
    redis_urls = [f"redis://127.0.0.1:{settings.redis_port + node}" for node in range(1, settings.redis_nodes + 1)]
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
    secret(settings, "admin-token")
    secrets = [settings.secrets / name for name in ("admin-token", "database-url")]
    note = f"binary of {binary(settings).stat().st_mtime_ns}, secrets {digest(secrets)}"
    command = [settings.binary, "serve"]
    return Program(name, command, settings.run, lambda: get(ops, "/readyz") == 200, environment, note=note)


def binary(settings: Settings) -> Path:
    if not os.access(settings.binary, os.X_OK):
        raise Problem(f"{settings.binary} is missing: run `make build`")
    return settings.binary


def migrate(settings: Settings) -> None:
    """Brings the schema and the service's account up to date, and makes the laboratory's event when there is none; before any replica."""
    for step in ("migrate", "seed"):
        done = run_to_end([binary(settings), step], administrator(settings))
        if done.returncode != 0:
            raise Problem(f"`coupon-rush {step}` failed:\n{done.stdout.strip()[-2000:]}")


def purge(settings: Settings, keep: int) -> int:
    """Removes what rounds left in the wallet but for the last ones; the exit status. Beside any load, in small steps."""
    return subprocess.run([binary(settings), "purge", "--keep-rounds", str(keep)], env=administrator(settings)).returncode


def administrator(settings: Settings) -> dict:
    """The environment of the steps that need more rights than a replica has."""
    return {
        "PATH": os.environ.get("PATH", ""),
        "LOG": "warn",
        "ADMIN_DATABASE_URL_FILE": str(settings.secrets / "admin-database-url"),
        "DATABASE_URL_FILE": str(settings.secrets / "database-url"),
    }


def get(port: int, path: str):
    """The status of a GET, or None while nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    with suppress(OSError, http.client.HTTPException):
        connection.request("GET", path)
        return connection.getresponse().status
    return None


def nginx(settings: Settings) -> Program:
    folder = settings.home / "nginx"
    command = [program("nginx"), "-p", folder, "-c", folder / "nginx.conf"]
    ready = lambda: get(settings.nginx_port, "/nginx_status") == 200
    # QUIT lets workers finish what they have; TERM would cut it off.
    return Program("nginx", command, settings.run, ready, stop_signal="QUIT")


def render_nginx(settings: Settings, names: list) -> None:
    """Writes nginx's configuration for exactly these replicas.

    Only live replicas may be listed: to `least_conn` a dead one always looks like the least busy.
    """
    folder = settings.home / "nginx"
    servers = [f"server 127.0.0.1:{settings.replica_port + number_of(name)} max_fails=3 fail_timeout=1s;" for name in names]
    for path in NGINX_FILES:
        write(folder / path.name, path.read_text())
    write_limits(settings, folder / "limits")
    write(folder / "runtime" / "process.conf", nginx_process(settings))
    write(folder / "runtime" / "http.conf", nginx_http(settings))
    write(folder / "runtime" / "listen.conf", f"listen 127.0.0.1:{settings.nginx_port} backlog=4096 reuseport;\n")
    write(folder / "runtime" / "servers.conf", "\n".join(servers) + "\n")
    write(folder / "runtime" / "lab.conf", LAB_LOCATION.format(root=quoted(lab_files(folder / "site"))))


def write_limits(settings: Settings, folder: Path) -> None:
    """How long a replica may be silent, and how often one client may ask, in nginx's words; without a limit of that, no file says so.

    A client is whoever holds the other end of the connection: headers do not count, because everybody can write them.
    """
    rate, files = settings.rate_limit, {"patience.conf": patience(settings.deadline_ms)}
    if rate:
        # 10 MB hold 80,000 clients, and the one who was away longest makes room.
        zone = f"limit_req_zone $binary_remote_addr zone=client:10m rate={rate}r/s;\n"
        # Below the level of the log: a flood of requests is not to be one of lines.
        files["zone.conf"] = zone + "limit_req_status 429;\nlimit_req_log_level notice;\n"
        # What was not used for two seconds may be asked for at once: a page that opens, a double click.
        files["request.conf"] = f"limit_req zone=client burst={2 * rate} nodelay;\n"
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.conf"):
        if path.name not in files:
            path.unlink()
    for name, text in files.items():
        write(folder / name, text)


def patience(deadline_ms: int) -> str:
    """A replica that is slow but alive answers within its deadline, so only one that is not is given up for another one."""
    one = deadline_ms + NGINX_SPARE_MS
    return f"proxy_read_timeout {one}ms;\nproxy_next_upstream_timeout {one + CONNECT_MS}ms;\n"


def longest_ms(deadline_ms: int) -> int:
    """How long nginx takes to answer whatever replicas do: two of them are asked, and each has to take the connection first."""
    return 2 * (deadline_ms + NGINX_SPARE_MS + CONNECT_MS)


# The page can take coupons and shows everything that is measured: only whoever sits at this machine may open it.
LAB_LOCATION = """\
location = /lab {{ return 301 $scheme://$http_host/lab/; }}
location /lab/ {{
    allow 127.0.0.1;
    allow ::1;
    deny all;
    root {root};
    include lab.conf;
}}
"""


def lab_files(root: Path) -> Path:
    """The page, the dashboards and uPlot under one root, as links, so that an edit shows at the next reload."""
    links = {page.name: page for page in sorted((ROOT / "web").iterdir())}
    links |= {"dashboards": ROOT / "grafana" / "dashboards", "uplot": tools() / "uplot"}
    (root / "lab").mkdir(parents=True, exist_ok=True)
    for name, target in links.items():
        link = root / "lab" / name
        if not link.is_symlink() or link.readlink() != target:
            link.unlink(missing_ok=True)
            link.symlink_to(target)
    return root


def nginx_process(settings: Settings) -> str:
    files = raise_open_files()
    connections = min(WORKER_CONNECTIONS, files - 512)
    # As root, nginx would hand its workers to an account that may not be able to reach this folder.
    user = "user root;\n" if os.getuid() == 0 else ""
    return user + (
        f"daemon off;\npid {quoted(settings.run / 'nginx.pid')};\nerror_log stderr warn;\n"
        f"worker_rlimit_nofile {files};\nevents {{ worker_connections {connections}; multi_accept on; }}\n"
    )


def nginx_http(settings: Settings) -> str:
    temporary = settings.home / "nginx" / "temporary"
    temporary.mkdir(parents=True, exist_ok=True)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    lines = [f"{kind}_temp_path {quoted(temporary / kind)};" for kind in kinds]
    if keeps_idle_clients():
        lines.append("keepalive_min_timeout 10s;")
    lines.append(f"upstream prometheus {{ server 127.0.0.1:{settings.prometheus_port}; keepalive 4; }}")
    if settings.access_log:
        lines.append(ACCESS_LOG_FORMAT)
        lines.append(f"access_log {quoted(settings.logs / 'access.log')} json buffer=64k flush=1s;")
    else:
        lines.append("access_log off;")
    return "\n".join(lines) + "\n"


ACCESS_LOG_FORMAT = """\
log_format json escape=json '{"time":"$time_iso8601","id":"$request_id","traceparent":"$http_traceparent","method":"$request_method","uri":"$uri",'
    '"status":$status,"seconds":$request_time,"upstream":"$upstream_addr","upstreamStatus":"$upstream_status",'
    '"upstreamSeconds":"$upstream_response_time","connection":$connection,"connectionRequests":$connection_requests}';"""


def quoted(path: Path) -> str:
    return f'"{path}"'


def nginx_version() -> tuple:
    text = subprocess.run([program("nginx"), "-v"], capture_output=True, text=True).stderr
    return tuple(int(part) for part in re.search(r"nginx/(\d+)\.(\d+)\.(\d+)", text).groups())


def keeps_idle_clients() -> bool:
    """Whether this nginx can reload without cutting off clients that are about to ask."""
    return nginx_version() >= KEEPALIVE_MIN_TIMEOUT_SINCE


def test_nginx(settings: Settings) -> None:
    folder = settings.home / "nginx"
    command = [program("nginx"), "-p", str(folder), "-c", str(folder / "nginx.conf"), "-t", "-q"]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise Problem(f"nginx refuses its configuration:\n{done.stderr.strip()}")


def list_replicas(settings: Settings, supervisor: Supervisor, names: list) -> None:
    """Makes nginx send requests to exactly these replicas, and returns when no old worker can send any elsewhere."""
    targets = [{"targets": [f"127.0.0.1:{settings.ops_port + number_of(name)}"], "labels": {"replica": name}} for name in names]
    write_targets(settings, "coupon", targets)
    render_nginx(settings, names)
    master = supervisor.pids().get("nginx")
    if master is None or (loaded(settings).exists() and loaded(settings).read_text() == fingerprint(settings, master)):
        return
    test_nginx(settings)
    old = children(master)
    os.kill(master, signal.SIGHUP)
    wait(lambda: children(master) - old and not children(master) & old, OLD_WORKERS_SECONDS)
    write(loaded(settings), fingerprint(settings, master))


def start_nginx(settings: Settings, supervisor: Supervisor) -> None:
    test_nginx(settings)
    supervisor.ensure(nginx(settings))
    write(loaded(settings), fingerprint(settings, supervisor.pids()["nginx"]))


def loaded(settings: Settings) -> Path:
    """Remembers what nginx was last told to load, so that an interrupted change is not taken for a finished one."""
    return settings.run / "nginx.loaded"


def fingerprint(settings: Settings, master: int) -> str:
    folder = settings.home / "nginx"
    return f"{master} {digest((*folder.glob('*.conf'), *folder.glob('*/*.conf')))}"


def digest(paths) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(paths))).hexdigest()


def children(pid: int) -> set:
    """The processes whose parent this is."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                # The command's name stands in parentheses and may hold spaces; the parent is second after it.
                if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                    found.add(int(entry.name))
    return found


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


def write_targets(settings: Settings, job: str, targets: list) -> None:
    write(settings.home / "prometheus" / "targets" / f"{job}.json", json.dumps(targets) + "\n")


def number_of(name: str) -> int:
    return int(name.rpartition("-")[2])


def raise_open_files() -> int:
    """Raises the soft limit of open files as far as it may go; every program that we start inherits it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = OPEN_FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES_MAX)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted
