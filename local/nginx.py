"""nginx before the replicas: its configuration, and changes of the list of replicas that cost no request."""

import os
import re
import signal
import subprocess
from pathlib import Path

import balance
import parts
from programs import Program, Supervisor, children, digest, number_of
from script import ROOT, TOOLS, get, must_run, program, wait, write
from settings import Settings

# Enough for 10,000 users: each takes a client's and a replica's connection, spread over the workers.
WORKER_CONNECTIONS = 16_384
# nginx learned to keep idle clients through a reload in this version.
KEEPALIVE_MIN_TIMEOUT_SINCE = (1, 27, 4)
# A little over nginx's own worker_shutdown_timeout.
OLD_WORKERS_SECONDS = 30


def nginx(settings: Settings) -> Program:
    ready = lambda: get(settings.nginx_port, "/nginx_status") == 200
    # QUIT lets workers finish what they have; TERM would cut it off.
    return Program("nginx", command(settings), settings.run, ready, stop_signal="QUIT")


def command(settings: Settings) -> list:
    folder = settings.home / "nginx"
    return [program("nginx"), "-p", folder, "-c", folder / "nginx.conf"]


def start(settings: Settings, supervisor: Supervisor) -> None:
    test(settings)
    supervisor.ensure(nginx(settings))
    write(loaded(settings), fingerprint(settings, supervisor.pids()["nginx"]))


def test(settings: Settings) -> None:
    must_run("nginx refuses its configuration", [*command(settings), "-t", "-q"])


def list_replicas(settings: Settings, supervisor: Supervisor, names: list) -> None:
    """Makes nginx send requests to exactly these replicas, and returns when no old worker can send any elsewhere."""
    targets = [{"targets": [f"127.0.0.1:{settings.ops_port + number_of(name)}"], "labels": {"replica": name}} for name in names]
    parts.write_targets(settings, "coupon", targets)
    render(settings, names)
    master = supervisor.pids().get("nginx")
    if master is None or (loaded(settings).exists() and loaded(settings).read_text() == fingerprint(settings, master)):
        return
    test(settings)
    old = children(master)
    os.kill(master, signal.SIGHUP)
    wait(lambda: children(master) - old and not children(master) & old, OLD_WORKERS_SECONDS)
    write(loaded(settings), fingerprint(settings, master))


def loaded(settings: Settings) -> Path:
    """Remembers what nginx was last told to load, so that an interrupted change is not taken for a finished one."""
    return settings.run / "nginx.loaded"


def fingerprint(settings: Settings, master: int) -> str:
    folder = settings.home / "nginx"
    return f"{master} {digest((*folder.glob('*.conf'), *folder.glob('*/*.conf')))}"


def render(settings: Settings, names: list) -> None:
    """Writes the configuration for exactly these replicas.

    Only live replicas may be listed: to `least_conn` a dead one always looks like the least busy.
    """
    folder = settings.home / "nginx"
    replicas = [f"127.0.0.1:{settings.replica_port + number_of(name)}" for name in names]
    balance.write_all(settings, folder, replicas)
    for name, text in {
        "process": process(settings),
        "http": http(settings),
        "listen": f"listen 127.0.0.1:{settings.nginx_port} backlog=4096 reuseport;\n",
        "lab": LAB_LOCATION.format(root=ROOT, tools=TOOLS),
    }.items():
        write(folder / "runtime" / f"{name}.conf", text)


# The page can take coupons and shows everything that is measured: only this machine may open it.
LAB_LOCATION = """\
location = /lab {{ return 301 $scheme://$http_host/lab/; }}
location /lab/ {{
    allow 127.0.0.1;
    allow ::1;
    deny all;
    alias "{root}/web/";
    include lab.conf;
    location /lab/dashboards/ {{ alias "{root}/grafana/dashboards/"; }}
    location /lab/uplot/ {{ alias "{tools}/uplot/"; }}
}}
"""


def process(settings: Settings) -> str:
    files = parts.raise_open_files()
    connections = min(WORKER_CONNECTIONS, files - 512)
    # As root, nginx would hand its workers to an account that may not be able to reach this folder.
    user = "user root;\n" if os.getuid() == 0 else ""
    return user + (
        "daemon off;\nerror_log stderr warn;\n"
        f"worker_rlimit_nofile {files};\nevents {{ worker_connections {connections}; multi_accept on; }}\n"
    )


def http(settings: Settings) -> str:
    lines = ["keepalive_min_timeout 10s;"] if keeps_idle_clients() else []
    lines.append(f"upstream prometheus {{ server 127.0.0.1:{settings.prometheus_port}; keepalive 4; }}")
    if settings.access_log:
        lines += [ACCESS_LOG_FORMAT, f'access_log "{settings.logs}/access.log" json buffer=64k flush=1s;']
    else:
        lines.append("access_log off;")
    return "\n".join(lines) + "\n"


ACCESS_LOG_FORMAT = """\
log_format json escape=json '{"time":"$time_iso8601","id":"$request_id","traceparent":"$http_traceparent","method":"$request_method","uri":"$uri",'
    '"status":$status,"seconds":$request_time,"upstream":"$upstream_addr","upstreamStatus":"$upstream_status",'
    '"upstreamSeconds":"$upstream_response_time","connection":$connection,"connectionRequests":$connection_requests}';"""


def version() -> tuple:
    text = subprocess.run([program("nginx"), "-v"], capture_output=True, text=True).stderr
    return tuple(int(part) for part in re.search(r"nginx/(\d+)\.(\d+)\.(\d+)", text).groups())


def keeps_idle_clients() -> bool:
    """Whether this nginx can reload without cutting off clients that are about to ask."""
    return version() >= KEEPALIVE_MIN_TIMEOUT_SINCE
