"""The servers of a group with Docker: services of the Compose files, asked from inside their containers, which works on every engine."""

import subprocess

import composition
import sql
from compose import compose, differing, docker
from containers import inspect, pid, service
from script import Problem, wait
from settings import Settings

SERVE_SECONDS = 120
# What `docker exec` and a client in there may take to begin on a busy machine.
EXEC_SECONDS = 5
CLIENT = ("mysql", "--defaults-extra-file=/run/secrets/client.cnf", *sql.OPTIONS)


class Composed:
    """See `group.Servers`."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.names = composition.members(settings)

    def ask(self, name: str, statement: str, seconds=sql.ANSWER_SECONDS) -> list:
        # A client that is given up out here would wait on in there.
        command = ["docker", "exec", self.container(name), "timeout", str(seconds + EXEC_SECONDS), *CLIENT]
        return sql.rows(f"the database in {name}", command, statement, seconds + 2 * EXEC_SECONDS)

    def pids(self) -> dict:
        return {service(one): pid(one) for one in self.containers() if one["State"]["Running"]}

    def stop(self, patience: int) -> None:
        if self.containers():
            compose(self.settings, "stop", "--timeout", str(patience), *self.names)

    def start(self, joins: bool) -> None:
        composition.let_join(self.settings, joins)
        compose(self.settings, "up", "--detach", "--no-deps", *(["--no-recreate"] if joins else []), *self.names)
        silent = [name for name in self.names if not wait(lambda: self.answers(name), SERVE_SECONDS)]
        if silent:
            raise Problem(f"{', '.join(silent)} did not start: see `make logs RUNTIME=docker S={silent[0]}`")
        if not joins:
            self.adopt()

    def let_join(self) -> None:
        composition.let_join(self.settings, True)

    def changed(self) -> list:
        return [service(one) for one in differing(self.settings, self.containers())]

    def restart(self, name: str) -> None:
        compose(self.settings, "up", "--detach", "--no-deps", name)

    def said(self, name: str) -> tuple:
        try:
            command = ["docker", "logs", "--tail", "1000", self.container(name)]
        except Problem as problem:
            return "", problem
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout, f"`make logs RUNTIME=docker S={name}`"

    def answers(self, name: str) -> bool:
        try:
            return self.ask(name, "SELECT 1") == [["1"]]
        except Problem:
            return False

    def adopt(self) -> None:
        """What one server had before it became the first member is not all in its logs, and some of it each member has made itself. As one
        transaction that is in no log any more it makes the others copy all data."""
        first = self.names[0]
        if self.ask(first, "SELECT @@GLOBAL.gtid_executed NOT LIKE CONCAT('%', @@group_replication_group_name, '%') AND COUNT(*) > 0 "
                           "FROM information_schema.tables WHERE table_schema = 'coupon_rush'") == [["1"]]:
            self.ask(first, "RESET BINARY LOGS AND GTIDS; SET GLOBAL gtid_purged = CONCAT(@@server_uuid, ':1')")

    def containers(self) -> list:
        return [one for one in inspect(of_project()) if service(one) in self.names]

    def container(self, name: str) -> str:
        found = of_project("--filter", f"label=com.docker.compose.service={name}")
        if not found:
            raise Problem(f"`make up RUNTIME=docker`, {name} has no container")
        return found[0]


def of_project(*more: str) -> list:
    """Its containers, but for those of `docker compose run`."""
    mine = f"label=com.docker.compose.project={composition.project()}"
    return docker("ps", "--all", "--quiet", "--filter", mine, "--filter", "label=com.docker.compose.oneoff=False", *more).split()
