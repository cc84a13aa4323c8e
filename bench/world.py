"""The data, the nodes, and how they are timed."""

import contextlib
import os
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


def extents_of(leader: nodes.Node, table: str, bucket: pathlib.Path) -> list[pathlib.Path]:
    """The files of a table in a directory bucket."""
    sql = f"SELECT path FROM slipstream.extents WHERE database_name = '{DATABASE}' AND table_name = '{table}'"
    return [bucket / row["path"] for row in leader.sql(sql, DATABASE)[0]]


def statistics(node: nodes.Node, sql: str) -> dict:
    """What one run of a query has read, as `slipstream.queries` shows it."""
    _, headers = node.post_json("/v1/sql", {"sql": sql, "database": DATABASE})
    query = headers["slipstream-query-id"]
    return node.sql(f"SELECT * FROM slipstream.queries WHERE query_id = '{query}'", DATABASE)[0][0]


def process_id(role: str, folder: pathlib.Path) -> int:
    """The process of the node that was started with this role in this folder."""
    data = str(folder / role)
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            arguments = (process / "cmdline").read_text().split("\0")
            if arguments[1:2] == [role] and data in arguments:
                return int(process.name)
    raise ProcessLookupError(f"no {role} runs in {folder}")


def cpu_seconds(process: int) -> float:
    """Seconds that a process has had of the cores, in user mode and in the kernel (proc_pid_stat(5))."""
    stat = pathlib.Path(f"/proc/{process}/stat").read_text()
    # The second field is a name that may hold anything; the third follows its parenthesis.
    fields = stat.rpartition(")")[2].split()
    user, kernel = fields[11:13]
    return (int(user) + int(kernel)) / os.sysconf("SC_CLK_TCK")


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
