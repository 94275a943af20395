"""What all scripts share: a problem told in one line, programs found and run to their end, files written whole, waiting."""

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Callable

ROOT = Path(__file__).resolve().parent.parent
# These two are shared by all clusters of a checkout.
TOOLS = ROOT / ".cluster" / "tools"
VENV = ROOT / ".cluster" / "venv" / "bin"


class Problem(Exception):
    """Something the person at the keyboard can cure; its text is one line that says how."""


def told(name: str, work: Callable, interruption=KeyboardInterrupt) -> int:
    """The exit status of a script; what went wrong is told in one line. TERM and HUP interrupt it like Ctrl-C."""

    def interrupt(_sign, _frame):
        raise interruption

    for sign in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(sign) != signal.SIG_IGN:  # As under nohup.
            signal.signal(sign, interrupt)
    try:
        return work() or 0
    except Problem as problem:
        status, said = 1, problem
    except OSError as error:
        # What cannot be copied is a list of all such files.
        reason = error.args[0][0][2] if isinstance(error, shutil.Error) else error
        status, said = 1, f"{reason}; are the folders yours to read and write, and is the disk full?"
    except KeyboardInterrupt:
        status, said = 130, "interrupted"
    say(f"{name}: {said}", sys.stderr)
    return status


def undisturbed() -> None:
    """From here on nothing interrupts us: what was begun is taken back."""
    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(sign, signal.SIG_IGN)


def say(text: str, to=None) -> None:
    """A reader that has gone away, as `tee` has after a Ctrl-C, ends nothing: least of all what takes back what was begun."""
    stream = to or sys.stdout
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def warn(*lines: str) -> None:
    say("\n".join(["=" * 78, *lines, "=" * 78]), sys.stderr)


def which(name: str):
    """Where a program lies, or None; servers often lie in sbin, which is not on everybody's PATH."""
    return shutil.which(name, path=f"{TOOLS / 'bin'}:{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin")


def program(name: str) -> str:
    """The path of a program: the one that was fetched because the installed one will not do, else the installed one."""
    found = which(name)
    if found is None:
        raise Problem(f"{name} is not installed: run `make install`")
    return found


def run_to_end(command: list, environment=None) -> subprocess.CompletedProcess:
    """Runs a helper and all that it starts; when we are interrupted, none of them is left behind."""
    words = [str(word) for word in command]
    helper = subprocess.Popen(words, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, start_new_session=True)
    try:
        output = helper.communicate()[0]
        return subprocess.CompletedProcess(words, helper.returncode, output)
    except BaseException:
        os.killpg(helper.pid, signal.SIGKILL)
        helper.wait()
        raise


def must_run(complaint: str, command: list, environment=None) -> str:
    """What a helper said; a problem that begins with the complaint when it failed."""
    done = run_to_end(command, environment)
    if done.returncode != 0:
        raise Problem(f"{complaint}:\n{done.stdout.strip()[-2000:]}")
    return done.stdout


def first_line(path: Path) -> str:
    """The secret in a file that a person may have edited; the admin token's holds the old one below while callers change over."""
    return path.read_text().strip().partition("\n")[0].strip()


def kept(path: Path) -> dict:
    """What we have written there ourselves; a disk that filled up or broke may have left something else."""
    try:
        return json.loads(path.read_text())
    except ValueError:
        raise Problem(f"{path} is damaged: delete it, and run `make up` with the knobs of before") from None


def write(path: Path, text: str, mode: int = 0o644) -> bool:
    """Writes a file so that a reader sees the old text or the new one, never half; tells whether the text is new."""
    if path.exists() and path.read_text() == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    os.replace(draft, path)
    return True


def delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def wait(condition: Callable, seconds: float, pause: float = 0.05) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(pause)
    return condition()


def get(port: int, path: str):
    """The status of a GET, or None while nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    with suppress(OSError, http.client.HTTPException):
        connection.request("GET", path)
        return connection.getresponse().status
    return None
