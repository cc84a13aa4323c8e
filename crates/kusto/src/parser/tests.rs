use std::time::Duration;

use proptest::prelude::*;
use slipstream_model::{
    CachingPoliciesModificationKind, CachingPolicy, ClusterRole, DatabasePrincipal, DatabaseRole,
    EntityKind, EntityName, HotWindow, OverrideChange, PrincipalsModificationKind,
};
use uuid::Uuid;

use super::*;
use crate::{
    ColumnDefinition, ColumnType, CreatedOnWindow, DatabaseView, ExtentQuery, ExtentScope,
    ExtentSize, ExtentTrim, ExtentsToDrop, ExtentsToMove, ExtentsToTag, ExternalFormat,
    ExternalTableDefinition, ExternalTablePutMode, FunctionCommand, FunctionParameterDefinition,
    FunctionPutMode, PolicyEntity, PolicyKind, PolicyTarget, PrincipalsAction, PrincipalsChange,
    RetentionPolicy, Show, ShownExtents, TableDefinition, TablePutMode, TableView, TagFilter,
    TagOperator, TagsAction,
};

const DAY: Duration = Duration::from_secs(86_400);

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn entity(kind: EntityKind, name: &str) -> EntityName {
    EntityName {
        kind,
        name: name.to_owned(),
    }
}

fn follower(change: OverrideChange) -> Command {
    Command::Follower {
        database: "D".to_owned(),
        change,
    }
}

#[test]
fn a_caching_policy_can_be_asked_about_before_it_is_set() {
    let set = hot(Vec::new(), 3);
    let Command::Follower { database, change } = set.clone() else {
        panic!("a change is expected");
    };
    let asked = Command::WhatIf { database, change };
    for (tail, expected) in [("true", asked), ("false", set)] {
        let text =
            format!(".alter follower database D policy caching hot = 3d with (whatif={tail})");
        assert_eq!(parse(&text).expect("a command"), expected);
    }
    let wrong = ".alter follower database D policy caching hot = 3d with (whatfi=true)";
    let error = parse(wrong).expect_err("a typo").to_string();
    assert!(error.contains("whatif"), "{error}");
}

#[test]
fn a_database_or_one_table_of_it_is_warmed() {
    let warm = |table: Option<&str>| Command::Warm {
        database: "D".to_owned(),
        table: table.map(str::to_owned),
    };
    assert_eq!(parse(".warm database D").expect("a command"), warm(None));
    assert_eq!(
        parse(".warm database D table T;").expect("a command"),
        warm(Some("T"))
    );
    assert!(parse(".warm table T").is_err());
}

#[test]
fn garbage_is_shown_and_collected() {
    let collect = |what_if| Command::CollectGarbage {
        database: "D".to_owned(),
        what_if,
    };
    for (text, expected) in [
        (".show gc blockers", Command::Show(Show::GcBlockers)),
        (".gc database D", collect(false)),
        (".gc database D with (whatif=true);", collect(true)),
        (".gc database D with (whatif=false)", collect(false)),
    ] {
        assert_eq!(parse(text).expect("a command"), expected, "{text}");
    }
    assert!(parse(".gc table T").is_err());
    assert!(parse(".show gc").is_err());
}

fn hot(entities: Vec<EntityName>, days: u32) -> Command {
    follower(OverrideChange::SetCaching {
        entities,
        policy: CachingPolicy::hot(DAY * days),
    })
}

fn principal(role: DatabaseRole, name: &str, notes: Option<&str>) -> DatabasePrincipal {
    DatabasePrincipal {
        role,
        principal: name.parse().expect("a principal"),
        notes: notes.map(str::to_owned),
    }
}

