"""Judges the Docker files without an engine: the tools that can read them do, and what they have to agree on with the rest is compared.

Compose and promtool are Debian unstable's where `local/install docker-checks` could get them, else what is installed; nginx is the
local cluster's.
"""

import http.client
import json
import os
import random
import re
import shutil
import socket
import stat
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path

import pytest

import balance
import composition
import containers
import nginx
import parts
from script import ROOT, TOOLS, VENV, Problem, must_run, program, run_to_end, wait
from settings import PASSED_THROUGH, PATIENCE, PORTS, REQUEST_DEADLINE_MS, STOP_MS, STOP_MS_MAX, from_environment
from stack import Stack

UNSTABLE = TOOLS / "docker"
HARDENED = {"read_only": True, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges:true"]}
# What runs once and ends, or only when a person asks for it.
BRIEF = ("migrate", "seed", "k6")
# The exporters' images have no program that could ask them; Prometheus tells when they are gone. The healer's steps all have an end.
UNASKED = ("exporter-", "healer")


def text(path):
    return (ROOT / path).read_text()


def words(pattern, path):
    found = re.findall(pattern, text(path))
    assert found, f"{path} has nothing like {pattern}"
    return found


class Files:
    """The Compose files as Compose understands them, with all profiles and fresh secrets."""

    def __init__(self, db_members=1):
        os.environ["CLUSTER_DIR"] = f".cluster/check/docker-{db_members}"
        self.settings = replace(from_environment(), db_members=db_members)
        shutil.rmtree(self.settings.home, ignore_errors=True)
        self.given = composition.prepare(self.settings, rootless=False)
        self.project = json.loads(self.config(self.given, "--format", "json"))
        self.services = self.project["services"]

    def config(self, given, *more):
        # Nothing else of the caller's environment: the defaults are to be seen.
        environment = {"PATH": os.environ.get("PATH", ""), "HOME": os.environ.get("HOME", "/"), **given}
        named = [word for name in composition.files(self.settings) for word in ("--file", ROOT / name)]
        command = [*compose(), "--env-file", "/dev/null", *named, "--profile", "*", "config", *more]
        return must_run("Compose refuses", command, environment)

    def mounts(self):
        return [(name, mount) for name, one in self.services.items() for mount in one.get("volumes", []) if mount["type"] == "bind"]


def compose():
    own = UNSTABLE / "usr/libexec/docker/cli-plugins/docker-compose"
    if own.exists():
        return [own]
    assert run_to_end([program("docker"), "compose", "version"]).returncode == 0, "there is no Compose: run `local/install docker-checks`"
    return ["docker", "compose"]


@pytest.fixture(scope="module")
def files():
    return Files()


@pytest.fixture(scope="module")
def grouped():
    return Files(db_members=3)


@pytest.fixture(params=["files", "grouped"])
def each(request):
    """With one server of the database, and with three."""
    return request.getfixturevalue(request.param)


def test_compose_asks_for_what_the_file_lacks(files):
    with pytest.raises(Problem, match="local/docker prepare"):
        files.config({}, "--quiet")


def test_hadolint_accepts_the_dockerfiles():
    standins = (ROOT / "local" / "standins").rglob("*.Dockerfile")
    must_run("hadolint refuses", [VENV / "hadolint", "--failure-threshold", "style", ROOT / "Dockerfile", *standins])


@pytest.mark.parametrize("rate", [0, 20])
def test_nginx_accepts_what_is_mounted_into_its_container(files, rate):
    folder = container(files, replace(files.settings, rate_limit=rate), composition.REPLICAS)
    assert (folder / "limits" / "zone.conf").exists() == bool(rate)
    must_run("nginx refuses", [*command(folder), "-t", "-q"])


def container(files, settings, replicas):
    """What is mounted into nginx's container, in a folder. A test opens ports and files, too: here on loopback, and in this folder."""
    balance.write_limits(settings, Path(files.given["COUPON_LIMITS"]), replicas)
    folder = files.settings.home / "nginx"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "tmp").mkdir(parents=True)
    for name, mount in files.mounts():
        if name == "nginx" and mount["target"].startswith("/etc/coupon/"):
            target = folder / mount["target"].removeprefix("/etc/coupon/")
            (shutil.copytree if Path(mount["source"]).is_dir() else shutil.copy)(mount["source"], target)
    for path in (folder / "runtime").iterdir():
        path.write_text(understood(path.read_text().replace("/tmp/", f"{folder}/tmp/").replace("listen ", "listen 127.0.0.1:")))
    return folder


