"""How nginx balances: the part of its configuration that is the same everywhere, and what follows from the replicas and the knobs.

local/balance.py FOLDER ADDRESS...   writes it for replicas at these addresses, for tests that start nginx by themselves
"""

import sys
from pathlib import Path

from script import ROOT, write
from settings import Settings, from_environment

# How much longer than a replica's own deadline nginx waits for it, and its proxy_connect_timeout.
SPARE_MS, CONNECT_MS = 1_000, 500
# When a replica counts as failed, and for how long.
FAILED = "max_fails=3 fail_timeout=1s"


def write_all(settings: Settings, folder: Path, replicas: list) -> None:
    for path in (ROOT / "nginx").glob("*.conf"):
        write(folder / path.name, path.read_text())
    write_limits(settings, folder / "limits", replicas)
    write(folder / "runtime" / "servers.conf", servers(replicas, FAILED))


def write_limits(settings: Settings, folder: Path, replicas: list) -> None:
    """Where orders go, how long a replica may be silent, and how often one client may ask; without a limit of that, no file says so.

    A client is the other end of the connection: headers do not count, because everybody can write them.
    """
    rate = settings.rate_limit
    files = {"patience.conf": patience(settings.deadline_ms, replicas), "homes.conf": homes(replicas, settings.home_orders),
             "orders.conf": ORDERS[settings.balance]}
    if rate:
        # 10 MB hold 80,000 clients, and the one that was away longest makes room.
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


def homes(replicas: list, orders: int) -> str:
    """Few codes move when a replica comes or goes. nginx places servers by name there, and takes all that share a name for one; so
    where one name stands for all, a code's home is its hash, modulo their number."""
    return ("hash $code;\n" if one_name(replicas) else "hash $code consistent;\n") + servers(replicas, f"max_conns={orders} {FAILED}")


def one_name(replicas: list) -> bool:
    return any("resolve" in replica for replica in replicas)


def servers(replicas: list, options: str) -> str:
    return "".join(f"server {replica} {options};\n" for replica in replicas)


# An `error_page` of a location's own hides those around it.
ORDERS = {
    "home": "error_page 502 = @anywhere;\ninclude problems.conf;\nproxy_pass http://home;\n",
    "scattered": "proxy_pass http://coupon;\n",
}


def patience(deadline_ms: int, replicas: list) -> str:
    """A replica that is slow but alive answers within its deadline, so only one that is not is given up for another one.

    nginx is told when a replica comes or goes, but where it follows one name, that still has those that have gone and already has those
    that are not ready: there every replica may refuse (0 is without a bound). After one that was silent the time suffices for one more."""
    one = deadline_ms + SPARE_MS
    tries = 0 if one_name(replicas) else 2
    return f"proxy_read_timeout {one}ms;\nproxy_next_upstream_timeout {one + CONNECT_MS}ms;\nproxy_next_upstream_tries {tries};\n"


if __name__ == "__main__":
    write_all(from_environment(), Path(sys.argv[1]), sys.argv[2:])
