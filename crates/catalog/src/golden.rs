//! The formats are frozen: these files were written by the first version that had them, and every
//! later one must read them, and write the same for the same input.
//!
//! `SLIPSTREAM_BLESS=1 cargo test -p slipstream-catalog golden` writes the files that are not there
//! yet; it never changes one that is.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema};
use bytes::Bytes;
use slipstream_model::{
    BucketId, CachingPolicy, DatabaseName, DatabasePrincipal, DatabaseRole, Digest, EntityId,
    Epoch, Extent, ExternalFormat, ExternalTable, FunctionName, FunctionParameter, HotWindow,
    IngestionBatchingPolicy, MergeLookback, MergePolicy, PinName, RetentionPolicy,
    RowLevelSecurity, StoredFunction, StreamingIngestionPolicy, TableLevelSharing, Timestamp,
    Version,
};
use uuid::Uuid;

use crate::checkpoint::format as checkpoint;
use crate::extents::{Removed, Segment};
use crate::log::{self, Draft, LogState};
use crate::testing::*;
use crate::{
    ClusterOp, ClusterState, Commit, DatabaseOp, DatabaseState, DroppedDatabase, ExtentSet,
    FollowerRecord, GarbageLedger, InvitationRecord, LogStart, NotedIngest, OpenedEpoch,
    PrincipalsChange, PutMode, RecentIngests, Removal, RemovedExtent, TableState, TagsChange,
    UploadIntent, WriterContext,
};
use crate::{dropped, garbage, intent, start};

const BUCKET: BucketId = BucketId::new(Uuid::from_u128(0xB0C7E7));

/// Compares bytes with a golden file.
fn assert_golden(name: &str, bytes: &Bytes) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("golden")
        .join(name);
    if std::env::var_os("SLIPSTREAM_BLESS").is_some() && !path.exists() {
        std::fs::write(&path, bytes).expect("the folder can be written");
    }
    let golden = std::fs::read(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; see golden.rs", path.display()));
    assert!(
        golden == bytes[..],
        "{name} is frozen, and this version writes something else"
    );
}

/// Commits each operation by itself; compares each commit, and reads it from its file.
fn assert_golden_log<S: LogState>(empty: S, context: &WriterContext, ops: Vec<(&str, Vec<S::Op>)>) {
    let mut state = empty;
    for (name, ops) in ops {
        let chain = state.chain();
        let epoch = if ops.is_empty() {
            chain.epoch.next()
        } else {
            chain.epoch
        };
        let stamp = context.stamp(chain.version.next(), epoch, chain.committed_at);
        let mut draft = Draft::new(state.clone());
        draft.add(ops).expect("allowed");
        let (bytes, next) = draft.seal(&stamp, &context.writer);
        assert_golden(&format!("{name}.commit"), &bytes);

        let commit = Commit::decode(&bytes).expect("whole");
        let applied = log::apply(&state, &commit).expect("the next one");
        assert_eq!(applied.chain(), next.chain(), "{name}");
        state = applied;
    }
    assert_eq!(state.chain().epoch, Epoch::FIRST);
}

#[test]
fn golden_commits_of_a_database() {
    let table = || table_name("flights");
    let field = Field::new("delay", DataType::Decimal128(9, 2), true)
        .with_metadata([("unit".to_owned(), "minutes".to_owned())].into());
    let ops = vec![
        ("open", vec![]),
        ("create_table", vec![create_table(1, "flights")]),
        (
            "add_column",
            vec![DatabaseOp::AddColumn {
                table: table(),
                field,
                if_not_exists: false,
            }],
        ),
        ("add_extents", vec![add_extents(1, 0..3)]),
        ("remove_extents", vec![remove_extents(1, [1])]),
        (
            "two_tables",
            vec![
                create_table(2, "planes"),
                add_extents(1, [7]),
                add_extents(2, [8]),
            ],
        ),
        (
            "drop_table",
            vec![DatabaseOp::DropTable {
                name: table(),
                if_exists: false,
            }],
        ),
    ];
    assert_golden_log(DatabaseState::empty(BUCKET, DATABASE), &context(11), ops);
}

