"""The programs of a cluster and the supervisor that keeps them alive: one include file per program, control through its Unix socket.

A program of its own per replica (never `numprocs`) lets one replica come or go without touching the others.
"""

import hashlib
import http.client
import os
import shlex
import signal
import time
import xmlrpc.client
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

from script import VENV, Problem, must_run, say, wait, write
from settings import Settings

try:
    import psutil
    from supervisor.xmlrpc import SupervisorTransport
except ImportError:  # Before `make install`: see `need_packages`.
    psutil = None

# Present in the environment of every program that we start, so that an orphan can be told from other processes.
MARKER = "COUPON_RUSH_CLUSTER"
# These overwrite their own environment with their process title, so their working folder has to tell. A fetched nginx runs under the
# name of the loader that came with it.
RETITLED = ("nginx", "redis-server", "ld-linux")
SOCKET_PATH_MAX = 100
START_SECONDS = 60
STOP_SECONDS = 30


def need_packages() -> None:
    if psutil is None:
        raise Problem("the packages of local/requirements.txt are missing: run `make install`")


@dataclass(frozen=True)
class Program:
    """A process to run, and how to see that it serves."""

    name: str
    command: list
    directory: Path
    ready: Callable
    environment: dict = field(default_factory=dict)
    stop_signal: str = "TERM"
    note: str = ""
    # Whether one that ended by itself, and well, is started again, too.
    always: bool = False

    def text(self, settings: Settings) -> str:
        """The include file; a program is restarted exactly when this text changes."""
        command = " ".join(shlex.quote(str(word)) for word in self.command)
        pairs = ",".join(f'{key}="{value}"' for key, value in sorted(self.environment.items()))
        return lines(
            self.note and f"; {self.note}",
            f"[program:{self.name}]",
            f"command={escape(command)}",
            f"directory={escape(str(self.directory))}",
            pairs and f"environment={escape(pairs)}",
            f"stdout_logfile={escape(str(settings.logs / self.name))}.log",
            "stdout_logfile_maxbytes=10MB",
            "stdout_logfile_backups=1",
            "redirect_stderr=true",
            f"autorestart={'true' if self.always else 'unexpected'}",
            "startsecs=1",
            "startretries=2",
            f"stopsignal={self.stop_signal}",
            f"stopwaitsecs={STOP_SECONDS}",
            "killasgroup=true",
        )


def lines(*some: str) -> str:
    return "".join(f"{line}\n" for line in some if line)


def escape(text: str) -> str:
    """The supervisor expands `%(name)s` in its files; a lone percent sign has to be doubled."""
    return text.replace("%", "%%")


