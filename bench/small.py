"""Small queries: a time-bounded aggregate of one hot extent, as many as clients can ask.

The table is lineitem by the day of shipping, an extent for each quarter, and the query asks for a
week: it lies within one of them. The peers list the same files. DataFusion is called in this
process and its answers stay there, so it is spared what HTTP costs the others.
"""

import concurrent.futures
import contextlib
import decimal
import http.client
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

import datafusion

import nodes
import world

CLIENTS = 8
SECONDS = 10
WARM_UP_SECONDS = 2
TABLE = "shipped"
SQL = (
    f"SELECT l_returnflag, count(*) AS n, sum(l_quantity) AS quantity FROM {TABLE} "
    "WHERE l_shipdate >= DATE '1995-06-12' AND l_shipdate < DATE '1995-06-19' GROUP BY l_returnflag"
)
ROAPI = "SLIPSTREAM_BENCH_ROAPI"
ROAPI_PATIENCE_SECONDS = 60
ASK = pathlib.Path(__file__).parent / "ask.lua"
# Slow answers are to be counted as slow, not as failed.
WRK_TIMEOUT = "60s"


def measure(options, data) -> dict:
    client = "wrk" if shutil.which("wrk") else "Python"
    if client == "Python":
        print("wrk is not on the PATH: a client in Python asks, which takes more of the cores", flush=True)
    systems = {}
    with world.leader_and_follower(options.binary, ["--cache-disk-bytes", "20GB"]) as (leader, follower, folder):
        files = load(leader, data, folder / "bucket")
        follower.attach(leader, world.DATABASE)
        world.wait_until_warm(follower, encoded=True)
        read = world.statistics(follower, SQL)
        body = json.dumps({"database": world.DATABASE, "sql": SQL})
        ours = OverHttp(f"{follower.http}/v1/sql", body, "application/json")
        expected = ours.answer()
        systems["Slipstream follower, hot"] = best(options, ours, expected)
        with linked(files) as links:
            if program := os.environ.get(ROAPI):
                with roapi(program, links) as peer:
                    systems["ROAPI 0.12.7"] = best(options, peer, expected)
            else:
                print(f"left out: ROAPI, since {ROAPI} names no program", flush=True)
            name = f"DataFusion {datafusion.__version__}, its listing table, in process"
            systems[name] = best(options, ListingTable(links), expected)
    print(systems, flush=True)
    return {
        "scale": options.scale,
        "rounds": options.rounds,
        "clients": CLIENTS,
        "client": client,
        "seconds": SECONDS,
        "sql": SQL,
        "extents": len(files),
        "extents_scanned": read["extents_scanned"],
        "requests": read["requests"],
        "systems": systems,
    }


def load(leader: nodes.Node, data: pathlib.Path, bucket: pathlib.Path) -> list[pathlib.Path]:
    """Makes the table; gives its extents."""
    leader.sql(f"CREATE DATABASE {world.DATABASE}")
    quarters = by_quarter(data)
    for file in quarters:
        leader.ingest(world.DATABASE, TABLE, file.read_bytes(), "format=parquet&create=true")
    extents = world.extents_of(leader, TABLE, bucket)
    if len(extents) != len(quarters):
        sys.exit(f"{len(quarters)} quarters have become {len(extents)} extents: the scale is too large")
    return extents


def by_quarter(data: pathlib.Path) -> list[pathlib.Path]:
    """lineitem in the order of its days of shipping, a file for each quarter; made once."""
    folder = data / TABLE
    if not folder.exists():
        unfinished = data / f"{TABLE}.unfinished"
        unfinished.mkdir(exist_ok=True)
        with world.duck(os.cpu_count()) as connection:
            quarter = "strftime(l_shipdate, '%Y') || 'q' || quarter(l_shipdate)"
            rows = f"SELECT *, {quarter} AS quarter FROM '{data}/lineitem.parquet' ORDER BY l_shipdate"
            connection.execute(f"CREATE TABLE lineitem AS {rows}")
            for (name,) in connection.execute("SELECT DISTINCT quarter FROM lineitem").fetchall():
                rows = f"SELECT * EXCLUDE quarter FROM lineitem WHERE quarter = '{name}'"
                target = f"'{unfinished}/{name}.parquet' (FORMAT parquet, COMPRESSION zstd)"
                connection.execute(f"COPY ({rows}) TO {target}")
        unfinished.rename(folder)
    return sorted(folder.glob("*.parquet"))