/// Every form of *Follower cluster commands*.
fn follower_commands() -> Vec<(&'static str, Command)> {
    use EntityKind::{MaterializedView as View, Table};
    let ada = || vec!["aaduser=ada".parse().expect("a principal")];
    vec![
        (
            ".show follower database D",
            Command::Show(Show::FollowerDatabases {
                names: owned(&["D"]),
            }),
        ),
        (
            ".show follower databases (D1, ['D 2'])",
            Command::Show(Show::FollowerDatabases {
                names: owned(&["D1", "D 2"]),
            }),
        ),
        (
            ".alter follower database D policy caching hot = 7d",
            hot(Vec::new(), 7),
        ),
        (
            ".alter follower database D policy caching hot=timespan(7.00:00:00)",
            hot(Vec::new(), 7),
        ),
        (
            ".ALTER FOLLOWER DATABASE D TABLE T POLICY CACHING HOT = 0d",
            hot(vec![entity(Table, "T")], 0),
        ),
        (
            ".alter follower database D tables (T1, T2) policy caching hot = 1d",
            hot(vec![entity(Table, "T1"), entity(Table, "T2")], 1),
        ),
        (
            ".alter follower database D materialized-view V policy caching hot = 1d",
            hot(vec![entity(View, "V")], 1),
        ),
        (
            ".alter follower database D materialized-views (V1, V2) policy caching hot = 1d",
            hot(vec![entity(View, "V1"), entity(View, "V2")], 1),
        ),
        (
            ".delete follower database D policy caching",
            follower(OverrideChange::DeleteCaching {
                entities: Vec::new(),
            }),
        ),
        (
            ".delete follower database D table T policy caching",
            follower(OverrideChange::DeleteCaching {
                entities: vec![entity(Table, "T")],
            }),
        ),
        (
            ".add follower database D admins ('aaduser=ada', 'aadapp=x;tenant') 'for a while'",
            follower(OverrideChange::AddPrincipals(vec![
                principal(DatabaseRole::Admin, "aaduser=ada", Some("for a while")),
                principal(DatabaseRole::Admin, "aadapp=x;tenant", Some("for a while")),
            ])),
        ),
        (
            ".add follower database D viewers Role ('aaduser=ada')",
            follower(OverrideChange::AddPrincipals(vec![principal(
                DatabaseRole::Viewer,
                "aaduser=ada",
                None,
            )])),
        ),
        (
            ".drop follower database D monitors ('aaduser=ada')",
            follower(OverrideChange::DropPrincipals {
                role: DatabaseRole::Monitor,
                principals: ada(),
            }),
        ),
        (
            ".alter follower database D principals-modification-kind = replace",
            follower(OverrideChange::SetPrincipalsKind(
                PrincipalsModificationKind::Replace,
            )),
        ),
        (
            ".alter follower database D caching-policies-modification-kind = union",
            follower(OverrideChange::SetCachingKind(
                CachingPoliciesModificationKind::Union,
            )),
        ),
        (
            ".alter follower database D prefetch-extents = true",
            follower(OverrideChange::SetPrefetch(true)),
        ),
    ]
}

fn show_commands() -> Vec<(&'static str, Show)> {
    let database = |name: Option<&str>, view| Show::Database {
        name: name.map(str::to_owned),
        view,
    };
    let caching = |entity, effective| Show::Policy {
        entity,
        policy: PolicyKind::Caching,
        effective,
    };
    vec![
        (".show version", Show::Version),
        (".show cluster", Show::Cluster),
        (".show cluster details", Show::ClusterDetails),
        (".show cluster principals", Show::ClusterPrincipals),
        (".show cache", Show::Cache),
        (".show diagnostics;", Show::Diagnostics),
        (
            ".show capacity with (scope=cluster)",
            Show::Capacity { resource: None },
        ),
        (
            ".show capacity Queries",
            Show::Capacity {
                resource: Some("Queries".into()),
            },
        ),
        (".show queries", Show::Queries),
        (".show running queries", Show::RunningQueries),
        (".show commands", Show::Commands),
        (".show commands-and-queries", Show::CommandsAndQueries),
        (
            ".show databases",
            Show::Databases {
                names: Vec::new(),
                view: DatabaseView::Basic,
            },
        ),
        (
            ".show databases (A, B) details",
            Show::Databases {
                names: owned(&["A", "B"]),
                view: DatabaseView::Details,
            },
        ),
        (".show database", database(None, DatabaseView::Basic)),
        (
            ".show database datastats",
            database(None, DatabaseView::DataStats),
        ),
        (
            ".show database ['details'] details",
            database(Some("details"), DatabaseView::Details),
        ),
        (
            ".show database my-db schema as json",
            Show::DatabaseSchema {
                name: Some("my-db".into()),
                as_json: true,
            },
        ),
        (
            ".show schema",
            Show::DatabaseSchema {
                name: None,
                as_json: false,
            },
        ),
        (
            ".show database D versions",
            Show::DatabaseVersions {
                name: Some("D".into()),
            },
        ),
        (
            ".show database versions",
            Show::DatabaseVersions { name: None },
        ),
        (
            ".show database D principals",
            Show::DatabasePrincipals {
                database: Some("D".into()),
                role: None,
            },
        ),
        (
            ".show database D viewers",
            Show::DatabasePrincipals {
                database: Some("D".into()),
                role: Some(DatabaseRole::Viewer),
            },
        ),
        (
            ".show tables",
            Show::Tables {
                names: Vec::new(),
                details: false,
            },
        ),
        (
            ".show tables (T, ['t u']) details",
            Show::Tables {
                names: owned(&["T", "t u"]),
                details: true,
            },
        ),
        (
            ".show table T",
            Show::Table {
                name: "T".into(),
                view: TableView::Columns,
            },
        ),
        (
            ".show table T details",
            Show::Table {
                name: "T".into(),
                view: TableView::Details,
            },
        ),
        (
            ".show table T schema as json",
            Show::Table {
                name: "T".into(),
                view: TableView::SchemaAsJson,
            },
        ),
        (
            ".show table T cslschema",
            Show::Table {
                name: "T".into(),
                view: TableView::CslSchema,
            },
        ),
        (
            ".show cluster extents hot",
            Show::Extents(ShownExtents {
                scope: ExtentScope::Cluster,
                ids: Vec::new(),
                hot: true,
                filters: Vec::new(),
            }),
        ),
        (
            ".show table T extents (0af1c7a2-0000-0000-0000-00000000000b) where tags has 'drop-by:x' \
             and tags !contains \"y\"",
            Show::Extents(ShownExtents {
                scope: ExtentScope::Tables(owned(&["T"])),
                ids: vec![
                    "0af1c7a2-0000-0000-0000-00000000000b"
                        .parse()
                        .expect("an id"),
                ],
                hot: false,
                filters: vec![
                    TagFilter {
                        op: TagOperator::Has,
                        tag: "drop-by:x".into(),
                    },
                    TagFilter {
                        op: TagOperator::ContainsNot,
                        tag: "y".into(),
                    },
                ],
            }),
        ),
        (
            ".show database extents",
            Show::Extents(ShownExtents {
                scope: ExtentScope::Database(None),
                ids: Vec::new(),
                hot: false,
                filters: Vec::new(),
            }),
        ),
        (".show functions", Show::Functions),
        (".show function F", Show::Function { name: "F".into() }),
        (".show external tables", Show::ExternalTables),
        (
            ".show external table E",
            Show::ExternalTable { name: "E".into() },
        ),
        (
            ".show table T policy caching",
            caching(PolicyTarget::Table(Some("T".into())), false),
        ),
        (
            ".show table * policy caching",
            caching(PolicyTarget::Table(None), false),
        ),
        (
            ".show database D policy caching",
            caching(PolicyTarget::Database(Some("D".into())), false),
        ),
        (
            ".show effective policy caching table T",
            caching(PolicyTarget::Table(Some("T".into())), true),
        ),
        (
            ".show effective policy caching database D",
            caching(PolicyTarget::Database(Some("D".into())), true),
        ),
    ]
}

