"""Checks Flight SQL with the ADBC driver: queries, parameters, metadata, bulk ingest.

    python3 adbc.py --binary target/debug/slipstream
"""

import datetime
import decimal
import sys

import adbc_driver_flightsql.dbapi as flightsql
import pyarrow
import pyarrow.compute

import nodes

DATABASE = "adbc_check"
ROWS = 1_000_000
BATCH_ROWS = 65_536
HEADER = "adbc.flight.sql.rpc.call_header."


def connect(node: nodes.Node, **headers: str):
    """A connection whose calls name the database, and what else is given."""
    headers = {"database": DATABASE, **headers}
    options = {HEADER + name.replace("_", "-"): value for name, value in headers.items()}
    return flightsql.connect(f"grpc://{node.grpc}", db_kwargs=options, autocommit=True)


def answer(connection, sql: str, parameters=None) -> pyarrow.Table:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetch_arrow_table()


def expect(found: object, wanted: object) -> None:
    if found != wanted:
        raise AssertionError(f"expected {wanted!r}, found {found!r}")


def a_million_rows() -> pyarrow.Table:
    ids = pyarrow.array(range(ROWS), pyarrow.int64())
    start = datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc)
    micros = int(start.timestamp()) * 1_000_000
    at = pyarrow.compute.add(pyarrow.compute.multiply(ids, 1_000), micros).cast(pyarrow.timestamp("us", tz="UTC"))
    words = pyarrow.DictionaryArray.from_arrays(
        pyarrow.compute.subtract(ids, pyarrow.compute.multiply(pyarrow.compute.divide(ids, 5), 5)).cast(pyarrow.int32()),
        ["north", "east", "south", "west", None],
    ).cast(pyarrow.string())
    score = pyarrow.compute.divide(ids.cast(pyarrow.float64()), 8.0)
    return pyarrow.table({"id": ids, "at": at, "word": words, "score": score})


