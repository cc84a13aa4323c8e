//! A table's columns.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};

/// The number of a column within its table. Never reused, so that a column dropped and added
/// again under the same name does not read the old column's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ColumnId(pub u32);

/// One column: an Arrow field with an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// The column's number.
    pub id: ColumnId,
    /// Name, Arrow type, nullability and metadata.
    pub field: FieldRef,
}

/// A list of columns that cannot be a table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSchema {
    /// Two columns have one name.
    #[error("column '{0}' is there twice")]
    DuplicateColumn(String),
    /// More columns than a table may have; so many were asked for.
    #[error(
        "a table has at most {max} columns, fields within columns among them: these are {0}",
        max = TableSchema::COLUMNS_MAX
    )]
    TooManyColumns(usize),
    /// A table needs a column.
    #[error("a table needs at least one column")]
    NoColumns,
    /// The name is empty.
    #[error("a column has an empty name")]
    EmptyColumnName,
    /// Rows written before the column existed must read as null.
    #[error("column '{0}' is NOT NULL, but rows written before it exist would read as null")]
    AddedColumnNotNull(String),
    /// The name of a column that was dropped.
    #[error(
        "column '{0}' was dropped, and its name stays taken: files written before still hold it. \
         Choose another name"
    )]
    RetiredColumn(String),
    /// No column of that name.
    #[error("there is no column '{0}'")]
    UnknownColumn(String),
}

/// The columns of a table, in order. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSchema {
    columns: Arc<[Column]>,
    /// Columns that were dropped: older extents hold them, and their statistics name them.
    dropped: Arc<[Column]>,
    next_column_id: u32,
    arrow: SchemaRef,
}

impl TableSchema {
    /// Columns of one table, as many as Kusto allows: each has its statistics in every extent, and
    /// every node has all of them in memory.
    /// <https://learn.microsoft.com/kusto/query/schema-entities/columns>
    pub const COLUMNS_MAX: usize = 10_000;

    /// The schema of a new table: columns are numbered from 1.
    ///
    /// # Errors
    /// When there are no columns, too many, or two of one name.
    pub fn new(schema: &Schema) -> Result<Self, InvalidSchema> {
        Self::check_size(schema)?;
        let columns = (1..)
            .map(ColumnId)
            .zip(schema.fields().iter())
            .map(|(id, field)| Column {
                id,
                field: Arc::clone(field),
            })
            .collect();
        Self::from_columns(
            columns,
            u32::try_from(schema.fields().len()).unwrap_or(u32::MAX) + 1,
        )
    }

    /// Whether a table may have as many columns; fields within them count too.
    ///
    /// # Errors
    /// When it may not.
    pub fn check_size(schema: &Schema) -> Result<(), InvalidSchema> {
        match schema.flattened_fields().len() {
            0..=Self::COLUMNS_MAX => Ok(()),
            more => Err(InvalidSchema::TooManyColumns(more)),
        }
    }

    /// A schema as a record holds it.
    ///
    /// # Errors
    /// When there are no columns, or two of one name.
    pub fn from_columns(columns: Vec<Column>, next_column_id: u32) -> Result<Self, InvalidSchema> {
        if columns.is_empty() {
            return Err(InvalidSchema::NoColumns);
        }
        let mut names = HashSet::new();
        for column in &columns {
            let name = column.field.name();
            if name.is_empty() {
                return Err(InvalidSchema::EmptyColumnName);
            }
            if !names.insert(name.as_str()) {
                return Err(InvalidSchema::DuplicateColumn(name.clone()));
            }
        }
        let fields: Vec<FieldRef> = columns.iter().map(|c| Arc::clone(&c.field)).collect();
        let arrow = Arc::new(Schema::new(fields));
        Ok(Self {
            columns: columns.into(),
            dropped: Arc::default(),
            next_column_id,
            arrow,
        })
    }

    /// The same columns, with those that were dropped before.
    #[must_use]
    pub fn with_dropped(self, dropped: Vec<Column>) -> Self {
        Self {
            dropped: dropped.into(),
            ..self
        }
    }

    /// This schema without a column.
    ///
    /// # Errors
    /// When there is none of that name, or no other.
    pub fn without_column(&self, name: &str) -> Result<Self, InvalidSchema> {
        let column = self.column(name);
        let column = column.ok_or_else(|| InvalidSchema::UnknownColumn(name.to_owned()))?;
        let left = self.columns.iter().filter(|known| known.id != column.id);
        let schema = Self::from_columns(left.cloned().collect(), self.next_column_id)?;
        let mut dropped = self.dropped.to_vec();
        dropped.push(column.clone());
        Ok(schema.with_dropped(dropped))
    }