fn column(name: &str, column_type: ColumnType) -> ColumnDefinition {
    ColumnDefinition {
        name: name.to_owned(),
        column_type,
        docstring: None,
    }
}

fn change_commands() -> Vec<(&'static str, Command)> {
    let table = |name: &str, columns| TableDefinition {
        name: name.to_owned(),
        columns,
        docstring: None,
        folder: None,
    };
    let body = "SELECT * FROM t WHERE x > $n";
    let tables = |names: &[&str]| PolicyEntity::Tables(owned(names));
    vec![
        (
            ".create database D ifnotexists",
            Command::CreateDatabase {
                name: "D".into(),
                if_not_exists: true,
            },
        ),
        (
            ".create database D persist (@'https://x/y', @'z')",
            Command::CreateDatabase {
                name: "D".into(),
                if_not_exists: false,
            },
        ),
        (
            ".drop database D ifexists",
            Command::DropDatabase {
                name: "D".into(),
                if_exists: true,
            },
        ),
        (
            ".create table T (a:string, ['b c']:System.Int64) with (docstring='what', folder=\"x\")",
            Command::PutTables {
                mode: TablePutMode::Create,
                tables: vec![TableDefinition {
                    docstring: Some("what".into()),
                    folder: Some("x".into()),
                    ..table(
                        "T",
                        vec![
                            column("a", ColumnType::String),
                            column("b c", ColumnType::Long),
                        ],
                    )
                }],
            },
        ),
        (
            ".create-merge tables T(a:bool), U(b:datetime)",
            Command::PutTables {
                mode: TablePutMode::CreateMerge,
                tables: vec![
                    table("T", vec![column("a", ColumnType::Bool)]),
                    table("U", vec![column("b", ColumnType::DateTime)]),
                ],
            },
        ),
        (
            ".alter-merge table T (a:dynamic)",
            Command::PutTables {
                mode: TablePutMode::AlterMerge,
                tables: vec![table("T", vec![column("a", ColumnType::Dynamic)])],
            },
        ),
        (
            ".drop tables (T, U) ifexists",
            Command::DropTables {
                names: owned(&["T", "U"]),
                if_exists: true,
            },
        ),
        (
            ".rename column T.a to b",
            Command::RenameColumn {
                table: "T".into(),
                from: "a".into(),
                to: "b".into(),
            },
        ),
        (
            ".create-or-alter function with (folder='f', skipvalidation=true) F(n:long=5, s:string) \
             { SELECT * FROM t WHERE x > $n }",
            Command::PutFunction(FunctionCommand {
                mode: FunctionPutMode::CreateOrAlter,
                name: "F".into(),
                parameters: vec![
                    FunctionParameterDefinition {
                        name: "n".into(),
                        column_type: ColumnType::Long,
                        default: Some("5".into()),
                    },
                    FunctionParameterDefinition {
                        name: "s".into(),
                        column_type: ColumnType::String,
                        default: None,
                    },
                ],
                body: body.into(),
                docstring: None,
                folder: Some("f".into()),
            }),
        ),
        (
            ".create ifnotexists function F() { SELECT 1 }",
            Command::PutFunction(FunctionCommand {
                mode: FunctionPutMode::CreateIfNotExists,
                name: "F".into(),
                parameters: Vec::new(),
                body: "SELECT 1".into(),
                docstring: None,
                folder: None,
            }),
        ),
        (
            ".drop function F ifexists",
            Command::DropFunctions {
                names: owned(&["F"]),
                if_exists: true,
            },
        ),
        (
            ".create external table E (a:string) kind=storage dataformat=csv (h@'s3://b/x/') with \
             (includeHeaders='all')",
            Command::PutExternalTable(ExternalTableDefinition {
                mode: ExternalTablePutMode::Create,
                name: "E".into(),
                columns: vec![column("a", ColumnType::String)],
                format: ExternalFormat::Csv { header: true },
                locations: owned(&["s3://b/x/"]),
                docstring: None,
                folder: None,
            }),
        ),
        (
            ".drop external table E",
            Command::DropExternalTable {
                name: "E".into(),
                if_exists: false,
            },
        ),
        (
            ".alter table T policy caching hot = 3d, hot_window = datetime(2026-01-01) .. \
             datetime(2026-01-02)",
            Command::SetCachingPolicy {
                entity: tables(&["T"]),
                policy: CachingPolicy {
                    hot_windows: vec![HotWindow {
                        min: "2026-01-01T00:00:00Z".parse().expect("a moment"),
                        max: "2026-01-02T00:00:00Z".parse().expect("a moment"),
                    }],
                    ..CachingPolicy::hot(DAY * 3)
                },
            },
        ),
        (
            ".delete database D policy caching",
            Command::DeleteCachingPolicy {
                entity: PolicyEntity::Database("D".into()),
            },
        ),
        (
            ".alter database D policy retention '{\"SoftDeletePeriod\": \"10.00:00:00\", \
             \"Recoverability\": \"Disabled\"}'",
            Command::SetRetentionPolicy {
                entity: PolicyEntity::Database("D".into()),
                policy: RetentionPolicy {
                    soft_delete_period: Some(DAY * 10),
                    is_recoverable: Some(false),
                },
                is_merge: false,
            },
        ),
        (
            ".alter-merge table T policy retention softdelete = 10d recoverability = enabled",
            Command::SetRetentionPolicy {
                entity: tables(&["T"]),
                policy: RetentionPolicy {
                    soft_delete_period: Some(DAY * 10),
                    is_recoverable: Some(true),
                },
                is_merge: true,
            },
        ),
        (
            ".alter table T policy row_level_security enable \"a = current_principal()\"",
            Command::SetRowLevelSecurity {
                table: "T".into(),
                is_enabled: true,
                query: "a = current_principal()".into(),
            },
        ),
        (
            ".add database D viewers ('aaduser=ada') skip-results 'why'",
            Command::ChangeDatabasePrincipals {
                database: "D".into(),
                change: PrincipalsChange {
                    action: PrincipalsAction::Add,
                    role: DatabaseRole::Viewer,
                    principals: vec!["aaduser=ada".parse().expect("a principal")],
                    notes: Some("why".into()),
                },
            },
        ),
        (
            ".set database D ingestors none",
            Command::ChangeDatabasePrincipals {
                database: "D".into(),
                change: PrincipalsChange {
                    action: PrincipalsAction::Set,
                    role: DatabaseRole::Ingestor,
                    principals: Vec::new(),
                    notes: None,
                },
            },
        ),
        (
            ".drop cluster AllDatabasesViewer ('aadgroup=g')",
            Command::ChangeClusterPrincipals {
                change: PrincipalsChange {
                    action: PrincipalsAction::Drop,
                    role: ClusterRole::AllDatabasesViewer,
                    principals: vec!["aadgroup=g".parse().expect("a principal")],
                    notes: None,
                },
            },
        ),
    ]
}

