"""One cold TPC-H query by DuckDB's httpfs; prints its seconds. Run by cold.py in a fresh process.

It says when it is ready, and waits to be told to go.
"""

import os
import pathlib
import sys
import time

import duckdb

port, name, *tables = sys.argv[1:]
connection = duckdb.connect(config={"threads": os.cpu_count(), "allow_unsigned_extensions": "true"})
extension = next((pathlib.Path(duckdb.__file__).parent.parent / "duckdb_ext").rglob("httpfs.duckdb_extension"))
connection.execute(f"LOAD '{extension}'")
connection.execute("SET enable_http_metadata_cache = false")
for table in tables:
    table, paths = table.split("=")
    urls = [f"http://127.0.0.1:{port}/bench/{path}" for path in paths.split(",")]
    connection.execute(f"CREATE VIEW {table} AS SELECT * FROM read_parquet({urls})")
sql = (pathlib.Path(__file__).parent.parent / "tests" / "tpch" / f"{name}.sql").read_text()
print("ready", flush=True)
sys.stdin.readline()
began = time.perf_counter()
connection.execute(sql).fetchall()
print(time.perf_counter() - began)
