"""Three servers of the database as one group: formed when nobody serves, joined by those that come later."""

import re
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from script import Problem, say, wait, warn
from sql import ANSWER_SECONDS

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


class Servers(Protocol):
    """What runs the servers of a group, and how each is asked; `status` calls them by these names."""

    names: list

    def ask(self, name: str, statement: str, seconds=ANSWER_SECONDS) -> list:
        """The rows of the answer, or a problem."""

    def pids(self) -> dict:
        """The process of each that runs."""

    def stop(self, patience: int) -> None:
        """Ends all of them; each has so many seconds before it is killed."""

    def start(self, joins: bool) -> None:
        """Starts those that do not run. One that `joins` looks for its group by itself; otherwise it waits to be told."""

    def let_join(self) -> None:
        """From now on each joins by itself whenever it is started, by whatever restarts it."""

    def changed(self) -> list:
        """Those that run, and would run otherwise if they were started now."""

    def restart(self, name: str) -> None:
        """Ends one of these, and starts it as it should be."""

    def said(self, name: str) -> tuple:
        """Its log, and where a person finds that."""


# Whatever has a place is called back when it has lost it: see mysql/healer.sh.
FROM_NOW_ON = "SET GLOBAL group_replication_start_on_boot = ON"
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


def look(servers: Servers, name: str) -> Member:
    try:
        state, role, waiting, majority = servers.ask(name, LOOK)[0]
    except (Problem, IndexError):
        return AWAY
    return Member(state, role, int(waiting) if waiting.isdigit() else 0, majority == "1")


def look_at_all(servers: Servers) -> dict:
    return {name: look(servers, name) for name in servers.names}


def serves(servers: Servers, members: dict) -> bool:
    return any(member.well and has_majority(servers, name) for name, member in members.items())


def has_majority(servers: Servers, name: str) -> bool:
    """What a member says of the others is seconds old. With BEFORE it reads a table only when the group has ordered that it may."""
    with suppress(Problem):
        servers.ask(name, "SET SESSION group_replication_consistency = 'BEFORE'; SELECT COUNT(*) FROM information_schema.engines",
                    seconds=PROOF_SECONDS)
        return True
    return False


def primary(servers: Servers):
    """The member that takes writes, or None."""
    return next((name for name, member in look_at_all(servers).items() if member.well and member.role == "PRIMARY"), None)


def start(servers: Servers) -> None:
    """Members that do not run join the group that serves; where none does, one begins it anew."""
    if is_served(servers):
        servers.start(joins=True)
        call_back(servers)
        replace(servers)
    else:
        servers.stop(END_SECONDS)
        servers.start(joins=False)
        form(servers)
    absent = gather(servers)
    if len(absent) * 2 > len(servers.names):
        raise Problem("\n".join(["the group has no majority", *complaints(servers, absent)]))
    if absent:
        warn(*complaints(servers, absent))


def is_served(servers: Servers) -> bool:
    """Whether a group serves. What is begun anew is stopped first, so one look is not enough for a no: a member may be slow, or just
    about to take another's place."""
    running = servers.pids()

    def clear() -> bool:
        members = look_at_all(servers)
        return serves(servers, members) or all(members[name].state in OUT for name in running)

    wait(clear, ELECTION_SECONDS)
    return serves(servers, look_at_all(servers))


def call_back(servers: Servers) -> None:
    """Does at once what mysql/healer.sh does in its time, also for a member that a person had kept out."""
    for name, member in look_at_all(servers).items():
        if member.state in OUT:
            with suppress(Problem):  # It is at it already.
                servers.ask(name, "STOP GROUP_REPLICATION; SET GLOBAL group_replication_bootstrap_group = OFF; START GROUP_REPLICATION; "
                                  + FROM_NOW_ON, seconds=2 * JOIN_SECONDS)


def replace(servers: Servers) -> None:
    """One member after the other is restarted, the one that takes writes as the last one, and after another has taken its place."""
    changed = servers.changed()
    while changed:
        absent = gather(servers)
        if absent:
            raise Problem("\n".join(["no member is restarted while one is missing", *complaints(servers, absent)]))
        members = look_at_all(servers)
        changed.sort(key=lambda name: members[name].role == "PRIMARY")
        one = changed.pop(0)
        if members[one].role == "PRIMARY":
            # A newer server is not made the primary beside an older one. It is elected when that one leaves.
            with suppress(Problem):
                switch(servers, next(name for name in members if name != one))
        say(f"restarting {one}")
        servers.restart(one)


def switch(servers: Servers, name: str) -> None:
    """Makes another member the one that takes writes; transactions under way end first, and the rest is refused for a moment."""
    servers.ask(name, "SELECT group_replication_set_as_primary(@@server_uuid)")


def form(servers: Servers) -> None:
    """The member that has everything begins the group, and the others join it."""
    first = richest(servers, {name: ",".join(filter(None, servers.ask(name, HAS)[0])) for name in servers.names})
    say(f"{first} begins the group")
    servers.ask(first, "SET GLOBAL group_replication_bootstrap_group = ON; START GROUP_REPLICATION; "
                       f"SET GLOBAL group_replication_bootstrap_group = OFF; {FROM_NOW_ON}", seconds=2 * JOIN_SECONDS)
    servers.let_join()
    # One after the other: of two at once, one is turned away and waits for its next try.
    for name in servers.names:
        if name != first:
            servers.ask(name, f"START GROUP_REPLICATION; {FROM_NOW_ON}", seconds=2 * JOIN_SECONDS)


def richest(servers: Servers, sets: dict) -> str:
    """The member that has all that any other has. Where none has, something would be lost, so a person has to choose."""
    for name, own in sets.items():
        if all(contains(servers, own, other) for other in sets.values()):
            return name
    raise Problem("the members have gone apart, none has all that the others have: see \"all members down\" in docs/OPERATIONS.md\n"
                  + "\n".join(f"  {name}: {own}" for name, own in sets.items()))


def contains(servers: Servers, own: str, other: str) -> bool:
    return servers.ask(servers.names[0], f"SELECT GTID_SUBSET('{other}', '{own}')") == [["1"]]


def gather(servers: Servers) -> dict:
    """Waits for every member, and calls back once what looked for its group in vain, as on a busy machine; returns those that did not come."""
    if await_all(servers):
        call_back(servers)
    return await_all(servers)


def await_all(servers: Servers) -> dict:
    """Waits for every member, longer while one is being filled; returns those that did not come."""
    deadline = time.monotonic() + JOIN_SECONDS
    while True:
        members = look_at_all(servers)
        absent = {name: member for name, member in members.items() if not member.well}
        if not absent or time.monotonic() > deadline:
            return absent
        if any(member.state == "RECOVERING" for member in absent.values()):
            deadline = time.monotonic() + JOIN_SECONDS
        time.sleep(0.2)


def complaints(servers: Servers, members: dict) -> list:
    """Why members are not as they should be, as far as they say it."""
    return [f"{name} is {member}: {last_error(servers, name)}" for name, member in members.items() if not member.well]


def last_error(servers: Servers, name: str) -> str:
    """The last one of the plugin in a member's log."""
    log, place = servers.said(name)
    said = re.findall(r"\[ERROR\].*Plugin group_replication reported: '(.*)'", log)
    return said[-1] if said else f"see {place}"