/// Every form of the commands about extents.
fn extent_commands() -> Vec<(&'static str, Command)> {
    let drop = |extents| Command::DropExtents {
        extents,
        what_if: false,
    };
    let asked = |extents| Command::DropExtents {
        extents,
        what_if: true,
    };
    let ids = || -> Vec<Uuid> {
        let texts = [
            "609ad1e2-5b1c-4b79-90c0-1dec262e9f46",
            "af0a60c6-8529-4cdf-a309-fe6aa7857e1d",
        ];
        let ids = texts.iter().map(|text| text.parse().expect("an id"));
        ids.collect()
    };
    let of = |tables: &[&str]| ExtentsToDrop::Of {
        tables: owned(tables),
        older_than: None,
        trim: None,
        limit: None,
    };
    let shown = |table: &str| ShownExtents {
        scope: ExtentScope::Tables(owned(&[table])),
        ids: Vec::new(),
        hot: false,
        filters: Vec::new(),
    };
    let tagged = |table: &str| ShownExtents {
        filters: vec![TagFilter {
            op: TagOperator::Has,
            tag: "drop-by:x".into(),
        }],
        ..shown(table)
    };
    let moved = |extents| Command::MoveExtents {
        extents,
        to: "B".into(),
        window: CreatedOnWindow::default(),
        what_if: false,
    };
    let window = CreatedOnWindow {
        from: Some("2026-01-01T00:00:00Z".parse().expect("a moment")),
        to: Some("2026-02-01T00:00:00Z".parse().expect("a moment")),
    };
    vec![
        (
            ".drop extent 609ad1e2-5b1c-4b79-90c0-1dec262e9f46 from T",
            drop(ExtentsToDrop::Ids {
                ids: ids()[..1].to_vec(),
                table: Some("T".into()),
            }),
        ),
        (
            ".drop extents (609ad1e2-5b1c-4b79-90c0-1dec262e9f46, \
             AF0A60C6-8529-4CDF-A309-FE6AA7857E1D) with (whatif=true)",
            asked(ExtentsToDrop::Ids {
                ids: ids(),
                table: None,
            }),
        ),
        (".drop extents from T", drop(of(&["T"]))),
        (".drop extents from tables (T, U)", drop(of(&["T", "U"]))),
        (".drop extents from all tables", drop(of(&[]))),
        (".drop extents from ['all']", drop(of(&["all"]))),
        (
            ".drop-pretend extents older 10 days from all tables",
            asked(ExtentsToDrop::Of {
                tables: Vec::new(),
                older_than: Some(DAY * 10),
                trim: None,
                limit: None,
            }),
        ),
        (
            ".drop extents older 5 hours from T trim by datasize 2 MB limit 7 with (whatif = true)",
            asked(ExtentsToDrop::Of {
                tables: owned(&["T"]),
                older_than: Some(DAY * 5 / 24),
                trim: Some(ExtentTrim {
                    by: ExtentSize::Data,
                    bytes: 2 << 20,
                }),
                limit: Some(7),
            }),
        ),
        (
            ".drop extents from T trim by extentsize 100 bytes",
            drop(ExtentsToDrop::Of {
                tables: owned(&["T"]),
                older_than: None,
                trim: Some(ExtentTrim {
                    by: ExtentSize::Extent,
                    bytes: 100,
                }),
                limit: None,
            }),
        ),
        (
            ".drop extents whatif <| .show table T extents where tags has 'drop-by:x'",
            asked(ExtentsToDrop::Query(ExtentQuery::Show(tagged("T")))),
        ),
        (
            ".drop extents <| SELECT extent_id FROM slipstream.extents WHERE row_count < 10;",
            drop(ExtentsToDrop::Query(ExtentQuery::Sql(
                "SELECT extent_id FROM slipstream.extents WHERE row_count < 10".into(),
            ))),
        ),
        (
            ".drop extents <| SELECT id FROM e WHERE name ~ '^tmp' AND 'a' = ANY(ARRAY['a']) -- don't",
            drop(ExtentsToDrop::Query(ExtentQuery::Sql(
                "SELECT id FROM e WHERE name ~ '^tmp' AND 'a' = ANY(ARRAY['a']) -- don't".into(),
            ))),
        ),
        (
            ".move extents all from table A to table B",
            moved(ExtentsToMove::All { table: "A".into() }),
        ),
        (
            ".move extents (609ad1e2-5b1c-4b79-90c0-1dec262e9f46, \
             af0a60c6-8529-4cdf-a309-fe6aa7857e1d) from table A to table B",
            moved(ExtentsToMove::Ids {
                table: "A".into(),
                ids: ids(),
            }),
        ),
        (
            ".move extents from table A to table B with (extentCreatedOnFrom=datetime(2026-01-01), \
             extentCreatedOnTo=datetime(2026-02-01), setNewIngestionTime=false, whatif=true) \
             (609ad1e2-5b1c-4b79-90c0-1dec262e9f46, af0a60c6-8529-4cdf-a309-fe6aa7857e1d)",
            Command::MoveExtents {
                extents: ExtentsToMove::Ids {
                    table: "A".into(),
                    ids: ids(),
                },
                to: "B".into(),
                window,
                what_if: true,
            },
        ),
        (
            ".move extents to table B <| .show table A extents",
            moved(ExtentsToMove::Query(ExtentQuery::Show(shown("A")))),
        ),
        (
            ".replace extents in table B with (extentCreatedOnFrom=datetime(2026-01-01), \
             extentCreatedOnTo=datetime(2026-02-01)) <| { .show table B extents where tags has \
             'drop-by:x' }, { SELECT extent_id FROM slipstream.extents }",
            Command::ReplaceExtents {
                table: "B".into(),
                drop: ExtentQuery::Show(tagged("B")),
                add: ExtentQuery::Sql("SELECT extent_id FROM slipstream.extents".into()),
                window,
                what_if: false,
            },
        ),
    ]
}

