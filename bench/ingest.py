"""Ingesting a CSV of TPC-H lineitem, against DuckDB's COPY of it to zstd Parquet."""

import os
import pathlib
import subprocess
import tempfile
import time

import duckdb

import nodes
import world


def measure(options, data) -> dict:
    threads = os.cpu_count()
    csv = data / "lineitem.csv"
    schema = duckdb.execute(f"DESCRIBE SELECT * FROM '{data}/lineitem.parquet'").fetchall()
    if not csv.exists():
        duckdb.execute(f"COPY (SELECT * FROM '{data}/lineitem.parquet') TO '{csv}' (HEADER)")
    columns = ", ".join(f"{name} {kind}" for name, kind, *_ in schema)
    ours, peak = slipstream(options, csv, columns)
    return {
        "scale": options.scale,
        "rounds": options.rounds,
        "threads": threads,
        "csv_bytes": csv.stat().st_size,
        "versions": {"DuckDB": duckdb.__version__},
        "leader_peak_memory_bytes": peak,
        "seconds": {
            "Slipstream, committed": ours,
            "DuckDB, COPY to zstd Parquet": copy(options, threads, csv, schema),
        },
    }


def slipstream(options, csv: pathlib.Path, columns: str) -> tuple[float, int]:
    with world.leader_and_follower(options.binary, []) as (leader, _, folder):
        leader.sql(f"CREATE DATABASE {world.DATABASE}")
        times = []
        for round in range(options.rounds):
            table = f"lineitem_{round}"
            leader.sql(f"CREATE TABLE {table} ({columns})", world.DATABASE)
            command = [options.binary, "ingest", "--url", leader.http, "-d", world.DATABASE, "-t", table, str(csv)]
            began = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            times.append(time.perf_counter() - began)
            rows = leader.sql(f"SELECT count(*) AS n FROM {table}", world.DATABASE)[0][0]["n"]
            print(f"slipstream: {rows} rows in {times[-1]:.2f} s", flush=True)
        return min(times), peak_memory(folder)


def peak_memory(folder: pathlib.Path) -> int:
    """`VmHWM` of the leader."""
    status = pathlib.Path(f"/proc/{world.process_id('leader', folder)}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def copy(options, threads: int, csv: pathlib.Path, schema: list) -> float:
    types = {name: kind for name, kind, *_ in schema}
    with tempfile.TemporaryDirectory(prefix="slipstream-bench-") as folder, world.duck(threads) as connection:
        source = f"read_csv('{csv}', header = true, columns = {types})"
        target = f"'{folder}/lineitem.parquet' (FORMAT parquet, COMPRESSION zstd)"
        seconds = world.best(options.rounds, lambda: connection.execute(f"COPY (FROM {source}) TO {target}"))
    print(f"duckdb: {seconds:.2f} s", flush=True)
    return seconds