#[test]
fn golden_commits_of_a_cluster() {
    let name = || DatabaseName::new("production").expect("a name");
    let (follower_cluster, configuration) = (cluster("science"), "all of it".to_owned());
    let ops = vec![
        ("cluster_open", vec![]),
        (
            "create_database",
            vec![ClusterOp::CreateDatabase {
                id: DATABASE,
                name: name(),
                if_not_exists: false,
            }],
        ),
        (
            "attach_follower",
            vec![ClusterOp::AttachFollower(FollowerRecord {
                cluster: follower_cluster.clone(),
                configuration: configuration.clone(),
                database_id: Some(DATABASE),
                sharing: Arc::default(),
                invitation: None,
                principal: None,
                attached_at: Timestamp::from_micros(-1),
            })],
        ),
        (
            "detach_follower",
            vec![ClusterOp::DetachFollower {
                follower_cluster,
                configuration,
            }],
        ),
        (
            "drop_database",
            vec![ClusterOp::DropDatabase {
                name: name(),
                if_exists: false,
            }],
        ),
    ];
    assert_golden_log(
        ClusterState::empty(BUCKET, cluster("prod")),
        &context(12),
        ops,
    );
}

/// A function, and a policy of each kind.
fn functions_and_policies() -> Vec<(&'static str, Vec<DatabaseOp>)> {
    let parameter = |name: &str, default: Option<&str>| FunctionParameter {
        field: Arc::new(Field::new(name, DataType::Int64, true)),
        default: default.map(str::to_owned),
    };
    let function = StoredFunction {
        name: FunctionName::new("late").expect("a name"),
        parameters: vec![parameter("minutes", None), parameter("rows", Some("10"))],
        body: "SELECT * FROM flights WHERE delay > $minutes LIMIT $rows".into(),
        docstring: "late ones".into(),
        folder: "reports".into(),
    };
    let day = Duration::from_secs(86_400);
    let caching = CachingPolicy {
        hot_windows: vec![HotWindow {
            min: Timestamp::from_micros(1),
            max: Timestamp::from_micros(2),
        }],
        ..CachingPolicy::hot(day)
    };
    let security = RowLevelSecurity {
        is_enabled: true,
        predicate: "carrier = current_principal()".into(),
    };
    vec![
        ("policies_table", vec![create_table(1, "flights")]),
        (
            "put_function",
            vec![DatabaseOp::PutFunction {
                id: EntityId::new(Uuid::from_u128(0xF)),
                function: Arc::new(function),
                mode: PutMode::Create,
            }],
        ),
        (
            "set_policies",
            vec![
                DatabaseOp::SetCachingPolicy {
                    table: None,
                    policy: Some(CachingPolicy::hot(day * 30)),
                },
                DatabaseOp::SetCachingPolicy {
                    table: Some(table_name("flights")),
                    policy: Some(caching),
                },
                DatabaseOp::SetRowLevelSecurity {
                    table: table_name("flights"),
                    policy: Some(security),
                },
            ],
        ),
    ]
}

#[test]
fn golden_commits_of_functions_and_policies() {
    let mut ops = vec![("policies_open", vec![])];
    ops.extend(functions_and_policies());
    let drop = DatabaseOp::DropFunction {
        name: FunctionName::new("late").expect("a name"),
        if_exists: false,
    };
    ops.push(("drop_function", vec![drop]));
    let delete = DatabaseOp::SetCachingPolicy {
        table: None,
        policy: None,
    };
    ops.push(("delete_policy", vec![delete]));
    assert_golden_log(DatabaseState::empty(BUCKET, DATABASE), &context(14), ops);
}

#[test]
fn golden_checkpoint_of_functions_and_policies() {
    let ops: Vec<_> = functions_and_policies()
        .into_iter()
        .flat_map(|(_, ops)| ops)
        .collect();
    let state = DatabaseState::empty(BUCKET, DATABASE)
        .preview(&ops)
        .expect("allowed");
    let bytes = checkpoint::encode_root(&state);
    assert_golden("policies.root", &bytes);
    let root = checkpoint::decode_root(&bytes).expect("whole");
    assert_eq!(
        root.functions,
        state.functions().cloned().collect::<Vec<_>>()
    );
    assert_eq!(root.caching.as_ref(), state.caching_policy());
    let table = state.table("flights").expect("there");
    assert_eq!(root.tables[0].policies, *table.policies);
}