fn merge_policy_commands() -> Vec<(&'static str, Command)> {
    let table = || PolicyEntity::Tables(owned(&["T"]));
    let database = || PolicyEntity::Database("D".into());
    let set = |entity, policy: &str, is_merge| Command::SetMergePolicy {
        entity,
        policy: policy.to_owned(),
        is_merge,
    };
    let shown = |entity| {
        Command::Show(Show::Policy {
            entity,
            policy: PolicyKind::Merge,
            effective: false,
        })
    };
    vec![
        (
            ".alter table T policy merge '{\"AllowMerge\": false}'",
            set(table(), "{\"AllowMerge\": false}", false),
        ),
        (
            ".alter database D policy merge '{}'",
            set(database(), "{}", false),
        ),
        (
            ".alter-merge table T policy merge ```{\"MaxRangeInHours\": 24}```",
            set(table(), "{\"MaxRangeInHours\": 24}", true),
        ),
        (
            ".alter-merge database D policy merge @'{}'",
            set(database(), "{}", true),
        ),
        (
            ".delete table T policy merge",
            Command::DeleteMergePolicy { entity: table() },
        ),
        (
            ".delete database D policy merge",
            Command::DeleteMergePolicy { entity: database() },
        ),
        (
            ".show table T policy merge",
            shown(PolicyTarget::Table(Some("T".into()))),
        ),
        (
            ".show table * policy merge",
            shown(PolicyTarget::Table(None)),
        ),
        (
            ".show database D policy merge",
            shown(PolicyTarget::Database(Some("D".into()))),
        ),
    ]
}

