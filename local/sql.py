"""Asks a server of the cluster's database as its administrator, through the client program of either server that is installed."""

import subprocess

from script import Problem, program, which, write
from settings import Settings

CONNECT_SECONDS = 2
# A server that is stopped takes connections, and answers nothing.
ANSWER_SECONDS = 20
OPTIONS = (f"--connect-timeout={CONNECT_SECONDS}", "--batch", "--skip-column-names")


def access(settings: Settings) -> tuple:
    """The client program, and the file that tells it the password."""
    file = settings.secrets / "client.cnf"
    write(file, f"[client]\nhost=127.0.0.1\nuser=admin\npassword={settings.secret('admin-password')}\n", 0o600)
    return which("mariadb") or program("mysql"), file


def client(settings: Settings, port: int) -> list:
    """The client program as the administrator of one server."""
    command, file = access(settings)
    return [command, f"--defaults-extra-file={file}", f"--port={port}", *OPTIONS]


def ask(settings: Settings, port: int, statement: str, seconds=ANSWER_SECONDS) -> list:
    """The rows of the answer, each a list of texts; or a problem that says what the server said."""
    return rows(f"the database on port {port}", client(settings, port), statement, seconds)


def rows(server: str, command: list, statement: str, seconds) -> list:
    """The same from any client program that was told which server it is."""
    try:
        done = subprocess.run([*command, f"--execute={statement}"], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise Problem(f"{server} does not answer") from None
    if done.returncode != 0:
        # Some clients repeat the statement before they say what is wrong.
        *_, last = done.stderr.strip().splitlines() or [f"the client ended with {done.returncode}"]
        raise Problem(f"{statement}: {last}")
    return [line.split("\t") for line in done.stdout.splitlines()]