def digest(paths) -> str:
    """Stands for the content of files in a note, so that a program is restarted when it changes."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(paths))).hexdigest()


def number_of(name: str) -> int:
    return int(name.rpartition("-")[2])


class Supervisor:
    """One supervisord and the programs under it."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.includes = settings.home / "conf.d"
        self.socket = settings.home / "supervisor.sock"
        self.started_here = False
        self.added: list = []

    def call(self, method: str, *arguments):
        # A new connection each time: the server closes idle ones, and calls are few.
        transport = SupervisorTransport(serverurl=f"unix://{self.socket}")
        with xmlrpc.client.ServerProxy("http://localhost", transport=transport) as proxy:
            return getattr(proxy.supervisor, method)(*arguments)

    def alive(self) -> bool:
        return self.answer("getState", {}).get("statename") == "RUNNING"

    def answer(self, method: str, otherwise):
        """What it says, or something else while it does not serve."""
        try:
            return self.call(method)
        except (OSError, http.client.HTTPException, xmlrpc.client.Error):
            return otherwise

    def start(self) -> None:
        """Starts supervisord with no programs; it outlives this command."""
        if self.alive():
            return
        if len(str(self.socket)) > SOCKET_PATH_MAX:
            raise Problem(f"{self.socket} is too long a path for a socket: set CLUSTER_DIR to a shorter folder")
        self.includes.mkdir(parents=True, exist_ok=True)
        for old in self.includes.glob("*.conf"):
            old.unlink()
        for folder in (self.settings.logs, self.settings.run):
            folder.mkdir(exist_ok=True)
        write(self.settings.home / "supervisord.conf", self.configuration())
        self.started_here = True
        environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        command = [VENV / "supervisord", "-c", self.settings.home / "supervisord.conf"]
        must_run("supervisord did not start", command, {**environment, MARKER: str(self.settings.home)})
        if not wait(self.alive, 10):
            raise Problem(f"supervisord did not start: see {self.settings.logs / 'supervisord.log'}")

    def configuration(self) -> str:
        home = escape(str(self.settings.home))
        return lines(
            "[supervisord]",
            f"logfile={home}/logs/supervisord.log",
            "logfile_maxbytes=1MB",
            "logfile_backups=1",
            f"pidfile={home}/supervisord.pid",
            f"directory={home}/run",
            "user=root" if os.getuid() == 0 else "",
            "[unix_http_server]",
            f"file={home}/supervisor.sock",
            "chmod=0700",
            "[rpcinterface:supervisor]",
            "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface",
            "[include]",
            "files = conf.d/*.conf",
        )

    def ensure(self, *programs: Program) -> None:
        """Makes the programs run as described, and waits until they serve; they start side by side."""
        for program in programs:
            self.launch(program)
        for program in programs:
            self.wait_ready(program)

    def launch(self, program: Program) -> None:
        fresh = write(self.include(program.name), program.text(self.settings))
        state = self.states().get(program.name)
        # One that crashes again and again has no process at times; it, too, has to be told what it is now.
        if state and (fresh or state not in ("RUNNING", "STARTING")):
            self.remove(program.name, keep_include=True)
            state = None
        if state is None:
            self.added.append(program.name)
            self.call("reloadConfig")
            self.call("addProcessGroup", program.name)
            with suppress(xmlrpc.client.Fault):  # It is on its way already.
                self.call("startProcess", program.name, False)

    def differs(self, program: Program) -> bool:
        """Whether the program runs, but not as it is described now."""
        path = self.include(program.name)
        return program.name in self.pids() and path.read_text() != program.text(self.settings)

    def wait_ready(self, program: Program) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            state = self.states().get(program.name)
            if state in ("RUNNING", "STARTING") and program.ready():
                return
            # One that ran before may end just now, and is started again.
            if state in ("FATAL", "EXITED", "BACKOFF", "STOPPED") and program.name in self.added:
                raise Problem(f"{program.name} did not start; its last words:\n{self.last_words(program.name)}")
            time.sleep(0.05)
        raise Problem(f"{program.name} was not ready in {START_SECONDS} s; its last words:\n{self.last_words(program.name)}")

    def last_words(self, name: str) -> str:
        path = self.settings.logs / f"{name}.log"
        said = path.read_text(errors="replace").splitlines() if path.exists() else []
        if said:
            return "\n".join(f"  {line}" for line in said[-10:])
        info = self.call("getProcessInfo", name)
        return f"  (it said nothing; the supervisor says: {info['spawnerr'] or info['description']}, exit status {info['exitstatus']})"

    def remove(self, *names: str, keep_include: bool = False, patience: float = STOP_SECONDS) -> None:
        """Stops programs side by side and forgets them; each has so many seconds before it is killed, and STOP_SECONDS at most."""
        known = self.states().keys() & set(names)
        for name in known:
            with suppress(xmlrpc.client.Fault):  # It had already ended.
                self.call("stopProcess", name, False)
        if not wait(lambda: not known & self.pids().keys(), patience):
            for name in known & self.pids().keys():
                with suppress(xmlrpc.client.Fault):  # It has ended meanwhile.
                    self.call("signalProcess", name, "KILL")
        if not wait(lambda: not known & self.pids().keys(), 5):
            raise Problem(f"{', '.join(sorted(known))} did not stop: see {self.settings.logs}")
        for name in known:
            self.call("removeProcessGroup", name)
            if not keep_include:
                self.include(name).unlink(missing_ok=True)

    def shutdown(self) -> None:
        process = psutil.Process(self.pid())
        self.call("shutdown")
        psutil.wait_procs([process], timeout=STOP_SECONDS)

    def pid(self) -> int:
        return self.call("getPID")

    def include(self, name: str) -> Path:
        return self.includes / f"{name}.conf"

    def states(self) -> dict:
        return {entry["name"]: entry["statename"] for entry in self.answer("getAllProcessInfo", [])}

    def pids(self) -> dict:
        """The programs that have a process at this moment."""
        return {entry["name"]: entry["pid"] for entry in self.answer("getAllProcessInfo", []) if entry["pid"]}


def children(pid: int) -> set:
    """The processes whose parent this is."""
    with suppress(psutil.Error):
        return {child.pid for child in psutil.Process(pid).children()}
    return set()


def strays(settings: Settings) -> list:
    """Processes that this cluster started and whose supervisor is gone."""
    return [process for process in psutil.process_iter() if is_ours(process, settings)]


def is_ours(process, settings: Settings) -> bool:
    with suppress(psutil.Error, OSError):  # It ended while we looked, or is not ours to look at.
        if process.uids().effective != os.getuid():
            return False
        if process.environ().get(MARKER) == str(settings.home):
            return True
        folder = Path(process.cwd())
        at_home = folder == settings.run or settings.home / "data" in folder.parents
        return at_home and process.name().startswith(RETITLED)
    return False


def end_strays(settings: Settings) -> None:
    """Ends what a killed supervisor left behind: politely, then for good."""
    left = strays(settings)
    if left:
        say(f"ending {len(left)} processes that a killed supervisor left behind")
    for sign, seconds in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, 5)):
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(sign)
        if wait(lambda: not strays(settings), seconds):
            return
        left = strays(settings)
    raise Problem(f"processes {[process.pid for process in left]} of an earlier cluster do not end: look at them with ps")