fn version_commands() -> Vec<(&'static str, Command)> {
    let undo = |new_name: Option<&str>| Command::UndoDropTable {
        table: "T".into(),
        new_name: new_name.map(str::to_owned),
        version: 24,
    };
    let pin = |name: &str| Command::Pin {
        database: "D".into(),
        version: 7,
        name: name.into(),
    };
    let pins = |name: Option<&str>| {
        let name = name.map(str::to_owned);
        Command::Show(Show::DatabasePins { name })
    };
    vec![
        (".undo drop table T version=v24.0", undo(None)),
        (".undo drop table ['T'] version = 24", undo(None)),
        (".undo drop table T version='v24.0'", undo(None)),
        (".undo drop table T as N version=24.0", undo(Some("N"))),
        (".pin database D version 7 as report", pin("report")),
        (
            ".pin database D version v7 as 'end of year'",
            pin("end of year"),
        ),
        (
            ".unpin database D report",
            Command::Unpin {
                database: "D".into(),
                name: "report".into(),
            },
        ),
        (".show database D pins", pins(Some("D"))),
        (".show database pins", pins(None)),
    ]
}

fn tag_commands() -> Vec<(&'static str, Command)> {
    let window = CreatedOnWindow::default();
    let query = |table: Option<&str>| ExtentsToTag::Query {
        table: table.map(str::to_owned),
        query: ExtentQuery::Show(ShownExtents {
            scope: ExtentScope::Tables(vec!["T".into()]),
            ids: Vec::new(),
            hot: false,
            filters: Vec::new(),
        }),
    };
    let altered = |action, extents, tags: &[&str]| Command::AlterExtentTags {
        extents,
        action,
        tags: owned(tags),
        window,
        what_if: false,
    };
    let table = || ExtentsToTag::Table("T".into());
    vec![
        (
            ".alter extent tags ('a', 'b') <| .show table T extents",
            altered(TagsAction::Set, query(None), &["a", "b"]),
        ),
        (
            ".alter table T extent tags ('a') <| .show table T extents",
            altered(TagsAction::Set, query(Some("T")), &["a"]),
        ),
        (
            ".alter-merge extent tags ('a') <| .show table T extents",
            altered(TagsAction::Add, query(None), &["a"]),
        ),
        (
            ".alter-merge table T extent tags ('a') <| .show table T extents",
            altered(TagsAction::Add, query(Some("T")), &["a"]),
        ),
        (
            ".drop extent tags ('a') <| .show table T extents",
            altered(TagsAction::Drop, query(None), &["a"]),
        ),
        (
            ".drop extent tags <| .show table T extents",
            altered(TagsAction::Drop, query(None), &[]),
        ),
        (
            ".drop extent tags from table T ('a', 'b')",
            altered(TagsAction::Drop, table(), &["a", "b"]),
        ),
        (
            ".drop extent tags ('a') from table T",
            altered(TagsAction::Drop, table(), &["a"]),
        ),
        (
            ".drop table T extent tags ('a')",
            altered(TagsAction::Drop, table(), &["a"]),
        ),
        (
            ".drop table T extent tags <| .show table T extents",
            altered(TagsAction::Drop, query(Some("T")), &[]),
        ),
    ]
}

