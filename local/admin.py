"""The administrative calls of a running cluster: at the operations listener of its first replica, with the cluster's own token."""

import http.client
import json
import time
from pathlib import Path
from urllib.parse import urlsplit

from script import Problem, first_line

# A change is answered after 1.1 s; what takes this long was forgotten.
TIMEOUT_SECONDS = 15
TRIES = 3


def call(found: dict, method: str, path: str, body=None) -> tuple:
    """Status and content of the answer. A call that got none is made again: every one of them may be."""
    replica = found["replicas"][0]
    headers = {"Authorization": f"Bearer {first_line(Path(found['admin_token_file']))}", "Content-Type": "application/json"}
    for left in reversed(range(TRIES)):
        connection = http.client.HTTPConnection(urlsplit(replica["ops_url"]).netloc, timeout=TIMEOUT_SECONDS)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            status, text = answer.status, answer.read()
            if status != 503 or left == 0:
                return status, json.loads(text or "null")
        except (OSError, http.client.HTTPException) as error:
            if left == 0:
                raise Problem(f"{replica['name']} does not answer ({error}): look at `make status`") from error
        finally:
            connection.close()
        time.sleep(1)


def current_round(found: dict) -> int:
    status, event = call(found, "GET", "/admin/event")
    if status != 200:
        raise Problem(f"the current round is not known: {status} {event}")
    return event["round"]


def end_round(found: dict, ends: int) -> int:
    """Ends this round, if it has not ended yet, and returns the next one."""
    status, answer = call(found, "POST", "/admin/reset", {"round": ends})
    over = status == 409 and answer.get("round") == ends + 1
    if status != 200 and not over:
        raise Problem(f"the reset was refused with {status}: {answer.get('detail') or answer}")
    return answer["round"]
