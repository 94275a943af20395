"""The exporters of the *Servers* board: small programs that tell Prometheus about nginx, Redis, the database and the host.

They are Debian's, one process each, and optional: EXPORTERS=on|off; without it they run where they are installed.
"""

import parts
from database import secret
from settings import EXPORTERS, Settings, program, write
from supervisor import Program, Supervisor

# Only what a panel shows; the other collectors cost time on every scrape.
HOST_COLLECTORS = ("cpu", "meminfo", "diskstats", "stat", "loadavg", "netstat")


def set_exporters(settings: Settings, supervisor: Supervisor) -> None:
    """Makes all exporters run, or none, and Prometheus know them. nginx comes before them: one of them asks it at once."""
    if settings.exporters:
        for wanted in programs(settings):
            supervisor.ensure(wanted)
    else:
        supervisor.remove(*EXPORTERS)
    for job, targets in all_targets(settings).items():
        parts.write_targets(settings, job, targets if settings.exporters else [])


def programs(settings: Settings) -> list:
    url = f"http://127.0.0.1:{settings.nginx_port}/nginx_status"
    host = [f"--collector.{name}" for name in HOST_COLLECTORS]
    return [
        exporter(settings, "exporter-node", "--collector.disable-defaults", *host),
        exporter(settings, "exporter-redis", "--redis.addr="),
        exporter(settings, "exporter-mysqld", f"--config.my-cnf={account_file(settings)}", "--no-collect.slave_status",
                 "--no-collect.info_schema.innodb_cmp", "--no-collect.info_schema.innodb_cmpmem", "--no-collect.global_variables",
                 "--no-collect.info_schema.query_response_time"),
        exporter(settings, "exporter-nginx", f"--nginx.scrape-uri={url}", "--nginx.retries=5"),
    ]


def exporter(settings: Settings, name: str, *options: str) -> Program:
    address = f"127.0.0.1:{settings.exporter(name)}"
    command = [program(EXPORTERS[name]), f"--web.listen-address={address}", *options]
    return Program(name, command, settings.run, lambda: parts.get(settings.exporter(name), "/metrics") == 200)


def account_file(settings: Settings):
    """The exporter's own account reaches it in a file, because everybody can read a command line."""
    path = settings.secrets / "exporter.cnf"
    password = secret(settings, "exporter-password")
    write(path, f"[client]\nuser=exporter\npassword={password}\nhost=127.0.0.1\nport={settings.mysql_port}\n", 0o600)
    return path


def all_targets(settings: Settings) -> dict:
    """Per job the targets; one exporter asks every lock node, so that a node is a target with the exporter's address."""
    redis = f"127.0.0.1:{settings.exporter('exporter-redis')}"
    nodes = [
        {"targets": [redis], "labels": {"instance": f"redis-{node}", "__param_target": f"redis://127.0.0.1:{settings.redis_port + node}"}}
        for node in range(1, settings.redis_nodes + 1)
    ]
    return {
        "host": [{"targets": [f"127.0.0.1:{settings.exporter('exporter-node')}"]}],
        "redis": nodes,
        "mysql": [{"targets": [f"127.0.0.1:{settings.exporter('exporter-mysqld')}"]}],
        "nginx": [{"targets": [f"127.0.0.1:{settings.exporter('exporter-nginx')}"]}],
    }
