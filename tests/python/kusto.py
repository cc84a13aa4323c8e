"""Queries a leader and a follower with the unmodified package azure-kusto-data; the text is SQL.

    python3 kusto.py --binary target/debug/slipstream
"""

import datetime
import io
import json
import sys

from azure.kusto.data import ClientRequestProperties, KustoClient, KustoConnectionStringBuilder
from azure.kusto.data.exceptions import KustoApiError, KustoServiceError
from azure.kusto.data.helpers import dataframe_from_result_table

import nodes

DATABASE = "kusto_check"
ROWS = 100_000


def connect(node: nodes.Node) -> KustoClient:
    return KustoClient(KustoConnectionStringBuilder.with_no_authentication(node.http))


def expect(found: object, wanted: object) -> None:
    if found != wanted:
        raise AssertionError(f"expected {wanted!r}, found {found!r}")


def refused(attempt, *words: str) -> None:
    try:
        attempt()
    except KustoServiceError as error:
        said = str(error)
        if isinstance(error, KustoApiError):
            said = f"{error.get_api_error().code}: {error.get_api_error().message}"
        for word in words:
            if word not in said:
                raise AssertionError(f"expected {word!r} in {said!r}") from error
    else:
        raise AssertionError("it was answered")


def queries(transcript: nodes.Transcript, node: nodes.Node) -> None:
    client = connect(node)
    with transcript.check(f"{node.cluster}: every type comes as its own"):
        answer = client.execute_query(
            DATABASE, "SELECT word, number, ratio, at, flag, price, list FROM kinds ORDER BY number"
        )
        table = answer.primary_results[0]
        expect(
            [column.column_type for column in table.columns],
            ["string", "long", "real", "datetime", "bool", "decimal", "dynamic"],
        )
        first, second = list(table)
        expect((first["word"], first["number"], first["ratio"], first["flag"]), ("one", 1, 0.5, True))
        expect(first["at"], datetime.datetime(2024, 1, 2, 3, 4, 5, 123456, tzinfo=datetime.timezone.utc))
        expect(first["list"], [1, 2])
        expect(str(first["price"]), "1.25")
        expect((second["word"] or None, second["number"], second["at"]), (None, 2, None))
    with transcript.check(f"{node.cluster}: parameters, a time limit and a request id"):
        properties = ClientRequestProperties()
        properties.set_parameter("low", "long(1)")
        properties.set_parameter("word", "'two; DROP TABLE kinds'")
        properties.set_option("servertimeout", datetime.timedelta(minutes=1))
        properties.client_request_id = "check;1"
        sql = "SELECT count(*) AS n, $word AS word FROM kinds WHERE number > $low"
        row = client.execute_query(DATABASE, sql, properties).primary_results[0][0]
        expect((row["n"], row["word"]), (1, "two; DROP TABLE kinds"))
    with transcript.check(f"{node.cluster}: a pandas frame"):
        answer = client.execute_query(DATABASE, "SELECT number, ratio FROM kinds ORDER BY number")
        frame = dataframe_from_result_table(answer.primary_results[0])
        expect(list(frame["number"]), [1, 2])
        expect(float(frame["ratio"].sum()), 0.5)
    with transcript.check(f"{node.cluster}: what a query read of each table"):
        answer = client.execute_query(DATABASE, "SELECT sum(number) AS total FROM kinds WHERE ratio < 1")
        expect(answer.primary_results[0][0]["total"], 1)
        cost = json.loads(answer["QueryCompletionInformation"][1]["Payload"])
        expect(cost["input_dataset_statistics"]["extents"], {"total": 1, "scanned": 1})
        expect(cost["slipstream"]["tables"][f"{DATABASE}.kinds"]["extentsScanned"], 1)
        status = client.execute_mgmt(DATABASE, "SELECT sum(number) AS total FROM kinds WHERE ratio < 1").tables[2]
        cost = json.loads(status[1]["StatusDescription"])
        expect(cost["slipstream"]["tables"][f"{DATABASE}.kinds"]["extentsScanned"], 1)
    with transcript.check(f"{node.cluster}: {ROWS} rows, streamed"):
        answer = client.execute_streaming_query(DATABASE, f"SELECT value AS n FROM generate_series(1, {ROWS})")
        total = count = 0
        for table in answer.iter_primary_results():
            for row in table:
                total, count = total + row["n"], count + 1
        expect((count, total), (ROWS, ROWS * (ROWS + 1) // 2))
    with transcript.check(f"{node.cluster}: errors are Kusto's exceptions"):
        run = client.execute_query
        refused(lambda: run(DATABASE, "SELEC 1"), "syntax_error")
        refused(lambda: run(DATABASE, "SELECT * FROM kindz"), "table_not_found", "kindz")
        refused(lambda: run("missing", "SELECT 1"), "database_not_found")
        refused(lambda: run(DATABASE, "SELECT 1 / (number - number) FROM kinds"), "ivide by zero")


def writes(transcript: nodes.Transcript, leader: nodes.Node, follower: nodes.Node) -> None:
    with transcript.check("a follower refuses to write, and names the leader"):
        refused(
            lambda: connect(follower).execute_query(DATABASE, "DROP TABLE kinds"), "read_only_follower", leader.cluster
        )
    with transcript.check("a leader takes statements that change something"):
        connect(leader).execute_query(DATABASE, "CREATE TABLE made (a INT)")
        table = connect(leader).execute_mgmt(DATABASE, "SELECT count(*) AS n FROM made").primary_results[0]
        expect(table[0]["n"], 0)
    with transcript.check("streaming ingestion: rows are there when it answers"):
        connect(leader).execute_streaming_ingest(DATABASE, "made", io.BytesIO(b"7\n8\n"), None, "csv", None)
        rows = connect(leader).execute_query(DATABASE, "SELECT sum(a) AS total FROM made").primary_results[0]
        expect(rows[0]["total"], 15)
    with transcript.check("an answer that is longer than the client wants fails, rather than being cut"):
        properties = ClientRequestProperties()
        properties.set_option("truncationmaxrecords", 1)
        run = connect(leader).execute_query
        refused(lambda: run(DATABASE, "SELECT number FROM kinds", properties), "E_QUERY_RESULT_SET_TOO_LARGE")
        expect(len(run(DATABASE, "SELECT number FROM kinds LIMIT 1", properties).primary_results[0]), 1)


def commands(transcript: nodes.Transcript, leader: nodes.Node, follower: nodes.Node) -> None:
    at_leader, at_follower = connect(leader), connect(follower)

    def run(client: KustoClient, text: str, database: str = DATABASE) -> list[dict]:
        table = client.execute_mgmt(database, text).primary_results[0]
        return [row.to_dict() for row in table]

    with transcript.check("management commands: databases of leader and follower"):
        expect(run(at_leader, ".show databases")[0]["DatabaseAccessMode"], "ReadWrite")
        expect(run(at_follower, ".show databases")[0]["DatabaseAccessMode"], "ReadOnlyFollowing")
        frame = dataframe_from_result_table(at_follower.execute_mgmt(DATABASE, ".show tables details").primary_results[0])
        expect("kinds" in list(frame["TableName"]), True)
    with transcript.check("management commands: a follower's own settings, shown in Kusto's shape"):
        run(at_follower, f".alter follower database {DATABASE} table kinds policy caching hot = 3d")
        run(at_follower, f".alter follower database {DATABASE} principals-modification-kind = replace")
        run(at_follower, f".add follower database {DATABASE} viewers ('aaduser=ada@example.org') 'one of us'")
        shown = run(at_follower, f".show follower database {DATABASE}")[0]
        expect(shown["AuthorizedPrincipalsModificationKind"], "Replace")
        expect(
            json.loads(shown["TableMetadataOverrides"])["kinds"]["CachingPolicyOverride"]["DataHotSpan"]["Value"],
            "3.00:00:00",
        )
        principals = json.loads(shown["AuthorizedPrincipalsOverride"])
        expect(principals[0]["Principal"]["FullyQualifiedName"], "aaduser=ada@example.org")
        effective = run(at_follower, ".show effective policy caching table kinds")[0]
        expect(effective["Source"], "TableOverride")
    with transcript.check("management commands: tables and functions, made at the leader"):
        run(at_leader, ".create table trips (id:long, at:datetime, what:dynamic)")
        run(at_leader, ".create-or-alter function with (docstring='all of them') every() { SELECT * FROM trips }")
        expect(run(at_leader, ".show table trips cslschema")[0]["Schema"], "id:long,at:datetime,what:dynamic")
        run(at_leader, ".drop function every")
        run(at_leader, ".drop table trips")
    with transcript.check("management commands: a typo is pointed at"):
        refused(lambda: run(at_leader, ".show tabels"), "syntax_error", "did you mean 'table")
        refused(lambda: run(at_follower, ".drop table kinds"), "read_only_follower", leader.cluster)


def tokens(transcript: nodes.Transcript, leader: nodes.Node, options) -> None:
    if options.binary is None:
        print("SKIPPED a token says who asks: it takes --binary, to start a node with tokens", flush=True)
        return
    with transcript.check("a token says who asks; another one is refused"):
        with nodes.guarded_leader(options) as (guarded, token):
            builder = KustoConnectionStringBuilder.with_aad_application_token_authentication
            client = KustoClient(builder(guarded.http, token))
            row = client.execute_query("", "SELECT current_principal() AS who").primary_results[0][0]
            expect(row["who"], "aadapp=check")
            wrong = KustoClient(builder(guarded.http, "0123"))
            refused(lambda: wrong.execute_query("", "SELECT 1"), "401")
            refused(lambda: connect(guarded).execute_query("", "SELECT 1"), "401")


def main() -> int:
    options = nodes.arguments(__doc__.splitlines()[0]).parse_args()
    transcript = nodes.Transcript()
    with nodes.nodes(options) as (leader, follower):
        leader.sql(f"CREATE DATABASE {DATABASE}")
        leader.sql(
            "CREATE TABLE kinds AS SELECT * FROM (VALUES "
            "('one', 1, CAST(0.5 AS DOUBLE), TIMESTAMP '2024-01-02T03:04:05.123456', true, "
            "CAST(1.25 AS DECIMAL(9, 2)), [1, 2]), "
            "(NULL, 2, NULL, NULL, NULL, NULL, NULL)) AS t(word, number, ratio, at, flag, price, list)",
            DATABASE,
        )
        follower.attach(leader, DATABASE)
        for node in (leader, follower):
            queries(transcript, node)
        writes(transcript, leader, follower)
        commands(transcript, leader, follower)
    tokens(transcript, leader, options)
    return transcript.end()


if __name__ == "__main__":
    sys.exit(main())
