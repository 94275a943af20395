"""The database of a cluster: real MySQL where it can be had, MariaDB where it is asked for or nothing else is there.

Only the server's core is needed: it is initialised into the cluster's own folder and set up through its init file, so
no client program, no root account over TCP and no system service takes part.
"""

import os
import pwd
import shutil
import socket
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from programs import Program
from script import ROOT, TOOLS, Problem, must_run, program, warn, which, write
from settings import Settings


@dataclass(frozen=True)
class Engine:
    """An engine that was found: how its server is called, and what it has to be told about where its files are."""

    name: str
    server: list
    options: str = ""


def find(wanted: str) -> Engine:
    """The engine to use; MariaDB in MySQL's place is announced so that nobody takes its numbers for MySQL's."""
    if wanted == "mysql":
        engine = installed_mysql() or unpacked_mysql()
        if engine:
            return engine
        if which("mariadbd") is None:
            raise Problem("there is no MySQL server: run `make install`")
        warn("WARNING: no MySQL could be had, so this cluster runs on MARIADB")
    return Engine("mariadb", [program("mariadbd")])


def installed_mysql():
    """The system's `mysqld`, if it really is MySQL; MariaDB installs a program of that name too."""
    path = which("mysqld")
    if path is None or "MariaDB" in subprocess.run([path, "--version"], capture_output=True, text=True).stdout:
        return None
    return Engine("mysql", [path])


def unpacked_mysql():
    """The server that `local/fetch-mysql` unpacked, started through the C library that came with it."""
    root = TOOLS / "mysql"
    loaders = sorted(root.glob("usr/lib/*/ld-linux*.so.*"))
    if not loaders or not (root / "usr/sbin/mysqld").exists():
        return None
    libraries = loaders[0].parent
    server = [loaders[0], "--library-path", f"{libraries}:{libraries}/libtcmalloc", root / "usr/sbin/mysqld"]
    options = f"""\
basedir={root}/usr
lc-messages-dir={root}/usr/share/mysql
character-sets-dir={root}/usr/share/mysql/charsets
plugin-dir={root}/usr/lib/mysql/plugin
"""
    return Engine("mysql", server, options)


def server(settings: Settings, engine: Engine) -> Program:
    """The server's program; its data folder and its accounts exist when this returns."""
    data = settings.home / "data" / engine.name
    configuration = settings.home / "etc" / f"{engine.name}.cnf"
    write(configuration, options(settings, engine, data))
    write(settings.secrets / "init.sql", accounts(settings), 0o600)
    if not data.exists():
        initialise(engine, configuration, data)
    command = [*engine.server, f"--defaults-file={configuration}", f"--init-file={settings.secrets / 'init.sql'}"]
    return Program("mysql", command, data, lambda: version(settings.mysql_port) is not None)


def options(settings: Settings, engine: Engine, data: Path) -> str:
    # A relative socket lies in the data folder: no path is too long for it, and nobody else can reach it.
    user = pwd.getpwuid(os.getuid()).pw_name
    own = f"user={user}\nbind-address=127.0.0.1\nport={settings.mysql_port}\ndatadir={data}\nsocket=server.sock\npid-file=server.pid\n"
    shared = [(ROOT / "mysql" / f"{name}.cnf").read_text() for name in ("common", engine.name)]
    return "[mysqld]\n" + own + engine.options + "".join(shared)


def accounts(settings: Settings) -> str:
    """Runs at every start: the admin account has the password of our file, and the built-in ones are shut.

    The database is made here, still empty, so that the admin's URL can name it before anything was migrated.
    """
    password = settings.secret("admin-password")
    lines = ["SET sql_log_bin = 0;", "CREATE DATABASE IF NOT EXISTS coupon_rush;"]
    for host in ("127.0.0.1", "localhost"):
        lines += account(f"'admin'@'{host}'", password, "ALL PRIVILEGES", " WITH GRANT OPTION")
    lines.append(f"ALTER USER IF EXISTS 'root'@'localhost' IDENTIFIED BY '{password}';")
    lines += exporter(settings, "127.0.0.1")
    return "\n".join(lines) + "\n"


def exporter(settings: Settings, host: str) -> list:
    """The exporter reads the server's counters and no row, over few connections."""
    name, password = f"'exporter'@'{host}'", settings.secret("exporter-password")
    return [*account(name, password, "PROCESS, REPLICATION CLIENT"), f"ALTER USER {name} WITH MAX_USER_CONNECTIONS 3;"]


def account(name: str, password: str, rights: str, option: str = "") -> list:
    known = f"{name} IDENTIFIED BY '{password}'"
    return [f"CREATE USER IF NOT EXISTS {known};", f"ALTER USER {known};", f"GRANT {rights} ON *.* TO {name}{option};"]


def initialise(engine: Engine, configuration: Path, data: Path) -> None:
    """Makes an empty data folder, under another name until it is whole, so that an interrupted try leaves no half."""
    draft = draft_of(data)
    if engine.name == "mysql":
        command = [*engine.server, f"--defaults-file={configuration}", f"--datadir={draft}", "--initialize-insecure"]
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


def urls(settings: Settings) -> dict:
    """The two ways in: the service's least-privileged account, and the one that may do everything."""
    return {"url": url(settings, "coupon", settings.mysql_port), "admin_url": url(settings, "admin", settings.mysql_port)}


def url(settings: Settings, account: str, port: int) -> str:
    return f"mysql://{account}:{settings.secret(f'{account}-password')}@127.0.0.1:{port}/coupon_rush"


def write_url_files(settings: Settings) -> None:
    """Passwords reach the service through files, because everybody on a machine can read a command line."""
    both = urls(settings)
    write(settings.secrets / "database-url", url(settings, "coupon", settings.links()["mysql"][0]), 0o600)
    write(settings.secrets / "admin-database-url", both["admin_url"], 0o600)


def version(port: int, host: str = "127.0.0.1"):
    """The version in the greeting that a server sends to every client that connects, or None while it does not serve."""
    with suppress(OSError), socket.create_connection((host, port), timeout=1) as connection:
        greeting = connection.recv(256)
        if len(greeting) > 5 and greeting[4] == 10:  # Version 10 of the protocol; 255 would be a refusal.
            text = greeting[5:greeting.index(b"\0", 5)].decode()
            return text[len("5.5.5-"):] if text.startswith("5.5.5-") else text  # MariaDB's bow to old clients.
    return None
