"""What docker-compose.scale.yml needs from outside: secrets in files, their reader, the knobs, and files that containers can read."""

import os
import re
from pathlib import Path

import balance
import database
from programs import digest
from script import ROOT, TOOLS, Problem, write
from settings import Settings, from_environment, home

# The second one beside the first where the database is a group.
FILE, GROUP_FILE = "docker-compose.scale.yml", "docker-compose.group.yml"
NOTE = ROOT / ".env"
OWN_FOLDER = ROOT / ".cluster" / "docker"
MARK = "# Written by local/docker"
MYSQL_PORT = 3306
# One name stands for all of them.
REPLICAS = ["app:8080 resolve"]
# Holds how many files a container may open, where the engine may not give as many as the Compose file wants.
OPEN_FILES = "nofile"
# The folder with what each member of a group reads when it starts, and the file there that says whether it looks for its group then.
GROUP, JOINS = "group", "joins.cnf"
# The user that reads secrets in a container when the caller is root, so that nothing there runs as root; the image's own user.
NOBODY = 65_532


def project() -> str:
    """A cluster in another folder is another cluster, with containers and volumes of its own."""
    return "coupon-rush" if home() == OWN_FOLDER else "coupon-rush-" + re.sub("[^a-z0-9]+", "-", home().name.lower()).strip("-")


def image() -> str:
    """What a new replica of this cluster is made of."""
    return f"{project()}:local"


def files(settings: Settings) -> list:
    """Of what Compose is to make one."""
    return [FILE] if settings.db_members == 1 else [FILE, GROUP_FILE]


def members(settings: Settings) -> list:
    """The services that are servers of the database. The one server becomes the first member."""
    return ["mysql", *(f"mysql-{number}" for number in range(2, settings.db_members + 1))]


def wanted() -> Settings:
    settings = from_environment()
    if settings.engine != "mysql":
        raise Problem(f"DB={settings.engine} will not do with RUNTIME=docker: there is MySQL alone")
    if settings.redis_nodes != 3:
        raise Problem(f"REDIS_NODES={settings.redis_nodes} will not do with RUNTIME=docker: there are 3")
    return settings


def prepare(settings: Settings, rootless: bool) -> dict:
    """Makes the secrets; returns what the file has to be told about them."""
    owner, group = reader(rootless)
    settings.secret("admin-token")
    for name, text in accesses(settings).items():
        write(settings.secrets / name, text, 0o600)
    if settings.db_members > 1:
        write_members(settings)
    if os.getuid() == 0 and not rootless:
        for path in settings.secrets.iterdir():
            os.chown(path, owner, group)
    limits = settings.home / "limits"
    balance.write_limits(settings, limits, REPLICAS)
    # Docker would make a missing folder itself, as root's.
    (TOOLS / "uplot").mkdir(parents=True, exist_ok=True)
    return {"COUPON_UID": str(owner), "COUPON_GID": str(group), "COUPON_SECRETS": str(settings.secrets),
            "COUPON_LIMITS": str(limits), "COUPON_GROUP": str(settings.home / GROUP)}


def accesses(settings: Settings) -> dict:
    """What each account's programs read, and the statements that make the accounts."""
    servers, known = urls(settings, *members(settings)), settings.secret("exporter-password")
    texts = {
        "database-url": servers["url"],
        "admin-database-url": servers["admin_url"],
        "exporter.sql": "\n".join(database.exporter(settings, "%")) + "\n",
        **{f"{name.replace('mysql', 'exporter')}.cnf": client(name, "exporter", known) for name in members(settings)},
    }
    if settings.db_members > 1:
        texts |= {"init.sql": database.accounts(settings, "root", "%"),
                  "client.cnf": client("127.0.0.1", "root", settings.secret("admin-password"))}
    return texts


def urls(settings: Settings, *hosts: str) -> dict:
    """The two ways in. The image's server has made certificates for itself, which no authority has signed; so this keeps listeners out,
    and no impostors."""
    place = f"{','.join(f'{host}:{MYSQL_PORT}' for host in hosts)}/coupon_rush?ssl-mode=REQUIRED"
    return {"url": f"mysql://coupon:{settings.secret('coupon-password')}@{place}",
            "admin_url": f"mysql://root:{settings.secret('admin-password')}@{place}"}


def client(host: str, user: str, password: str) -> str:
    """What a program reads to connect."""
    return f"[client]\nuser={user}\npassword={password}\nhost={host}\nport={MYSQL_PORT}\n"


def write_members(settings: Settings) -> None:
    """What differs between the members, and beside it whether they look for their group by themselves, which they do not yet."""
    folder, places = settings.home / GROUP, {name: f"{name}:{MYSQL_PORT}" for name in members(settings)}
    for name in places:
        write(folder / f"{name}.cnf", f"[mysqld]\n{database.member(settings, name, places)}!include /etc/mysql/group/{JOINS}\n")
    if not (folder / JOINS).exists():
        let_join(settings, False)


def let_join(settings: Settings, joins: bool) -> None:
    write(settings.home / GROUP / JOINS, f"[mysqld]\n{database.look_for_group(joins)}")


def knobs(settings: Settings) -> dict:
    """What the file takes from the environment beside that."""
    limit = settings.home / OPEN_FILES
    found = {"COUPON_NOFILE": limit.read_text()} if limit.exists() else {}
    return found | {
        "COMPOSE_FILE": ":".join(files(settings)), "COMPOSE_PROFILES": "grafana" if settings.grafana else "",
        "COUPON_IMAGE": image(), "COUPON_MYSQL": digest((ROOT / "mysql").rglob("*.*"))[:12],
        "STRATEGY": settings.strategy, "REPLICAS": str(settings.replicas), "NGINX_PORT": str(settings.nginx_port),
        "PROMETHEUS_PORT": str(settings.prometheus_port), "GRAFANA_PORT": str(settings.grafana_port),
        "RATE_LIMIT": str(settings.rate_limit or "off"), "BALANCE": settings.balance,
        "HOME_ORDERS": str(settings.home_orders), **settings.passed_through,
    }


def unreadable(paths: list) -> list:
    """Those of these files and folders that a container's user, who is neither their owner nor of their group, cannot read."""
    return [path for path in paths if not all(is_open(one) for one in (path, *path.rglob("*")))]


def is_open(path: Path) -> bool:
    needed = 0o005 if path.is_dir() else 0o004
    return path.stat().st_mode & needed == needed


def reader(rootless: bool) -> tuple:
    """The user that a container must run as to read the secrets. With a rootless engine the caller is root inside containers."""
    if rootless:
        return 0, 0
    return (NOBODY, NOBODY) if os.getuid() == 0 else (os.getuid(), os.getgid())


def note(values: dict) -> bool:
    """Writes .env, which Compose reads by itself; one that it has not written stays as it is, and False says so."""
    if NOTE.exists() and not is_ours():
        return False
    said = f"{MARK}: what `docker compose` by hand has to know to find the same cluster as it is.\n"
    write(NOTE, said + "".join(f"{name}={value}\n" for name, value in values.items()))
    return True


def forget() -> None:
    if is_ours():
        NOTE.unlink()


def is_ours() -> bool:
    return NOTE.exists() and NOTE.read_text().startswith(MARK)
