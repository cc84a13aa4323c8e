use arrow::datatypes::{DataType, Field, Schema};

use super::*;
use crate::testing::*;

fn empty() -> DatabaseState {
    DatabaseState::empty(BucketId::default(), DATABASE)
}

fn with(ops: &[DatabaseOp]) -> DatabaseState {
    empty().preview(ops).expect("allowed")
}

fn refusal(state: &DatabaseState, op: DatabaseOp) -> String {
    state.preview(&[op]).expect_err("refused").to_string()
}

fn drop_table(name: &str, if_exists: bool) -> DatabaseOp {
    DatabaseOp::DropTable {
        name: table_name(name),
        if_exists,
    }
}

fn add_column(table: &str, column: &str, if_not_exists: bool) -> DatabaseOp {
    let field = Field::new(column, DataType::Int64, true);
    DatabaseOp::AddColumn {
        table: table_name(table),
        field,
        if_not_exists,
    }
}

#[test]
fn later_operations_see_what_earlier_ones_did() {
    let state = with(&[
        create_table(1, "flights"),
        add_column("flights", "delay", false),
        add_extents(1, 0..3),
        create_table(2, "planes"),
        remove_extents(1, [1]),
        drop_table("planes", false),
        create_table(3, "planes"),
    ]);
    let flights = state.table("flights").expect("made");
    assert_eq!(flights.schema.columns().len(), 4);
    assert_eq!(flights.extents.len(), 2);
    let names: Vec<_> = state.tables().map(|table| table.name.to_string()).collect();
    assert_eq!(names, ["flights", "planes"]);
    assert_eq!(state.table("planes").expect("made").id, table_id(3));
    assert!(state.table_by_id(table_id(2)).is_none());
    assert_eq!(
        state.version(),
        Version::ZERO,
        "a preview has no version of its own"
    );
}

#[test]
fn refusals_name_what_is_wrong() {
    let state = with(&[create_table(1, "t"), add_extents(1, 0..3)]);
    let again = |id| DatabaseOp::CreateTable {
        id: table_id(id),
        name: table_name("u"),
        schema: schema(),
        if_not_exists: false,
    };
    assert_eq!(
        refusal(&state, create_table(2, "t")),
        "table 't' exists already"
    );
    assert!(refusal(&state, again(1)).contains("in use"));
    assert_eq!(
        refusal(&state, drop_table("u", false)),
        "there is no table 'u'"
    );
    assert_eq!(
        refusal(&state, add_column("u", "a", false)),
        "there is no table 'u'"
    );
    assert_eq!(
        refusal(&state, add_column("t", "at", false)),
        "table 't' has a column 'at' already"
    );
    assert!(refusal(&state, add_extents(9, [7])).contains("not there any more"));
    assert!(refusal(&state, add_extents(1, [2])).contains("already"));
    assert!(refusal(&state, remove_extents(1, [8])).contains("there is no extent"));
    assert_eq!(
        refusal(&state, remove_extents(2, [8])),
        refusal(&state, add_extents(2, [8]))
    );
}

#[test]
fn what_is_asked_for_conditionally_does_nothing_when_it_is_there() {
    let state = with(&[create_table(1, "t")]);
    let DatabaseOp::CreateTable { name, schema, .. } = create_table(2, "t") else {
        unreachable!()
    };
    let ops = [
        DatabaseOp::CreateTable {
            id: table_id(2),
            name,
            schema,
            if_not_exists: true,
        },
        drop_table("nothing", true),
        add_column("t", "at", true),
        add_extents(1, []),
        remove_extents(1, []),
    ];
    for op in ops {
        assert_eq!(state.plan(op.clone()), Ok(vec![]), "{op:?}");
    }
}

