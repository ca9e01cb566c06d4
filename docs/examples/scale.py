#!/usr/bin/env python3
"""Computes the tables of docs/scale.md from its assumptions and its costs per unit.

python3 docs/examples/scale.py                        prints the tables
python3 docs/examples/scale.py --check docs/scale.md  exit code 1 if one of their lines is missing there
For a load of your own change the values here and run it again. Only the standard library is needed.
"""
import pathlib
import sys

USERS = [10**5, 10**6, 10**7, 10**8]
DAY_S = 86_400

# Assumptions; docs/scale.md has the source of each.
ACTIVE = 0.2  # share of the users who come on a day
REQUESTS = 20  # of an active user on a day
EVENTS = 39.8  # of an active user on a day
PEAK = 3.08  # rate at the peak over the mean of a day
MISS = 0.1  # share of the requests that read the store
USERS_PER_ITEM = 20
MOST_ITEMS = 10**6
SAMPLED = 0.01  # share of the requests that are traced

# Costs per unit; docs/scale.md has the command of each.
GATEWAY_US = 31  # CPU per request
REPLICA_US = 51
REDIS_US = 9
READ_US = 143  # CPU of MySQL per read of a history
EVENT_MYSQL_US = 9.3  # CPU per event
EVENT_WORKER_US = 1.8
ACCESS_LOG_US = 37.5  # CPU per request
FILTER_US = 1  # CPU per user and rebuild, in each replica
LIST_BYTES = 800  # of a response
CACHED_BYTES = 1_087  # of a list in Redis
FILTER_BYTES = 1.8  # per user, in each replica
LOG_BYTES = 204  # per event, in MySQL
KAFKA_BYTES = 51  # per event, in each copy
WORKER_BASE_BYTES = 117e6
WORKER_USER_BYTES = 1_167  # per user, in each worker
SEGMENT_BYTES = 1_136  # per item, in each copy of the model
HEARTBEAT_PER_S = 1  # of a worker, to each monitor
SPANS = 3  # per traced request
SPAN_BYTES = 235
SERIES = 1_297  # per replica
FOLD_PER_S = 62_500  # events that a new primary reads per second, at most

# What the deployment has; docs/scale.md has the file of each.
REPLICA_CORES, REPLICA_TARGET, FEWEST, MOST = 2, 0.7, 8, 20
SHARDS, MOST_WORKERS, MONITORS, MODEL_COPIES, KAFKA_COPIES = 16, 16, 3, 3, 3
SCRAPE_S, REBUILD_S, KAFKA_DAYS = 5, 600, 3
WORKER_LIMIT, REDIS_LIMIT, SHARD_LIMIT, KAFKA_LIMIT = 2**30, 2e9, 20 * 2**30, 16 * 2**29
WARMED_UP, ACCESS_LOG_CORES, POOL = 10**6, 0.5, 8
LAW_BASE_S, LAW_SLOPE_S = 0.074, 0.0002  # of a modelled shard


def mean(users):
    return users * ACTIVE * REQUESTS / DAY_S


def peak(users):
    return PEAK * mean(users)


def events(users):
    return users * ACTIVE * EVENTS / DAY_S


def items(users):
    return min(users / USERS_PER_ITEM, MOST_ITEMS)


