"""What the load generator saw: the same rush from outside. k6 writes these series itself, by remote write."""

from panels import BLUE, FULL, GREEN, GREY, ORANGE, PURPLE, QUANTILE_COLORS, SKY, VERMILION, YELLOW, board, fill, lines, nonzero, number, per, rate, variable

RUN = 'testid=~"$testid"'
ISSUE = f'{RUN}, name="issue"'
OUTCOMES = {
    "issued": ("k6_coupon_issued_total", GREEN), "replayed": ("k6_coupon_replayed_total", SKY),
    "already issued": ("k6_coupon_already_issued_total", BLUE), "sold out": ("k6_coupon_sold_out_total", GREY),
    "not open": ("k6_coupon_not_open_total", PURPLE), "busy": ("k6_coupon_busy_total", ORANGE),
    "gave up": ("k6_coupon_gave_up_total", YELLOW), "unexpected": ("k6_coupon_unexpected_total", VERMILION),
}


def total(name):
    return f"sum({rate(name, RUN)})"


def named(label, value, name):
    """The rate of a counter, as the curve of one value of a label."""
    return f'label_replace({total(name)}, "{label}", "{value}", "", "")'


def build():
    made = board("coupon-k6", "Coupon rush: k6 run",
                 "The rush as its users saw it. Compare its latency with the service's own: what is missing there is queueing in the generator or in nginx.",
                 variable("testid", "Run", "label_values(k6_vus, testid)"))
    return fill(made, generator(), users())


def generator():
    return (
        "The generator",
        number("Users", "Virtual users at work.", "short", f"sum(k6_vus{{{RUN}}})", decimals=0),
        number("Requests per second", "All requests that k6 sent and got answered.", "reqps", total("k6_http_reqs_total"), decimals=0),
        number("Failed requests", "Share of requests with a status that the script does not expect, or without any answer.", "percentunit",
               f"max(k6_http_req_failed_rate{{{ISSUE}}})", limit=0.0001),
        number("Dropped iterations", "Iterations that could not start because no user was free. Anything but zero: the latencies below are too optimistic.", "short",
               f"sum(k6_dropped_iterations_total{{{RUN}}}) or vector(0)", limit=1, decimals=0),
        lines("Users over time", "Virtual users at work, and the most that the run may use.", "short",
              (f"sum(k6_vus{{{RUN}}})", "at work"), (f"sum(k6_vus_max{{{RUN}}})", "at most"), steps=True),
        lines("Iterations", "Iterations finished per second by scenario, and those dropped. In an open model (arrival, capacity, spike) both together are the rate that was asked for.", "ops",
              nonzero(f"sum by (scenario) ({rate('k6_iterations_total', RUN)}) or {named('scenario', 'dropped', 'k6_dropped_iterations_total')}", "{{scenario}}"),
              colors={"dropped": VERMILION}, stacked=True),
    )


def users():
    latency = [(f"max(k6_http_req_duration_{name}{{{ISSUE}}})", name) for name in ("p50", "p95", "p99")]
    return (
        "What its users saw",
        lines("Latency of issuing", "k6's own quantiles since the run began, for the slowest kind of answer. A quantile cannot be computed again over time: read the end.",
              "s", *latency, colors=QUANTILE_COLORS),
        lines("p99 by scenario", "The same for each part of a run: the steps of capacity, before, in and after a spike. Its steps side by side are the curve of latency against rate.",
              "s", (f"max by (scenario) (k6_http_req_duration_p99{{{ISSUE}}})", "{{scenario}}")),
        lines("Answers by status", "Issue requests per second by status. 0 is no answer at all.", "reqps",
              per("status", rate("k6_http_reqs_total", ISSUE)), stacked=True),
        lines("Outcomes", "How orders ended, counted by the script. It must agree with the service's own count.", "reqps",
              nonzero(" or ".join(named("outcome", name, metric) for name, (metric, _) in OUTCOMES.items()), "{{outcome}}"),
              colors={name: color for name, (_, color) in OUTCOMES.items()}, stacked=True),
        lines("Checks", "Share of the script's checks that hold. The line below one names a broken promise.", "percentunit",
              (f"min(k6_checks_rate{{{RUN}}})", "lowest"), colors={"lowest": GREEN}, span=FULL),
    )
