"""Queries over extents that are not here, from an S3 server that takes 30 ms longer for each request.

Also: how fast warming reads the same bucket, beside a plain parallel GET of the same objects.
"""

import concurrent.futures
import contextlib
import io
import os
import pathlib
import random
import re
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.request

import chdb
import pyarrow.parquet

import nodes
import world
from delay import DelayingProxy

DELAY_SECONDS = 0.030
QUERIES = ["q01", "q03", "q06", "q12", "q14"]
PARALLEL_GETS = 8
GIGABIT_BYTES_PER_SECOND = 1e9 / 8
HTTPFS_PYTHON = "SLIPSTREAM_BENCH_HTTPFS_PYTHON"


def measure(options, data) -> dict:
    result = {"scale": options.scale, "rounds": options.rounds, "delay_ms": DELAY_SECONDS * 1e3, "cold": {}}
    with s3_server() as port, tempfile.TemporaryDirectory(prefix="slipstream-bench-") as folder:
        folder = pathlib.Path(folder)
        with contextlib.ExitStack() as stack:
            leader = start(stack, options.binary, "leader", folder, port, [])
            world.load(leader, data)
            # At the leader, so that a follower never begins to warm what it is to read cold.
            world.command(leader, f".alter database {world.DATABASE} policy caching hot = 0d")
            keys = extents(leader)
            result["needed_bytes"] = needed_bytes(port, keys)
            proxy = stack.enter_context(DelayingProxy(port, DELAY_SECONDS))
            result["cold"]["Slipstream follower, cold"] = ours(options, folder, proxy, leader)
            result["cold"]["chDB's s3()"] = chdb_s3(options, proxy, keys)
            if python := os.environ.get(HTTPFS_PYTHON):
                result["cold"]["DuckDB 1.4.4 with httpfs"] = duckdb_httpfs(python, options, proxy, keys)
            else:
                print(f"left out: DuckDB's httpfs, since {HTTPFS_PYTHON} names no Python", flush=True)
            world.command(leader, f".delete database {world.DATABASE} policy caching")
            result["warming"] = warming(options, folder, port, leader, keys)
    return result


