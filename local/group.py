"""Three servers of the database as one group: formed when nobody serves, joined by those that come later."""

import re
import time
from dataclasses import dataclass

import database
from programs import Supervisor
from script import Problem, say, warn
from settings import Settings
from sql import ask

JOIN_SECONDS = 60


@dataclass(frozen=True)
class Member:
    """What a member says of itself and of the others; one that does not answer is `away`."""

    state: str
    role: str = ""
    waiting: int = 0
    majority: bool = False


AWAY = Member("AWAY")

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


def serves(members: dict) -> bool:
    return any(member.state == "ONLINE" and member.majority for member in members.values())


def start(settings: Settings, supervisor: Supervisor, engine: database.Engine) -> None:
    """Members that do not run join the group that serves; where none does, one begins it anew."""
    adopt(settings, engine)
    serving = supervisor.alive() and serves(look_at_all(settings))
    if not serving:
        supervisor.remove(*settings.members())
    programs = database.servers(settings, engine, supervisor.pid())
    if serving:
        let_join(settings, engine)
    supervisor.ensure(*programs)
    if not serving:
        form(settings, engine)
    await_all(settings, supervisor)


def adopt(settings: Settings, engine: database.Engine) -> None:
    """The data of a cluster with one server, or of a backup, becomes that of the first member."""
    alone, first = settings.home / "data" / engine.name, database.folder(settings, engine, next(iter(settings.members())))
    if alone.exists():
        if first.exists():
            raise Problem(f"{alone} and {first} both exist: move the one away that is not wanted")
        alone.rename(first)


def let_join(settings: Settings, engine: database.Engine) -> None:
    """From now on a member that starts, whoever starts it, joins by itself."""
    for name in settings.members():
        database.write_options(settings, engine, name, joins=True)


def form(settings: Settings, engine: database.Engine) -> None:
    """The member that has everything begins the group, and the others join it."""
    ports = settings.members()
    first = richest(settings, {name: "".join(filter(None, (executed, received and f",{received}"))) for name, (executed, received) in
                               {name: ask(settings, port, HAS)[0] for name, port in ports.items()}.items()})
    say(f"{first} begins the group")
    begin(settings, ports[first])
    let_join(settings, engine)
    for name, port in ports.items():
        if name != first:
            ask(settings, port, "START GROUP_REPLICATION")


def begin(settings: Settings, port: int) -> None:
    # Data without a number, of a server that was alone, cannot be had from a log: who joins is to copy all.
    if ask(settings, port, "SELECT @@GLOBAL.gtid_executed = ''")[0] == ["1"]:
        ask(settings, port, "SET GLOBAL super_read_only = OFF; SET GLOBAL gtid_purged = CONCAT(@@server_uuid, ':1'); SET GLOBAL super_read_only = ON")
    ask(settings, port, "SET GLOBAL group_replication_bootstrap_group = ON; START GROUP_REPLICATION; SET GLOBAL group_replication_bootstrap_group = OFF")


def richest(settings: Settings, sets: dict) -> str:
    """The member that has all that any other has. Where none has, something would be lost, so a person has to choose."""
    for name, own in sets.items():
        if all(contains(settings, own, other) for other in sets.values()):
            return name
    raise Problem("the members have gone apart, none has all that the others have: see \"all members down\" in docs/OPERATIONS.md\n"
                  + "\n".join(f"  {name}: {own}" for name, own in sets.items()))


def contains(settings: Settings, own: str, other: str) -> bool:
    return ask(settings, settings.mysql_port, f"SELECT GTID_SUBSET('{other}', '{own}')") == [["1"]]


def await_all(settings: Settings, supervisor: Supervisor) -> None:
    """Waits for every member; a majority is enough to go on, and says what is wrong with the rest."""
    deadline = time.monotonic() + JOIN_SECONDS
    while True:
        members = look_at_all(settings)
        absent = {name: member for name, member in members.items() if member.state != "ONLINE"}
        if not absent:
            return
        if any(member.state == "RECOVERING" for member in absent.values()):
            deadline = time.monotonic() + JOIN_SECONDS
        if time.monotonic() > deadline:
            break
        time.sleep(0.2)
    reasons = [f"{name} is {member.state}: {complaint(settings, name)}" for name, member in absent.items()]
    if len(absent) * 2 > len(members):
        raise Problem("\n".join(["the group has no majority", *reasons]))
    warn(*reasons)


def complaint(settings: Settings, name: str) -> str:
    """The last error of the plugin in a member's log."""
    path = settings.logs / f"{name}.log"
    said = re.findall(r"\[ERROR\].*Plugin group_replication reported: '(.*)'", path.read_text(errors="replace")) if path.exists() else []
    return said[-1] if said else f"see {path}"