/// Principals, retention, and a table outside the bucket.
fn principals_and_external_tables() -> Vec<(&'static str, Vec<DatabaseOp>)> {
    let principal = |role, name: &str, notes: Option<&str>| DatabasePrincipal {
        role,
        principal: name.parse().expect("a principal"),
        notes: notes.map(str::to_owned),
    };
    let ada = principal(
        DatabaseRole::Admin,
        "aaduser=ada@example.org",
        Some("founder"),
    );
    let viewer = principal(DatabaseRole::Viewer, "aadapp=dashboard;example", None);
    let external = ExternalTable {
        name: table_name("weather"),
        schema: Arc::new(Schema::new(vec![Field::new(
            "origin",
            DataType::Utf8,
            true,
        )])),
        format: ExternalFormat::Csv { has_header: true },
        locations: vec!["s3://weather/2026/".into()],
        docstring: "by the hour".into(),
        folder: "outside".into(),
    };
    let retention = RetentionPolicy {
        soft_delete_period: Duration::from_secs(30 * 86_400),
        is_recoverable: false,
    };
    vec![
        ("principals_table", vec![create_table(1, "flights")]),
        (
            "add_principals",
            vec![DatabaseOp::ChangePrincipals(PrincipalsChange::Add(vec![
                ada, viewer,
            ]))],
        ),
        (
            "put_external_table",
            vec![DatabaseOp::PutExternalTable {
                id: EntityId::new(Uuid::from_u128(0xE)),
                table: Arc::new(external),
                mode: PutMode::Create,
            }],
        ),
        (
            "set_retention",
            vec![
                DatabaseOp::SetRetentionPolicy {
                    table: None,
                    policy: Some(retention),
                },
                DatabaseOp::SetRetentionPolicy {
                    table: Some(table_name("flights")),
                    policy: Some(retention),
                },
            ],
        ),
    ]
}

#[test]
fn golden_commits_of_principals_and_external_tables() {
    let mut ops = vec![("principals_open", vec![])];
    ops.extend(principals_and_external_tables());
    let viewers = PrincipalsChange::Set(DatabaseRole::Viewer, Vec::new());
    ops.push((
        "drop_principals",
        vec![DatabaseOp::ChangePrincipals(viewers)],
    ));
    let drop = DatabaseOp::DropExternalTable {
        name: table_name("weather"),
        if_exists: false,
    };
    ops.push(("drop_external_table", vec![drop]));
    let drop = DatabaseOp::DropColumn {
        table: table_name("flights"),
        column: schema().columns()[0].field.name().clone(),
        if_exists: false,
    };
    ops.push(("drop_column", vec![drop]));
    assert_golden_log(DatabaseState::empty(BUCKET, DATABASE), &context(15), ops);
}

#[test]
fn golden_checkpoint_of_principals_and_external_tables() {
    let ops: Vec<_> = principals_and_external_tables()
        .into_iter()
        .flat_map(|(_, ops)| ops)
        .collect();
    let state = DatabaseState::empty(BUCKET, DATABASE)
        .preview(&ops)
        .expect("allowed");
    let bytes = checkpoint::encode_root(&state);
    assert_golden("principals.root", &bytes);
    let root = checkpoint::decode_root(&bytes).expect("whole");
    assert_eq!(root.principals, state.principals());
    assert_eq!(root.retention, state.retention_policy());
    let tables: Vec<_> = state.external_tables().cloned().collect();
    assert_eq!(root.external_tables, tables);
    let table = state.table("flights").expect("there");
    assert_eq!(root.tables[0].policies, *table.policies);
}

