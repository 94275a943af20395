"""Everything that a replica tells about itself and that the overview leaves out."""

from panels import GREEN, ISSUE, SERVICE, VERMILION, YELLOW, board, fill, heat, lines, nonzero, number, per, quantiles, rate, scale_events, service_variables

DURATION = "http_request_duration_seconds"
FAILED = f'{ISSUE}, status=~"5.."'


def increase_total(name):
    return f"sum(increase({name}{{{SERVICE}}}[$__range]))"


def build():
    made = board("coupon-service", "Coupon rush: service and lock in detail",
                 "What each replica does with requests, queues, the lock, batches and the database. Look here when the overview shows that something changed.",
                 *service_variables()).annotation(scale_events())
    return fill(made, trouble(), requests(), lock(), batches(), memory())


def trouble():
    return (
        "Trouble, over the time shown",
        number("Leases lost", "Work that ended after its lease did. The row lock kept the promises; a longer LOCK_TTL_MS or a faster database is due.",
               "short", increase_total("coupon_lock_lost_total"), span=4, limit=1, decimals=0),
        number("Without the lock", "Batches settled by the row lock alone, because the lock could not be had: most lock nodes are of no use, or none of them granted it in time.",
               "short", increase_total("coupon_lock_bypassed_total"), span=4, limit=1, decimals=0),
        number("Unknown outcomes", "Database calls of which nobody knows whether they were carried out. Each is run again until it is known.",
               "short", increase_total("coupon_unknown_outcomes_total"), span=4, limit=1, decimals=0),
        number("Shed", "Orders refused because a queue was full.", "short", increase_total("coupon_shed_total"), span=4, limit=1, decimals=0),
        number("Waits that expired", "Orders that never got the exclusive right: their caller left or their time was up.",
               "short", f'sum(increase(coupon_lock_wait_seconds_count{{{SERVICE}, result="expired"}}[$__range]))', span=4, limit=1, decimals=0),
        number("Running", "The version and the strategy of the replicas, and how many run it. More than one kind is normal only during a roll-out.",
               "short", f"count by (version, strategy) (coupon_build_info{{{SERVICE}}})", span=4, legend="{{strategy}} {{version}}", text="value_and_name"),
    )


def requests():
    return (
        "Requests",
        lines("Requests by route", "Requests per second on the public listener. `other` is whatever has no route.",
              "reqps", (f"sum by (route) ({rate(DURATION + '_count')}) > 0", "{{route}}")),
        lines("Answers by status", "Issue requests by the status they were answered with. 201 is a coupon, 410 sold out, 409 already issued, 503 not now.",
              "reqps", (f"sum by (status) ({rate(DURATION + '_count', ISSUE)}) > 0", "{{status}}"), stacked=True),
        heat("Latency of issuing, spread", "Each column is a moment, each row a bucket of latency; bright means many requests.",
             f'{DURATION}_bucket{{{ISSUE}, method="POST"}}'),
        lines("Latency p99 by route", "Which route is slow. Reads should stay far below issues.",
              "s", (f"histogram_quantile(0.99, sum by (le, route) ({rate(DURATION + '_bucket')}))", "{{route}}")),
        lines("In flight", "Requests in hand at this moment, by replica. A home has those of its codes; beyond 500 orders (dashed: HOME_ORDERS) the next replica joins. One that stays high without answers hangs.",
              "short", per("replica", f"coupon_in_flight{{{SERVICE}}}"), limit=500),
        lines("Share of 5xx", "Issue requests answered with 5xx. Dashed: 1 %, where the alert fires.",
              "percentunit", (f"(sum({rate(DURATION + '_count', FAILED)}) or vector(0)) / sum({rate(DURATION + '_count', ISSUE)})", "5xx"), limit=0.01, colors={"5xx": VERMILION}),
    )


def lock():
    return (
        "The lock",
        lines("Attempts by result", "Grants per second, and attempts in vain. `contended` means that another replica held it: rare while each code is at home. `unavailable` means no quorum.",
              "ops", per("result", rate("coupon_lock_attempts_total")),
              colors={"granted": GREEN, "contended": YELLOW, "unavailable": VERMILION}),
        quantiles("Time to acquire", "From wanting the lock to its grant, per lease. What lock wait has on top is time in the queue.",
                  f"coupon_lock_acquire_seconds_bucket{{{SERVICE}}}"),
        quantiles("Time held", "From grant to release. A home's lease spans many batches and is given back when the orders end or another replica wants it. Dashed: 1.5 s, the lease's life.",
                  f"coupon_lock_hold_seconds_bucket{{{SERVICE}}}", limit=1.5),
        lines("Lock nodes in use", "1 while a Redis node votes, 0 while it is replaced; the lowest of the replicas' views. Two of three must be 1.",
              "short", (f"min by (node) (coupon_redis_node_up{{{SERVICE}}})", "node {{node}}"), steps=True),
    )


def batches():
    return (
        "Batches and the database",
        heat("Batch size, spread", "Each row is a bucket of orders per batch; bright means many batches.", f"coupon_batch_size_bucket{{{SERVICE}}}", unit="short"),
        quantiles("Transaction", "One issuing transaction, or one call of `issue_batch`. Mostly the wait for the disk at COMMIT.",
                  f"coupon_transaction_seconds_bucket{{{SERVICE}}}"),
        lines("Batches run again", "By reason: another code's coupon taken meanwhile, a contended row, an unknown outcome.",
              "ops", per("reason", rate("coupon_batch_reruns_total"))),
        quantiles("Wait for a connection", "Strategies that issue one by one wait here for the pool; `batched` owns its connection and records nothing. Dashed: 1 s.",
                  f"coupon_db_pool_wait_seconds_bucket{{{SERVICE}}}", limit=1),
    )


def memory():
    return (
        "Memory and waiting",
        lines("Age of what a replica remembers", "Time since the last good look at the database's generation. Beyond 1 s (dashed) memory is not used, and every order asks the database.",
              "s", (f"max by (replica) (coupon_generation_age_seconds{{{SERVICE}}})", "{{replica}}"), limit=1),
        lines("Issued by code", "What was issued, per code, without the many tiny coupons of the fairness run. Codes beyond the first 32 count as `other`.",
              "reqps", nonzero(*per("code", rate("coupon_issue_total", f'{SERVICE}, outcome="issued", code!~"F-.*"'))), stacked=True),
    )
