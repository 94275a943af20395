"""What the tests of the cluster share: the scripts as a person calls them, requests through nginx, and what is left on the machine."""

import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from programs import MARKER
from script import ROOT, wait

HOME = ROOT / ".cluster" / "test"
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.endswith("_PORT")},
    "CLUSTER_DIR": str(HOME),
    "PORT_OFFSET": os.environ.get("CLUSTER_TESTS_PORT_OFFSET", "21000"),
    "REPLICAS": "2", "STRATEGY": "batched", "REDIS_NODES": "3", "RATE_LIMIT": "off", "DB_MEMBERS": "1",
}
OFFSET = int(ENVIRONMENT["PORT_OFFSET"])
LAB = ROOT / os.environ.get("COUPON_LAB_BIN", Path(os.environ.get("CARGO_TARGET_DIR", "target")) / "release" / "lab")


def said_by(command, cwd=ROOT, environment=ENVIRONMENT):
    """The exit status and all that was said."""
    done = subprocess.run(command, env=environment, cwd=cwd, text=True, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert "Traceback" not in done.stdout, done.stdout
    return done.returncode, done.stdout


def run(script, *words, **knobs):
    return said_by([ROOT / "local" / script, *words], environment=ENVIRONMENT | {name: str(value) for name, value in knobs.items()})


def cluster(*words, **knobs):
    return run("cluster", *words, **knobs)


def lab(*words):
    return said_by([LAB, *words])


def must(result, words=""):
    assert result[0] == 0, f"status {result[0]}:\n{result[1]}"
    assert words in result[1], f"{words!r} is missing in:\n{result[1]}"
    return result[1]


def refused(result, *words):
    assert result[0] != 0, f"this was accepted:\n{result[1]}"
    for word in words:
        assert word in result[1], f"{word!r} is missing in:\n{result[1]}"


def refused_in_one_line(result, *words):
    refused(result, *words)
    assert len(result[1].splitlines()) == 1, result[1]


def new_round():
    """A reset as a person makes it: the refusal says which round to name, and the second call names it."""
    said = cluster("reset")
    refused(said, "which round")
    ends = int(re.search(r"make reset ROUND=(\d+)", said[1])[1])
    assert must(cluster("reset", ROUND=ends)) == f"round {ends + 1}\n"
    return ends + 1


def record():
    return json.loads((HOME / "cluster.json").read_text())


def replica_pids():
    return {replica["name"]: replica["pid"] for replica in record()["replicas"]}


def processes():
    """Every process that was started for this cluster, workers included, with its command line."""
    found = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = " ".join(process.cmdline())
            if process.environ().get(MARKER) == str(HOME) or f"{HOME}/" in words:
                found[process.pid] = words
    return found


def nothing_runs():
    assert processes() == {}
    bases = [8000, *range(8101, 8106), *range(8201, 8206), *range(6391, 6396), *range(3316, 3319), 9095]
    assert [base for base in bases if listens(base + OFFSET)] == []


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def eventually(condition, seconds=30):
    assert wait(condition, seconds), f"not so after {seconds} s"


def ask(path, body=None, headers=None, method=None):
    """The status, all headers and the text of an answer through nginx."""
    request = urllib.request.Request(record()["nginx"]["url"] + path, data=body, headers=headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


def order(user, code="A001", **headers):
    """The status, all headers and the text of the answer to an order."""
    body = json.dumps({"code": code, "userId": user}).encode()
    return ask("/coupons/issue", body, {"Content-Type": "application/json", **headers})


@contextmanager
def rush():
    """A crowd that goes on as long as the block does; k6 and the verdict must both be content."""
    folder = HOME / "runs" / f"rush-{time.monotonic_ns()}"
    with interrupted([ROOT / "local" / "k6", "rush", "--into", folder], {"VUS": "50", "DURATION": "10m"}) as crowd:
        eventually(lambda: (folder / "acks.log").exists() and (folder / "acks.log").stat().st_size > 0)
        yield
    content(crowd.said, "the verdict with 0")


def content(said, *words):
    """What a crowd of k6's says that was interrupted. It ends the same whatever its thresholds say, and marks each of them, and each
    check, that does not hold; in a strict crowd those of refusals tell what was refused."""
    for word in ("k6 ended with 105", *words):
        assert word in said and "✗" not in said, said


@contextmanager
def interrupted(command, knobs=()):
    """Something that runs as long as the block does, and gets a Ctrl-C at its end; then it has a status and what it `said`."""
    with subprocess.Popen(command, env={**ENVIRONMENT, **dict(knobs)}, cwd=ROOT, text=True, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=heed_interrupts) as running:
        try:
            yield running
        finally:
            with suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGINT)
            running.said = running.communicate()[0]


def heed_interrupts():
    """What a shell starts in the background ignores Ctrl-C, and so would all that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
