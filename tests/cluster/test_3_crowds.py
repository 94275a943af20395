"""Crowds, each with its own question, and what a run leaves behind."""

import json

import pytest

from story import HOME, ask, cluster, lab, must, record, refused, refused_in_one_line, run


def test_a_wrong_knob_of_a_run_is_named_in_one_line(running):
    before = sorted(HOME.glob("runs/*"))
    for script, name, value in (("arrival", "RATE", "fast"), ("arrival", "DURATION", "30"), ("arrival", "CODES", "65"), ("rush", "VUS", "-1"),
                                ("capacity", "STEP", "1s"), ("spike", "PEAK", "1"), ("smoke", "ID", "a b")):
        refused_in_one_line(run("k6", script, **{name: value}), f"{name}={value}")
    refused(run("k6", "arrivals"), "capacity, rush")
    assert sorted(HOME.glob("runs/*")) == before


def test_a_stream_is_kept_where_it_is_wanted(running):
    folder = HOME / "runs" / "a stream"
    must(run("k6", "arrival", "--into", folder, RATE=100, DURATION="3s", WARMUP="1s", CODES=4, DROPS="allow"))
    metrics = json.loads((folder / "summary.json").read_text())["metrics"]
    assert metrics["http_req_duration{scenario:arrival}"]["p(99.9)"] > 0
    assert metrics["coupon_issued"]["count"] > metrics["coupon_issued{scenario:arrival}"]["count"] > 0
    assert len((folder / "acks.log").read_text().splitlines()) == metrics["coupon_issued"]["count"]
    assert (folder / "report.html").stat().st_size > 100_000
    # What another run left is overwritten.
    must(run("k6", "arrival", "--into", folder, RATE=50, DURATION="1s", WARMUP="0s", ACKS=0))
    assert (folder / "acks.log").read_text() == ""


def test_tiny_coupons_sell_out_one_after_the_other(running):
    contests = ["--contests", "10", "--pieces", "5", "--rate", "100"]
    must(lab("fairness", "--cluster", HOME / "cluster.json", *contests), "10 of 10 coupons sold out and refused somebody")


def test_capacity_and_a_spike_say_what_they_found(running):
    must(run("k6", "capacity", FROM=50, TO=60, STEP="5s", WARMUP="0s", P99_MS=1), "not even the first rate held; at 50/s it broke: the latency")
    must(run("k6", "spike", RATE=20, PEAK=200, BEFORE="5s", SPIKE="1s", AFTER="6s", WARMUP="0s", BACK_MS=5000), "p95 in each second after")


def test_experiments_leave_no_coupon(running):
    assert {coupon["code"] for coupon in json.loads(ask("/coupons")[2])} == {"A001", "B001", "C001"}


@pytest.mark.database
def test_a_small_rush_sells_out_exactly(running):
    must(run("k6", "rush", "--expect-sold-out", USERS=3000, VUS=100))


@pytest.mark.database
def test_without_a_lock_updates_are_lost_and_counted(running):
    must(cluster("up", STRATEGY="unlocked"))
    assert record()["strategy"] == "unlocked"
    refused(run("k6", "rush", USERS=3000, VUS=200), "verdict: BROKEN", "lost updates")
    must(cluster("up"))
    assert record()["strategy"] == "batched"
