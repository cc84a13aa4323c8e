//! Batches of a source, made into batches of a table: columns by name, values by cast.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::{CastOptions, can_cast_types, cast_with_options};
use arrow::datatypes::{DataType, Float64Type, Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use slipstream_frontend::ServiceError;
use slipstream_model::TableSchema;

use super::columnar::BATCH_BYTES;
use super::rejects::{Misfit, Rejects, shorten};
use super::{BATCH_ROWS, BatchStream, ipc};

/// Columns that a refusal names.
const NAMED_MAX: usize = 100;
/// What a value takes at least while it is on the way, null or not: its place in a line, and in an array.
const VALUE_BYTES: usize = 24;

/// A value that does not fit its column.
#[derive(Debug)]
pub(super) struct DoesNotFit;

/// From a source's columns to a table's.
#[derive(Debug)]
pub(super) struct Conform {
    table: SchemaRef,
    /// For each column of the table, which column of the source it is.
    sources: Vec<Option<usize>>,
    /// For each column of the table that the source does not have, as many nulls as a batch has rows: all
    /// batches share them.
    nulls: Vec<Option<ArrayRef>>,
    batch_rows: usize,
    rejects: Rejects,
}

impl Conform {
    /// Matches columns by name, exactly or else without regard to case.
    pub(super) fn new(
        source: &Schema,
        table: &TableSchema,
        rejects: Rejects,
    ) -> Result<Self, ServiceError> {
        let table = table.arrow();
        let name = rejects.source();
        // The first of a name counts.
        let (mut exact, mut folded) = (HashMap::new(), HashMap::new());
        let known: HashSet<_> = table.fields().iter().map(|field| field.name()).collect();
        for (index, field) in source.fields().iter().enumerate() {
            exact.entry(field.name().as_str()).or_insert(index);
            // What a column has the very name of is not another one's.
            if !known.contains(field.name()) {
                let name = field.name().to_ascii_lowercase();
                folded.entry(name).or_insert(index);
            }
        }
        let find = |wanted: &String| {
            let found = exact.get(wanted.as_str());
            let found = found.or_else(|| folded.get(&wanted.to_ascii_lowercase()));
            found.copied()
        };
        let wanted = table.fields().iter().map(|field| field.name());
        let sources: Vec<_> = wanted.map(find).collect();
        let mut taken = HashSet::new();
        for index in sources.iter().flatten() {
            if !taken.insert(index) {
                return Err(ServiceError::invalid(format!(
                    "{name} has a column '{}' that may be either of two columns of the table: \
                     write its name as the table does",
                    source.field(*index).name()
                )));
            }
        }
        for (index, field) in source.fields().iter().enumerate() {
            if !taken.contains(&index) {
                let is_taken = table
                    .fields()
                    .iter()
                    .any(|known| known.name().eq_ignore_ascii_case(field.name()));
                if is_taken {
                    return Err(ServiceError::invalid(format!(
                        "{name} has two columns for the table's '{}': rename or leave out one",
                        field.name()
                    )));
                }
                return Err(ServiceError::invalid(format!(
                    "{name} has a column '{}' that the table does not have; the table has {}",
                    field.name(),
                    names_of(&table)
                )));
            }
        }
        for (field, source_index) in table.fields().iter().zip(&sources) {
            match source_index {
                None if !field.is_nullable() => {
                    return Err(ServiceError::invalid(format!(
                        "{name} has no column '{}', which is NOT NULL in the table",
                        field.name()
                    )));
                }
                Some(index) => {
                    let found = source.field(*index).data_type();
                    if !can_cast_types(found, field.data_type())
                        || !has_fields_of(found, field.data_type())
                    {
                        return Err(ServiceError::invalid(format!(
                            "column '{}' of {name} has type {found}, which cannot become the \
                             table's {}",
                            field.name(),
                            field.data_type()
                        )));
                    }
                }
                None => {}
            }
        }
        let batch_rows = batch_rows(&table);
        let nulls = table.fields().iter().zip(&sources);
        let nulls = nulls.map(|(field, source)| match source {
            Some(_) => None,
            None => Some(new_null_array(field.data_type(), batch_rows)),
        });
        Ok(Self {
            nulls: nulls.collect(),
            batch_rows,
            table,
            sources,
            rejects,
        })
    }

    /// Rows that a batch has at most, so that it is not too much to hold however wide the table is.
    pub(super) fn batch_rows(&self) -> usize {
        self.batch_rows
    }

    /// The type that a column of the source becomes.
    pub(super) fn expected_type(&self, source: usize) -> String {
        let target = self.sources.iter().position(|known| *known == Some(source));
        target.map_or_else(String::new, |target| {
            self.table.field(target).data_type().to_string()
        })
    }

    /// A column that must have a value, and has none by what is said of the columns' names.
    pub(super) fn missing(&self, is_missing: impl Fn(&str) -> bool) -> Option<String> {
        let fields = self.table.fields().iter();
        let mut required = fields.filter(|field| !field.is_nullable());
        let missing = required.find(|field| is_missing(field.name()))?;
        Some(missing.name().clone())
    }

    /// Whether every value of a column of the source fits.
    pub(super) fn column_fits(&self, source: usize, values: &ArrayRef) -> bool {
        let target = self.sources.iter().position(|known| *known == Some(source));
        target.is_none_or(|target| {
            let field = self.table.field(target);
            cast(values, field.data_type())
                .is_ok_and(|values| field.is_nullable() || values.logical_null_count() == 0)
        })
    }

    /// A whole batch.
    pub(super) fn batch(&self, batch: &RecordBatch) -> Result<RecordBatch, DoesNotFit> {
        let rows = batch.num_rows();
        let columns = self.table.fields().iter().zip(&self.sources);
        let columns = columns.zip(&self.nulls).map(|((field, source), nulls)| {
            let values = match (source, nulls) {
                (Some(source), _) => cast(batch.column(*source), field.data_type())?,
                (None, Some(nulls)) if rows <= nulls.len() => nulls.slice(0, rows),
                (None, _) => new_null_array(field.data_type(), rows),
            };
            if !field.is_nullable() && values.logical_null_count() > 0 {
                return Err(DoesNotFit);
            }
            Ok(values)
        });
        let columns: Vec<_> = columns.collect::<Result<_, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.table), columns, &options)
            .map_err(|_| DoesNotFit)
    }

    /// Every batch of a source that has rows but no lines, cut where the table is wider. A row that does
    /// not fit is named by its number.
    pub(super) fn apply(
        self,
        batches: BatchStream,
    ) -> impl Stream<Item = Result<RecordBatch, ServiceError>> + Send {
        let mut rows_before = 0;
        let batch_rows = self.batch_rows;
        let pieces = batches
            .map_ok(move |batch| {
                stream::iter(ipc::pieces(batch, batch_rows).map(Ok::<_, ServiceError>))
            })
            .try_flatten();
        pieces.map(move |batch| {
            let batch = batch?;
            let first_row = rows_before + 1;
            rows_before += batch.num_rows() as u64;
            match self.batch(&batch) {
                Ok(batch) => Ok(batch),
                Err(DoesNotFit) => self.without_misfits(&batch, first_row),
            }
        })
    }

    /// Finds the rows that do not fit by halving, and leaves them out.
    fn without_misfits(
        &self,
        batch: &RecordBatch,
        first_row: u64,
    ) -> Result<RecordBatch, ServiceError> {
        let mut good = Vec::new();
        self.halve(batch, first_row, &mut good)?;
        arrow::compute::concat_batches(&self.table, &good)
            .map_err(|error| ServiceError::internal(error.to_string()))
    }

    fn halve(
        &self,
        batch: &RecordBatch,
        first_row: u64,
        good: &mut Vec<RecordBatch>,
    ) -> Result<(), ServiceError> {
        if let Ok(batch) = self.batch(batch) {
            good.push(batch);
            return Ok(());
        }
        let rows = batch.num_rows();
        if rows <= 1 {
            return self.rejects.add(Misfit {
                line: first_row,
                ..self.misfit(batch)
            });
        }
        let half = rows / 2;
        self.halve(&batch.slice(0, half), first_row, good)?;
        let behind = batch.slice(half, rows - half);
        self.halve(&behind, first_row + half as u64, good)
    }

    fn misfit(&self, row: &RecordBatch) -> Misfit {
        for (index, values) in row.columns().iter().enumerate() {
            if self.column_fits(index, values) {
                continue;
            }
            let options = FormatOptions::default().with_null("NULL");
            let value = ArrayFormatter::try_new(values, &options)
                .map(|value| value.value(0).to_string())
                .ok();
            let reason = if values.is_null(0) {
                "is null, and the column is NOT NULL".to_owned()
            } else {
                format!("is not a {}", self.expected_type(index))
            };
            let name = row.schema().field(index).name().clone();
            return Misfit::at(&name, value, reason);
        }
        Misfit::because("the row does not fit the table")
    }
}

