"""Three servers of the database as one group: formed when nobody serves, joined by those that come later."""

import re
import time
from contextlib import suppress
from dataclasses import dataclass

import database
from programs import Supervisor
from script import Problem, say, wait, warn
from settings import Settings
from sql import ask

JOIN_SECONDS = 60
# A member that looks for its group heeds nothing else for a minute. Outside a group nothing is under way, so it need not end well.
END_SECONDS = 8
# A majority takes some milliseconds for it.
PROOF_SECONDS = 2
# Longer than a group takes to find that its primary is gone and to elect another one.
ELECTION_SECONDS = 12


@dataclass(frozen=True)
class Member:
    """What a member says of itself and of the others; one that does not answer is `away`."""

    state: str
    role: str = ""
    waiting: int = 0
    majority: bool = False

    def __str__(self) -> str:
        waiting = f", {self.waiting} transactions wait" if self.waiting else ""
        alone = "" if self.majority or self.state != "ONLINE" else ", sees no majority"
        return f"{self.role} {self.state}".strip().lower() + waiting + alone

    @property
    def well(self) -> bool:
        return self.state == "ONLINE" and self.majority


AWAY = Member("AWAY")
# What a member says that has no place in a group.
OUT = ("OFFLINE", "ERROR")

# As a member sees it: its own state, its role, what waits to be applied here, and how many of the group it reaches.
LOOK = """
SELECT own.member_state, own.member_role, stats.count_transactions_remote_in_applier_queue,
  (SELECT COUNT(*) * 2 > (SELECT COUNT(*) FROM performance_schema.replication_group_members)
    FROM performance_schema.replication_group_members WHERE member_state IN ('ONLINE', 'RECOVERING'))
FROM performance_schema.replication_group_members AS own
LEFT JOIN performance_schema.replication_group_member_stats AS stats USING (member_id)
WHERE own.member_id IN (@@server_uuid, '')"""

# All that a server has, also what it received and did not apply before it died.
HAS = """
SELECT REPLACE(@@GLOBAL.gtid_executed, '\\n', ''), REPLACE(COALESCE(
  (SELECT received_transaction_set FROM performance_schema.replication_connection_status
    WHERE channel_name = 'group_replication_applier'), ''), '\\n', '')"""


def look(settings: Settings, port: int) -> Member:
    try:
        state, role, waiting, majority = ask(settings, port, LOOK)[0]
    except (Problem, IndexError):
        return AWAY
    return Member(state, role, int(waiting) if waiting.isdigit() else 0, majority == "1")


def look_at_all(settings: Settings) -> dict:
    return {name: look(settings, port) for name, port in settings.members().items()}


def serves(settings: Settings, members: dict) -> bool:
    return any(member.well and has_majority(settings, settings.members()[name]) for name, member in members.items())


def has_majority(settings: Settings, port: int) -> bool:
    """What a member says of the others is seconds old. With BEFORE it reads a table only when the group has ordered that it may."""
    with suppress(Problem):
        ask(settings, port, "SET SESSION group_replication_consistency = 'BEFORE'; SELECT COUNT(*) FROM information_schema.engines",
            seconds=PROOF_SECONDS)
        return True
    return False


def primary(settings: Settings):
    """The member that takes writes, or None; the one server of a database that is no group is none, either."""
    return next((name for name, member in look_at_all(settings).items() if member.well and member.role == "PRIMARY"), None)


def start(settings: Settings, supervisor: Supervisor, engine: database.Engine) -> None:
    """Members that do not run join the group that serves; where none does, one begins it anew."""
    adopt(settings, engine)
    serving = is_served(settings, supervisor)
    if not serving:
        supervisor.remove(*settings.members(), patience=END_SECONDS)
    programs = database.servers(settings, engine, supervisor.pid(), joins=serving)
    if serving:
        supervisor.ensure(*(program for program in programs if not supervisor.differs(program)))
        call_back(settings)
        replace(settings, supervisor, [program for program in programs if supervisor.differs(program)])
    else:
        supervisor.ensure(*programs)
        form(settings, engine)
    absent = await_all(settings)
    if len(absent) * 2 > len(programs):
        raise Problem("\n".join(["the group has no majority", *complaints(settings, absent)]))
    if absent:
        warn(*complaints(settings, absent))