#[test]
fn rows_for_columns_that_changed_meanwhile_are_refused() {
    let other = |data_type| {
        let fields = vec![Field::new("at", data_type, true)];
        TableSchema::new(&Schema::new(fields)).expect("a schema")
    };
    let state = with(&[create_table(1, "t")]);
    let add = |schema| DatabaseOp::AddExtents {
        table: table_id(1),
        schema,
        extents: extents([1]),
    };
    let reason = refusal(&state, add(other(DataType::Int64)));
    assert!(
        reason.contains("column 'at' of table 't'") && reason.contains("Int64"),
        "{reason}"
    );

    let wider = schema()
        .with_added_column(Field::new("x", DataType::Int8, true))
        .expect("wider");
    assert!(
        state.preview(&[add(wider)]).is_ok(),
        "no extent holds the column that is missing"
    );
}

#[test]
fn a_column_that_must_be_filled_is() {
    let fields = vec![Field::new("id", DataType::Int64, false)];
    let schema = TableSchema::new(&Schema::new(fields)).expect("a schema");
    let create = DatabaseOp::CreateTable {
        id: table_id(1),
        name: table_name("t"),
        schema: schema.clone(),
        if_not_exists: false,
    };
    let state = with(&[create]);
    let add = |columns: &[slipstream_model::ColumnStatistics]| DatabaseOp::AddExtents {
        table: table_id(1),
        schema: schema.clone(),
        extents: vec![Extent {
            columns: columns.into(),
            ..extent(1)
        }],
    };
    let column = extent(1).columns[0].clone();
    let with_null = slipstream_model::ColumnStatistics {
        null_count: 1,
        ..column.clone()
    };
    assert!(state.preview(&[add(std::slice::from_ref(&column))]).is_ok());
    assert!(refusal(&state, add(&[])).contains("column 'id' is NOT NULL"));
    assert!(refusal(&state, add(&[with_null])).contains("column 'id' is NOT NULL"));
}

#[test]
fn an_added_column_is_missing_in_older_extents() {
    let state = with(&[
        create_table(1, "t"),
        add_extents(1, [1]),
        add_column("t", "delay", false),
    ]);
    let table = state.table("t").expect("made");
    let delay = table.schema.column("delay").expect("added").id;
    assert!(table.extents.blocks()[0].column(delay).is_none());
    let refused = state.preview(&[DatabaseOp::AddColumn {
        table: table_name("t"),
        field: Field::new("required", DataType::Int8, false),
        if_not_exists: false,
    }]);
    assert!(matches!(refused, Err(OpError::InvalidSchema(_))));
}

mod functions {
    use slipstream_model::{EntityId, EntityKind, FunctionName, StoredFunction};

    use super::*;
    use crate::PutMode;

    fn name(text: &str) -> FunctionName {
        FunctionName::new(text).expect("a name")
    }

    fn put(id: u128, text: &str, body: &str, mode: PutMode) -> DatabaseOp {
        let function = StoredFunction {
            name: name(text),
            parameters: Vec::new(),
            body: body.to_owned(),
            docstring: String::new(),
            folder: String::new(),
        };
        DatabaseOp::PutFunction {
            id: EntityId::new(Uuid::from_u128(id)),
            function: Arc::new(function),
            mode,
        }
    }

    fn bodies(ops: &[DatabaseOp]) -> Result<Vec<String>, OpError> {
        let state = DatabaseState::empty(BucketId::default(), DATABASE).preview(ops)?;
        Ok(state.functions().map(|f| f.entity.body.clone()).collect())
    }

