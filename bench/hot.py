"""TPC-H on a follower whose hot set is resident, against DuckDB and ClickHouse on the same Parquet."""

import os

import chdb
import duckdb

import world


def measure(options, data) -> dict:
    threads = os.cpu_count()
    seconds: dict[str, dict[str, float]] = {}
    flags = ["--cache-disk-bytes", "20GB"]
    with world.leader_and_follower(options.binary, flags) as (leader, follower, folder):
        world.load(leader, data)
        follower.attach(leader, world.DATABASE)
        here, encoded, cache = world.wait_until_warm(follower, encoded=True)
        print(f"resident after {here:.2f} s, encoded after {encoded:.2f} s, {cache['ResidentBytes'] / 1e6:.0f} MB", flush=True)
        run = lambda sql: follower.arrow(sql, world.DATABASE)
        seconds["Slipstream follower, hot"] = each(options, "slipstream", run)
        files = {
            table: [str(path) for path in world.extents_of(leader, table, folder / "bucket")] for table in world.TABLES
        }
        bucket_bytes = sum(os.path.getsize(path) for paths in files.values() for path in paths)
        seconds["DuckDB on the same Parquet"] = duckdb_on_parquet(options, threads, files)
        seconds["DuckDB, native tables"] = duckdb_native(options, threads, files)
        seconds["chDB on the same Parquet"] = chdb_on_parquet(options, threads, files)
    return {
        "scale": options.scale,
        "rounds": options.rounds,
        "threads": threads,
        "versions": {"DuckDB": duckdb.__version__, "chDB": chdb.__version__},
        "resident_after_s": here,
        "encoded_after_s": encoded,
        "resident_bytes": cache["ResidentBytes"],
        "bucket_bytes": bucket_bytes,
        "seconds": seconds,
    }


def each(options, name: str, run) -> dict[str, float]:
    """The best time of each query; `nan` for one that fails."""
    times = {}
    for path in world.QUERIES:
        sql = path.read_text()
        try:
            times[path.stem] = world.best(options.rounds, lambda: run(sql))
        except Exception as error:
            print(f"{name} {path.stem}: {error}", flush=True)
            times[path.stem] = float("nan")
    print(f"{name}: {sum(times.values()):.2f} s", flush=True)
    return times


def duckdb_on_parquet(options, threads, files) -> dict[str, float]:
    with world.duck(threads) as connection:
        for table, paths in files.items():
            connection.execute(f"CREATE VIEW {table} AS SELECT * FROM read_parquet({paths})")
        return each(options, "duckdb on parquet", lambda sql: connection.sql(sql).to_arrow_table())


def duckdb_native(options, threads, files) -> dict[str, float]:
    with world.duck(threads) as connection:
        for table, paths in files.items():
            connection.execute(f"CREATE TABLE {table} AS SELECT * FROM read_parquet({paths})")
        return each(options, "duckdb native", lambda sql: connection.sql(sql).to_arrow_table())


def chdb_on_parquet(options, threads, files) -> dict[str, float]:
    session = chdb.session.Session()
    session.query("CREATE DATABASE tpch; ")
    for table, paths in files.items():
        session.query(f"CREATE VIEW tpch.{table} AS SELECT * FROM file('{world.pattern(paths)}', Parquet)")
    session.query("USE tpch")
    settings = f" SETTINGS max_threads = {threads}, joined_subquery_requires_alias = 0"

    def run(sql: str):
        return session.query(sql.rstrip().rstrip(";") + settings, "Arrow")

    return each(options, "chdb on parquet", run)
