"""Drives the laboratory's page in a real, headless Chromium and looks at what is drawn: `make test-page`.

It uses the running cluster of CLUSTER_DIR, or starts one of its own and stops it again. The cluster gets new rounds. Pictures of
every width, light and dark, are kept in the cluster's folder, under `pictures/`. The tests are a story and run in this order.
"""

import base64
import json
import os
import urllib.request
from pathlib import Path

import pytest
from selenium import webdriver

import record
from script import ROOT, Problem, first_line, must_run, wait, which
from settings import saved

WIDTHS = {"phone": (390, 844), "tablet": (820, 1180), "desktop": (1440, 900)}
BOARDS = sorted(path.stem for path in (ROOT / "grafana" / "dashboards").glob("*.json"))
MAY_BE_EMPTY = [line.split("|")[1].strip() for line in (ROOT / "grafana" / "may-be-empty.txt").read_text().splitlines()
                if "|" in line and not line.startswith("#")]
# Per panel: its title, and how many pixels of its canvases are coloured. Curves, cells and sparklines are; axes and grid are grey.
COLOURED = """
[...document.querySelectorAll('.panel')].map((card) => {
  let coloured = 0;
  for (const canvas of card.querySelectorAll('canvas')) {
    if (canvas.width * canvas.height === 0) continue;
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    for (let place = 0; place < data.length; place += 4) {
      const [red, green, blue, alpha] = data.slice(place, place + 4);
      if (alpha > 40 && Math.max(red, green, blue) - Math.min(red, green, blue) > 40) coloured += 1;
    }
  }
  return { title: card.dataset.title, coloured, value: card.querySelector('.value')?.textContent, said: card.querySelector('.nothing')?.textContent };
})
"""
SHOWN = "Object.fromEntries([...document.querySelectorAll('.coupon')].map((row) => [row.dataset.code, Number(row.querySelector('.left').textContent.replace(/,/g, ''))]))"
ALL_DRAWN = "[...document.querySelectorAll('.panel')].every((card) => card.querySelector('canvas, .nothing, .value'))"
DRAWN_FOR_THIS_WIDTH = """[...document.querySelectorAll('.u-wrap')].every(
  (plot) => plot.offsetWidth === plot.closest('.uplot').parentElement.clientWidth)"""
OUTSIDE_THEIR_CARD = """[...document.querySelectorAll('.card *')].filter((one) => one.offsetWidth > 0 && !one.closest('.plot, details')
  && one.getBoundingClientRect().right > one.closest('.card').getBoundingClientRect().right).map((one) => one.outerHTML.slice(0, 60))"""
TOO_SMALL = "[...document.querySelectorAll('button, select, input')].filter((one) => one.offsetHeight > 0 && one.offsetHeight < 32).length"


class Cluster:
    """The cluster under the page."""

    def __init__(self):
        self.ours = self.record()["prometheus"] is None
        if self.ours:
            os.environ |= {"CLUSTER_DIR": ".cluster/test-page", "PORT_OFFSET": os.environ.get("PORT_OFFSET", "23000")}
            self.command("cluster", "up")
        self.url = self.record()["nginx"]["url"]
        self.pictures = saved().home / "pictures"
        self.pictures.mkdir(exist_ok=True)

    def record(self):
        return record.read(saved())

    def command(self, *words):
        must_run(" ".join(words), [ROOT / "local" / words[0], *words[1:]], {"VUS": "40", "DURATION": "12s", **os.environ})

    def get(self, path):
        return told(self.url + path)

    def new_round(self):
        found = self.record()
        token = {"Authorization": f"Bearer {first_line(Path(found['admin_token_file']))}", "Content-Type": "application/json"}
        admin = lambda call, body=None: told(f"{found['replicas'][0]['ops_url']}/admin/{call}", token, body)
        admin("reset", {"round": admin("event")["round"]})

    def open_stock(self):
        """What the page must show: closed coupons are only counted."""
        return {coupon["code"]: coupon["remaining"] for coupon in self.get("/coupons") if coupon["state"] != "closed"}


