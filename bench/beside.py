"""Hot queries while a cold table is scanned: what stays on the disk, and what the queries lose.

One table is hot by its policy and fits into the cache; another is not, and is ten times as large as
the whole cache. A client asks one query of the hot table after another: alone, and while a second
client scans every column of the cold one, again and again.
"""

import concurrent.futures
import contextlib
import hashlib
import os
import pathlib
import statistics
import tempfile
import threading
import time

import nodes
import world

HOT, COLD = "orders", "lineitem"
CACHE_TO_HOT = 1.5
COLD_TO_CACHE = 10
SECONDS = 10
HOT_SQL = (
    f"SELECT o_orderpriority, count(*) AS n, sum(o_totalprice) AS price FROM {HOT} "
    "WHERE o_orderdate >= DATE '1995-01-01' GROUP BY o_orderpriority"
)
COLD_SQL = (
    "SELECT sum(l_orderkey + l_partkey + l_suppkey + l_linenumber) AS numbers, "
    "sum(l_quantity + l_extendedprice + l_discount + l_tax) AS amounts, "
    "sum(date_part('day', l_shipdate) + date_part('day', l_commitdate) + date_part('day', l_receiptdate)) AS days, "
    "sum(octet_length(l_returnflag) + octet_length(l_linestatus) + octet_length(l_shipinstruct) "
    f"+ octet_length(l_shipmode) + octet_length(l_comment)) AS texts FROM {COLD}"
)


def measure(options, data) -> dict:
    with tempfile.TemporaryDirectory(prefix="slipstream-bench-") as folder, contextlib.ExitStack() as stack:
        folder = pathlib.Path(folder)
        leader = nodes.start(stack, options.binary, "leader", folder, [])
        cache_bytes, cold_bytes = load(leader, data)
        flags = ["--leader", f"leader=http://{leader.grpc}"]
        flags += ["--cache-disk-bytes", str(cache_bytes), "--cache-memory-bytes", str(cache_bytes)]
        follower = nodes.start(stack, options.binary, "follower", folder, flags)
        process = world.process_id("follower", folder)
        follower.attach(leader, world.DATABASE)
        _, _, cache = world.wait_until_warm(follower, encoded=True)

        directory = folder / "follower" / "cache" / "hot"
        before = files(directory)
        alone, beside, shares = [], [], []
        for _ in range(options.rounds):
            alone += hot_seconds(follower)
            shares.append(share_of_scan(follower, process))
            with scanning(follower):
                beside += hot_seconds(follower)
        scan = world.statistics(follower, COLD_SQL)
        unchanged = files(directory) == before
        requests = requests_of_hot(follower)
        cache_after = world.command(follower, ".show cache")[0]
    result = {
        "scale": options.scale,
        "rounds": options.rounds,
        "cache_disk_bytes": cache_bytes,
        "hot": {"table": HOT, "sql": HOT_SQL, "bytes": cache["ResidentBytes"]},
        "cold": {"table": COLD, "sql": COLD_SQL, "bytes": cold_bytes, "bytes_of_a_scan": scan["bytes_scanned"]},
        "alone_ms": statistics.median(alone) * 1e3,
        "beside_ms": statistics.median(beside) * 1e3,
        "hot_queries": {"alone": len(alone), "beside": len(beside), "requests_max": requests},
        "cpu_share_of_scan": statistics.median(shares),
        "hot_files": len(before),
        "hot_files_unchanged": unchanged,
        "fetched_bytes": {"before": cache["FetchedBytes"], "after": cache_after["FetchedBytes"]},
    }
    print(result, flush=True)
    return result


def load(leader: nodes.Node, data: pathlib.Path) -> tuple[int, int]:
    """Makes both tables; gives the bytes of a cache for the hot one, and those of the cold one.

    The policies are the leader's, so that a follower never takes the cold table for hot.
    """
    leader.sql(f"CREATE DATABASE {world.DATABASE}")
    world.command(leader, f".alter database {world.DATABASE} policy caching hot = 0d")
    ingest(leader, data, HOT)
    world.command(leader, f".alter table {HOT} policy caching hot = 30d")
    cache_bytes = int(size(leader, HOT) * CACHE_TO_HOT)
    while size(leader, COLD) < COLD_TO_CACHE * cache_bytes:
        ingest(leader, data, COLD)
    return cache_bytes, size(leader, COLD)


def ingest(leader: nodes.Node, data: pathlib.Path, table: str) -> None:
    leader.ingest(world.DATABASE, table, (data / f"{table}.parquet").read_bytes(), "format=parquet&create=true")


def size(leader: nodes.Node, table: str) -> int:
    """Bytes of a table in the bucket; of one that is not there yet, none."""
    sql = f"SELECT size_bytes FROM slipstream.extents WHERE database_name = '{world.DATABASE}' AND table_name = '{table}'"
    return sum(row["size_bytes"] for row in leader.sql(sql, world.DATABASE)[0])


def files(directory: pathlib.Path) -> dict[str, tuple[int, str]]:
    """Size and SHA-256 of each file."""
    contents = {path.name: path.read_bytes() for path in directory.iterdir()}
    return {name: (len(content), hashlib.sha256(content).hexdigest()) for name, content in contents.items()}


def hot_seconds(follower: nodes.Node) -> list[float]:
    """How long each query took that began in the time."""
    times = []
    ends = time.perf_counter() + SECONDS
    while (began := time.perf_counter()) < ends:
        follower.sql(HOT_SQL, world.DATABASE)
        times.append(time.perf_counter() - began)
    return times


def share_of_scan(follower: nodes.Node, process: int) -> float:
    """The part of all cores that the follower takes while nothing but scans of the cold table run."""
    began, cpu = time.perf_counter(), world.cpu_seconds(process)
    while time.perf_counter() < began + SECONDS:
        follower.sql(COLD_SQL, world.DATABASE)
    elapsed = time.perf_counter() - began
    return (world.cpu_seconds(process) - cpu) / elapsed / os.cpu_count()


@contextlib.contextmanager
def scanning(follower: nodes.Node):
    """Scans the cold table while the block lasts, and then to the scan's end."""
    ended = threading.Event()

    def scan() -> None:
        while not ended.is_set():
            follower.sql(COLD_SQL, world.DATABASE)

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        scans = pool.submit(scan)
        try:
            yield
        finally:
            ended.set()
        scans.result()


def requests_of_hot(follower: nodes.Node) -> int:
    """The most requests to the bucket that one of the remembered hot queries made."""
    text = HOT_SQL.replace("'", "''")
    sql = f"SELECT max(requests) AS requests FROM slipstream.queries WHERE text = '{text}'"
    return follower.sql(sql, world.DATABASE)[0][0]["requests"]