def command(folder):
    return [program("nginx"), "-e", "stderr", "-p", folder, "-c", folder / "nginx.conf"]


def test_where_one_name_stands_for_all_replicas_each_code_has_one_of_them_and_each_of_them_has_codes(files):
    with following_a_name(files, REPLICAS) as (web, _, _):
        homes = {f"C{number}": {order(web, f"C{number}") for _ in range(6)} for number in range(30)}
    assert all(len(replicas) == 1 for replicas in homes.values()), homes
    assert set().union(*homes.values()) == {(201, str(number)) for number in REPLICAS}, homes


@pytest.mark.parametrize("stay", [(1, 2, 3), (1,)], ids=["three stay", "one stays"])
def test_nobody_is_refused_who_knocks_at_a_replica_that_is_gone_when_the_list_changes(files, stay):
    """A request that nginx began with the old list ends there, and has to begin once more; where the new list has one address, nginx does
    not even say that it found nobody."""
    with following_a_name(files, stay) as (web, app, names), silence(app), ThreadPoolExecutor(32) as crowd:
        names.replicas = (*stay, GONE)
        names.wait_for_answers(2)
        with names.held_up():
            orders = [crowd.submit(order, web, f"C{number}") for number in range(32)]
            assert wait(lambda: knocking(app) >= 3, 5)
            names.replicas = stay
        answers = [asked.result()[0] for asked in orders]
    assert set(answers) == {201}, {status: answers.count(status) for status in set(answers)}


def knocking(port):
    """How many connections to the address that is gone are being made."""
    # Its address and port, and SYN_SENT.
    return Path("/proc/net/tcp").read_text().count(f" {GONE:02X}00007F:{port:04X} 02 ")


@contextmanager
def following_a_name(files, replicas):
    """nginx as in its container, over replicas that are no more than names; its port, theirs, and who knows their addresses."""
    if not nginx.keeps_idle_clients():
        pytest.skip("this nginx is too old to ask a name server while it runs")
    web, app, names = (free_port() for _ in range(3))
    folder = container(files, files.settings, [f"app:{app} resolve"])
    common, listen, servers = (folder / "runtime" / f"{name}.conf" for name in ("http", "listen", "servers"))
    # In the place of each replica, something that says which one it is.
    echoes = "".join(f"server {{ listen 127.0.0.{number}:{app}; return 201 {number}; }}\n" for number in replicas)
    common.write_text(common.read_text().replace("127.0.0.11 ", f"127.0.0.1:{names} ").replace(":8081", f":{free_port()}") + echoes)
    listen.write_text(f"listen 127.0.0.1:{web};\n")
    servers.write_text(servers.read_text().replace(":8080", f":{app}"))
    server, name_server = subprocess.Popen(command(folder)), NameServer(names, replicas)
    try:
        wait(lambda: all(order(web, "A")[0] == 201 for _ in range(20)), 10)
        yield web, app, name_server
    finally:
        server.terminate()
        server.wait()
        name_server.close()


@contextmanager
def silence(port):
    """An address where nobody answers, not even with a refusal: one that waits to be let in is as many as there is room for."""
    with socket.create_server((f"127.0.0.{GONE}", port), backlog=0) as door, socket.create_connection(door.getsockname()):
        yield


REPLICAS, GONE = (1, 2, 3), 4


