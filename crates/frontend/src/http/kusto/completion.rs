//! What a query cost, where Kusto's answers say it.
//!
//! Shapes: `QueryCompletionInformation` of *Query V2 HTTP response*, `QueryStatus` of *Query V1
//! HTTP response*, and *Query resource consumption* of the Kusto documentation. What Kusto has no
//! place for, the reads of each table among it, stands under `slipstream`.

use serde_json::{Value, json};
use slipstream_model::Timestamp;
use slipstream_query::QueryStatistics;
use tokio::time::Instant;
use uuid::Uuid;

/// The columns of `QueryCompletionInformation`.
const COLUMNS: &str = r#"[{"ColumnName":"Timestamp","ColumnType":"datetime"},{"ColumnName":"ClientRequestId","ColumnType":"string"},{"ColumnName":"ActivityId","ColumnType":"guid"},{"ColumnName":"SubActivityId","ColumnType":"guid"},{"ColumnName":"ParentActivityId","ColumnType":"guid"},{"ColumnName":"Level","ColumnType":"int"},{"ColumnName":"LevelName","ColumnType":"string"},{"ColumnName":"StatusCode","ColumnType":"int"},{"ColumnName":"StatusCodeName","ColumnType":"string"},{"ColumnName":"EventType","ColumnType":"int"},{"ColumnName":"EventTypeName","ColumnType":"string"},{"ColumnName":"Payload","ColumnType":"string"}]"#;
/// The columns of `QueryStatus`, with their types in both of v1's words.
const STATUS_COLUMNS: [(&str, &str, &str); 10] = [
    ("Timestamp", "DateTime", "datetime"),
    ("Severity", "Int32", "int"),
    ("SeverityName", "String", "string"),
    ("StatusCode", "Int32", "int"),
    ("StatusDescription", "String", "string"),
    ("Count", "Int32", "int"),
    ("RequestId", "Guid", "guid"),
    ("ActivityId", "Guid", "guid"),
    ("SubActivityId", "Guid", "guid"),
    ("ClientActivityId", "String", "string"),
];
/// The columns of v1's table of contents.
const CONTENTS_COLUMNS: [(&str, &str, &str); 5] = [
    ("Ordinal", "Int64", "long"),
    ("Kind", "String", "string"),
    ("Name", "String", "string"),
    ("Id", "String", "string"),
    ("PrettyName", "String", "string"),
];
const SUCCESS: &str = "Query completed successfully";

/// A request that is answered.
pub(super) struct Completion {
    pub(super) began: Instant,
    pub(super) answered_at: Timestamp,
    /// `None` for an answer that no query computed.
    pub(super) query_id: Option<Uuid>,
    pub(super) request_id: String,
}

impl Completion {
    /// The frame of a v2 answer. That a query failed is told in the frame after it.
    pub(super) fn frame(&self, statistics: &QueryStatistics, has_failed: bool) -> String {
        let id = self.query_id.unwrap_or_default();
        let row = |level: u8, level_name: &str, event: u8, event_name: &str, payload: &Value| {
            json!([
                self.answered_at.to_string(),
                self.request_id,
                id,
                id,
                id,
                level,
                level_name,
                0,
                "S_OK (0)",
                event,
                event_name,
                payload.to_string(),
            ])
        };
        let consumption = self.consumption(statistics);
        let mut rows = Vec::new();
        if !has_failed {
            let success = json!({"Count": 1, "Text": SUCCESS});
            rows.push(row(4, "Info", 4, "QueryInfo", &success));
        }
        rows.push(row(6, "Stats", 0, "QueryResourceConsumption", &consumption));
        // Clients that stream read the fields in this order.
        format!(
            "{{\"FrameType\":\"DataTable\",\"TableId\":2,\
             \"TableKind\":\"QueryCompletionInformation\",\
             \"TableName\":\"QueryCompletionInformation\",\"Columns\":{COLUMNS},\"Rows\":{}}}",
            Value::from(rows)
        )
    }

    /// The tables that follow the rows in a v1 answer. None for what no query computed: a command's
    /// answer is its rows.
    pub(super) fn tables(&self, statistics: &QueryStatistics) -> Vec<Value> {
        let Some(id) = self.query_id else {
            return Vec::new();
        };
        let row = |severity: u8, severity_name: &str, description: &str| {
            json!([
                self.answered_at.to_string(),
                severity,
                severity_name,
                0,
                description,
                1,
                id,
                id,
                id,
                self.request_id,
            ])
        };
        let consumption = self.consumption(statistics).to_string();
        let status = vec![row(4, "Info", SUCCESS), row(6, "Stats", &consumption)];
        let content = |ordinal: u8, kind: &str, name: &str| json!([ordinal, kind, name, id, ""]);
        let contents = vec![
            content(0, "QueryResult", "PrimaryResult"),
            content(1, "QueryProperties", "@ExtendedProperties"),
            content(2, "QueryStatus", "QueryStatus"),
        ];
        vec![
            table("Table_1", &[("Value", "String", "string")], Vec::new()),
            table("Table_2", &STATUS_COLUMNS, status),
            table("Table_3", &CONTENTS_COLUMNS, contents),
        ]
    }