fn batching_policy_commands() -> Vec<(&'static str, Command)> {
    let table = || PolicyEntity::Tables(owned(&["T"]));
    let database = || PolicyEntity::Database("D".into());
    let set = |entity, policy: &str, is_merge| Command::SetIngestionBatchingPolicy {
        entity,
        policy: policy.to_owned(),
        is_merge,
    };
    let shown = |entity| {
        Command::Show(Show::Policy {
            entity,
            policy: PolicyKind::IngestionBatching,
            effective: false,
        })
    };
    vec![
        (
            ".alter table T policy ingestionbatching '{\"MaximumNumberOfItems\": 20}'",
            set(table(), "{\"MaximumNumberOfItems\": 20}", false),
        ),
        (
            ".alter database D policy ingestionbatching ```{}```",
            set(database(), "{}", false),
        ),
        (
            ".alter-merge table T policy ingestionbatching '{}'",
            set(table(), "{}", true),
        ),
        (
            ".alter-merge database D policy ingestionbatching '{}'",
            set(database(), "{}", true),
        ),
        (
            ".delete table T policy ingestionbatching",
            Command::DeleteIngestionBatchingPolicy { entity: table() },
        ),
        (
            ".delete database D policy ingestionbatching",
            Command::DeleteIngestionBatchingPolicy { entity: database() },
        ),
        (
            ".show table T policy ingestionbatching",
            shown(PolicyTarget::Table(Some("T".into()))),
        ),
        (
            ".show database D policy ingestionbatching",
            shown(PolicyTarget::Database(Some("D".into()))),
        ),
    ]
}

