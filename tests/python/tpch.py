"""Checks the 22 TPC-H queries on leader and follower against DuckDB, over the same files.

    python3 tpch.py --binary target/debug/slipstream

Every table is ingested as four files, each an extent of its own. DuckDB computes its answers here
and now from those same files: nothing is recorded.
"""

import decimal
import math
import pathlib
import subprocess
import sys
import sysconfig
import tempfile

import duckdb
import pyarrow.parquet

import nodes

DATABASE = "tpch"
TABLES = ["region", "nation", "supplier", "customer", "part", "partsupp", "orders", "lineitem"]
FILES_PER_TABLE = 4
QUERIES = nodes.HERE.parent / "tpch"

# Averages and quotients of decimals are decimals with six digits here and doubles in DuckDB.
ABSOLUTE_TOLERANCE = 2e-6
RELATIVE_TOLERANCE = 1e-9


def generate(folder: pathlib.Path, scale: str) -> dict[str, list[pathlib.Path]]:
    """Makes the tables, and cuts each into files."""
    beside = pathlib.Path(sysconfig.get_path("scripts")) / "tpchgen-cli"
    program = str(beside) if beside.exists() else "tpchgen-cli"
    subprocess.run([program, "parquet", "-s", scale, "--quiet", f"--output-dir={folder}"], check=True)
    files: dict[str, list[pathlib.Path]] = {}
    for name in TABLES:
        table = pyarrow.parquet.read_table(folder / f"{name}.parquet")
        bounds = [table.num_rows * part // FILES_PER_TABLE for part in range(FILES_PER_TABLE + 1)]
        files[name] = []
        for part, (begin, end) in enumerate(zip(bounds, bounds[1:])):
            path = folder / f"{name}.{part}.parquet"
            pyarrow.parquet.write_table(table.slice(begin, end - begin), path)
            files[name].append(path)
    return files


def load(leader: nodes.Node, files: dict[str, list[pathlib.Path]], notes: list[str]) -> None:
    leader.sql(f"CREATE DATABASE {DATABASE}")
    for name, paths in files.items():
        for path in paths:
            options = f"format=parquet&create=true&source_name={path.name}"
            leader.ingest(DATABASE, name, path.read_bytes(), options)
    sql = f"SELECT table_name, count(*) AS n FROM slipstream.extents WHERE database_name = '{DATABASE}' GROUP BY table_name"
    extents = {row["table_name"]: row["n"] for row in leader.sql(sql, DATABASE)[0]}
    few = [name for name in TABLES if extents.get(name, 0) < FILES_PER_TABLE]
    if few:
        raise AssertionError(f"fewer than {FILES_PER_TABLE} extents: {few} in {extents}")
    notes.append(f"{sum(extents.values())} extents")


def same(found: object, wanted: object) -> bool:
    exact = (int, decimal.Decimal)
    if isinstance(found, exact) and isinstance(wanted, exact):
        return found == wanted
    if isinstance(found, (*exact, float)) and isinstance(wanted, (*exact, float)):
        return math.isclose(found, wanted, rel_tol=RELATIVE_TOLERANCE, abs_tol=ABSOLUTE_TOLERANCE)
    return found == wanted


def compare(found: list[tuple], wanted: list[tuple], notes: list[str]) -> None:
    """Fails when the rows differ. Rows that the query does not order may come in another order."""
    if len(found) != len(wanted):
        raise AssertionError(f"{len(found)} rows, DuckDB has {len(wanted)}")
    for attempt in ("in order", "as a set"):
        pairs = zip(found, wanted)
        wrong = next(((a, b) for a, b in pairs if not all(map(same, a, b))), None)
        if wrong is None:
            notes.append(f"{len(found)} rows equal {attempt}")
            return
        found, wanted = sorted(found, key=str), sorted(wanted, key=str)
    raise AssertionError(f"row {wrong[0]}, DuckDB has {wrong[1]}")


def answers(node: nodes.Node, sql: str, version: int) -> list[tuple]:
    table = node.arrow(sql, DATABASE, min_version=version)
    return list(zip(*(column.to_pylist() for column in table.columns))) if table.num_rows else []


def main() -> int:
    parser = nodes.arguments(__doc__.splitlines()[0])
    parser.add_argument("--scale", default="0.1", help="TPC-H scale factor [default: 0.1]")
    options = parser.parse_args()
    transcript = nodes.Transcript()
    with tempfile.TemporaryDirectory(prefix="slipstream-tpch-") as folder, nodes.nodes(options) as (leader, follower):
        files = generate(pathlib.Path(folder), options.scale)
        duck = duckdb.connect()
        for name, paths in files.items():
            duck.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet({[str(path) for path in paths]})")
        with transcript.check(f"load scale {options.scale}, every table in {FILES_PER_TABLE} extents or more") as notes:
            load(leader, files, notes)
        with transcript.check("attach"):
            follower.attach(leader, DATABASE)
        _, version = leader.sql("SELECT 1", DATABASE)
        for path in sorted(QUERIES.glob("q*.sql")):
            sql = path.read_text()
            wanted = duck.execute(sql).fetchall()
            for node in (leader, follower):
                with transcript.check(f"{path.stem} on the {node.cluster}") as notes:
                    compare(answers(node, sql, version), wanted, notes)
    return transcript.end()


if __name__ == "__main__":
    sys.exit(main())