def order(port, code):
    """Status and body of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with closing(connection), suppress(OSError):
        connection.request("POST", "/coupons/issue", json.dumps({"code": code, "userId": "u"}), {"content-type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    return 0, ""


def free_port():
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return it.getsockname()[1]


class NameServer(threading.Thread):
    """Answers as Docker's does: `app` is the addresses of all replicas, in any order, and there is nothing else."""

    def __init__(self, port, replicas):
        super().__init__(daemon=True)
        self.replicas = replicas
        self.asked = self.answered = 0
        self.turn = threading.Lock()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", port))
        self.start()

    def run(self):
        with suppress(OSError):
            while True:
                question, client = self.socket.recvfrom(512)
                known = b"\x03app\x00\x00\x01" in question
                self.asked += known
                with self.turn if known else nullcontext():
                    self.socket.sendto(self.answer(question, self.replicas if known else []), client)
                self.answered += known

    def answer(self, question, replicas):
        # A pointer to the name that was asked for, its type and class, and for how long the four bytes hold.
        answers = b"".join(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x01\x00\x04" + bytes([127, 0, 0, number])
                           for number in random.sample(replicas, len(replicas)))
        flags = b"\x81\x80" if replicas else b"\x81\x83"
        return question[:2] + flags + question[4:6] + len(replicas).to_bytes(2, "big") + b"\x00\x00\x00\x00" + question[12:] + answers

    def wait_for_answers(self, count):
        goal = self.answered + count
        assert wait(lambda: self.answered >= goal, 10)

    @contextmanager
    def held_up(self):
        """While the block runs, nginx has asked and gets no answer."""
        before = self.asked
        with self.turn:
            assert wait(lambda: self.asked > before, 5)
            yield

    def close(self):
        self.socket.close()


def understood(configuration):
    """Without what an installed nginx may be too old to know; names then have to resolve at once."""
    if nginx.keeps_idle_clients():
        return configuration
    without = re.sub(r"server (app|prometheus):(\d+) resolve", r"server 127.0.0.1:\2", configuration)
    return re.sub(r"keepalive_min_timeout [^;]+;", "", without)


def test_promtool_accepts_prometheus_configuration_and_rules():
    own = UNSTABLE / "usr/bin/promtool"
    promtool = own if own.exists() else program("promtool")
    must_run("promtool refuses", [promtool, "check", "config", ROOT / "prometheus" / "docker.yml"])
    must_run("promtool refuses", [promtool, "test", "rules", *sorted((ROOT / "prometheus" / "rules").glob("*_test.yml"))])


def test_every_container_is_denied_what_it_does_not_need(each):
    for name, one in each.services.items():
        assert {key: one.get(key) for key in HARDENED} == HARDENED, name
        assert re.fullmatch(r"[1-9]\d*:\d+", str(one.get("user"))), f"{name}: runs as {one.get('user')}, not as a number that is not root"
        assert "memory" in one.get("deploy", {}).get("resources", {}).get("limits", {}), f"{name}: has no limit of memory"
        unused = {key for key, value in one["deploy"].items() if value} - {"replicas", "resources"}
        assert not unused, f"{name}: deploy.{', deploy.'.join(sorted(unused))} is for Swarm alone"
        assert one.get("logging", {}).get("options", {}).get("max-size"), f"{name}: its log may grow for ever"
        assert one.get("ulimits", {}).get("nofile"), f"{name}: has no limit of open files of its own"
        assert "container_name" not in one, f"{name}: a container with a fixed name cannot be scaled, nor stand beside another cluster's"
        assert re.search(r":(v?\d+\.\d+\.\d+(-\w+)?|local)$", one["image"]), f"{name}: {one['image']} is not pinned"
        if name not in BRIEF:
            assert one.get("restart") == "unless-stopped", name
            assert "healthcheck" in one or name.startswith(UNASKED), f"{name}: nobody asks whether it is well"


def test_an_idle_cluster_is_not_busy_with_its_own_health(each):
    often = lambda one: one.get("deploy", {}).get("replicas", 1) / float(one["healthcheck"]["interval"].removesuffix("s"))
    checks = sum(often(one) for one in each.services.values() if "healthcheck" in one)
    assert checks <= 2, f"{checks} a second, and each starts a process in a container"


