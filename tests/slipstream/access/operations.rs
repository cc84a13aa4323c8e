//! Every door and every command, with what each takes.

use super::call::{Call, Flight as FlightCall, Grpc as GrpcCall};
use super::matrix::Needs;

/// Every door and every command of a leader; `{n}` is another number each time.
pub(super) fn operations() -> Vec<(Needs, Call)> {
    use Call::{Command, Flight, Grpc, Http, Ingest, KustoIngest, KustoQuery, NodeSql, Sql};
    use FlightCall::{Append, Prepared, Replace, Schemas, Statement, Tables};
    use GrpcCall::{Attach, Describe, DescribeOf, Detach, RenewLease, Subscribe};
    use Needs::{Administer, Anybody, Create, ManageDatabases, Metadata, Monitor, Query, Share};
    let mut all = vec![
        (Query, Sql("SELECT count(*) FROM t")),
        (Query, KustoQuery("SELECT count(*) FROM t")),
        (Query, Flight(Statement("SELECT count(*) FROM t"))),
        (Query, Sql("EXPLAIN SELECT * FROM t")),
        (Anybody, NodeSql("SELECT 1")),
        (Needs::Ingest, Ingest("t", "format=csv")),
        (
            Administer,
            Sql("ALTER TABLE t ADD COLUMN IF NOT EXISTS c BIGINT"),
        ),
        (Administer, Sql("DROP TABLE IF EXISTS gone")),
        (Administer, Sql("DELETE FROM t WHERE word = 'gone{n}'")),
        (
            Administer,
            Flight(Statement("DELETE FROM t WHERE word = 'gone'")),
        ),
        (Administer, Sql("DROP FUNCTION IF EXISTS gone")),
        (Create, Sql("CREATE TABLE a{n} (a BIGINT)")),
        (Create, Sql("CREATE TABLE b{n} AS SELECT 1 AS a")),
        (Create, Sql("CREATE FUNCTION f{n}() AS $$ SELECT 1 $$")),
        (Create, Flight(Statement("CREATE TABLE c{n} (a BIGINT)"))),
        (ManageDatabases, NodeSql("CREATE DATABASE d{n}")),
        (ManageDatabases, NodeSql("DROP DATABASE IF EXISTS gone")),
        (Share, Http("GET", "/v1/attachments", None)),
        (
            Share,
            Http(
                "POST",
                "/v1/attachments",
                Some(r#"{"leader": "x", "database": "y"}"#),
            ),
        ),
        (Share, Http("DELETE", "/v1/attachments/gone", None)),
        (
            Share,
            Http("GET", "ARM/attachedDatabaseConfigurations", None),
        ),
        (Share, Http("POST", "ARM/listFollowerDatabases", None)),
        (
            Share,
            Http(
                "POST",
                "ARM/databases/d/inviteFollower",
                Some(r#"{"inviteeEmail": "x"}"#),
            ),
        ),
        (
            Share,
            Http(
                "POST",
                "ARM/detachFollowerDatabases",
                Some(
                    r#"{"clusterResourceId": "/subscriptions/s/resourceGroups/g/providers/Microsoft.Kusto/clusters/x", "attachedDatabaseConfigurationName": "y"}"#,
                ),
            ),
        ),
        (
            ManageDatabases,
            Http(
                "PUT",
                "ARM/databases/e{n}",
                Some(r#"{"kind": "ReadWrite", "location": "local"}"#),
            ),
        ),
        (
            Metadata,
            Http("GET", "ARM/databases/d/principalAssignments", None),
        ),
        (
            Administer,
            Http(
                "PUT",
                "ARM/databases/d/principalAssignments/x{n}",
                Some(
                    r#"{"properties": {"principalId": "y", "role": "Viewer", "principalType": "User"}}"#,
                ),
            ),
        ),
        (Share, Http("GET", "/v1/followers", None)),
        (Share, Http("DELETE", "/v1/followers/x/y", None)),
        (Share, Http("GET", "/v1/invitations", None)),
        (
            Share,
            Http("POST", "/v1/invitations", Some(r#"{"database": "d"}"#)),
        ),
        (
            Share,
            Http(
                "DELETE",
                "/v1/invitations/00000000-0000-0000-0000-000000000000",
                None,
            ),
        ),
        (Anybody, Http("GET", "/v1/overrides", None)),
        (Anybody, Http("GET", "ARM/databases", None)),
        (Monitor, Http("GET", "/metrics", None)),
        (Monitor, Command(".show diagnostics")),
        (Monitor, Command(".show gc blockers")),
        (Monitor, Command(".show cluster principals")),
        (ManageDatabases, Command(".create database g{n}")),
        (ManageDatabases, Command(".drop database gone ifexists")),
        (Create, Command(".create table h{n} (a:long)")),
        (Create, Command(".create-merge table i{n} (a:long)")),
        (Administer, Command(".alter-merge table t (c:long)")),
        (Administer, Command(".drop table gone ifexists")),
        (Create, Command(".create function k{n}() { SELECT 1 }")),
        (
            Create,
            Command(".create-or-alter function l{n}() { SELECT 1 }"),
        ),
        (
            Administer,
            Command(".create-or-alter function known() { SELECT {n} }"),
        ),
        (Administer, Command(".drop function gone ifexists")),
        (
            Create,
            Command(
                ".create external table m{n} (a:long) kind=storage dataformat=csv ('s3://b/x.csv')",
            ),
        ),
        (Administer, Command(".drop external table gone ifexists")),
        (
            Administer,
            Command(".alter table t policy caching hot = 7d"),
        ),
        (Administer, Command(".delete table t policy caching")),
        (
            Administer,
            Command(".alter-merge table t policy retention softdelete = 99d"),
        ),
        (Administer, Command(".delete table t policy retention")),
        (
            Administer,
            Command(".alter table t policy row_level_security disable \"true\""),
        ),
        (
            Administer,
            Command(".delete table t policy row_level_security"),
        ),
        (
            Administer,
            Command(".add database d viewers ('aaduser=somebody')"),
        ),
        (
            Administer,
            Command(".drop database d viewers ('aaduser=somebody')"),
        ),
        (
            Administer,
            Command(".alter database d policy caching hot = 7d"),
        ),
        (
            Administer,
            Command(".set database d unrestrictedviewers ('aaduser=unrestrictedviewers')"),
        ),
        (
            Administer,
            Command(".set database d users ('aaduser=users')"),
        ),
        (Administer, Command(".delete database d policy caching")),
        (
            Administer,
            Command(".alter-merge database d policy retention softdelete = 99d"),
        ),
        (Administer, Command(".delete database d policy retention")),
        (Administer, Command(".alter table gone (b:long)")),
        (Administer, Command(".drop column t.gone")),
        (Administer, Sql("ALTER TABLE t DROP COLUMN IF EXISTS gone")),
        (Administer, Sql("DROP POLICY IF EXISTS p ON t")),
    ];
    all.push((Metadata, Flight(Statement(".show tables"))));
    all.push((Metadata, Sql(".show tables")));
    all.push((Create, Flight(Statement(".create table flown{n} (a:long)"))));
    for shown in [
        ".show database d",
        ".show databases (d) details",
        ".show database d datastats",
        ".show database d versions",
        ".show database d schema as json",
        ".show tables details",
        ".show table t details",
        ".show table t cslschema",
        ".show table t extents",
        ".show database d extents",
        ".show functions",
        ".show external tables",
        ".show table t policy caching",
        ".show effective policy caching table t",
        ".show database d principals",
    ] {
        all.push((Metadata, Command(shown)));
    }
    for shown in [
        ".show version",
        ".show cluster",
        ".show databases",
        ".show capacity",
        ".show queries",
        ".show running queries",
        ".show commands",
        ".show commands-and-queries",
        ".show follower databases",
        ".show cluster extents",
    ] {
        all.push((Anybody, Command(shown)));
    }
    all.extend([
        (Query, Flight(Prepared("SELECT count(*) FROM t"))),
        (Anybody, Flight(Schemas)),
        (Anybody, Flight(Tables)),
        (Needs::Ingest, Flight(Append("t"))),
        // To make a table of what comes, or to put it in the place of one, takes more than to
        // ingest: what an admin may.
        (Administer, Flight(Replace("replaced"))),
        (Administer, Ingest("made{n}", "format=csv&create=true")),
        (Needs::Ingest, KustoIngest("t")),
        (Share, Grpc(Attach)),
        (Share, Grpc(Detach)),
        (Share, Grpc(Describe)),
        // Of a configuration that somebody else attached: only a Contributor speaks for it.
        (Share, Grpc(DescribeOf)),
        (Share, Grpc(Subscribe)),
        (Share, Grpc(RenewLease)),
    ]);
    all.extend(resources());
    for shown in [
        ".show database d policies",
        ".show database d pins",
        ".show database d identity",
        ".show database d verbose",
        ".show database d schema",
        ".show database d policy caching",
        ".show database d viewers",
        ".show table t",
        ".show table t schema as json",
        ".show tables (t) extents",
        ".show tables (t) details",
        ".show function known",
        ".show external table elsewhere",
        ".show table t policy retention",
        ".show table * policy caching",
        ".show table t policy row_level_security",
        ".show table t policy merge",
        ".show database d policy merge",
        ".show table t policy ingestionbatching",
        ".show database d policy ingestionbatching",
        ".show table t policy streamingingestion",
        ".show database d policy streamingingestion",
    ] {
        all.push((Metadata, Command(shown)));
    }
    for changed in [
        ".drop extent 00000000-0000-0000-0000-000000000000",
        ".drop extents (00000000-0000-0000-0000-000000000000) from t",
        ".drop extents from nothing",
        ".drop extents older 9999 days from all tables",
        ".drop extents from t with (whatif=true)",
        ".drop-pretend extents from all tables",
        ".gc database d",
        ".gc database d with (whatif=true)",
        ".drop extents <| .show table t extents where tags has 'gone'",
        ".drop extents <| SELECT extent_id FROM slipstream.extents WHERE row_count = 0",
        ".move extents all from table nothing to table t",
        ".move extents from table t to table nothing (00000000-0000-0000-0000-000000000000)",
        ".replace extents in table t <| {.show table t extents where tags has 'gone'}, \
         {.show table nothing extents}",
        ".undo drop table gone version=1",
        ".pin database d version 1 as p{n}",
        ".unpin database d gone",
        ".alter extent tags ('x') <| .show table t extents where tags has 'gone'",
        ".alter-merge extent tags ('x') <| .show table t extents where tags has 'gone'",
        ".drop extent tags from table t ('gone')",
        ".alter table t policy merge '{}'",
        ".alter-merge table t policy merge '{\"MaxRangeInHours\": 24}'",
        ".alter database d policy merge '{}'",
        ".alter-merge database d policy merge '{\"MaxRangeInHours\": 24}'",
        ".delete table t policy merge",
        ".delete database d policy merge",
        ".alter table t policy ingestionbatching '{}'",
        ".alter-merge table t policy ingestionbatching '{\"MaximumNumberOfItems\": 20}'",
        ".alter database d policy ingestionbatching '{}'",
        ".alter-merge database d policy ingestionbatching '{\"MaximumNumberOfItems\": 20}'",
        ".delete table t policy ingestionbatching",
        ".delete database d policy ingestionbatching",
        ".alter table t policy streamingingestion disable",
        ".alter-merge table t policy streamingingestion '{\"IsEnabled\": false}'",
        ".alter database d policy streamingingestion disable",
        ".alter-merge database d policy streamingingestion '{\"IsEnabled\": false}'",
        ".delete table t policy streamingingestion",
        ".delete database d policy streamingingestion",
        ".alter function known() { SELECT {n} }",
        ".alter external table elsewhere (a:long) kind=storage dataformat=csv ('s3://b/{n}.csv')",
        ".create-or-alter external table elsewhere (a:long) kind=storage dataformat=csv ('s3://b/{n}.csv')",
        r#".alter table t policy retention '{"SoftDeletePeriod": "99.00:00:00"}'"#,
        r#".alter database d policy retention '{"SoftDeletePeriod": "99.00:00:00"}'"#,
        ".alter tables (t) policy caching hot = 7d",
        ".delete tables (t) policy caching",
        ".drop tables (gone, gone_too) ifexists",
        ".drop functions (gone, gone_too) ifexists",
        ".drop table t columns (gone)",
    ] {
        all.push((Administer, Command(changed)));
    }
    all.push((Create, Command(".create table t (word:string)")));
    all.push((
        Create,
        Command(".create-merge tables n{n} (a:long), o{n} (a:long)"),
    ));
    all.push((Monitor, Command(".show cache")));
    for open in [
        ".show cluster details",
        // What this version does not have is refused to everybody in the same words.
        ".show materialized-view v policy caching",
        ".alter materialized-view v policy caching hot = 7d",
        ".rename table t to u",
        ".rename column t.word to name",
        ".add cluster AllDatabasesViewer ('aaduser=somebody')",
    ] {
        all.push((Anybody, Command(open)));
    }
    all
}

/// Azure's resources, of either kind of node, beside those that every list has.
fn resources() -> Vec<(Needs, Call)> {
    use Call::{Http, HttpDelete};
    use Needs::{Administer, Anybody, ManageDatabases, Metadata, Share};
    const GONE: &str = "ARM/attachedDatabaseConfigurations/gone";
    const PERIODS: &str = r#"{"kind": "ReadWrite", "properties": {"hotCachePeriod": "P7D", "softDeletePeriod": "P99D"}}"#;
    vec![
        (Anybody, Http("GET", "ARM", None)),
        (Share, Http("DELETE", "ARM", None)),
        (Share, Http("GET", GONE, None)),
        (Share, Http("DELETE", GONE, None)),
        (
            Share,
            Http(
                "PUT",
                GONE,
                Some(
                    r#"{"location": "local", "properties": {"databaseName": "y", "defaultPrincipalsModificationKind": "Union", "clusterResourceId": "/subscriptions/s/resourceGroups/g/providers/Microsoft.Kusto/clusters/x"}}"#,
                ),
            ),
        ),
        (
            Share,
            Http(
                "POST",
                "ARM/attachedDatabaseConfigurationCheckNameAvailability",
                Some(r#"{"name": "y"}"#),
            ),
        ),
        (Share, Http("GET", "ARM/listFollowerDatabases", None)),
        (
            Share,
            Http(
                "GET",
                "/subscriptions/s/providers/Microsoft.Kusto/locations/local/operationResults/61",
                None,
            ),
        ),
        // One that the caller may not know of is none: not found, whoever asks.
        (Anybody, Http("GET", "ARM/databases/d", None)),
        (Administer, Http("PATCH", "ARM/databases/d", Some(PERIODS))),
        (Administer, Http("PUT", "ARM/databases/d", Some(PERIODS))),
        (ManageDatabases, Http("DELETE", "ARM/databases/gone", None)),
        (
            Metadata,
            Http("GET", "ARM/databases/d/principalAssignments/gone", None),
        ),
        (
            Administer,
            HttpDelete(
                "ARM/databases/d/principalAssignments/held",
                r#"{"properties": {"principalId": "held", "role": "Viewer", "principalType": "User"}}"#,
            ),
        ),
    ]
}

/// A follower's own commands, and what it refuses to whoever asks.
pub(super) fn operations_of_a_follower() -> Vec<(Needs, Call)> {
    use Call::{Command, Flight, Http, KustoQuery, Sql};
    use FlightCall::{Prepared, Schemas, Statement, Tables};
    use Needs::{Administer, Anybody, Metadata, Monitor, Query, Share};
    let mut all = vec![
        (Query, Sql("SELECT count(*) FROM t")),
        (Query, KustoQuery("SELECT count(*) FROM t")),
        (Query, Flight(Statement("SELECT count(*) FROM t"))),
        (Metadata, Command(".show follower database d")),
        (Metadata, Command(".show effective policy caching table t")),
        (Anybody, Command(".show follower databases")),
        (
            Administer,
            Command(".alter follower database d policy caching hot = 7d"),
        ),
        (
            Administer,
            Command(".alter follower database d policy caching hot = 7d with (whatif=true)"),
        ),
        (Administer, Command(".warm database d table t")),
        (
            Administer,
            Command(".delete follower database d policy caching"),
        ),
        (
            Administer,
            Command(".alter follower database d table t policy caching hot = 7d"),
        ),
        (
            Administer,
            Command(".delete follower database d table t policy caching"),
        ),
        (
            Administer,
            Command(".add follower database d viewers ('aaduser=somebody')"),
        ),
        (
            Administer,
            Command(".drop follower database d viewers ('aaduser=somebody')"),
        ),
        (
            Administer,
            Command(".alter follower database d principals-modification-kind = union"),
        ),
        (
            Administer,
            Command(".alter follower database d caching-policies-modification-kind = union"),
        ),
        (
            Administer,
            Command(".alter follower database d prefetch-extents = false"),
        ),
        (
            Administer,
            Command(".alter table t policy caching hot = 7d"),
        ),
        (
            Administer,
            Command(".add database d viewers ('aaduser=somebody')"),
        ),
        (Share, Http("GET", "/v1/attachments", None)),
        (
            Share,
            Http(
                "POST",
                "/v1/attachments",
                Some(r#"{"leader": "x", "database": "y"}"#),
            ),
        ),
        (Share, Http("DELETE", "/v1/attachments/gone", None)),
        (Monitor, Http("GET", "/metrics", None)),
    ];
    all.extend([
        (Query, Flight(Prepared("SELECT count(*) FROM t"))),
        (Anybody, Flight(Schemas)),
        (Anybody, Flight(Tables)),
        (Metadata, Flight(Statement(".show tables"))),
        (Metadata, Sql(".show tables")),
        (Anybody, Http("GET", "/v1/overrides", None)),
        (Anybody, Http("GET", "ARM/databases", None)),
        (
            Share,
            Http("GET", "ARM/attachedDatabaseConfigurations", None),
        ),
        (Share, Http("POST", "ARM/listFollowerDatabases", None)),
        (Share, Http("GET", "/v1/followers", None)),
    ]);
    all.extend(resources());
    // What a leader shows, a follower shows to the same roles.
    let shown = operations().into_iter();
    all.extend(
        shown.filter(|(_, call)| matches!(call, Command(text) if text.starts_with(".show"))),
    );
    for own in [
        ".alter follower database d tables (t, u) policy caching hot = 7d",
        ".delete follower database d tables (t, u) policy caching",
        ".alter follower database d materialized-view v policy caching hot = 7d",
        ".alter follower database d materialized-views (v, w) policy caching hot = 7d",
        ".delete follower database d materialized-view v policy caching",
        ".delete follower database d materialized-views (v, w) policy caching",
        ".pin database d version 1 as p",
        ".unpin database d gone",
        ".alter database d policy caching hot = 7d",
        ".delete database d policy caching",
        ".set database d monitors ('aaduser=monitors', 'aaduser=somebody')",
    ] {
        all.push((Administer, Command(own)));
    }
    all
}

/// What changes a database: a follower refuses it to whoever might do it at the leader.
pub(super) fn changes() -> Vec<Call> {
    use Call::{Command, Flight, Ingest, KustoIngest, NodeSql, Sql};
    // Of a follower's own, and what this version does nowhere.
    let is_own = |text: &str| {
        text.starts_with(".show")
            || text.contains("principals")
            || text.contains("policy caching")
            || text.contains(" cluster ")
            || text.starts_with(".rename")
            || [".add", ".drop database d ", ".set", ".pin", ".unpin"]
                .iter()
                .any(|word| text.starts_with(word))
    };
    let is_change = |call: &Call| match call {
        Command(text) => !is_own(text),
        Sql(text) | NodeSql(text) | Flight(FlightCall::Statement(text)) => {
            !["SELECT", "EXPLAIN", "."]
                .iter()
                .any(|word| text.starts_with(word))
        }
        Ingest(..) | KustoIngest(_) => true,
        Flight(FlightCall::Append(_) | FlightCall::Replace(_)) => true,
        _ => false,
    };
    let all = operations().into_iter().map(|(_, call)| call);
    all.filter(is_change).collect()
}