def is_served(settings: Settings, supervisor: Supervisor) -> bool:
    """Whether a group serves. What is begun anew is stopped first, so one look is not enough for a no: a member may be slow, or just
    about to take another's place."""
    running = settings.members().keys() & supervisor.pids().keys()

    def clear() -> bool:
        members = look_at_all(settings)
        return serves(settings, members) or all(members[name].state in OUT for name in running)

    wait(clear, ELECTION_SECONDS)
    return serves(settings, look_at_all(settings))


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


def call_back(settings: Settings) -> None:
    """A member that starts looks for its group for a minute. One that did not find it then has to be told; never to begin another."""
    for name, member in look_at_all(settings).items():
        if member.state in OUT:
            with suppress(Problem):  # It is at it already.
                ask(settings, settings.members()[name], "STOP GROUP_REPLICATION; SET GLOBAL group_replication_bootstrap_group = OFF; "
                                                        "START GROUP_REPLICATION", seconds=2 * JOIN_SECONDS)


def replace(settings: Settings, supervisor: Supervisor, changed: list) -> None:
    """One member after the other is restarted, the one that takes writes as the last one, and after another has taken its place."""
    while changed:
        absent = await_all(settings)
        if absent:
            raise Problem("\n".join(["no member is restarted while one is missing", *complaints(settings, absent)]))
        members = look_at_all(settings)
        changed.sort(key=lambda program: members[program.name].role == "PRIMARY")
        program = changed.pop(0)
        if members[program.name].role == "PRIMARY":
            # A newer server is not made the primary beside an older one. It is elected when that one leaves.
            with suppress(Problem):
                switch(settings, next(name for name in members if name != program.name))
        say(f"restarting {program.name}")
        supervisor.ensure(program)


def switch(settings: Settings, name: str) -> None:
    """Makes another member the one that takes writes; transactions under way end first, and the rest is refused for a moment."""
    port = settings.members()[name]
    ask(settings, port, "SELECT group_replication_set_as_primary(@@server_uuid)")


def form(settings: Settings, engine: database.Engine) -> None:
    """The member that has everything begins the group, and the others join it."""
    ports = settings.members()
    first = richest(settings, {name: ",".join(filter(None, ask(settings, port, HAS)[0])) for name, port in ports.items()})
    say(f"{first} begins the group")
    ask(settings, ports[first], "SET GLOBAL group_replication_bootstrap_group = ON; START GROUP_REPLICATION; "
                                "SET GLOBAL group_replication_bootstrap_group = OFF", seconds=2 * JOIN_SECONDS)
    # From now on a member joins by itself whenever it is started.
    for name in ports:
        database.write_options(settings, engine, name, joins=True)
    # One after the other: of two at once, one is turned away and waits for its next try.
    for name, port in ports.items():
        if name != first:
            ask(settings, port, "START GROUP_REPLICATION", seconds=2 * JOIN_SECONDS)


def richest(settings: Settings, sets: dict) -> str:
    """The member that has all that any other has. Where none has, something would be lost, so a person has to choose."""
    for name, own in sets.items():
        if all(contains(settings, own, other) for other in sets.values()):
            return name
    raise Problem("the members have gone apart, none has all that the others have: see \"all members down\" in docs/OPERATIONS.md\n"
                  + "\n".join(f"  {name}: {own}" for name, own in sets.items()))


def contains(settings: Settings, own: str, other: str) -> bool:
    return ask(settings, settings.mysql_port, f"SELECT GTID_SUBSET('{other}', '{own}')") == [["1"]]


def await_all(settings: Settings) -> dict:
    """Waits for every member, longer while one is being filled; returns those that did not come."""
    deadline = time.monotonic() + JOIN_SECONDS
    while True:
        members = look_at_all(settings)
        absent = {name: member for name, member in members.items() if not member.well}
        if not absent or time.monotonic() > deadline:
            return absent
        if any(member.state == "RECOVERING" for member in absent.values()):
            deadline = time.monotonic() + JOIN_SECONDS
        time.sleep(0.2)


def complaints(settings: Settings, members: dict) -> list:
    """Why members are not as they should be, as far as they say it."""
    return [f"{name} is {member}: {last_error(settings, name)}" for name, member in members.items() if not member.well]


def last_error(settings: Settings, name: str) -> str:
    """The last one of the plugin in a member's log."""
    path = settings.logs / f"{name}.log"
    said = re.findall(r"\[ERROR\].*Plugin group_replication reported: '(.*)'", path.read_text(errors="replace")) if path.exists() else []
    return said[-1] if said else f"see {path}"