/// The columns that there are, for a message.
pub(super) fn names_of(schema: &Schema) -> String {
    let fields = schema.fields().iter().take(NAMED_MAX);
    let names: Vec<_> = fields.map(|field| shorten(field.name())).collect();
    let more = match schema.fields().len() - names.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", names.join(", "))
}

/// Rows of one batch of a table: fewer where it is so wide that the usual number would be too much to hold.
fn batch_rows(table: &Schema) -> usize {
    let row_bytes = table
        .fields()
        .iter()
        .map(|field| row_bytes(field.data_type()));
    let row_bytes = row_bytes.fold(1, usize::saturating_add);
    (BATCH_BYTES / row_bytes).clamp(1, BATCH_ROWS)
}

/// What a row of a type takes at least, all of it null.
fn row_bytes(data_type: &DataType) -> usize {
    use DataType as T;
    let repeated = |count: &i32| usize::try_from(*count).unwrap_or(0);
    match data_type {
        T::Struct(fields) => {
            let fields = fields.iter().map(|field| row_bytes(field.data_type()));
            fields.fold(VALUE_BYTES, usize::saturating_add)
        }
        T::FixedSizeList(field, count) => {
            let elements = row_bytes(field.data_type()).saturating_mul(repeated(count));
            elements.max(VALUE_BYTES)
        }
        T::FixedSizeBinary(count) => repeated(count).max(VALUE_BYTES),
        _ => VALUE_BYTES,
    }
}

