//! Rows for people.

use std::io::Write;

use anyhow::Context;
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use clap::ValueEnum;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

/// How rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns.
    Table,
    /// An array of objects.
    Json,
    /// A line of names, then a line a row.
    Csv,
    /// An Arrow IPC stream.
    Arrow,
}

impl Format {
    /// What to ask the node for.
    pub(crate) const fn accept(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Csv => "text/csv",
            Self::Table | Self::Arrow => "application/vnd.apache.arrow.stream",
        }
    }
}

/// Prints rows as a table. More than `rows_max` are counted, not shown.
pub(crate) fn print_table(
    schema: &SchemaRef,
    batches: &[RecordBatch],
    rows_max: usize,
) -> anyhow::Result<()> {
    let table = render(schema, batches, rows_max)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{table}")?;
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    if rows > rows_max {
        writeln!(out, "... and {} more rows", rows - rows_max)?;
    }
    Ok(())
}

fn render(schema: &SchemaRef, batches: &[RecordBatch], rows_max: usize) -> anyhow::Result<Table> {
    let mut table = Table::new();
    table
        .load_preset(presets::UTF8_BORDERS_ONLY)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(schema.fields().iter().map(|field| field.name().as_str()));
    let options = FormatOptions::default().with_null("NULL");
    let mut left = rows_max;
    for batch in batches {
        let columns: Vec<_> = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column, &options))
            .collect::<Result<_, _>>()
            .context("a column cannot be printed: use --format json")?;
        for row in 0..batch.num_rows().min(left) {
            table.add_row(columns.iter().map(|column| column.value(row).to_string()));
        }
        left = left.saturating_sub(batch.num_rows());
    }
    for (index, field) in schema.fields().iter().enumerate() {
        if is_number(field.data_type())
            && let Some(column) = table.column_mut(index)
        {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    Ok(table)
}

fn is_number(data_type: &DataType) -> bool {
    data_type.is_numeric()
}

/// `1234567` as `1,234,567`.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|group| std::str::from_utf8(group).unwrap_or_default())
        .collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::{Field, Schema};

    use super::*;

    #[test]
    fn numbers_stand_right_and_nulls_are_said() {
        let schema = Arc::new(Schema::new(vec![
            Field::new("origin", DataType::Utf8, true),
            Field::new("n", DataType::Int64, true),
        ]));
        let batch = RecordBatch::try_new(
            Arc::clone(&schema),
            vec![
                Arc::new(StringArray::from(vec![Some("EWR"), None])),
                Arc::new(Int64Array::from(vec![Some(7), Some(120_835)])),
            ],
        )
        .expect("valid");
        let text = render(&schema, &[batch], 10)
            .expect("printable")
            .to_string();
        assert!(text.contains("│ EWR           7 │"), "{text}");
        assert!(text.contains("│ NULL     120835 │"), "{text}");
    }

    #[test]
    fn large_numbers_have_commas() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(336_776), "336,776");
        assert_eq!(thousands(1_000_000), "1,000,000");
    }
}