    /// This schema with one more column at the end.
    ///
    /// # Errors
    /// When the name is taken, there are enough columns, or the column is `NOT NULL`: older extents
    /// read as null.
    pub fn with_added_column(&self, field: Field) -> Result<Self, InvalidSchema> {
        if !field.is_nullable() {
            return Err(InvalidSchema::AddedColumnNotNull(field.name().clone()));
        }
        // Files are read by the columns' names.
        let mut dropped = self.dropped.iter();
        if dropped.any(|known| known.field.name() == field.name()) {
            return Err(InvalidSchema::RetiredColumn(field.name().clone()));
        }
        let mut columns = self.columns.to_vec();
        columns.push(Column {
            id: ColumnId(self.next_column_id),
            field: Arc::new(field),
        });
        let schema = Self::from_columns(columns, self.next_column_id + 1)?;
        Self::check_size(&schema.arrow)?;
        Ok(schema.with_dropped(self.dropped.to_vec()))
    }

    /// The columns in order.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The columns that were dropped, in the order in which they were.
    pub fn dropped(&self) -> &[Column] {
        &self.dropped
    }

    /// The column of a number, also when it was dropped.
    pub fn column_of(&self, id: ColumnId) -> Option<&Column> {
        let mut all = self.columns.iter().chain(self.dropped.iter());
        all.find(|column| column.id == id)
    }

    /// The number that the next added column gets.
    pub fn next_column_id(&self) -> u32 {
        self.next_column_id
    }

    /// The same as an Arrow schema; a cheap clone of a shared one.
    pub fn arrow(&self) -> SchemaRef {
        Arc::clone(&self.arrow)
    }

    /// The column of a name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.arrow
            .index_of(name)
            .ok()
            .map(|index| &self.columns[index])
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType;

    use super::*;

    fn field(name: &str) -> Field {
        Field::new(name, DataType::Int64, true)
    }

    #[test]
    fn a_table_has_as_many_columns_as_it_may_and_no_more() {
        let numbered = |count| {
            Schema::new(
                (0..count)
                    .map(|n: usize| field(&n.to_string()))
                    .collect::<Vec<_>>(),
            )
        };
        let full = TableSchema::new(&numbered(TableSchema::COLUMNS_MAX)).expect("as many");
        let many = InvalidSchema::TooManyColumns(TableSchema::COLUMNS_MAX + 1);
        assert_eq!(full.with_added_column(field("a")), Err(many.clone()));
        assert_eq!(
            TableSchema::new(&numbered(TableSchema::COLUMNS_MAX + 1)),
            Err(many.clone())
        );
        let within = numbered(TableSchema::COLUMNS_MAX).fields;
        let nested = Field::new("s", DataType::Struct(within), true);
        assert_eq!(TableSchema::new(&Schema::new(vec![nested])), Err(many));
    }

    #[test]
    fn an_added_column_gets_a_number_of_its_own() {
        let schema = TableSchema::new(&Schema::new(vec![field("a"), field("b")])).expect("valid");
        let wider = schema.with_added_column(field("c")).expect("valid");
        let ids: Vec<_> = wider.columns().iter().map(|column| column.id.0).collect();
        assert_eq!(ids, [1, 2, 3]);
        assert_eq!(wider.next_column_id(), 4);
        assert_eq!(
            wider.with_added_column(field("a")),
            Err(InvalidSchema::DuplicateColumn("a".into()))
        );
    }

    #[test]
    fn a_dropped_column_is_remembered_and_its_name_is_not_given_again() {
        let schema = TableSchema::new(&Schema::new(vec![field("a"), field("b")])).expect("valid");
        let less = schema.without_column("a").expect("another is left");
        assert_eq!(less.columns().len(), 1);
        assert!(less.column("a").is_none());
        assert_eq!(
            less.column_of(ColumnId(1)).map(|c| c.field.name().as_str()),
            Some("a")
        );
        assert_eq!(
            less.with_added_column(field("a")),
            Err(InvalidSchema::RetiredColumn("a".into()))
        );
        let more = less.with_added_column(field("c")).expect("a new name");
        assert_eq!(more.columns()[1].id, ColumnId(3));
        assert_eq!(more.dropped().len(), 1);
        assert_eq!(less.without_column("b"), Err(InvalidSchema::NoColumns));
        assert!(less.without_column("a").is_err());
    }

    #[test]
    fn a_column_that_older_rows_lack_cannot_be_not_null() {
        let schema = TableSchema::new(&Schema::new(vec![field("a")])).expect("valid");
        let required = Field::new("b", DataType::Int64, false);
        assert!(schema.with_added_column(required).is_err());
    }
}