/// Merge policies of each lookback.
fn merge_policies() -> Vec<(&'static str, Vec<DatabaseOp>)> {
    let policy = |lookback| MergePolicy {
        row_count_upper_bound_for_merge: 1_000_000,
        original_size_mb_upper_bound_for_merge: 3_072,
        max_extents_to_merge: 20,
        max_range_in_hours: 8,
        allow_rebuild: true,
        allow_merge: false,
        lookback,
    };
    let set = |table: Option<&str>, lookback| DatabaseOp::SetMergePolicy {
        table: table.map(table_name),
        policy: Some(policy(lookback)),
    };
    let month = Duration::from_secs(30 * 86_400);
    vec![
        (
            "merge_tables",
            vec![
                create_table(1, "flights"),
                create_table(2, "planes"),
                create_table(3, "weather"),
            ],
        ),
        (
            "set_merge_policies",
            vec![
                set(None, MergeLookback::Default),
                set(Some("flights"), MergeLookback::Custom(month)),
                set(Some("planes"), MergeLookback::HotCache),
                set(Some("weather"), MergeLookback::All),
            ],
        ),
    ]
}

#[test]
fn golden_commits_of_merge_policies() {
    let mut ops = vec![("merge_open", vec![])];
    ops.extend(merge_policies());
    let delete = |table: Option<&str>| DatabaseOp::SetMergePolicy {
        table: table.map(table_name),
        policy: None,
    };
    let deletes = vec![delete(None), delete(Some("flights"))];
    ops.push(("delete_merge_policies", deletes));
    assert_golden_log(DatabaseState::empty(BUCKET, DATABASE), &context(16), ops);
}

#[test]
fn golden_checkpoint_of_merge_policies() {
    let ops: Vec<_> = merge_policies()
        .into_iter()
        .flat_map(|(_, ops)| ops)
        .collect();
    let state = DatabaseState::empty(BUCKET, DATABASE)
        .preview(&ops)
        .expect("allowed");
    let bytes = checkpoint::encode_root(&state);
    assert_golden("merge.root", &bytes);
    let root = checkpoint::decode_root(&bytes).expect("whole");
    assert_eq!(root.merge, state.merge_policy());
    for (read, table) in root.tables.iter().zip(state.tables()) {
        assert_eq!(read.policies, *table.policies);
        assert!(read.policies.merge.is_some());
    }
}

fn pin(name: &str, version: u64) -> DatabaseOp {
    DatabaseOp::PutPin {
        name: PinName::new(name).expect("a name"),
        version: Version::new(version),
    }
}

#[test]
fn golden_commits_of_pins_and_tags() {
    let tags = ["drop-by:2013", "checked"].map(str::to_owned);
    let tag = DatabaseOp::AlterExtentTags {
        table: table_id(1),
        extents: vec![extent_id(0), extent_id(2)],
        change: TagsChange::Set(tags.into()),
    };
    let unpin = DatabaseOp::DropPin {
        name: PinName::new("report").expect("a name"),
    };
    let ops = vec![
        ("pins_open", vec![]),
        (
            "pins_table",
            vec![create_table(1, "flights"), add_extents(1, 0..3)],
        ),
        ("put_pins", vec![pin("report", 2), pin("end of year", 1)]),
        ("alter_extent_tags", vec![tag]),
        ("drop_pin", vec![unpin]),
    ];
    assert_golden_log(DatabaseState::empty(BUCKET, DATABASE), &context(22), ops);
}

#[test]
fn golden_checkpoint_of_pins() {
    let mut state = DatabaseState::empty(BUCKET, DATABASE);
    let pins = [("report", 2), ("end of year", 1)].map(|(name, version)| {
        let name = PinName::new(name).expect("a name");
        (name, Version::new(version))
    });
    state.set_pins(pins.into());
    let bytes = checkpoint::encode_root(&state);
    assert_golden("pins.root", &bytes);
    let root = checkpoint::decode_root(&bytes).expect("whole");
    assert_eq!(&root.pins, state.pins());
}

