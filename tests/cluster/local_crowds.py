"""Judges k6's scripts by a stand-in for the service that gives every user the same answer: what no user may be told fails the run."""

import json
import os
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from script import ROOT, VENV

OFFERED = [{"code": "L-01", "state": "open"}]
# Of all else a script reads no more than this.
EVENT = {"round": 1, "exclusive": True, "coupons": []}


class StandIn(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, headers = self.server.to_orders if self.path == "/coupons/issue" else (200, {})
        text = json.dumps(OFFERED if self.path == "/coupons" else EVENT).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(text)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = answer

    def log_message(self, *_):
        """Says nothing."""


def stream(to_orders):
    """The status of a stream of users who are all answered so, and what k6 says."""
    with ThreadingHTTPServer(("127.0.0.1", 0), StandIn) as server:
        server.to_orders = to_orders
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        knobs = {"BASE_URL": url, "OPS_URL": url, "ADMIN_TOKEN": "any", "RATE": "20", "DURATION": "1s", "WARMUP": "0s", "ACKS": "0"}
        command = [VENV / "k6", "run", "--quiet", "--no-color", "--no-usage-report", "--address", "", ROOT / "k6" / "arrival.js"]
        ended = subprocess.run(command, env=os.environ | knobs, capture_output=True, text=True)
        server.shutdown()
    return ended.returncode, ended.stdout


@pytest.mark.parametrize("to_orders, failed", [
    ((403, {}), "a new user is not told 403 of a coupon that is open"),
    ((409, {}), "a new user is not told 409 of a coupon that is open"),
    ((503, {}), '"not now" says when to ask again'),
])
def test_what_no_user_may_be_told_fails_a_stream(to_orders, failed):
    status, said = stream(to_orders)
    assert status != 0 and f"✗ {failed}" in said, said


def test_a_stream_of_users_who_are_told_when_to_ask_again_is_fine():
    status, said = stream((503, {"Retry-After": "1"}))
    assert status == 0, said