    fn consumption(&self, statistics: &QueryStatistics) -> Value {
        let reads = &statistics.reads;
        let shards = |hit_bytes: u64, miss_bytes: u64| {
            json!({
                "hitbytes": hit_bytes,
                "missbytes": miss_bytes,
                "retrievebytes": miss_bytes,
            })
        };
        json!({
            "ExecutionTime": self.began.elapsed().as_secs_f64(),
            "resource_usage": {
                "cache": {
                    "shards": {
                        "hot": shards(reads.hot_hit_bytes, reads.hot_miss_bytes),
                        "cold": shards(reads.cold_hit_bytes, reads.cold_miss_bytes),
                        "bypassbytes": 0,
                    },
                },
            },
            "input_dataset_statistics": {
                "extents": {"total": reads.extents_total, "scanned": reads.extents_scanned},
            },
            "dataset_statistics": [{"table_row_count": statistics.rows}],
            "slipstream": statistics,
        })
    }
}

fn table(name: &str, columns: &[(&str, &str, &str)], rows: Vec<Value>) -> Value {
    let columns = columns.iter().map(|(name, data_type, column_type)| {
        json!({"ColumnName": name, "DataType": data_type, "ColumnType": column_type})
    });
    let columns = Value::from_iter(columns);
    json!({"TableName": name, "Columns": columns, "Rows": rows})
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use slipstream_query::ReadStatistics;

    use super::*;

    fn completion(query_id: Option<Uuid>) -> Completion {
        Completion {
            began: Instant::now(),
            answered_at: Timestamp::from_micros(1_000_000),
            query_id,
            request_id: "mine;1".to_owned(),
        }
    }

    fn statistics() -> QueryStatistics {
        let reads = ReadStatistics {
            requests: 3,
            hot_hit_bytes: 100,
            cold_miss_bytes: 70,
            hot_hits: 2,
            cold_misses: 1,
            extents_total: 9,
            extents_scanned: 4,
            ..ReadStatistics::default()
        };
        QueryStatistics {
            rows: 5,
            reads,
            tables: BTreeMap::from([("d.t".to_owned(), reads)]),
        }
    }

    fn value_of<'a>(table: &'a Value, row: usize, column: &str) -> &'a Value {
        let columns = table["Columns"].as_array().expect("columns");
        let at = columns
            .iter()
            .position(|known| known["ColumnName"] == column);
        &table["Rows"][row][at.expect("a column of that name")]
    }

    fn check_consumption(payload: &Value) {
        let payload: Value =
            serde_json::from_str(payload.as_str().expect("text")).expect("JSON in a column");
        let shards = &payload["resource_usage"]["cache"]["shards"];
        assert_eq!(shards["hot"]["hitbytes"], 100);
        assert_eq!(shards["cold"]["missbytes"], 70);
        let extents = &payload["input_dataset_statistics"]["extents"];
        assert_eq!(extents, &json!({"total": 9, "scanned": 4}));
        assert_eq!(payload["dataset_statistics"][0]["table_row_count"], 5);
        let of_table = &payload["slipstream"]["tables"]["d.t"];
        assert_eq!(of_table["requests"], 3);
        assert_eq!(of_table["hotHits"], 2);
    }

    #[test]
    fn a_frame_says_what_was_read_of_each_table() {
        let completion = completion(Some(Uuid::from_u128(7)));
        let text = completion.frame(&statistics(), false);
        let frame: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(frame["TableKind"], "QueryCompletionInformation");
        assert_eq!(value_of(&frame, 0, "LevelName"), "Info");
        assert_eq!(
            value_of(&frame, 1, "EventTypeName"),
            "QueryResourceConsumption"
        );
        assert_eq!(value_of(&frame, 1, "ClientRequestId"), "mine;1");
        check_consumption(value_of(&frame, 1, "Payload"));
        let row = frame["Rows"][0].as_array().expect("a row");
        let columns = frame["Columns"].as_array().expect("columns");
        assert_eq!(row.len(), columns.len());
        // A query that failed did not complete successfully, and has cost something all the same.
        let failed: Value =
            serde_json::from_str(&completion.frame(&statistics(), true)).expect("JSON");
        assert_eq!(failed["Rows"].as_array().map(Vec::len), Some(1));
        check_consumption(value_of(&failed, 0, "Payload"));
    }

    #[test]
    fn v1_has_a_table_for_it_and_a_table_of_contents() {
        let tables = completion(Some(Uuid::from_u128(7))).tables(&statistics());
        let [_, status, contents] = tables.as_slice() else {
            panic!("three tables are expected: {tables:?}");
        };
        assert_eq!(value_of(status, 0, "StatusDescription"), SUCCESS);
        check_consumption(value_of(status, 1, "StatusDescription"));
        assert_eq!(value_of(contents, 2, "Kind"), "QueryStatus");
        for table in &tables {
            let columns = table["Columns"].as_array().map(Vec::len);
            for row in table["Rows"].as_array().expect("rows") {
                assert_eq!(row.as_array().map(Vec::len), columns);
            }
        }
        assert!(completion(None).tables(&statistics()).is_empty());
    }
}