def test_a_stack_has_every_service_as_closed_as_it_can_be_and_publishes_nginx_alone(files):
    project = {**files.project, "services": {name: one for name, one in files.services.items() if name != "k6"}}
    made = Stack(project, "registry.example/coupon-rush:1", "this-node").document()
    assert made["services"].keys() == project["services"].keys()
    assert [name for name, one in made["services"].items() if one["ports"]] == ["nginx"]
    for name, one in made["services"].items():
        assert one["read_only"] and one["cap_drop"] == ["ALL"] and "memory" in one["deploy"]["resources"]["limits"], name
        assert one["deploy"]["endpoint_mode"] == "dnsrr", f"{name}: nginx would not see each replica"
        assert {secret["mode"] for secret in one["secrets"]} <= {0o400} and {secret["uid"] for secret in one["secrets"]} <= {one["user"].split(":")[0]}
        stays = one["ports"] or any(mount["type"] == "volume" for mount in one["volumes"])
        assert {mount["type"] for mount in one["volumes"]} <= {"tmpfs", "volume"} and ("placement" in one["deploy"]) == bool(stays), name
    targets = {config["target"] for config in made["services"]["nginx"]["configs"]}
    assert {"/etc/coupon/nginx.conf", "/etc/coupon/limits/homes.conf", "/etc/coupon/runtime/servers.conf"} <= targets
    assert not any("lab" in target for target in targets), "a page whose only guard is the loopback address"


def test_what_a_stack_was_given_in_files_has_another_name_when_they_change(files):
    kept, stack = [], Stack(files.project, "coupon-rush:1", "this-node")
    path = files.settings.home / "a.conf"
    for text in ("one", "two", "one"):
        path.write_text(text)
        kept.append(stack.keep(stack.configs, path))
    assert kept[0] == kept[2] != kept[1]


def test_ports_are_published_on_loopback_and_are_those_of_the_local_cluster(files):
    ports = [(name, port) for name, one in files.services.items() for port in one.get("ports", [])]
    assert {port.get("host_ip") for _, port in ports} == {"127.0.0.1"}
    assert {name: int(port["published"]) for name, port in ports} == {name: PORTS[f"{name}_port"] for name in ("nginx", "prometheus", "grafana")}


def test_what_is_mounted_exists_and_cannot_be_written(each):
    for name, mount in each.mounts():
        assert Path(mount["source"]).exists(), f"{name}: {mount['source']} does not exist"
        assert mount.get("read_only"), f"{name}: {mount['target']} can be written"


def test_secrets_are_files_that_only_their_readers_can_read(each):
    for secret in each.project["secrets"].values():
        found = Path(secret["file"]).stat()
        assert (stat.S_IMODE(found.st_mode), str(found.st_uid)) == (0o600, each.given["COUPON_UID"]), secret
    for name, one in each.services.items():
        if one.get("secrets"):
            assert one["user"] == "{COUPON_UID}:{COUPON_GID}".format(**each.given), name
    known = [(each.settings.secrets / name).read_text() for name in ("admin-token", "admin-password", "coupon-password")]
    assert not any(secret in json.dumps(each.project) for secret in known), "a secret is in the Compose file's environment"


def test_the_service_knows_every_setting_it_is_given(files):
    known = set(words(r'env = "(\w+)"', "src/config.rs")) | {"RUST_BACKTRACE"}
    for name in ("app", "migrate", "seed"):
        assert files.services[name]["environment"].keys() <= known, name
    assert set(PASSED_THROUGH) <= files.services["app"]["environment"].keys()


def test_a_replica_has_the_time_to_drain_and_nginx_to_let_go(files):
    default = lambda name: int(words(rf'env = "{name}", default_value_t = ([\d_]+)', "src/config.rs")[0])
    assert (default("DRAIN_MS"), default("REQUEST_DEADLINE_MS")) == (STOP_MS["DRAIN_MS"], REQUEST_DEADLINE_MS)
    drain = STOP_MS_MAX / 1000
    assert drain * 1000 >= default("DRAIN_MS") + int(files.services["app"]["environment"]["LAME_DUCK_MS"])
    workers = int(words(r"worker_shutdown_timeout (\d+)s", "nginx/nginx.conf")[0])
    idle = int(words(r"keepalive_min_timeout (\d+)s", "nginx/docker/http.conf")[0])
    longest = idle + balance.longest_ms(PATIENCE["REQUEST_DEADLINE_MS"][1]) / 1000
    assert workers > longest, f"nginx: an old worker has {workers} s, and may need {longest:g}"
    words(f"`REQUEST_DEADLINE_MS` may be {PATIENCE['REQUEST_DEADLINE_MS'][1]:,} at most", "docs/OPERATIONS.md")
    words(f"at nginx within {balance.longest_ms(default('REQUEST_DEADLINE_MS')) // 1000} s", "README.md")
    for name, needed in (("app", drain), ("nginx", workers)):
        grace = int(files.services[name]["stop_grace_period"].removesuffix("s"))
        assert grace > needed, f"{name}: is killed after {grace} s, and may need {needed:g}"