/// Batching policies, and ingests that came with an id.
fn ingestion() -> Vec<(&'static str, Vec<DatabaseOp>)> {
    let set = |table: Option<&str>, seconds| DatabaseOp::SetIngestionBatchingPolicy {
        table: table.map(table_name),
        policy: Some(IngestionBatchingPolicy {
            maximum_batching_time_span: Duration::from_secs(seconds),
            maximum_number_of_items: 20,
            maximum_raw_data_size_mb: 300,
        }),
    };
    let noted = |id: &str, rows| NotedIngest {
        id: id.parse().expect("an id"),
        rows,
        extents: 1,
        size_bytes: 4_096,
    };
    vec![
        (
            "ingestion_tables",
            vec![create_table(1, "flights"), create_table(2, "planes")],
        ),
        (
            "set_ingestion_batching_policies",
            vec![set(None, 300), set(Some("flights"), 30)],
        ),
        (
            "note_ingests",
            vec![
                DatabaseOp::IngestOnce {
                    table: table_name("flights"),
                    tags: vec!["ingest-by:2013-01".into()],
                    ids: vec!["first".parse().expect("an id")],
                },
                DatabaseOp::NoteIngests {
                    table: table_id(1),
                    ingests: vec![noted("first", 100), noted("second", 0)],
                },
            ],
        ),
    ]
}

#[test]
fn golden_commits_of_ingestion() {
    let mut ops = vec![("ingestion_open", vec![])];
    ops.extend(ingestion());
    let delete = |table: Option<&str>| DatabaseOp::SetIngestionBatchingPolicy {
        table: table.map(table_name),
        policy: None,
    };
    let deletes = vec![delete(None), delete(Some("flights"))];
    ops.push(("delete_ingestion_batching_policies", deletes));
    assert_golden_log(DatabaseState::empty(BUCKET, DATABASE), &context(17), ops);
}

#[test]
fn golden_checkpoint_of_ingestion() {
    let ops: Vec<_> = ingestion().into_iter().flat_map(|(_, ops)| ops).collect();
    let state = DatabaseState::empty(BUCKET, DATABASE)
        .preview(&ops)
        .expect("allowed");
    let bytes = checkpoint::encode_root(&state);
    assert_golden("ingestion.root", &bytes);
    let root = checkpoint::decode_root(&bytes).expect("whole");
    assert_eq!(root.ingestion_batching, state.ingestion_batching_policy());
    assert!(root.ingestion_batching.is_some());
    for (read, table) in root.tables.iter().zip(state.tables()) {
        assert_eq!(read.policies, *table.policies);
        assert!(read.ingests.iter().eq(table.ingests.iter()));
    }
    assert_eq!(root.tables[0].ingests.iter().count(), 2);
}

/// The policy, and an extent that stands in the log.
fn streaming() -> Vec<(&'static str, Vec<DatabaseOp>)> {
    let set = |table: Option<&str>, is_enabled| DatabaseOp::SetStreamingIngestionPolicy {
        table: table.map(table_name),
        policy: Some(StreamingIngestionPolicy { is_enabled }),
    };
    let inline = Extent {
        size_bytes: 8,
        inline: Some(Bytes::from_static(b"PAR1PAR1")),
        ..extent(1)
    };
    vec![
        ("streaming_tables", vec![create_table(1, "flights")]),
        (
            "set_streaming_ingestion_policies",
            vec![set(None, true), set(Some("flights"), false)],
        ),
        (
            "add_inline_extent",
            vec![DatabaseOp::AddExtents {
                table: table_id(1),
                schema: schema(),
                extents: vec![inline, extent(2)],
            }],
        ),
    ]
}

#[test]
fn golden_commits_of_streaming() {
    let mut ops = vec![("streaming_open", vec![])];
    ops.extend(streaming());
    let delete = DatabaseOp::SetStreamingIngestionPolicy {
        table: None,
        policy: None,
    };
    ops.push(("delete_streaming_ingestion_policy", vec![delete]));
    assert_golden_log(DatabaseState::empty(BUCKET, DATABASE), &context(18), ops);
}

#[test]
fn golden_checkpoint_of_streaming() {
    let ops: Vec<_> = streaming().into_iter().flat_map(|(_, ops)| ops).collect();
    let state = DatabaseState::empty(BUCKET, DATABASE)
        .preview(&ops)
        .expect("allowed");
    let bytes = checkpoint::encode_root(&state);
    assert_golden("streaming.root", &bytes);
    let root = checkpoint::decode_root(&bytes).expect("whole");
    assert_eq!(root.streaming_ingestion, state.streaming_ingestion_policy());
    assert!(root.streaming_ingestion.is_some());
    for (read, table) in root.tables.iter().zip(state.tables()) {
        assert_eq!(read.policies, *table.policies);
        assert!(read.tail.iter().cloned().eq(table.extents.iter()));
        assert_eq!(table.extents.inline().size_bytes, 8);
    }
}