def told(url, headers=None, body=None):
    request = urllib.request.Request(url, body and json.dumps(body).encode(), headers or {})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


class Browser:
    """One tab of a Chromium, by Debian's driver. Errors that the page logs are kept."""

    def __init__(self):
        options = webdriver.ChromeOptions()
        options.binary_location = which("chromium")
        for flag in ("headless", "no-sandbox", "disable-gpu", "disable-quic", "disable-background-networking", "hide-scrollbars"):
            options.add_argument(f"--{flag}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options, webdriver.ChromeService(which("chromedriver")))
        self.driver.set_script_timeout(20)
        self.call, self.logged = self.driver.execute_cdp_cmd, []

    def errors(self):
        self.logged += [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
        return self.logged

    def run(self, expression):
        """The value of an expression in the page; promises are waited for."""
        return self.driver.execute_script(f"return {expression.strip()}")

    def click(self, selector):
        # By a script, because the page draws itself anew all the time.
        self.run(f"document.querySelector({json.dumps(selector)}).click()")

    def until(self, expression, seconds=20):
        assert wait(lambda: self.run(expression), seconds), f"not so after {seconds} s: {expression}"

    def window(self, width, height, dark=False):
        self.call("Emulation.setDeviceMetricsOverride", {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600})
        self.call("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]})

    def screenshot(self, path):
        """The whole page, from top to bottom; what lies outside the window may not be drawn."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": True})["data"]))


@pytest.fixture(scope="module")
def cluster():
    made = Cluster()
    yield made
    if made.ours:
        made.command("cluster", "down")


@pytest.fixture(scope="module")
def browser(cluster):
    if not (which("chromium") and which("chromedriver")):
        raise Problem("there is no Chromium, or no driver for it: run as root: apt-get install chromium chromium-driver")
    made = Browser()
    made.window(*WIDTHS["desktop"])
    made.driver.get(f"{cluster.url}/lab/")
    made.until("document.querySelectorAll('.coupon').length > 0")
    yield made
    made.driver.quit()


def test_the_page_opens(browser):
    browser.until("document.getElementById('state').dataset.kind === 'live'")
    assert browser.driver.title.startswith("coupon-rush")


def test_a_rush_is_drawn(cluster, browser):
    # An increase is what came after the first sample: a stock that sold out before it was never issued.
    seen = "/lab/prometheus/api/v1/query?query=count(coupon_issue_total{outcome='issued',code='A001'})"
    names = [replica["name"] for replica in cluster.record()["replicas"]]
    assert wait(lambda: [int(found["value"][1]) for found in cluster.get(seen)["data"]["result"]] == [len(names)], 60)
    cluster.command("k6", "rush")
    browser.until("document.querySelectorAll('.tally tr').length > 0 && document.querySelectorAll('.split > i').length > 1")
    # Forty users are no crowd that a home could not take.
    browser.until("[...document.querySelectorAll('.served')].some((served) => served.textContent.endsWith(' 100 %'))")
    assert browser.run("[...document.querySelectorAll('#replicas .row-head > b')].map((name) => name.textContent)") == names
    assert "strategy" in browser.run("document.getElementById('running').textContent")


@pytest.mark.parametrize("board", BOARDS)
def test_every_board_is_drawn(cluster, browser, board):
    browser.window(1440, 5200)  # Only what is on the screen is asked for.
    browser.click(f"[data-name={board}]")
    expected = [panel["title"] for panel in cluster.get(f"/lab/dashboards/{board}.json")["panels"] if panel["type"] != "row"]
    browser.until(f"document.querySelectorAll('.panel').length === {len(expected)} && {ALL_DRAWN}")
    blank = lambda: [panel for panel in browser.run(COLOURED) if not drawn(panel)]
    assert wait(lambda: not blank(), 5), blank()
    assert [panel["title"] for panel in browser.run(COLOURED)] == expected
    assert browser.errors() == []


def drawn(panel):
    if panel["value"] is not None:
        return panel["value"] not in ("", "–")
    return panel["coloured"] > 15 or panel["title"] in MAY_BE_EMPTY


def test_the_stock_is_the_services(cluster, browser):
    cluster.new_round()
    wanted = cluster.open_stock()
    browser.until(f"JSON.stringify({SHOWN}) === JSON.stringify({json.dumps(wanted)})")
    assert min(wanted.values()) > 0, wanted
    closed = len(cluster.get("/coupons")) - len(wanted)
    said = browser.run("document.querySelector('#stock .others').textContent")
    assert said == (f"Not shown: {closed} closed." if closed else "")


def test_a_person_takes_a_coupon(cluster, browser):
    before = cluster.open_stock()
    one, other = list(before)[:2]
    user = browser.run("document.getElementById('user').value")

    def take(code, *words):
        browser.click(f"[data-code={code}] button")
        for word in words:
            browser.until(f"document.getElementById('answer').textContent.includes({json.dumps(word)})")

    take(one, f"You got {one}", "number 1")
    assert [entry["code"] for entry in cluster.get(f"/users/{user}/coupons")] == [one]
    take(one, f"You have {one} already")
    take(other, f"You hold {one} already")
    browser.until(f"{SHOWN}[{json.dumps(one)}] === {before[one] - 1}")
    assert cluster.open_stock() == {**before, one: before[one] - 1}
    # Chromium logs every refusal; the one coupon too many was asked for on purpose.
    assert [error for error in browser.errors() if "/coupons/issue" not in error] == []


def test_the_api_can_be_tried(cluster, browser):
    known = len(browser.errors())
    browser.driver.get(f"{cluster.url}/docs/")
    browser.until("document.querySelectorAll('.opblock').length === 5")
    browser.click(".opblock-summary-control")
    browser.until("document.querySelector('.opblock.is-open .try-out__btn') !== null")
    assert browser.run("fetch('/version').then((answer) => answer.json()).then((version) => version.name)") == "coupon-rush"
    # What its policy forbids would be an error, too.
    assert browser.errors()[known:] == []
    browser.screenshot(cluster.pictures / "api.png")
    browser.driver.get(f"{cluster.url}/lab/")
    browser.until("document.querySelectorAll('.coupon').length > 0")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", WIDTHS)
def test_it_fits_every_width(cluster, browser, name, dark):
    width, height = WIDTHS[name]
    browser.click("[data-name=scale-overview]")
    browser.window(width, height, dark)
    browser.until(f"{ALL_DRAWN} || document.documentElement.scrollHeight > {height}")
    browser.window(width, browser.run("document.documentElement.scrollHeight"), dark)
    browser.until(f"document.querySelectorAll('.panel').length > 0 && {ALL_DRAWN}")
    browser.until(DRAWN_FOR_THIS_WIDTH)
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run(OUTSIDE_THEIR_CARD) == []
    assert browser.run(TOO_SMALL) == 0, "controls are too small for a finger"
    browser.screenshot(cluster.pictures / f"{name}-{'dark' if dark else 'light'}.png")


def test_without_prometheus_it_says_so(cluster, browser):
    browser.window(*WIDTHS["desktop"])
    browser.call("Network.enable", {})
    browser.call("Network.setBlockedURLs", {"urls": ["*/lab/prometheus/*"]})
    browser.until("!document.getElementById('banner').hidden")
    assert "Prometheus does not answer" in browser.run("document.getElementById('banner').textContent")
    assert browser.run("document.querySelectorAll('.coupon button').length") > 0
    browser.until("document.querySelectorAll('.nothing').length > 0")
    browser.screenshot(cluster.pictures / "without-prometheus.png")
    browser.call("Network.setBlockedURLs", {"urls": []})
    browser.until("document.getElementById('banner').hidden")