def test_everybody_knows_the_replicas_under_the_same_ports(files):
    public, ops = words(r"LISTEN=0\.0\.0\.0:(\d+)", "Dockerfile")
    assert words(r"EXPOSE (\d+) (\d+)", "Dockerfile") == [(public, ops)]
    assert words(r"server app:(\d+)", "nginx/docker/servers.conf") == [public]
    assert words(r"names: \[app\]\s+type: A\s+port: (\d+)", "prometheus/docker.yml") == [ops]
    assert files.services["k6"]["environment"]["OPS_URL"] == f"http://app:{ops}"
    assert (containers.REPLICA_PORT, containers.OPS_PORT) == (int(public), int(ops))


def test_the_servers_read_the_files_that_the_local_ones_read(files):
    mounted = {(name, Path(mount["source"]).relative_to(ROOT).as_posix()) for name, mount in files.mounts() if ROOT in Path(mount["source"]).parents}
    assert {(name, "redis") for name in ("redis-1", "redis-2", "redis-3")} <= mounted
    assert {("mysql", "mysql/common.cnf"), ("mysql", "mysql/mysql.cnf"), ("exporter-host", "prometheus/exporters")} <= mounted
    for setting in ("transaction-isolation=READ-COMMITTED", "innodb-flush-log-at-trx-commit=1", "sync-binlog=1"):
        words(rf"(?m)^{setting}$", "mysql/common.cnf")


def test_the_members_of_a_group_differ_in_their_names_and_their_data_alone(grouped):
    members = [grouped.services[name] for name in composition.members(grouped.settings)]
    assert [one.pop("command") for one in members] == [["mysql"], ["mysql-2"], ["mysql-3"]]
    data = [mount["source"] for one in members for mount in one["volumes"] if mount["type"] == "volume"]
    assert data == ["mysql-data", "mysql-2-data", "mysql-3-data"]
    for one in members:
        one["volumes"] = sorted(mount["target"] for mount in one["volumes"])
    assert members[0] == members[1] == members[2]
    assert "/etc/mysql/conf.d/group.cnf" in members[0]["volumes"]


def test_prometheus_asks_an_exporter_of_each_member(grouped):
    targets = [target for one in json.loads(text("prometheus/docker/group.json")) for target in one["targets"]]
    assert targets == [f"exporter-{name}:9104" for name in composition.members(grouped.settings)]
    assert {target.partition(":")[0] for target in targets} <= grouped.services.keys()


def test_prometheus_has_the_same_jobs_and_times_in_both():
    """Older Prometheus, which the local cluster may have to use, cannot include one part in both."""
    for pattern in (r"(?m)^global:\n(?:  .+\n)+", r"(?m)^rule_files:\n(?:  .+\n)+", r"job_name: (\w+)", r"metrics_path: (\S+)"):
        assert words(pattern, "prometheus/prometheus.yml") == words(pattern, "prometheus/docker.yml")
    labels = {*parts.exporter_targets(from_environment())["redis"][0]["labels"], "replica"}
    assert labels <= set(words(r"(?m)target_label: (\w+)$", "prometheus/docker.yml"))


def test_the_images_program_carries_no_line_numbers():
    words(r"CARGO_PROFILE_RELEASE_STRIP=debuginfo", "Dockerfile")


def test_the_image_is_built_of_what_it_copies_and_by_a_compiler_that_is_new_enough():
    copied = [word for line in words(r"(?m)^COPY (?!--from)(.+)$", "Dockerfile") for word in line.split()[:-1]]
    assert sorted(copied) == sorted(words(r"(?m)^!(.+)$", ".dockerignore")) and all((ROOT / name).exists() for name in copied)
    words(r"(?m)^\*$", ".dockerignore")  # Or it lets secrets in.
    compiler, needed = words(r"FROM rust:(\d+\.\d+)", "Dockerfile")[0], words(r'rust-version = "([\d.]+)"', "Cargo.toml")[0]
    number = lambda version: [int(part) for part in version.split(".")]
    assert number(compiler) >= number(needed)[:2], f"the image's Rust {compiler} is older than {needed}"
