"""Queries a leader and a follower with the unmodified package azure-kusto-data; the text is SQL.

    python3 kusto.py --binary target/debug/slipstream
"""

import datetime
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
    with transcript.check("a management command is refused by name, not misread"):
        refused(lambda: connect(leader).execute_mgmt(DATABASE, ".show databases"), "management commands")


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
    return transcript.end()


if __name__ == "__main__":
    sys.exit(main())