#[test]
fn golden_commits_of_sharing() {
    let sharing = Arc::new(TableLevelSharing {
        tables_to_include: vec!["fl*".into(), "planes".into()],
        tables_to_exclude: vec!["*_raw".into()],
        functions_to_exclude: vec!["*".into()],
        ..TableLevelSharing::default()
    });
    let invitation = Uuid::from_u128(0x1417);
    let ops = vec![
        (
            "create_shared_database",
            vec![
                ClusterOp::CreateDatabase {
                    id: DATABASE,
                    name: DatabaseName::new("production").expect("a name"),
                    if_not_exists: false,
                },
                ClusterOp::CreateInvitation {
                    id: invitation,
                    invitation: InvitationRecord {
                        database_id: DATABASE,
                        token_sha256: Digest::of(b"secret"),
                        sharing: Arc::clone(&sharing),
                        expires_at: Timestamp::from_micros(86_400_000_000),
                        invitee: "ada@example.org".into(),
                    },
                },
            ],
        ),
        (
            "attach_filtered_follower",
            vec![ClusterOp::AttachFollower(FollowerRecord {
                cluster: cluster("science"),
                configuration: "some of it".into(),
                database_id: Some(DATABASE),
                sharing,
                invitation: Some(invitation),
                principal: None,
                attached_at: Timestamp::from_micros(5),
            })],
        ),
        (
            "attach_follower_of_all",
            vec![ClusterOp::AttachFollower(FollowerRecord {
                cluster: cluster("science"),
                configuration: "everything".into(),
                database_id: None,
                sharing: Arc::default(),
                invitation: None,
                principal: None,
                attached_at: Timestamp::from_micros(6),
            })],
        ),
        (
            "revoke_invitation",
            vec![ClusterOp::RevokeInvitation { id: invitation }],
        ),
        (
            "attach_follower_by_principal",
            vec![ClusterOp::AttachFollower(FollowerRecord {
                cluster: cluster("science"),
                configuration: "by name".into(),
                database_id: Some(DATABASE),
                sharing: Arc::default(),
                invitation: None,
                principal: Some("aadapp=science".parse().expect("a principal")),
                attached_at: Timestamp::from_micros(7),
            })],
        ),
    ];
    let context = context(13);
    let empty = ClusterState::empty(BUCKET, cluster("prod"));
    let ops = std::iter::once(("sharing_open", vec![]))
        .chain(ops)
        .collect();
    assert_golden_log(empty, &context, ops);
}

/// A state from a root whose tables share at most one segment.
fn decode(root: &Bytes, segment: &Bytes) -> DatabaseState {
    let root = checkpoint::decode_root(root).expect("whole");
    let mut state = DatabaseState::at(root.chain);
    for table in root.tables {
        let (id, name, schema) = (table.id, table.name, table.schema);
        let sealed = table.segments.into_iter().map(|reference| {
            let decoded = checkpoint::decode_segment(segment, &schema, &reference);
            (decoded.expect("whole"), reference.removed)
        });
        let extents = ExtentSet::from_parts(schema.clone(), sealed.collect(), table.tail);
        state.put(TableState {
            id,
            name,
            schema,
            extents: extents.expect("fits"),
            policies: Arc::new(table.policies),
            ingests: table.ingests,
        });
    }
    state
}