    #[test]
    fn a_function_is_created_altered_and_dropped() {
        use PutMode::{Alter, Create, CreateIfNotExists, CreateOrAlter};
        let first = || put(1, "f", "SELECT 1", Create);
        for (ops, expected) in [
            (vec![first()], vec!["SELECT 1"]),
            (
                vec![first(), put(2, "f", "SELECT 2", CreateIfNotExists)],
                vec!["SELECT 1"],
            ),
            (
                vec![first(), put(2, "f", "SELECT 2", CreateOrAlter)],
                vec!["SELECT 2"],
            ),
            (
                vec![first(), put(2, "f", "SELECT 2", Alter)],
                vec!["SELECT 2"],
            ),
            (
                vec![first(), put(2, "g", "SELECT 2", CreateOrAlter)],
                vec!["SELECT 1", "SELECT 2"],
            ),
        ] {
            assert_eq!(bodies(&ops).expect("allowed"), expected, "{ops:?}");
        }
        let twice = bodies(&[first(), put(2, "f", "SELECT 2", Create)]);
        assert_eq!(
            twice,
            Err(OpError::EntityExists(EntityKind::Function, "f".into()))
        );
        let missing = bodies(&[put(1, "f", "SELECT 1", Alter)]);
        assert_eq!(
            missing,
            Err(OpError::EntityNotFound(EntityKind::Function, "f".into()))
        );
        let drop = |if_exists| DatabaseOp::DropFunction {
            name: name("f"),
            if_exists,
        };
        assert_eq!(bodies(&[first(), drop(false), drop(true)]), Ok(vec![]));
        assert!(bodies(&[drop(false)]).is_err());
    }

    #[test]
    fn an_id_is_that_of_one_thing() {
        let table = create_table(1, "t");
        let id = table_id(1).as_uuid().as_u128();
        let clash = bodies(&[table, put(id, "f", "SELECT 1", PutMode::Create)]);
        assert!(matches!(clash, Err(OpError::EntityIdInUse(..))));
    }
}

mod movement {
    use super::*;

    fn table(number: u128, name: &str, fields: Vec<Field>) -> DatabaseOp {
        DatabaseOp::CreateTable {
            id: table_id(number),
            name: table_name(name),
            schema: TableSchema::new(&Schema::new(fields)).expect("a schema"),
            if_not_exists: false,
        }
    }

    fn fields() -> Vec<Field> {
        let schema = schema().arrow();
        let fields = schema.fields().iter();
        fields.map(|field| field.as_ref().clone()).collect()
    }

    fn move_extents(from: u128, to: u128, numbers: impl IntoIterator<Item = u64>) -> DatabaseOp {
        DatabaseOp::MoveExtents {
            from: table_id(from),
            to: table_id(to),
            extents: numbers.into_iter().map(extent_id).collect(),
        }
    }

    fn drop_column(table: &str, column: &str) -> DatabaseOp {
        DatabaseOp::DropColumn {
            table: table_name(table),
            column: column.to_owned(),
            if_exists: false,
        }
    }

    #[test]
    fn an_extent_keeps_everything_but_the_numbers_of_its_columns() {
        let mut others = fields();
        others.reverse();
        others.insert(0, Field::new("extra", DataType::Int64, true));
        let state = with(&[
            create_table(1, "t"),
            add_extents(1, 0..3),
            table(2, "u", others),
            move_extents(1, 2, [0, 2]),
        ]);
        let (t, u) = (
            state.table("t").expect("made"),
            state.table("u").expect("made"),
        );
        assert_eq!((t.extents.len(), u.extents.len()), (1, 2));
        let moved = u.extents.get(extent_id(2)).expect("moved");
        let number = |name: &str| u.schema.column(name).expect("there").id;
        for (name, known) in ["at", "origin", "route"].iter().zip(&extent(2).columns[..]) {
            let found = moved.column(number(name)).expect("held");
            let known = slipstream_model::ColumnStatistics {
                id: found.id,
                ..known.clone()
            };
            assert_eq!(*found, known, "{name}");
        }
        assert!(moved.column(number("extra")).is_none());
        let columns = Arc::clone(&extent(2).columns);
        assert_eq!(Extent { columns, ..moved }, extent(2));
        assert!(
            refusal(&state, move_extents(2, 1, [0])).contains("the latter has no column 'extra'")
        );
    }

