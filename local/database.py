"""The database of a cluster: real MySQL where it can be had, MariaDB where it is asked for or nothing else is there.

Only the server's core is needed: it is initialised into the cluster's own folder and set up through its init file, so
no client program, no root account over TCP and no system service takes part.
"""

import os
import pwd
import shutil
import socket
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from programs import Program, digest
from script import ROOT, Problem, must_run, program, warn, which, write
from settings import Settings


@dataclass(frozen=True)
class Engine:
    """An engine that was found, and its server's program."""

    name: str
    server: str


def chosen(settings: Settings) -> Engine:
    """The engine of a cluster with these knobs."""
    engine = find(settings.engine)
    if settings.db_members > 1 and engine.name != "mysql":
        raise Problem(f"DB_MEMBERS={settings.db_members} needs MySQL, whose servers can be a group: leave it out, or use DB=mysql")
    return engine


def find(wanted: str) -> Engine:
    """The engine to use; MariaDB in MySQL's place is announced so that nobody takes its numbers for MySQL's."""
    if wanted == "mysql":
        path = which("mysqld")
        # MariaDB installs a program of that name, too.
        if path and "MariaDB" not in must_run(f"{path} does not run", [path, "--version"]):
            return Engine("mysql", path)
        if which("mariadbd") is None:
            raise Problem("there is no MySQL server: run `make install`")
        warn("WARNING: no MySQL could be had, so this cluster runs on MARIADB")
    return Engine("mariadb", program("mariadbd"))


def servers(settings: Settings, engine: Engine, supervisor_pid: int, joins: bool = False) -> list:
    """The servers' programs; their data folders and accounts exist when this returns."""
    write(settings.secrets / "init.sql", accounts(settings, "admin", "127.0.0.1", "localhost"), 0o600)
    files = {name: write_options(settings, engine, name, joins) for name in settings.members()}
    make_folders(engine, {files[name]: folder(settings, engine, name) for name in files}, alike=not joins)
    return [server(settings, engine, name, supervisor_pid) for name in files]


def make_folders(engine: Engine, folders: dict, alike: bool) -> None:
    """Makes the data folders that are missing: empty, or `alike` one that is there, and whose server does not run."""
    for configuration, data in folders.items():
        model = next(filter(Path.exists, folders.values()), None)
        if alike and model and not data.exists():
            duplicate(model, data)
        elif not data.exists():
            initialise(engine, configuration, data)


def duplicate(model: Path, data: Path) -> None:
    """The same but for the server's own identity, which it makes anew when it starts, and for what a killed one left behind."""
    draft = draft_of(data)
    shutil.copytree(model, draft, ignore=shutil.ignore_patterns("auto.cnf", "server.*"))
    draft.rename(data)


def server(settings: Settings, engine: Engine, name: str, supervisor_pid: int) -> Program:
    data, port, configuration = folder(settings, engine, name), settings.members()[name], configuration_of(settings, engine, name)
    command = [engine.server, f"--defaults-file={configuration}", f"--init-file={settings.secrets / 'init.sql'}"]
    ready = lambda: version(port) is not None
    if settings.db_members == 1:
        return Program(name, command, data, ready)
    # The note makes its file change, and so the member restart, when the server or its configuration does: no order notices that.
    note = f"server of {Path(engine.server).stat().st_mtime_ns}, configuration {digest((ROOT / 'mysql').glob('*.cnf'))}"
    command = ["sh", ROOT / "mysql" / "rejoin.sh", configuration, *command]
    # A member that was filled by a copy of another one ends to start anew, if it knows that somebody does that for it.
    return Program(name, command, data, ready, {"MYSQLD_PARENT_PID": supervisor_pid}, note=note, always=True)


def folder(settings: Settings, engine: Engine, name: str) -> Path:
    return settings.home / "data" / (engine.name if settings.db_members == 1 else name)


def configuration_of(settings: Settings, engine: Engine, name: str) -> Path:
    return settings.home / "etc" / f"{folder(settings, engine, name).name}.cnf"


def write_options(settings: Settings, engine: Engine, name: str, joins: bool) -> Path:
    """Writes what a server reads when it starts; a member that `joins` looks for its group by itself then."""
    data, port = folder(settings, engine, name), settings.members()[name]
    # A relative socket lies in the data folder: no path is too long for it, and nobody else can reach it.
    user = pwd.getpwuid(os.getuid()).pw_name
    own = f"user={user}\nbind-address=127.0.0.1\nport={port}\ndatadir={data}\nsocket=server.sock\npid-file=server.pid\n"
    shared = ["common", engine.name]
    if settings.db_members > 1:
        places = {other: f"127.0.0.1:{its}" for other, its in settings.members().items()}
        own += member(settings, name, places) + look_for_group(joins)
        shared.append("group")
    path = configuration_of(settings, engine, name)
    write(path, "[mysqld]\n" + own + "".join((ROOT / "mysql" / f"{part}.cnf").read_text() for part in shared))
    return path


def member(settings: Settings, name: str, places: dict) -> str:
    """Which group, whom to ask for it, and under which address the others know this one, of all their addresses."""
    return (
        f"server-id={list(places).index(name) + 1}\nreport-host={places[name].partition(':')[0]}\n"
        f"loose-group_replication_group_name={uuid.UUID(settings.secret('group-name')[:32])}\n"
        f"loose-group_replication_local_address={places[name]}\n"
        f"loose-group_replication_group_seeds={','.join(places.values())}\n"
    )