/// A cast that fails where a value does not fit, instead of making it null or cutting it off.
fn cast(values: &ArrayRef, data_type: &DataType) -> Result<ArrayRef, DoesNotFit> {
    if values.data_type() == data_type {
        return Ok(Arc::clone(values));
    }
    let options = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    let cast = |values: &ArrayRef, data_type: &DataType| {
        cast_with_options(values, data_type, &options).map_err(|_| DoesNotFit)
    };
    let converted = cast(values, data_type)?;
    // Arrow makes 2 of 2.5 without a word.
    if data_type.is_integer() && values.data_type().is_floating() {
        let values = cast(values, &DataType::Float64)?;
        let mut numbers = values.as_primitive::<Float64Type>().iter().flatten();
        if numbers.any(|number| number.fract() != 0.0) {
            return Err(DoesNotFit);
        }
    } else if cuts_off(values.data_type(), data_type) {
        let back = cast(&converted, values.data_type())?;
        if &back != values {
            return Err(DoesNotFit);
        }
    }
    Ok(converted)
}

/// Whether structures have fields of the same names, here and within: where not all of them match, Arrow would go by
/// their places.
fn has_fields_of(from: &DataType, to: &DataType) -> bool {
    use DataType as T;
    match (from, to) {
        (T::Struct(from), T::Struct(to)) => {
            from.len() == to.len()
                && to.iter().all(|to| {
                    let found = from.find(to.name());
                    found.is_some_and(|(_, from)| has_fields_of(from.data_type(), to.data_type()))
                })
        }
        // What keys and values are called differs between writers, and says nothing.
        (T::Map(from, _), T::Map(to, _)) => match (from.data_type(), to.data_type()) {
            (T::Struct(from), T::Struct(to)) => from
                .iter()
                .zip(to)
                .all(|(from, to)| has_fields_of(from.data_type(), to.data_type())),
            _ => true,
        },
        _ => match (within(from), within(to)) {
            (None, None) => true,
            // A value may become a list of one, or the reverse.
            (inner_from, inner_to) => {
                has_fields_of(inner_from.unwrap_or(from), inner_to.unwrap_or(to))
            }
        },
    }
}

/// The type of what a type has many of.
fn within(data_type: &DataType) -> Option<&DataType> {
    use DataType as T;
    match data_type {
        T::List(field)
        | T::LargeList(field)
        | T::ListView(field)
        | T::LargeListView(field)
        | T::FixedSizeList(field, _) => Some(field.data_type()),
        T::Dictionary(_, values) => Some(values),
        T::RunEndEncoded(_, values) => Some(values.data_type()),
        _ => None,
    }
}

/// Whether a cast may drop a fraction, here or within.
fn cuts_off(from: &DataType, to: &DataType) -> bool {
    use DataType as T;
    match (from, to) {
        (T::List(from), T::List(to))
        | (T::LargeList(from), T::LargeList(to))
        | (T::FixedSizeList(from, _), T::FixedSizeList(to, _)) => {
            cuts_off(from.data_type(), to.data_type())
        }
        (T::Struct(from), T::Struct(to)) => to.iter().any(|to| {
            let found = from.find(to.name());
            found.is_some_and(|(_, from)| cuts_off(from.data_type(), to.data_type()))
        }),
        _ => (from.is_floating() || from.is_decimal()) && to.is_integer(),
    }
}