    #[test]
    fn an_extent_moves_there_and_back() {
        let before = with(&[
            create_table(1, "t"),
            add_extents(1, 0..3),
            create_table(2, "u"),
        ]);
        let there = before.preview(&[move_extents(1, 2, [1])]).expect("allowed");
        let back = there.preview(&[move_extents(2, 1, [1])]).expect("allowed");
        assert!(
            there
                .table("t")
                .expect("made")
                .extents
                .get(extent_id(1))
                .is_none()
        );
        let again = back.table("t").expect("made").extents.get(extent_id(1));
        assert_eq!(again, Some(extent(1)));
        assert!(refusal(&back, move_extents(2, 1, [1])).contains("there is no extent"));
        assert!(refusal(&back, move_extents(1, 2, [1, 7])).contains("there is no extent"));
        assert_eq!(back.plan(move_extents(1, 2, [])), Ok(Vec::new()));
    }

    #[test]
    fn columns_of_another_type_and_those_that_must_be_filled_are_refused() {
        let mut others = fields();
        others[0] = Field::new("at", DataType::Int64, true);
        let mut required = fields();
        required[1] = required[1].clone().with_nullable(false);
        let state = with(&[
            create_table(1, "t"),
            add_extents(1, [1]),
            table(2, "u", others),
            table(3, "v", required),
        ]);
        let refused = refusal(&state, move_extents(1, 2, [1]));
        assert!(refused.contains("column 'at' is Timestamp"), "{refused}");
        let refused = refusal(&state, move_extents(1, 3, [1]));
        assert!(refused.contains("column 'origin' is NOT NULL"), "{refused}");
    }

    #[test]
    fn a_dropped_column_is_not_brought_back_by_moving() {
        let state = with(&[
            create_table(1, "t"),
            add_extents(1, [1]),
            drop_column("t", "origin"),
            create_table(2, "u"),
        ]);
        let refused = refusal(&state, move_extents(1, 2, [1]));
        assert!(refused.contains("still holds column 'origin'"), "{refused}");
        // Where the name is taken for good nothing reads it.
        let state = state
            .preview(&[drop_column("u", "origin"), move_extents(1, 2, [1])])
            .expect("allowed");
        let u = state.table("u").expect("made");
        let moved = u.extents.get(extent_id(1)).expect("moved");
        assert_eq!(moved.columns.len(), 2);
    }
}

fn pin(name: &str, version: u64) -> DatabaseOp {
    DatabaseOp::PutPin {
        name: PinName::new(name).expect("a name"),
        version: Version::new(version),
    }
}

#[test]
fn what_is_there_can_be_pinned_and_unpinned_by_name() {
    let mut state = with(&[create_table(1, "t")]);
    state.chain_mut().version = Version::new(5);
    let unpin = |name: &str| DatabaseOp::DropPin {
        name: PinName::new(name).expect("a name"),
    };
    let pinned = state.preview(&[pin("a", 3), pin("b", 5), pin("a", 3)]);
    let pinned = pinned.expect("allowed");
    let versions: Vec<_> = pinned.pins().values().copied().collect();
    assert_eq!(versions, [Version::new(3), Version::new(5)]);
    for (op, words) in [
        (pin("a", 4), "version 3 is pinned as 'a' already"),
        (pin("c", 6), "there are versions 1 to 5"),
        (pin("c", 0), "there are versions 1 to 5"),
        (unpin("c"), "no version is pinned as 'c'"),
    ] {
        let refused = refusal(&pinned, op);
        assert!(refused.contains(words), "{refused}");
    }
    let left = pinned.preview(&[unpin("a")]).expect("allowed");
    assert_eq!(left.pins().len(), 1);
    let many: Vec<_> = (0..PINS_MAX).map(|n| pin(&n.to_string(), 1)).collect();
    let full = state.preview(&many).expect("allowed");
    assert!(refusal(&full, pin("more", 1)).contains("at most 100"));
}