def look_for_group(joins: bool) -> str:
    return f"loose-group_replication_start_on_boot={'ON' if joins else 'OFF'}\n"


def accounts(settings: Settings, admin: str, *hosts: str) -> str:
    """Runs at every start: the admin account has the password of our file, and the built-in ones are shut. The first of the hosts from
    which it comes is also that of the members and of the exporter.

    The database is made here, still empty, so that the admin's URL can name it before anything was migrated.
    """
    password = settings.secret("admin-password")
    lines = ["SET sql_log_bin = 0;", "CREATE DATABASE IF NOT EXISTS coupon_rush;"]
    if settings.db_members > 1:
        # A server of a group takes no writes yet, and not even its own.
        lines = ["SET GLOBAL super_read_only = OFF;", *lines, *recovery(settings, hosts[0])]
    for host in hosts:
        lines += account(f"'{admin}'@'{host}'", password, "ALL PRIVILEGES", " WITH GRANT OPTION")
    lines.append(f"ALTER USER IF EXISTS 'root'@'localhost' IDENTIFIED BY '{password}';")
    lines += exporter(settings, hosts[0])
    if settings.db_members > 1:
        lines.append("SET GLOBAL super_read_only = ON;")
    return "\n".join(lines) + "\n"


def recovery(settings: Settings, host: str) -> list:
    """The account by which members speak to each other and copy each other's data."""
    # No longer one will do for a source.
    name, password = f"'recovery'@'{host}'", settings.secret("recovery-password")[:32]
    rights = "REPLICATION SLAVE, BACKUP_ADMIN, CONNECTION_ADMIN, GROUP_REPLICATION_STREAM"
    source = f"CHANGE REPLICATION SOURCE TO SOURCE_USER='recovery', SOURCE_PASSWORD='{password}' FOR CHANNEL 'group_replication_recovery';"
    return [*account(name, password, rights), f"ALTER USER {name} REQUIRE SSL;", source]


def exporter(settings: Settings, host: str) -> list:
    """The exporter reads the server's counters and no row, over few connections."""
    name, password = f"'exporter'@'{host}'", settings.secret("exporter-password")
    of_group = ("replication_group_members", "replication_group_member_stats") if settings.db_members > 1 else ()
    return [*account(name, password, "PROCESS, REPLICATION CLIENT"), f"ALTER USER {name} WITH MAX_USER_CONNECTIONS 3;",
            *(f"GRANT SELECT ON performance_schema.{table} TO {name};" for table in of_group)]


def account(name: str, password: str, rights: str, option: str = "") -> list:
    known = f"{name} IDENTIFIED BY '{password}'"
    return [f"CREATE USER IF NOT EXISTS {known};", f"ALTER USER {known};", f"GRANT {rights} ON *.* TO {name}{option};"]


def initialise(engine: Engine, configuration: Path, data: Path) -> None:
    """Makes an empty data folder, under another name until it is whole, so that an interrupted try leaves no half."""
    draft = draft_of(data)
    if engine.name == "mysql":
        command = [engine.server, f"--defaults-file={configuration}", f"--datadir={draft}", "--initialize-insecure"]
    else:
        user = pwd.getpwuid(os.getuid()).pw_name
        command = [program("mariadb-install-db"), f"--defaults-file={configuration}", f"--datadir={draft}",
                   f"--user={user}", "--auth-root-authentication-method=socket", f"--auth-root-socket-user={user}",
                   "--skip-test-db", "--skip-name-resolve"]
    must_run(f"{engine.name} could not make its data folder", command)
    draft.rename(data)


def draft_of(data: Path) -> Path:
    """Where a data folder is made before it gets its own name; what an interrupted try left there is gone."""
    draft = data.with_name(data.name + ".new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.parent.mkdir(parents=True, exist_ok=True)
    return draft


def urls(settings: Settings, *ports: int) -> dict:
    """The two ways in: the service's least-privileged account, and the one that may do everything."""
    return {"url": url(settings, "coupon", *ports), "admin_url": url(settings, "admin", *ports)}


def url(settings: Settings, account: str, *ports: int) -> str:
    """Of several servers the one to ask is the one that takes writes; its clients find it."""
    places = ",".join(f"127.0.0.1:{port}" for port in ports)
    return f"mysql://{account}:{settings.secret(f'{account}-password')}@{places}/coupon_rush"


def write_url_files(settings: Settings) -> None:
    """Passwords reach the service through files, because everybody on a machine can read a command line."""
    links, members = settings.links(), settings.members()
    write(settings.secrets / "database-url", url(settings, "coupon", *(links[name][0] for name in members)), 0o600)
    write(settings.secrets / "admin-database-url", url(settings, "admin", *members.values()), 0o600)


def version(port: int, host: str = "127.0.0.1"):
    """The version in the greeting that a server sends to every client that connects, or None while it does not serve."""
    with suppress(OSError), socket.create_connection((host, port), timeout=1) as connection:
        greeting = connection.recv(256)
        if len(greeting) > 5 and greeting[4] == 10:  # Version 10 of the protocol; 255 would be a refusal.
            text = greeting[5:greeting.index(b"\0", 5)].decode()
            return text[len("5.5.5-"):] if text.startswith("5.5.5-") else text  # MariaDB's bow to old clients.
    return None
