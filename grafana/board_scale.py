"""The board that answers the project's question: what happens to lock wait and latency as replicas are added?"""

from panels import (BLUE, FULL, GREY, ISSUE, ORANGE, OUTCOME_COLORS, REPLICAS, SERVICE, SKY, STOCK, board, fill, heat, lines, nonzero, number, per,
                    quantile, quantiles, rate, scale_events, service_variables)

POST = f'{ISSUE}, method="POST"'
LATENCY = f"http_request_duration_seconds_bucket{{{POST}}}"
WAIT = f'coupon_lock_wait_seconds_bucket{{{SERVICE}, result="granted"}}'
GRANTS = rate("coupon_lock_attempts_total", f'{SERVICE}, result="granted"')
ISSUED = rate("coupon_issue_total", f'{SERVICE}, outcome="issued"')
NOT_NOW = rate("coupon_issue_total", f'{SERVICE}, outcome=~"busy|unavailable"')
# Without what has no label of its own, and the hundreds of tiny coupons of the fairness run.
CODES = f'{SERVICE}, code!~"other|F-.*"'
ORDERS = f"sum by (code, replica) ({rate('coupon_issue_total', CODES)})"
HOME_SHARE = f"max by (code) ({ORDERS}) / (sum by (code) ({ORDERS}) > 0)"
LOCK_SHARE = f"sum({rate('coupon_lock_wait_seconds_sum')}) / sum({rate('http_request_duration_seconds_sum', POST)})"


def build():
    made = board(
        "coupon-scale", "Coupon rush: scale overview",
        "What happens to lock wait and request latency as replicas are added. Read it from the top: a step in the first curve, then what follows it below.",
        *service_variables()).annotation(scale_events())
    return fill(made, at_a_glance(), scaling(), homes(), lock(), answers())


def at_a_glance():
    return (
        "At a glance",
        number("Replicas", "Replicas that Prometheus reaches now.", "short", REPLICAS, span=4),
        number("Issued per second", "Coupons given out, each committed. Falls to zero when everything is sold out: that is the end of the rush, not a fault.",
               "reqps", f"sum({ISSUED})", span=4, decimals=0),
        number("Latency p99", "99 of 100 issue requests are answered within this time, refusals included. Red above 120 ms, the budget at 1,000 connections.",
               "s", quantile(0.99, LATENCY), span=4, limit=0.12),
        number("Lock wait p99", "99 of 100 orders have the exclusive right within this time. Red above 60 ms, half the budget of latency.",
               "s", quantile(0.99, WAIT), span=4, limit=0.06),
        number("Not now, per second", "Answers of 503: busy or unavailable. Anything but zero means that somebody has to come back.",
               "reqps", f"sum({NOT_NOW})", span=4, limit=0.001, decimals=0),
        number("Stock left", "Pieces left of all coupons but the experiments' own. Each replica has its own view of a code; the largest counts.",
               "short", f"sum({STOCK})", span=4, decimals=0),
    )


def scaling():
    return (
        "As replicas are added",
        lines("Replicas", "How many replicas serve, as a step line. Every other panel is to be read against this one; purple marks are the same moments.",
              "short", (REPLICAS, "replicas"), steps=True),
        lines("Issues per second", "Coupons given out: the sum, and what each replica contributes. A hot code comes from its home alone; equal shares mean many codes, or `BALANCE=scattered`.",
              "reqps", per("replica", ISSUED),
              (f"sum({ISSUED})", "all"), colors={"all": GREY}),
        quantiles("Latency of POST /coupons/issue", "From a request's head to its answer, over all outcomes. A gap between p50 and p99 is waiting, not work. Dashed: 120 ms.",
                  LATENCY, limit=0.12),
        quantiles("Lock wait", "From the handler's entry to the exclusive right. Flat while each code is at home; a second replica that joins raises it first, and so does every replica under `BALANCE=scattered`. Dashed: 60 ms.",
                  WAIT, limit=0.06),
    )


def homes():
    return (
        "Where a code's orders go",
        lines("Orders by code and replica", "Orders per second that each replica answers of each code. A code has one curve, its home's, until that is full, frozen or gone.",
              "reqps", nonzero(ORDERS, "{{code}} at {{replica}}")),
        lines("The home's share", "The busiest replica's share of a code's orders. 100 %: the home has them all. Less: a second replica has joined, the home has moved, or orders are scattered.",
              "percentunit", (HOME_SHARE, "{{code}}")),
    )


def lock():
    return (
        "The lock",
        heat("Lock wait, spread", "Each column is a moment, each row a bucket of lock wait; bright means many orders. Two bands mean that a lucky and an unlucky group exist.", WAIT),
        lines("Lock's share of a request's time", "Time spent waiting for the lock over time spent in requests. Near 100 %, only a shorter hold or larger batches help; more replicas do not.",
              "percentunit", (LOCK_SHARE, "share"), colors={"share": ORANGE}),
        lines("Leases per batch", "1: each batch takes the lock anew, because replicas share a code or its batches are rare. Near 0: the lease stays from batch to batch, as it should at a busy home.",
              "short", (f"sum by (replica) ({GRANTS}) / (sum by (replica) ({rate('coupon_batch_size_count')}) > 0)", "{{replica}}")),
        lines("Batch size", "Orders settled by one lock and one transaction. Grows with the crowd of a code, and shrinks when replicas share it.",
              "short", (quantile(0.5, f"coupon_batch_size_bucket{{{SERVICE}}}"), "p50"), (quantile(0.95, f"coupon_batch_size_bucket{{{SERVICE}}}"), "p95"),
              (f"sum({rate('coupon_batch_size_sum')}) / sum({rate('coupon_batch_size_count')})", "mean"),
              colors={"p50": SKY, "p95": BLUE, "mean": GREY}),
    )


def answers():
    return (
        "What the crowd is told",
        lines("Outcomes", "All answers by kind, stacked. A rush is green until grey (sold out) takes over; orange and red mean \"come back later\".",
              "reqps", (f"sum by (outcome) ({rate('coupon_issue_total')}) > 0", "{{outcome}}"), stacked=True, colors=OUTCOME_COLORS),
        lines("Stock left", "Pieces left of each coupon but the experiments' own, the largest of the replicas' views. It may only fall within a round.",
              "short", (STOCK, "{{code}}"), steps=True),
        lines("Orders waiting", "Orders in the queues, by replica. A queue that never empties means that the crowd is larger than the service.",
              "short", per("replica", f"coupon_queue_depth{{{SERVICE}}}"), span=FULL, stacked=True),
    )