#[test]
fn tags_of_extents_change_and_nothing_else_of_them() {
    use crate::TagsChange;
    // More than a segment, so that sealed extents are among them.
    let state = with(&[create_table(1, "t"), add_extents(1, 0..1_100)]);
    let tags = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let change = |change, numbers: &[u64]| DatabaseOp::AlterExtentTags {
        table: table_id(1),
        extents: numbers.iter().map(|number| extent_id(*number)).collect(),
        change,
    };
    let changed = state.preview(&[
        change(TagsChange::Add(tags(&["a"])), &[1, 3, 1_050]),
        change(TagsChange::Drop(tags(&["drop-by:x", "gone"])), &[1, 2]),
        change(TagsChange::Set(tags(&["b"])), &[4]),
        change(TagsChange::Clear, &[5]),
    ]);
    let changed = changed.expect("allowed");
    let table = changed.table("t").expect("there");
    assert_eq!(table.extents.len(), 1_100);
    let expected: [(u64, &[&str]); 7] = [
        (1, &["a"]),
        (3, &["a"]),
        (1_050, &["a"]),
        (2, &[]),
        (4, &["b"]),
        (5, &[]),
        (7, &["drop-by:x"]),
    ];
    for (number, expected) in expected {
        let found = table.extents.get(extent_id(number)).expect("there");
        let wanted = Extent {
            tags: tags(expected),
            ..extent(number)
        };
        assert_eq!(found, wanted, "{number}");
    }
    let same = state
        .plan(change(TagsChange::Clear, &[3]))
        .expect("allowed");
    assert!(same.is_empty(), "it has no tags: {same:?}");
    let expect = |number, names: &[&str]| DatabaseOp::ExpectTags {
        table: table_id(1),
        extents: vec![(extent_id(number), tags(names))],
    };
    let held = changed.plan(expect(1_050, &["a"])).expect("so it is");
    assert!(held.is_empty(), "nothing changes: {held:?}");
    for (number, names) in [(1_050, &[][..]), (4, &["a"]), (2, &["drop-by:x"])] {
        let refused = refusal(&changed, expect(number, names));
        assert!(refused.contains("have changed"), "{refused}");
    }
    let unknown = refusal(&state, change(TagsChange::Clear, &[9_999]));
    assert!(unknown.contains("there is no extent"), "{unknown}");
    let long = "x".repeat(5_000);
    let long = refusal(
        &state,
        change(TagsChange::Set(tags(&[long.as_str()])), &[1]),
    );
    assert!(long.contains("at most"), "{long}");
}

fn once(tags: &[&str], ids: &[&str]) -> DatabaseOp {
    DatabaseOp::IngestOnce {
        table: table_name("t"),
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        ids: ids.iter().map(|id| id.parse().expect("an id")).collect(),
    }
}

fn note(table: u128, id: &str) -> DatabaseOp {
    DatabaseOp::NoteIngests {
        table: table_id(table),
        ingests: vec![crate::NotedIngest {
            id: id.parse().expect("an id"),
            rows: 3,
            extents: 1,
            size_bytes: 100,
        }],
    }
}

#[test]
fn an_ingest_happens_once_by_its_id_and_by_its_tag() {
    // Extent 1 has the tag `drop-by:x`.
    let state = with(&[create_table(1, "t"), add_extents(1, [1]), note(1, "a")]);
    let refused = refusal(&state, once(&[], &["b", "a"]));
    assert!(refused.contains("ingest 'a' was committed"), "{refused}");
    assert!(refused.contains("version 1"), "{refused}");
    let refused = refusal(&state, once(&["ingest-by:y", "drop-by:x"], &["b"]));
    assert!(refused.contains("the tag 'drop-by:x'"), "{refused}");
    state
        .preview(&[once(&["ingest-by:y"], &["b"])])
        .expect("neither is there");

    // Asking changes nothing, and the second of one transaction sees the first.
    assert!(state.plan(once(&[], &["b"])).expect("allowed").is_empty());
    let twice = state.preview(&[note(1, "b"), once(&[], &["b"])]);
    assert!(matches!(twice, Err(OpError::IngestedBefore { .. })));

    // A table that is made anew has nothing.
    let anew = [
        drop_table("t", false),
        create_table(2, "t"),
        once(&["drop-by:x"], &["a"]),
    ];
    state.preview(&anew).expect("another table");
    let gone = with(&[]).preview(&[once(&["drop-by:x"], &["a"])]);
    assert!(gone.is_ok(), "a table that is not there has nothing");
}