def best(options, system, expected: list[tuple]) -> dict:
    """The round with the most queries a second, of a system that gives the right answer."""
    if (found := system.answer()) != expected:
        sys.exit(f"the answers differ: {found}, expected {expected}")
    system.ask(WARM_UP_SECONDS)
    rounds = [system.ask(SECONDS) for _ in range(options.rounds)]
    return max(rounds, key=lambda measured: measured["queries_per_s"])


def comparable(rows: list[dict]) -> list[tuple]:
    """An answer's rows, whatever their order and however decimals are written."""
    row = lambda r: (r["l_returnflag"], int(r["n"]), decimal.Decimal(str(r["quantity"])))
    return sorted(map(row, rows))


class OverHttp:
    """A system that is asked over HTTP: by wrk, or, where it is not there, from threads of ours."""

    def __init__(self, url: str, body: str, content_type: str):
        self.url = url
        self.body = body
        self.content_type = content_type

    def answer(self) -> list[tuple]:
        request = urllib.request.Request(self.url, self.body.encode(), {"content-type": self.content_type})
        with urllib.request.urlopen(request) as answer:
            return comparable(json.loads(answer.read(), parse_float=decimal.Decimal))

    def ask(self, seconds: int) -> dict:
        return self._wrk(seconds) if shutil.which("wrk") else from_threads(self._connection, seconds)

    def _wrk(self, seconds: int) -> dict:
        command = ["wrk", "--threads=1", f"--connections={CLIENTS}", f"--duration={seconds}s", "--latency"]
        command += [f"--timeout={WRK_TIMEOUT}", f"--script={ASK}", self.url]
        environment = os.environ | {"ASK_BODY": self.body, "ASK_CONTENT_TYPE": self.content_type}
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
        if found["failed"]:
            raise RuntimeError(done.stdout)
        rate = found["queries"] / found["seconds"]
        return {"queries_per_s": rate, "p50_ms": found["p50_ms"], "p99_ms": found["p99_ms"]}

    def _connection(self):
        parts = urllib.parse.urlparse(self.url)
        connection = http.client.HTTPConnection(parts.netloc)

        def ask() -> None:
            connection.request("POST", parts.path, self.body, {"content-type": self.content_type})
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != 200:
                raise RuntimeError(text)

        return ask


class ListingTable:
    """DataFusion over a folder of Parquet, with its own runtime in this process."""

    def __init__(self, folder: pathlib.Path):
        self.context = datafusion.SessionContext()
        self.context.register_parquet(TABLE, f"{folder}/")

    def answer(self) -> list[tuple]:
        batches = self.context.sql(SQL).collect()
        return comparable([row for batch in batches for row in batch.to_pylist()])

    def ask(self, seconds: int) -> dict:
        return from_threads(lambda: lambda: self.context.sql(SQL).collect(), seconds)


def from_threads(begin, seconds: int) -> dict:
    """Queries a second and how long the slow ones took. `begin` gives each thread what it calls."""
    started = time.perf_counter()

    def client(ask) -> list[float]:
        times = []
        while (began := time.perf_counter()) < started + seconds:
            ask()
            times.append(time.perf_counter() - began)
        return times

    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        times = sorted(sum(pool.map(client, [begin() for _ in range(CLIENTS)]), []))
    elapsed = time.perf_counter() - started
    at = lambda share: times[min(len(times) - 1, int(len(times) * share))] * 1e3
    return {"queries_per_s": len(times) / elapsed, "p50_ms": at(0.50), "p99_ms": at(0.99)}


@contextlib.contextmanager
def linked(files: list[pathlib.Path]):
    """Links to the files, in a folder of their own."""
    with tempfile.TemporaryDirectory(prefix="slipstream-bench-") as folder:
        folder = pathlib.Path(folder)
        for file in files:
            (folder / file.name).symlink_to(file)
        yield folder


@contextlib.contextmanager
def roapi(program: str, folder: pathlib.Path):
    """ROAPI, which lists a folder of Parquet as it is asked."""
    address = "127.0.0.1:18084"
    table = f"{TABLE}=file://{folder}/,format=parquet,use_memory_table=false"
    process = subprocess.Popen([program, "--addr-http", address, "--table", table])
    try:
        deadline = time.monotonic() + ROAPI_PATIENCE_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://{address}/health").close()
                break
            time.sleep(0.2)
        yield OverHttp(f"http://{address}/api/sql", SQL, "text/plain")
    finally:
        process.kill()
        process.wait()
