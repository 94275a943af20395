"""What the service stands on: the balancer, the lock nodes, the database and the machine, each by its exporter."""

from panels import BLUE, ORANGE, SKY, board, fill, lines, per, rate

NGINX, REDIS, MYSQL, HOST = 'job="nginx"', 'job="redis"', 'job="mysql"', 'job="host"'

# The commands of the lock; the exporter and the prober send others.
LOCKING = f'{REDIS}, cmd=~"set|eval|evalsha|blpop|lpush|ltrim|del|pexpire"'


def build():
    made = board("coupon-servers", "Coupon rush: servers",
                 "How busy the servers and the machine are. On one machine everything shares its cores: look at the CPU before you conclude anything about scaling.")
    return fill(made, host(), nginx(), redis(), mysql(), group(), prometheus())


def host():
    busy = rate("node_cpu_seconds_total", f'{HOST}, mode=~"user|system|softirq|iowait|steal"')
    return (
        "Host",
        lines("CPU in use", "Cores at work, by kind. When their sum reaches the number of cores, nothing above measures the service any more.",
              "short", per("mode", busy), (f'count(node_cpu_seconds_total{{{HOST}, mode="idle"}})', "cores"), colors={"cores": ORANGE}),
        lines("Memory", "In use, and what there is.", "bytes",
              (f"node_memory_MemTotal_bytes{{{HOST}}} - node_memory_MemAvailable_bytes{{{HOST}}}", "in use"),
              (f"node_memory_MemTotal_bytes{{{HOST}}}", "total"), colors={"in use": BLUE, "total": ORANGE}),
        lines("Disk writes", "Bytes written per second: mostly the database's logs, at each COMMIT.", "Bps",
              per("device", rate("node_disk_written_bytes_total", HOST))),
        lines("Context switches", "How often the machine changes between tasks. A jump without more requests is contention.", "ops",
              (f"sum({rate('node_context_switches_total', HOST)})", "switches")),
    )


def nginx():
    return (
        "nginx",
        lines("Requests", "All requests that nginx answered, its own refusals included.", "reqps", (f"sum({rate('nginx_http_requests_total', NGINX)})", "requests")),
        lines("Connections", "Open connections by what they do. `waiting` are idle clients kept alive.", "short",
              (f"sum(nginx_connections_active{{{NGINX}}})", "active"), (f"sum(nginx_connections_waiting{{{NGINX}}})", "waiting"),
              (f"sum(nginx_connections_writing{{{NGINX}}})", "writing")),
        lines("Connections refused", "Accepted but not handled: nginx had no slot left. Must stay at zero.", "ops",
              (f"sum({rate('nginx_connections_accepted', NGINX)}) - sum({rate('nginx_connections_handled', NGINX)})", "refused"), span=24),
    )


def redis():
    return (
        "Redis",
        lines("Commands by node", "Lock, release and wake-up calls per second. The nodes should lie together.", "ops",
              per("instance", rate("redis_commands_processed_total", REDIS))),
        lines("Time per command", "Mean time that a node spends on a command; the network is not in it.", "s",
              (f"sum by (cmd) ({rate('redis_commands_duration_seconds_total', LOCKING)}) / sum by (cmd) ({rate('redis_commands_total', LOCKING)})", "{{cmd}}")),
        lines("Clients", "Open connections of each node.", "short", per("instance", f"redis_connected_clients{{{REDIS}}}")),
        lines("Memory", "What each node holds. Leases are tiny and short-lived: a rise means that something else writes there.", "bytes",
              per("instance", f"redis_memory_used_bytes{{{REDIS}}}")),
    )


def mysql():
    innodb = "mysql_global_status_innodb_"
    return (
        "MySQL",
        lines("Statements", "Statements per second by kind. One call of `issue_batch` is one `call_procedure` and a handful of others inside it.", "ops",
              (f'sum by (command) (rate(mysql_global_status_commands_total{{{MYSQL}, command=~"call_procedure|insert|update|select|commit|rollback"}}[$__rate_interval])) > 0',
               "{{command}}")),
        lines("Row lock waits", "How often a statement waited for a row. A batch per lock keeps this near zero; `pessimistic` lives on it.", "ops",
              (f"sum({rate(innodb + 'row_lock_waits', MYSQL)})", "waits")),
        lines("Rows written", "Rows inserted and updated per second, over all tables.", "ops",
              per("operation", rate(innodb + "row_ops_total", f'{MYSQL}, operation=~"inserted|updated"')),
              colors={"inserted": BLUE, "updated": SKY}),
        lines("Threads", "Connections, and how many of them run a statement now.", "short",
              (f"sum(mysql_global_status_threads_connected{{{MYSQL}}})", "connected"), (f"sum(mysql_global_status_threads_running{{{MYSQL}}})", "running")),
        lines("Flushes of the log", "How often the redo log is forced to the disk. Durable commits per second cannot exceed this, except by sharing one.", "ops",
              (f"sum({rate(innodb + 'os_log_fsyncs', MYSQL)})", "flushes"), span=24),
    )


def group():
    """Empty where the database is one server."""
    member, seen = "mysql_perf_schema_replication_group_member_info", "by (member_host, member_port)"
    return (
        "MySQL group",
        lines("Members", "How many members each one sees with a place in the group. Fewer than there are: one was expelled, or died. A minority takes no writes.", "short",
              (f'count by (instance) ({member}{{{MYSQL}, member_state="ONLINE"}})', "{{instance}}"), steps=True),
        lines("Takes writes", "The member that takes writes, by its address, as the others see it. Where the curve moves to another address, that one took its place.", "short",
              (f'count {seen} ({member}{{{MYSQL}, member_state="ONLINE", member_role="PRIMARY"}})', "{{member_host}}:{{member_port}}"), steps=True),
        lines("Transactions that wait", "Received from the group and not applied yet. Before a member takes another's place it applies all of them.", "short",
              (f"max by (instance) (mysql_perf_schema_transactions_remote_in_applier_queue{{{MYSQL}}})", "{{instance}}")),
        lines("Time since the start", "A curve that falls to zero is a member that was expelled or died, and started anew.", "s",
              (f"max by (instance) (mysql_global_status_uptime{{{MYSQL}}})", "{{instance}}")),
        lines("Primary found anew", "Replicas that found another member to take writes. One that did not, when the others did, still asks the old one.",
              "ops", per("replica", rate("coupon_database_primary_changes_total", 'job="coupon"')), span=24),
    )


def prometheus():
    return (
        "Prometheus",
        lines("Time per scrape", "How long each job takes to answer. Beyond 1 s a scrape fails, and a gap appears in every panel.", "s",
              ('max by (job) (scrape_duration_seconds{job=~".+"})', "{{job}}"), limit=1),
        lines("Targets reached", "1 while a target answers. A part that is not there has no curve.", "short",
              per("job", 'up{job=~".+"}'), steps=True),
    )
