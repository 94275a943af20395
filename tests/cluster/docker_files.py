"""Judges the Docker files without an engine: the tools that can read them do, and what they have to agree on with the rest is compared.

Compose and promtool are Debian unstable's where `local/install docker-checks` could get them, else what is installed. nginx's own files
have theirs beside this one: docker_nginx.
"""

import json
import re
import stat
from pathlib import Path

import pytest

import balance
import composition
import containers
import parts
from script import ROOT, TOOLS, VENV, Problem, must_run, program
from settings import PASSED_THROUGH, PATIENCE, PORTS, REQUEST_DEADLINE_MS, STOP_MS, STOP_MS_MAX, from_environment
from stack import Stack

pytest_plugins = ["docker_project"]
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


def test_compose_asks_for_what_the_file_lacks(files):
    with pytest.raises(Problem, match="local/docker prepare"):
        files.config({}, "--quiet")


def test_hadolint_accepts_the_dockerfiles():
    standins = (ROOT / "local" / "standins").rglob("*.Dockerfile")
    must_run("hadolint refuses", [VENV / "hadolint", "--failure-threshold", "style", ROOT / "Dockerfile", *standins])


def test_promtool_accepts_prometheus_configuration_and_rules():
    own = TOOLS / "docker" / "usr/bin/promtool"
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
    longest = idle + longest_ms(PATIENCE["REQUEST_DEADLINE_MS"][1]) / 1000
    assert workers > longest, f"nginx: an old worker has {workers} s, and may need {longest:g}"
    words(f"`REQUEST_DEADLINE_MS` may be {PATIENCE['REQUEST_DEADLINE_MS'][1]:,} at most", "docs/OPERATIONS.md")
    words(f"at nginx within {longest_ms(default('REQUEST_DEADLINE_MS')) // 1000} s", "README.md")
    for name, needed in (("app", drain), ("nginx", workers)):
        grace = int(files.services[name]["stop_grace_period"].removesuffix("s"))
        assert grace > needed, f"{name}: is killed after {grace} s, and may need {needed:g}"


def longest_ms(deadline_ms):
    """How long nginx takes to answer whatever replicas do: two of them are asked, each has to take the connection first, and between
    the two there may be some that are gone, for which it begins anew."""
    again_ms = 1000 * int(words(r"proxy_next_upstream_timeout (\d+)s", "nginx/nginx.conf")[0])
    return 2 * (deadline_ms + balance.SPARE_MS + balance.CONNECT_MS) + again_ms


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