def replicas(users):
    wanted = -(-peak(users) * REPLICA_US / 1e6 // (REPLICA_CORES * REPLICA_TARGET))
    return max(wanted, FEWEST)


def reads(users):
    return MISS * peak(users) / SHARDS


def in_flight(users):
    """Queries in flight at a shard by the law: rate x time, where the time grows with the queries in flight."""
    rate = reads(users)
    return rate * LAW_BASE_S / (1 - rate * LAW_SLOPE_S)


def store_per_s(connections):
    """Queries per second of all shards by the law, if each has this number of busy connections."""
    return SHARDS * connections / (LAW_BASE_S + LAW_SLOPE_S * connections)


def worker_bytes(users):
    return WORKER_BASE_BYTES + WORKER_USER_BYTES * users


def log_bytes_a_day(users):
    return ACTIVE * EVENTS * LOG_BYTES * users


def kafka_bytes(users):
    return events(users) * DAY_S * KAFKA_DAYS * KAFKA_BYTES


def figure(value, unit=""):
    """Two digits, in the unit's multiple that is easy to read."""
    if value == 0:
        return f"0 {unit}".strip()
    names = {"B": ["B", "kB", "MB", "GB", "TB", "PB"], "s": ["s"], "": [""]}.get(unit, [unit])
    step = 0
    while len(names) > step + 1 and value >= 999.5:
        value, step = value / 1000, step + 1
    digits = 2 if value < 99.5 else 3
    text = f"{float(f'{value:.{digits}g}'):,.10f}".rstrip("0").rstrip(".")
    return f"{text} {names[step]}".strip()


def duration(seconds):
    for unit, length in [("days", DAY_S), ("h", 3600), ("min", 60)]:
        if seconds >= 1.5 * length:
            return figure(seconds / length, unit)
    return figure(seconds, "s")


def rows():
    """Name, kind of figure, and its text for a number of users. Rates and cores are those of the peak, except means."""
    cost = "measured cost"

    def cores(per_second, cpu_us):
        return figure(per_second * cpu_us / 1e6)

    def mysql_cores(u):
        return (SHARDS * reads(u) * READ_US + PEAK * events(u) * EVENT_MYSQL_US) / 1e6

    yield "requests/s, mean", "arithmetic", lambda u: figure(mean(u))
    yield "requests/s, peak", "arithmetic", lambda u: figure(peak(u))
    yield "events/s, mean", "arithmetic", lambda u: figure(events(u))
    yield "events/s, peak", "arithmetic", lambda u: figure(PEAK * events(u))
    yield "gateway, cores", cost, lambda u: cores(peak(u), GATEWAY_US)
    yield "responses, Mbit/s", cost, lambda u: figure(8 * peak(u) * LIST_BYTES / 1e6)
    yield "replicas, cores", cost, lambda u: cores(peak(u), REPLICA_US)
    yield "replicas of 2 CPU at 70 %, at least 8", cost, lambda u: figure(replicas(u))
    yield "filter in each replica", cost, lambda u: figure(u * FILTER_BYTES, "B")
    yield "rebuilds of the filter in each replica, cores", "not measured", lambda u: cores(u / REBUILD_S, FILTER_US)
    yield "Redis, cores", cost, lambda u: cores(peak(u), REDIS_US)
    yield "lists in Redis, of the users of a day", cost, lambda u: figure(ACTIVE * u * CACHED_BYTES, "B")
    yield "reads/s of a shard", "arithmetic", lambda u: figure(reads(u))
    yield "queries in flight at a shard, by the law", "modelled", lambda u: figure(in_flight(u))
    yield "MySQL, all shards, cores", cost, lambda u: figure(mysql_cores(u))
    yield "events of a year in MySQL", cost, lambda u: figure(365 * log_bytes_a_day(u), "B")
    yield "shards of 20 GiB that they fill", cost, lambda u: figure(-(-365 * log_bytes_a_day(u) // SHARD_LIMIT))
    yield "Kafka, kB/s of each copy", cost, lambda u: figure(PEAK * events(u) * KAFKA_BYTES / 1e3)
    yield "Kafka, three copies of three days", cost, lambda u: figure(KAFKA_COPIES * kafka_bytes(u), "B")
    yield "events/s of a partition", "arithmetic", lambda u: figure(PEAK * events(u) / SHARDS)
    yield "workers, cores for events", cost, lambda u: cores(PEAK * events(u), EVENT_WORKER_US)
    yield "memory of each worker", cost, lambda u: figure(worker_bytes(u), "B")
    yield "a new primary folds a year of events, at least", "arithmetic", lambda u: duration(
        365 * DAY_S * events(u) / FOLD_PER_S
    )
    yield "files of one copy of the model", cost, lambda u: figure(items(u) * SEGMENT_BYTES, "B")
    yield "monitors", "setting", lambda u: figure(MONITORS)
    yield "heartbeats/s at each monitor, 16 workers", "arithmetic", lambda u: figure(MOST_WORKERS * HEARTBEAT_PER_S)
    yield "spans/s, 1 % of the requests", cost, lambda u: figure(SAMPLED * SPANS * peak(u))
    yield "spans sent in a day", cost, lambda u: figure(SAMPLED * SPANS * SPAN_BYTES * mean(u) * DAY_S, "B")
    yield "samples/s of the replicas' metrics", cost, lambda u: figure(replicas(u) * SERIES / SCRAPE_S)


def limits():
    """What is limited, where the limit is set, kind of figure, and the users at which it is reached."""
    cost = "measured cost"
    k8s = "deploy/k8s/base"
    a_year = 365 * log_bytes_a_day(1)
    worker = (WORKER_LIMIT - WORKER_BASE_BYTES) / WORKER_USER_BYTES
    replicas_per_s = MOST * REPLICA_CORES * REPLICA_TARGET * 1e6 / REPLICA_US
    without_redis = store_per_s(FEWEST * POOL) / peak(1)
    counter = ACCESS_LOG_CORES * 1e6 / ACCESS_LOG_US / peak(1)
    filters = 0.1 * REBUILD_S * 1e6 / FILTER_US
    yield "volume of a shard, 20 GiB, full after a year", f"`{k8s}/mysql.yaml`", cost, SHARDS * SHARD_LIMIT / a_year
    yield "memory of a worker, 1 GiB", f"`{k8s}/worker.yaml`", cost, worker
    yield "lists that are warmed up, 1,000,000", "`guards.warmup_users`", "arithmetic", WARMED_UP / ACTIVE
    yield "Kafka's 512 MiB of a partition, full before three days", f"`{k8s}/kafka/server.properties`", cost, (
        KAFKA_LIMIT / kafka_bytes(1)
    )
    yield "memory of Redis, 2 GB", f"`{k8s}/redis.yaml`", cost, REDIS_LIMIT / (ACTIVE * CACHED_BYTES)
    yield "rebuilds of the filter, 0.1 core of each replica", "`guards.bloom_rebuild_ms`", "not measured", filters
    yield "the peak without Redis: 16 shards, 64 connections each", f"`{k8s}/api.yaml`", "modelled", without_redis
    yield "the counter at the gateway, 0.5 CPU", f"`{k8s}/access-log.yaml`", cost, counter
    yield "one core of Redis", f"`{k8s}/redis.yaml`", cost, 1e6 / REDIS_US / peak(1)
    yield "20 replicas of 2 CPU at 70 %", f"`{k8s}/api-autoscaler.yaml`", cost, replicas_per_s / peak(1)


def table(head, lines):
    yield f"| {' | '.join(head)} |"
    yield "|---" * len(head) + "|"
    for cells in lines:
        yield f"| {' | '.join(cells)} |"


def tables():
    powers = [f"10^{len(str(users)) - 1} users" for users in USERS]
    grown = [[name, kind, *map(text, USERS)] for name, kind, text in rows()]
    yield from table(["figure", "kind", *powers], grown)
    yield ""
    reached = sorted(limits(), key=lambda limit: limit[3])
    named = [[name, where, kind, figure(users / 1e6)] for name, where, kind, users in reached]
    yield from table(["limit", "set in", "kind", "reached at, million users"], named)


if sys.argv[1:2] == ["--check"] and len(sys.argv) == 3:
    lines = set(pathlib.Path(sys.argv[2]).read_text().splitlines())
    missing = [line for line in tables() if line not in lines]
    print("\n".join(["missing in the document:", *missing] if missing else ["the document has every line"]))
    sys.exit(1 if missing else 0)
if sys.argv[1:]:
    sys.exit(__doc__)
print("\n".join(tables()))
