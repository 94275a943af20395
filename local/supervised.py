"""The servers of a local group: programs under the supervisor, each on a port of its own."""

import database
import sql
from programs import Program, Supervisor, digest
from script import ROOT, Problem
from settings import Settings

HEALER = "healer"
SCRIPT = ROOT / "mysql" / "healer.sh"


class Supervised:
    """See `group.Servers`."""

    def __init__(self, settings: Settings, supervisor=None):
        self.settings, self.supervisor = settings, supervisor or Supervisor(settings)
        self.ports = settings.members()
        self.names = list(self.ports)

    def ask(self, name: str, statement: str, seconds=sql.ANSWER_SECONDS) -> list:
        return sql.ask(self.settings, self.ports[name], statement, seconds)

    def pids(self) -> dict:
        return {name: pid for name, pid in self.supervisor.pids().items() if name in self.names}

    def stop(self, patience: int) -> None:
        self.supervisor.remove(*self.names, patience=patience)

    def start(self, joins: bool) -> None:
        self.supervisor.ensure(*(program for program in self.programs(joins) if not self.supervisor.differs(program)))

    def let_join(self) -> None:
        for name in self.names:
            database.write_options(self.settings, self.engine(), name, joins=True)

    def changed(self) -> list:
        return [program.name for program in self.programs() if self.supervisor.differs(program)]

    def restart(self, name: str) -> None:
        self.supervisor.ensure(*(program for program in self.programs() if program.name == name))

    def said(self, name: str) -> tuple:
        path = self.settings.logs / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else "", path

    def programs(self, joins: bool = True) -> list:
        return database.servers(self.settings, self.engine(), self.supervisor.pid(), joins)

    def engine(self) -> database.Engine:
        return database.chosen(self.settings)


def healer(settings: Settings) -> Program:
    """What calls members back when nobody looks."""
    client, options = sql.access(settings)
    places = [f"127.0.0.1:{port}" for port in settings.members().values()]
    # Only a KILL reaches what its shell has started, too. There is nothing to lose.
    return Program(HEALER, ["sh", SCRIPT, client, options, *places], settings.run, lambda: True, stop_signal="KILL",
                   note=f"script {digest([SCRIPT])}")


def adopt(settings: Settings, engine: database.Engine) -> None:
    """The data of a cluster with one server, or of a backup, becomes that of the first member."""
    alone, first = settings.home / "data" / engine.name, database.folder(settings, engine, next(iter(settings.members())))
    if alone.exists():
        if first.exists():
            raise Problem(f"{alone} and {first} both exist: move the one away that is not wanted")
        alone.rename(first)


def refuse_one(settings: Settings) -> None:
    """What a group was given is not all in the folder of one of its members."""
    for member in sorted((settings.home / "data").glob("mysql-[0-9]")):
        raise Problem(f"{member} is of a group: give DB_MEMBERS=3. To go back to one server, take a backup, move the data of all "
                      "members away, and restore it")
