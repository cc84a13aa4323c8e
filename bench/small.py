"""Small queries: a time-bounded aggregate of one hot extent, as many as clients can ask."""

import concurrent.futures
import contextlib
import http.client
import json
import os
import pathlib
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request

import nodes
import world

CLIENTS = 8
SECONDS = 10
SQL = (
    "SELECT l_returnflag, count(*) AS n, sum(l_quantity) AS quantity FROM lineitem "
    "WHERE l_shipdate >= DATE '1998-09-01' AND l_shipdate < DATE '1998-09-08' GROUP BY l_returnflag"
)
ROAPI = "SLIPSTREAM_BENCH_ROAPI"


def measure(options, data) -> dict:
    result = {"clients": CLIENTS, "seconds": SECONDS, "sql": SQL, "systems": {}}
    with world.leader_and_follower(options.binary, ["--cache-disk-bytes", "20GB"]) as (leader, follower, folder):
        world.load(leader, data)
        follower.attach(leader, world.DATABASE)
        world.wait_until_warm(follower, encoded=True)
        body = json.dumps({"database": world.DATABASE, "sql": SQL})
        headers = {"content-type": "application/json"}
        result["systems"]["Slipstream follower, hot"] = hammer(follower.http, "/v1/sql", body, headers)
        if program := os.environ.get(ROAPI):
            with roapi(program, folder / "bucket", leader) as url:
                result["systems"]["ROAPI 0.12.7"] = hammer(url, "/api/sql", SQL, {})
        else:
            print(f"left out: ROAPI, since {ROAPI} names no program", flush=True)
    print(result["systems"], flush=True)
    return result


def hammer(base: str, path: str, body: str, headers: dict) -> dict:
    """Queries a second over some connections, and how long the slow ones took."""
    host = urllib.parse.urlparse(base).netloc
    ends = time.perf_counter() + SECONDS

    def client() -> list[float]:
        connection, times = http.client.HTTPConnection(host), []
        while time.perf_counter() < ends:
            began = time.perf_counter()
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != 200:
                raise RuntimeError(text)
            times.append(time.perf_counter() - began)
        return times

    urllib.request.urlopen(urllib.request.Request(base + path, body.encode(), headers)).read()
    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        times = sorted(sum(pool.map(lambda _: client(), range(CLIENTS)), []))
    at = lambda share: times[min(len(times) - 1, int(len(times) * share))] * 1e3
    return {"queries_per_s": len(times) / SECONDS, "p50_ms": at(0.50), "p99_ms": at(0.99)}


@contextlib.contextmanager
def roapi(program: str, bucket: pathlib.Path, leader: nodes.Node):
    """ROAPI over the same extents of lineitem, which it lists in a folder of their own."""
    sql = f"SELECT path FROM slipstream.extents WHERE database_name = '{world.DATABASE}' AND table_name = 'lineitem'"
    with tempfile.TemporaryDirectory(prefix="slipstream-bench-") as folder:
        for row in leader.sql(sql, world.DATABASE)[0]:
            (pathlib.Path(folder) / pathlib.Path(row["path"]).name).symlink_to(bucket / row["path"])
        address = "127.0.0.1:18084"
        table = f"lineitem=file://{folder}/,format=parquet,use_memory_table=false"
        process = subprocess.Popen([program, "--addr-http", address, "--table", table])
        try:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"http://{address}/health")
                    break
                time.sleep(0.2)
            yield f"http://{address}"
        finally:
            process.kill()
            process.wait()