def ingest(transcript: nodes.Transcript, leader: nodes.Node, follower: nodes.Node) -> None:
    table = a_million_rows()
    with connect(leader) as connection, connection.cursor() as cursor:
        with transcript.check("adbc_ingest of a million rows to the leader") as notes:
            reader = pyarrow.RecordBatchReader.from_batches(
                table.schema, table.to_batches(max_chunksize=BATCH_ROWS)
            )
            expect(cursor.adbc_ingest("reading", reader, mode="create"), ROWS)
            notes.append(f"{ROWS} rows")
        with transcript.check("adbc_ingest in mode create refuses a table that is there"):
            try:
                cursor.adbc_ingest("reading", table.slice(0, 10), mode="create")
            except flightsql.Error as error:
                expect("reading" in str(error), True)
            else:
                raise AssertionError("it was taken")
        with transcript.check("adbc_ingest in modes append, replace and create_append"):
            for mode, count in [("create_append", 10), ("append", 20), ("replace", 10)]:
                cursor.adbc_ingest("few", table.slice(0, 10), mode=mode)
                expect(answer(connection, "SELECT count(*) FROM few")[0][0].as_py(), count)
    with transcript.check("the follower answers at the version of the ingest, and not before") as notes:
        _, version = leader.sql("SELECT 1", DATABASE)
        with connect(follower, slipstream_min_version=str(version)) as connection:
            sql = "SELECT count(*) AS n, sum(id) AS ids, max(at) AS last, count(word) AS words FROM reading"
            row = answer(connection, sql).to_pylist()[0]
            expect((row["n"], row["ids"], row["words"]), (ROWS, ROWS * (ROWS - 1) // 2, ROWS // 5 * 4))
            expect(row["last"], table["at"][ROWS - 1].as_py())
            notes.append(f"version {version}")
    with transcript.check("all rows come back as they went in") as notes:
        with connect(follower, slipstream_min_version=str(version)) as connection:
            back = answer(connection, "SELECT * FROM reading ORDER BY id")
            expect(back.schema.names, table.schema.names)
            expect([str(field.type) for field in back.schema], [str(field.type) for field in table.schema])
            expect(back.combine_chunks().equals(table.combine_chunks()), True)
            notes.append(f"{back.nbytes} bytes")
    with transcript.check("a version that does not come fails the query when asked to"):
        headers = {"slipstream_min_version": "1000000", "slipstream_when_stale": "fail"}
        with connect(follower, **headers) as connection:
            try:
                answer(connection, "SELECT count(*) FROM reading")
            except flightsql.Error as error:
                expect("1000000" in str(error), True)
            else:
                raise AssertionError("it was answered")


def queries(transcript: nodes.Transcript, node: nodes.Node) -> None:
    role = node.cluster
    with connect(node) as connection:
        with transcript.check(f"{role}: values of many types"):
            sql = (
                "SELECT 1 AS i, 'text' AS s, DATE '2024-02-29' AS d, CAST(1.25 AS DECIMAL(9, 2)) AS m, "
                "TIMESTAMP '2024-01-01T00:00:00' AS t, NULL AS n, true AS b"
            )
            row = answer(connection, sql).to_pylist()[0]
            expect(row["i"], 1)
            expect((row["s"], row["b"], row["n"]), ("text", True, None))
            expect((row["d"], row["m"]), (datetime.date(2024, 2, 29), decimal.Decimal("1.25")))
            expect(row["t"].isoformat()[:19], "2024-01-01T00:00:00")
        with transcript.check(f"{role}: an answer without rows has its columns"):
            empty = answer(connection, "SELECT id, word FROM reading WHERE id < 0")
            expect((empty.num_rows, empty.column_names), (0, ["id", "word"]))
        with transcript.check(f"{role}: parameters"):
            sql = "SELECT count(*) AS n FROM reading WHERE id < $1 AND word = $2"
            for below, word, count in [(100, "north", 20), (7, "west", 1), (0, "west", 0)]:
                expect(answer(connection, sql, (below, word))[0][0].as_py(), count)
        with transcript.check(f"{role}: text in a parameter is never SQL"):
            sql = "SELECT count(*) FROM reading WHERE word = $1"
            expect(answer(connection, sql, ("' OR 1 = 1 --",))[0][0].as_py(), 0)
        with transcript.check(f"{role}: adbc_get_objects"):
            objects = connection.adbc_get_objects(depth="all", db_schema_filter=DATABASE).read_all().to_pylist()
            schemas = [schema for one in objects for schema in one["catalog_db_schemas"] or []]
            tables = {table["table_name"]: table for schema in schemas for table in schema["db_schema_tables"] or []}
            expect([schema["db_schema_name"] for schema in schemas], [DATABASE])
            columns = [column["column_name"] for column in tables["reading"]["table_columns"]]
            expect(columns, ["id", "at", "word", "score"])
        with transcript.check(f"{role}: adbc_get_table_schema and adbc_get_table_types"):
            schema = connection.adbc_get_table_schema("reading", db_schema_filter=DATABASE)
            expect(schema.names, ["id", "at", "word", "score"])
            expect(len(connection.adbc_get_table_types()) > 0, True)
        with transcript.check(f"{role}: adbc_get_info"):
            expect("slipstream" in str(connection.adbc_get_info()["vendor_name"]).lower(), True)
        with transcript.check(f"{role}: an unknown table is an error that names it"):
            try:
                answer(connection, "SELECT * FROM never_made")
            except flightsql.Error as error:
                expect("never_made" in str(error), True)
            else:
                raise AssertionError("it was answered")
        with transcript.check(f"{role}: the data frame of a query"):
            with connection.cursor() as cursor:
                cursor.execute("SELECT word, count(*) AS n FROM reading WHERE word IS NOT NULL GROUP BY word ORDER BY word")
                expect(cursor.fetch_df()["n"].tolist(), [ROWS // 5] * 4)


def writes(transcript: nodes.Transcript, leader: nodes.Node, follower: nodes.Node) -> None:
    with transcript.check("leader: statements with parameters that write"):
        with connect(leader) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE pair (a BIGINT, b VARCHAR)")
            cursor.executemany("INSERT INTO pair VALUES ($1, $2)", [(1, "one"), (2, "two")])
            found = answer(connection, "SELECT a, b FROM pair ORDER BY a").to_pylist()
            expect(found, [{"a": 1, "b": "one"}, {"a": 2, "b": "two"}])
    with transcript.check("follower: refuses to write, and names the leader"):
        with connect(follower) as connection, connection.cursor() as cursor:
            table = pyarrow.table({"a": [1]})
            for attempt in [
                lambda: cursor.execute("INSERT INTO pair VALUES (3, 'three')"),
                lambda: cursor.adbc_ingest("pair", table, mode="append"),
                lambda: cursor.adbc_ingest("mine", table, mode="create"),
            ]:
                try:
                    attempt()
                except flightsql.Error as error:
                    expect(leader.cluster in str(error), True)
                else:
                    raise AssertionError("it was taken")


def main() -> int:
    options = nodes.arguments(__doc__.splitlines()[0]).parse_args()
    transcript = nodes.Transcript()
    with nodes.nodes(options) as (leader, follower):
        leader.sql(f"CREATE DATABASE {DATABASE}")
        follower.attach(leader, DATABASE)
        ingest(transcript, leader, follower)
        for node in (leader, follower):
            queries(transcript, node)
        writes(transcript, leader, follower)
    return transcript.end()


if __name__ == "__main__":
    sys.exit(main())
