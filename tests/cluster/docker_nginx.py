"""Judges nginx's files as its container has them, without an engine: the local cluster's nginx reads them, over replicas that one name stands
for, and that come and go behind it."""

import http.client
import json
import random
import re
import shutil
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path

import pytest

import balance
import composition
import nginx
from script import must_run, program, wait

pytest_plugins = ["docker_project"]


@pytest.mark.parametrize("rate", [0, 20])
def test_nginx_accepts_what_is_mounted_into_its_container(files, rate):
    folder = container(files, replace(files.settings, rate_limit=rate), composition.REPLICAS)
    assert (folder / "limits" / "zone.conf").exists() == bool(rate)
    must_run("nginx refuses", [*command(files, folder), "-t", "-q"])


def container(files, settings, replicas):
    """What is mounted into nginx's container, in a folder. A test opens ports, too: here on loopback."""
    balance.write_limits(settings, Path(files.given["COUPON_LIMITS"]), replicas)
    folder = files.settings.home / "nginx"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "tmp").mkdir(parents=True)
    for name, mount in files.mounts():
        if name == "nginx" and mount["target"].startswith("/etc/coupon/"):
            target = folder / mount["target"].removeprefix("/etc/coupon/")
            (shutil.copytree if Path(mount["source"]).is_dir() else shutil.copy)(mount["source"], target)
    for path in (folder / "runtime").iterdir():
        path.write_text(understood(path.read_text().replace("listen ", "listen 127.0.0.1:")))
    return folder


def command(files, folder):
    """The container's, with these folders in the place of its own."""
    here = {"nginx": program("nginx"), "/tmp": folder / "tmp", "/etc/coupon/nginx.conf": folder / "nginx.conf"}
    return [here.get(word, word) for word in files.services["nginx"]["entrypoint"]]


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
    server, name_server = subprocess.Popen(command(files, folder)), NameServer(names, replicas)
    try:
        assert wait(lambda: all(order(web, "A")[0] == 201 for _ in range(20)), 10), "nginx does not come to itself"
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
