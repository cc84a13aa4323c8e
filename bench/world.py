"""The data, the nodes, and how they are timed."""

import contextlib
import pathlib
import subprocess
import sysconfig
import tempfile
import time

import duckdb

import nodes

DATABASE = "tpch"
TABLES = ["region", "nation", "supplier", "customer", "part", "partsupp", "orders", "lineitem"]
QUERIES = sorted((nodes.HERE.parent / "tpch").glob("q*.sql"))
PATIENCE_SECONDS = 900


def generate(folder: pathlib.Path, scale: str) -> pathlib.Path:
    """TPC-H as zstd Parquet, made once."""
    data = folder / f"tpch-{scale}"
    if not (data / "lineitem.parquet").exists():
        program = pathlib.Path(sysconfig.get_path("scripts")) / "tpchgen-cli"
        command = [str(program), "parquet", "-s", scale, "--quiet", "--compression=ZSTD(1)", "--row-group-bytes=64MB"]
        subprocess.run([*command, f"--output-dir={data}"], check=True)
    return data


@contextlib.contextmanager
def leader_and_follower(binary: str, follower: list[str], leader: list[str] = ()):
    """Nodes over a directory bucket, which end with the block."""
    with tempfile.TemporaryDirectory(prefix="slipstream-bench-") as folder, contextlib.ExitStack() as stack:
        folder = pathlib.Path(folder)
        lead = nodes.start(stack, binary, "leader", folder, list(leader))
        named = ["--leader", f"leader=http://{lead.grpc}"]
        yield lead, nodes.start(stack, binary, "follower", folder, [*named, *follower]), folder


def load(leader: nodes.Node, data: pathlib.Path) -> None:
    leader.sql(f"CREATE DATABASE {DATABASE}")
    for table in TABLES:
        body = (data / f"{table}.parquet").read_bytes()
        leader.ingest(DATABASE, table, body, "format=parquet&create=true")


def command(node: nodes.Node, text: str) -> list[dict]:
    """A management command's rows."""
    body, _ = node.post_json("/v1/rest/mgmt", {"csl": text, "db": DATABASE})
    table = body["Tables"][0]
    names = [column["ColumnName"] for column in table["Columns"]]
    return [dict(zip(names, row)) for row in table["Rows"]]


def wait_until_warm(follower: nodes.Node, encoded: bool) -> tuple[float, float, dict]:
    """Waits for the hot set; gives when it was all here, when all was encoded, and `.show cache`."""
    began, here = time.monotonic(), None
    while time.monotonic() - began < PATIENCE_SECONDS:
        cache = command(follower, ".show cache")[0]
        if cache["HotExtents"] > 0 and cache["ResidentExtents"] == cache["HotExtents"]:
            here = here or time.monotonic() - began
            if not encoded or cache["EncodedExtents"] == cache["HotExtents"]:
                return here, time.monotonic() - began, cache
        time.sleep(0.05)
    raise TimeoutError(f"the cache did not fill: {cache}")


def duck(threads: int) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute(f"SET threads = {threads}")
    return connection


def pattern(paths: list[str]) -> str:
    """Files of one folder as ClickHouse names several."""
    folder = pathlib.PurePath(paths[0]).parent
    names = [pathlib.PurePath(path).name for path in paths]
    return f"{folder}/" + (names[0] if len(names) == 1 else "{" + ",".join(names) + "}")


def best(rounds: int, run) -> float:
    """Seconds of the fastest round."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return min(times)