fn streaming_policy_commands() -> Vec<(&'static str, Command)> {
    let table = || PolicyEntity::Tables(owned(&["T"]));
    let database = || PolicyEntity::Database("D".into());
    let set = |entity, policy: &str, is_merge| Command::SetStreamingIngestionPolicy {
        entity,
        policy: policy.into(),
        is_merge,
    };
    vec![
        (
            ".alter table T policy streamingingestion enable",
            set(table(), r#"{"IsEnabled": true}"#, false),
        ),
        (
            ".alter database D policy streamingingestion disable",
            set(database(), r#"{"IsEnabled": false}"#, false),
        ),
        (
            ".alter-merge table T policy streamingingestion '{\"IsEnabled\": true}'",
            set(table(), r#"{"IsEnabled": true}"#, true),
        ),
        (
            ".delete table T policy streamingingestion",
            Command::DeleteStreamingIngestionPolicy { entity: table() },
        ),
        (
            ".show table T policy streamingingestion",
            Command::Show(Show::Policy {
                entity: PolicyTarget::Table(Some("T".into())),
                policy: PolicyKind::StreamingIngestion,
                effective: false,
            }),
        ),
    ]
}

fn commands() -> Vec<(&'static str, Command)> {
    let shown = show_commands().into_iter();
    let shown = shown.map(|(text, show)| (text, Command::Show(show)));
    let mut all = follower_commands();
    all.extend(shown);
    all.extend(change_commands());
    all.extend(extent_commands());
    all.extend(merge_policy_commands());
    all.extend(streaming_policy_commands());
    all.extend(version_commands());
    all.extend(tag_commands());
    all.extend(batching_policy_commands());
    all
}

#[test]
fn every_form_is_read() {
    for (text, expected) in commands() {
        let found = parse(text).unwrap_or_else(|error| panic!("{text}\n{error}"));
        assert_eq!(found, expected, "{text}");
    }
}

#[test]
fn an_error_points_at_the_word_and_says_what_was_meant() {
    for (text, column, phrase) in [
        (
            ".alter folower database D policy caching hot = 1d",
            8,
            "did you mean 'follower'?",
        ),
        (".shwo tables", 2, "did you mean 'show'?"),
        (".drop tabel T", 7, "did you mean 'table'?"),
        (".show database D detials", 18, "did you mean 'details'?"),
        (
            ".alter follower database D policy caching hot = soon",
            49,
            "a timespan such as 7d",
        ),
        (
            ".alter follower database D policy caching hot = 7parsecs",
            49,
            "is no timespan",
        ),
        (
            ".alter follower database D principals-modification-kind = both",
            59,
            "'none', 'union' or 'replace'",
        ),
        (
            ".add follower database D ingestors ('aaduser=a')",
            26,
            "'admins', 'users', 'viewers' or 'monitors'",
        ),
        (".add database D viewers ('ada')", 26, "names no principal"),
        (
            ".add database D viewers ('github=ada')",
            26,
            "the kinds are aaduser, aadgroup and aadapp",
        ),
        (".create table T (a:strng)", 20, "is no type"),
        (".create function F() { SELECT 1", 22, "does not end"),
        (
            ".show tables (T",
            16,
            "the command ends where ',' or ')' is expected",
        ),
        (".show version please", 15, "the end of the command"),
        (".drop extents (7x)", 16, "is no extent's id"),
        (".drop extents older 10d from T", 21, "is no whole number"),
        (
            ".drop extents <| .show table T details",
            32,
            "only '.show ... extents' gives extents",
        ),
        (".drop extents <| DROP TABLE t", 18, "or SQL"),
        (
            ".replace extents in table B <| {.show table B extent}, {.show table A extents}",
            45,
            "only '.show ... extents' gives extents",
        ),
        (
            ".move extents all from table A to table B with (setNewIngestionTime=true)",
            69,
            "keeps its time",
        ),
        (
            ".undo drop table T version=latest",
            28,
            "is no version such as 24",
        ),
        (".pin database D version 7", 26, "'as' is expected"),
        ("SELECT 1", 1, "'.' is expected here"),
        ("", 1, "the command ends where '.' is expected"),
    ] {
        let error = parse(text).expect_err(text);
        assert_eq!(error.column, column, "{text}\n{error}");
        assert!(error.message.contains(phrase), "{text}\n{error}");
    }
    let error = parse(".show tables\n  detials").expect_err("a misspelt word");
    assert_eq!((error.line, error.column), (2, 3));
    let shown = error.to_string();
    assert!(shown.ends_with("  detials\n    ^^^^^^^"), "{shown}");
}

#[test]
fn a_secret_is_not_in_the_error() {
    let error =
        parse(".create external table E (a:string) kind=storage dataformat=csv (h'KEY') wth")
            .expect_err("a misspelt word");
    assert!(!error.to_string().contains("KEY"), "{error}");
}

#[test]
fn a_secret_is_not_in_the_log() {
    let text = ".create external table E (a:string) kind=storage dataformat=csv (h@'KEY', 'b')";
    let clean = without_secrets(text);
    assert!(clean.ends_with("(h'***', 'b')"), "{clean}");
    assert!(!without_secrets(".show h'KEY").contains("KEY"));
    let sql = ".drop extents <| SELECT 'Smith' AS h, h'KEY', H@\"KEY\" FROM t WHERE a = 'h'";
    let clean = without_secrets(sql);
    assert!(!clean.contains("KEY"), "{clean}");
    assert!(
        clean.contains("SELECT 'Smith' AS h, h'***', h'***' FROM t"),
        "{clean}"
    );
    assert!(!without_secrets(".drop extents <| WITH h'KEY").contains("KEY"));
    // As long as a command may be: each quote is looked at once.
    let many = format!(
        ".drop extents <| SELECT {}",
        "h'KEY' ".repeat(COMMAND_BYTES_MAX / 8)
    );
    assert!(!without_secrets(&many).contains("KEY"));
}

#[test]
fn a_text_that_is_too_long_is_not_looked_at() {
    let text = format!(".show tables ({})", "T,".repeat(COMMAND_BYTES_MAX));
    assert!(parse(&text).is_err());
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in ".{0,200}") {
        let _ = parse(&text).map_err(|error| error.to_string());
        let _ = without_secrets(&text);
    }

    #[test]
    fn no_change_of_a_command_makes_it_panic(
        which in 0_usize..1_000,
        at in 0_usize..200,
        length in 0_usize..5,
        put in "[ .(){}'\"\\[\\]h@`=:,a-z0-9-]{0,4}",
    ) {
        let all = commands();
        let (text, _) = &all[which % all.len()];
        let mut characters: Vec<char> = text.chars().collect();
        let at = at.min(characters.len());
        let end = (at + length).min(characters.len());
        characters.splice(at..end, put.chars());
        let changed: String = characters.into_iter().collect();
        let _ = parse(&changed).map_err(|error| error.to_string());
    }
}

#[test]
fn a_long_word_is_not_compared_with_those_that_are_expected() {
    let error = parse(&format!(".{}", "show".repeat(200_000))).expect_err("no command");
    assert!(!error.message.contains("did you mean"), "{}", error.message);
}

#[test]
fn an_error_has_three_lines_whatever_it_quotes() {
    let text = ".alter database d policy caching hot = 'a\\nb'";
    let error = parse(text).expect_err("no timespan");
    assert_eq!(error.to_string().lines().count(), 3, "{error}");
}