#[test]
fn golden_checkpoint() {
    let of_segment = extents(0..5);
    let segment = Segment::build(&schema(), &of_segment.iter().collect::<Vec<_>>()).expect("fits");
    let (bytes, digest) = checkpoint::encode_segment(&segment);
    assert_golden("segment.segment", &bytes);
    segment.set_stored(digest);

    let mut removed = Removed::default();
    removed.insert(3);
    let sealed = vec![(Arc::new(segment), removed)];
    let set = ExtentSet::from_parts(schema(), sealed, extents(5..7)).expect("fits");
    let mut state = DatabaseState::empty(BUCKET, DATABASE)
        .preview(&[create_table(2, "empty")])
        .expect("allowed");
    let (id, name) = (table_id(1), table_name("flights"));
    state.put(TableState {
        id,
        name,
        schema: schema(),
        extents: set,
        policies: Arc::default(),
        ingests: RecentIngests::default(),
    });
    let stamp = context(13).stamp(Version::new(64), Epoch::new(2), Timestamp::default());
    state
        .chain_mut()
        .set_subject(id.as_uuid(), slipstream_model::Digest::of(b"flights"));
    state
        .chain_mut()
        .advance(&stamp, slipstream_model::Digest::of(b"history"));

    let root = checkpoint::encode_root(&state);
    assert_golden("root.root", &root);
    let newest = checkpoint::encode_newest(state.version());
    assert_golden("newest", &newest);
    assert_eq!(checkpoint::decode_newest(&newest), Ok(state.version()));

    let read = decode(&root, &bytes);
    assert_eq!(contents(&read), contents(&state));
    assert_eq!(checkpoint::encode_root(&read), root);

    let removed = |numbers: [u64; 2]| {
        let extents = numbers.into_iter().map(|number| RemovedExtent {
            id: extent_id(number),
            size_bytes: 1_000 + number,
        });
        extents.collect()
    };
    let removal = |version, numbers| Removal {
        version: Version::new(version),
        removed_at: Timestamp::from_micros(1_357_016_400_000_000),
        table: "flights".to_owned(),
        extents: removed(numbers),
    };
    let removals = vec![removal(7, [8, 9]), removal(64, [3, 300])];
    let ledger = GarbageLedger::of(state.clone(), removals.clone()).encode();
    assert_golden("garbage.ledger", &ledger);
    let found = garbage::Found::decode(&ledger).expect("whole");
    assert_eq!(found.removals(), removals);

    let opened = |epoch, version, is_settled| OpenedEpoch {
        epoch: Epoch::new(epoch),
        version: slipstream_model::Version::new(version),
        opened_at: Timestamp::from_micros(1_357_016_400_000_000),
        is_settled,
    };
    let epochs = vec![opened(1, 1, true), opened(2, 40, false)];
    let ledger = GarbageLedger::of(state, removals).with_epochs(epochs.clone());
    let ledger = ledger.encode();
    assert_golden("garbage_with_epochs.ledger", &ledger);
    let found = garbage::Found::decode(&ledger).expect("whole");
    assert_eq!(found.epochs(), epochs);
}

#[test]
fn golden_intents_and_dropped_databases() {
    let random = Uuid::from_u128(0x0189_7C5C_2A00_7123_8456_789A_BCDE_F012);
    let intent = UploadIntent::new(Epoch::new(3), 2, random, 64);
    let bytes = intent.encode(BUCKET, DATABASE);
    assert_golden("garbage.intent", &bytes);
    let found = intent::Found::decode(&bytes).expect("whole");
    assert_eq!(found.intent, intent);

    let dropped = DroppedDatabase {
        version: slipstream_model::Version::new(12),
        openings: [1, 7, 12].map(slipstream_model::Version::new).to_vec(),
        is_done: true,
    };
    let bytes = dropped.encode(BUCKET, DATABASE);
    assert_golden("garbage.dropped", &bytes);
    let found = dropped::Found::decode(&bytes).expect("whole");
    assert_eq!(found.dropped, dropped);
}

#[test]
fn golden_start_of_a_log() {
    let start = LogStart {
        number: 3,
        version: Version::new(4_096),
        digest: Digest::of(b"a state"),
        epochs: vec![
            OpenedEpoch {
                epoch: Epoch::new(1),
                version: Version::FIRST,
                opened_at: Timestamp::from_micros(1_357_016_400_000_000),
                is_settled: true,
            },
            OpenedEpoch {
                epoch: Epoch::new(2),
                version: Version::new(4_000),
                opened_at: Timestamp::from_micros(1_357_016_500_000_000),
                is_settled: false,
            },
        ],
    };
    let bytes = start.encode(BUCKET, DATABASE);
    assert_golden("log.start", &bytes);
    let found = start::Found::decode(&bytes).expect("whole");
    assert_eq!(found.numbered(3), start);
}