@contextlib.contextmanager
def s3_server():
    """SeaweedFS on a free port, with one bucket."""
    weed = pathlib.Path(sysconfig.get_path("scripts")) / "weed"
    with tempfile.TemporaryDirectory(prefix="slipstream-bench-s3-") as folder:
        ports = [free_port() for _ in range(5)]
        master, volume, filer, s3, grpc = ports
        command = [str(weed), "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3"]
        command += [f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}", f"-s3.port={s3}"]
        command += [f"-s3.port.grpc={grpc}", "-master.telemetry=false", "-volume.max=100"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                try:
                    urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{s3}/bench", method="PUT"), timeout=10)
                    break
                except OSError:
                    time.sleep(0.3)
            else:
                sys.exit("SeaweedFS did not start")
            yield s3
        finally:
            process.kill()
            process.wait()


def free_port() -> int:
    """A free port whose number plus 10,000 is one too: there SeaweedFS listens for gRPC."""
    while True:
        port = random.randrange(20_000, 50_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def start(stack, binary: str, role: str, folder: pathlib.Path, port: int, more: list[str]) -> nodes.Node:
    environment = {
        "AWS_ENDPOINT": f"http://127.0.0.1:{port}", "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "SLIPSTREAM_BUCKET": "s3://bench/data",
    }
    os.environ.update(environment)
    return nodes.start(stack, binary, role, folder, more, bucket="s3://bench/data")


def extents(leader) -> dict[str, list[str]]:
    sql = f"SELECT table_name, path FROM slipstream.extents WHERE database_name = '{world.DATABASE}'"
    keys: dict[str, list[str]] = {}
    for row in leader.sql(sql, world.DATABASE)[0]:
        keys.setdefault(row["table_name"], []).append(f"data/{row['path']}")
    return keys


def needed_bytes(port: int, keys) -> dict[str, int]:
    """Bytes of the column chunks of every column that a query names. Names of columns tell the table."""
    chunks: dict[str, int] = {}
    for key in (key for paths in keys.values() for key in paths):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/bench/{key}") as answer:
            footer = pyarrow.parquet.ParquetFile(io.BytesIO(answer.read())).metadata
        for group in range(footer.num_row_groups):
            for column in range(footer.num_columns):
                chunk = footer.row_group(group).column(column)
                chunks[chunk.path_in_schema] = chunks.get(chunk.path_in_schema, 0) + chunk.total_compressed_size
    words = {name: set(re.findall(r"\w+", (world.QUERIES[0].parent / f"{name}.sql").read_text())) for name in QUERIES}
    return {name: sum(chunks[word] for word in words[name] & chunks.keys()) for name in QUERIES}


def ours(options, folder: pathlib.Path, proxy, leader) -> dict:
    """Each query on a follower that was started for it alone: nothing is in any cache."""
    measured = {}
    for name in QUERIES:
        sql = (world.QUERIES[0].parent / f"{name}.sql").read_text()
        rounds = []
        for round in range(options.rounds):
            with contextlib.ExitStack() as stack:
                place = folder / f"{name}-{round}"
                place.mkdir()
                named = ["--leader", f"leader=http://{leader.grpc}", "--cache-disk-bytes", "10GB"]
                follower = start(stack, options.binary, "follower", place, proxy.port, named)
                follower.attach(leader, world.DATABASE)
                follower.sql("SELECT 1 AS one", world.DATABASE)
                proxy.reset()
                began = time.perf_counter()
                follower.arrow(sql, world.DATABASE)
                rounds.append((time.perf_counter() - began, proxy.requests, proxy.bytes))
        measured[name] = best_of(rounds)
    print(f"slipstream, cold: {measured}", flush=True)
    return measured


def best_of(rounds: list[tuple]) -> dict:
    seconds, requests, read = min(rounds)
    return {"seconds": seconds, "requests": requests, "bytes": read}


def chdb_s3(options, proxy, keys) -> dict:
    measured = {}
    session = chdb.session.Session()
    session.query("CREATE DATABASE tpch; USE tpch")
    for table, paths in keys.items():
        source = f"s3('http://127.0.0.1:{proxy.port}/bench/{world.pattern(paths)}', NOSIGN, 'Parquet')"
        session.query(f"CREATE VIEW tpch.{table} AS SELECT * FROM {source}")
    # The session outlives a round, and what it remembers of the files would not be cold.
    settings = f"max_threads = {os.cpu_count()}, use_parquet_metadata_cache = 0, use_query_condition_cache = 0"
    for name in QUERIES:
        sql = (world.QUERIES[0].parent / f"{name}.sql").read_text().rstrip().rstrip(";")
        rounds = []
        for _ in range(options.rounds):
            proxy.reset()
            began = time.perf_counter()
            session.query(f"{sql} SETTINGS {settings}", "Arrow")
            rounds.append((time.perf_counter() - began, proxy.requests, proxy.bytes))
        measured[name] = best_of(rounds)
    print(f"chdb, cold: {measured}", flush=True)
    return measured


def duckdb_httpfs(python: str, options, proxy, keys) -> dict:
    """DuckDB 1.4.4, the newest whose httpfs comes as a package, in an interpreter of its own."""
    measured = {}
    for name in QUERIES:
        rounds = []
        for _ in range(options.rounds):
            arguments = [python, str(pathlib.Path(__file__).parent / "httpfs.py"), str(proxy.port), name]
            arguments += [f"{table}={','.join(paths)}" for table, paths in keys.items()]
            with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
                # Its views stand; what making them cost is not the query's.
                process.stdout.readline()
                proxy.reset()
                answer, _ = process.communicate("go\n")
            rounds.append((float(answer), proxy.requests, proxy.bytes))
        measured[name] = best_of(rounds)
    print(f"duckdb, cold: {measured}", flush=True)
    return measured


def warming(options, folder: pathlib.Path, s3_port: int, leader, keys) -> dict:
    """Bytes a second: a plain parallel GET of all extents, and a follower that makes them resident."""
    links = {}
    links["on one machine"] = warming_over(options, folder / "near", s3_port, leader, keys)
    with DelayingProxy(s3_port, DELAY_SECONDS, GIGABIT_BYTES_PER_SECOND) as proxy:
        links["over 1 Gbit/s"] = warming_over(options, folder / "far", proxy.port, leader, keys)
    return {"parallel_gets": PARALLEL_GETS, "links": links}


def warming_over(options, folder: pathlib.Path, port: int, leader, keys) -> dict:
    objects = [f"http://127.0.0.1:{port}/bench/{key}" for paths in keys.values() for key in paths]

    def get(url: str) -> int:
        with urllib.request.urlopen(url) as answer:
            return len(answer.read())

    plain, ours = [], []
    for round in range(options.rounds):
        began = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(PARALLEL_GETS) as pool:
            total = sum(pool.map(get, objects))
        plain.append(total / (time.perf_counter() - began))
        with contextlib.ExitStack() as stack:
            place = folder / str(round)
            place.mkdir(parents=True)
            named = ["--leader", f"leader=http://{leader.grpc}", "--cache-disk-bytes", "10GB"]
            follower = start(stack, options.binary, "follower", place, port, named)
            began = time.perf_counter()
            follower.attach(leader, world.DATABASE)
            world.wait_until_warm(follower, encoded=False)
            ours.append(total / (time.perf_counter() - began))
    print(f"warming: plain {max(plain) / 1e6:.0f} MB/s, follower {max(ours) / 1e6:.0f} MB/s", flush=True)
    return {"bytes": total, "plain_bytes_per_s": max(plain), "follower_bytes_per_s": max(ours)}
