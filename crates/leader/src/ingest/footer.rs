//! Footers of Parquet files, from strangers.
//!
//! Parquet's reader calls itself for each group of columns within another, and of a group some bytes say that the
//! next is within it: a footer of a megabyte would end the process. So footers are looked at before they are read.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use parquet::file::FOOTER_SIZE;
use parquet::file::metadata::FooterTail;

use super::pages::STATISTICS;
use super::thrift::Kind::{
    self, Any, Binary, Bool, Byte, Double, Int16, Int32, Int64, List, Seen, Struct,
};
use super::thrift::{Thrift, garbled};

/// Groups of columns within each other. A list of a list takes two or three for each.
const GROUPS_MAX: usize = 64;

// From 1 on, as in `parquet.thrift`.
const EMPTY: Kind = Struct(&[]);
const TIME: Kind = Struct(&[Bool, Struct(&[EMPTY, EMPTY, EMPTY])]);
const LOGICAL_TYPE: &[Kind] = &[
    EMPTY,
    EMPTY,
    EMPTY,
    EMPTY,
    Struct(&[Int32, Int32]),
    EMPTY,
    TIME,
    TIME,
    // It is kept for intervals.
    Any,
    Struct(&[Byte, Bool]),
    EMPTY,
    EMPTY,
    EMPTY,
    EMPTY,
    EMPTY,
    Struct(&[Byte]),
    Struct(&[Binary]),
    Struct(&[Binary, Int32]),
];
const SCHEMA_ELEMENT: &[Kind] = &[
    Int32,
    Int32,
    Int32,
    Seen(&Binary),
    Seen(&Int32),
    Int32,
    Int32,
    Int32,
    Int32,
    Struct(LOGICAL_TYPE),
];
/// Each element has one.
const NAME: i16 = 4;
const NUM_CHILDREN: i16 = 5;
const KEY_VALUE: Kind = Struct(&[Binary, Binary]);
const SIZE_STATISTICS: &[Kind] = &[Int64, List(&Int64), List(&Int64)];
const BOUNDING_BOX: &[Kind] = &[Double; 8];
const COLUMN_META_DATA: &[Kind] = &[
    Int32,
    List(&Int32),
    List(&Binary),
    Int32,
    Int64,
    Int64,
    Int64,
    List(&KEY_VALUE),
    Int64,
    Int64,
    Int64,
    Struct(STATISTICS),
    List(&Struct(&[Int32, Int32, Int32])),
    Int64,
    Int32,
    Struct(SIZE_STATISTICS),
    Struct(&[Struct(BOUNDING_BOX), List(&Int32)]),
];
const COLUMN_CHUNK: &[Kind] = &[
    Binary,
    Int64,
    Struct(COLUMN_META_DATA),
    Int64,
    Int32,
    Int64,
    Int32,
    // Nothing that is encrypted is read.
    Any,
    Any,
];
const ROW_GROUP: &[Kind] = &[
    List(&Struct(COLUMN_CHUNK)),
    Int64,
    Int64,
    List(&Struct(&[Int32, Bool, Bool])),
    Int64,
    Int64,
    Int16,
];
const FILE_META_DATA: &[Kind] = &[
    Int32,
    List(&Struct(SCHEMA_ELEMENT)),
    Int64,
    List(&Struct(ROW_GROUP)),
    List(&KEY_VALUE),
    Binary,
    List(&Struct(&[EMPTY])),
    Any,
    Any,
];

/// Looks at the footer of a file.
///
/// # Errors
/// When it cannot be one, or nests its columns too deep. A file that has none is left to Parquet's reader, which
/// says so.
pub(super) fn check(file: &File) -> io::Result<()> {
    let length = file.metadata()?.len();
    let Some(end) = length.checked_sub(FOOTER_SIZE as u64) else {
        return Ok(());
    };
    let mut tail = [0; FOOTER_SIZE];
    file.read_exact_at(&mut tail, end)?;
    let Ok(tail) = FooterTail::try_new(&tail) else {
        return Ok(());
    };
    let start = end.checked_sub(tail.metadata_length() as u64);
    let Some(start) = start.filter(|_| !tail.is_encrypted_footer()) else {
        return Ok(());
    };
    let mut footer = vec![0; tail.metadata_length()];
    file.read_exact_at(&mut footer, start)?;
    check_bytes(&footer)
}

fn check_bytes(footer: &[u8]) -> io::Result<()> {
    let mut groups = Groups {
        open: Vec::new(),
        // Each takes a byte at least.
        columns_left: footer.len(),
    };
    let checked =
        Thrift::new(footer)
            .with_long_numbers()
            .check(FILE_META_DATA, &mut |field, value| match field {
                NAME => {
                    groups.element();
                    Ok(())
                }
                NUM_CHILDREN => groups.begin(value),
                _ => Ok(()),
            });
    checked.map_err(|error| io::Error::new(error.kind(), format!("its footer: {error}")))
}

/// The groups that the next element of a schema is in.
struct Groups {
    /// How many elements each of them still has.
    open: Vec<usize>,
    columns_left: usize,
}

impl Groups {
    fn element(&mut self) {
        while self.open.pop_if(|left| *left == 0).is_some() {}
        if let Some(left) = self.open.last_mut() {
            *left -= 1;
        }
    }

    /// What the element that was last has within it.
    fn begin(&mut self, children: i32) -> io::Result<()> {
        let children = usize::try_from(children).ok();
        let left = children.and_then(|children| self.columns_left.checked_sub(children));
        // Parquet's reader makes room for them.
        let (Some(children), Some(left)) = (children, left) else {
            return Err(garbled("it has more columns than bytes"));
        };
        self.columns_left = left;
        if children > 0 {
            self.open.push(children);
        }
        if self.open.len() > GROUPS_MAX {
            return Err(garbled(&format!(
                "its columns are nested more than {GROUPS_MAX} levels deep"
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{RecordBatch, new_null_array};
    use arrow::datatypes::{DataType, Field, IntervalUnit, Schema, TimeUnit};
    use parquet::arrow::ArrowWriter;

    use super::super::thrift::written::{field, number};
    use super::super::thrift::{BINARY, INT32, LIST, STOP, STRUCT};
    use super::*;

    /// The footer of a file with some rows.
    fn footer(data_types: &[DataType]) -> Vec<u8> {
        let fields = data_types.iter().enumerate();
        let fields =
            fields.map(|(n, data_type)| Field::new(n.to_string(), data_type.clone(), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let columns = data_types
            .iter()
            .map(|data_type| new_null_array(data_type, 3));
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns.collect()).expect("valid");
        let mut writer = ArrowWriter::try_new(Vec::new(), schema, None).expect("storable");
        writer.write(&batch).expect("memory");
        let mut file = writer.into_inner().expect("memory");
        let tail: &[u8; FOOTER_SIZE] = file.last_chunk().expect("a footer");
        let length = FooterTail::try_new(tail)
            .expect("a footer")
            .metadata_length();
        file.truncate(file.len() - FOOTER_SIZE);
        file.split_off(file.len() - length)
    }

    fn list_of(data_type: DataType) -> DataType {
        DataType::List(Arc::new(Field::new_list_field(data_type, true)))
    }

    fn lists(depth: usize) -> DataType {
        (0..depth).fold(DataType::Int8, |within, _| list_of(within))
    }

    #[test]
    fn footers_of_every_type_pass() {
        use DataType as T;
        let structs = T::Struct(
            vec![
                Field::new("a", lists(3), true),
                Field::new("b", T::Utf8, true),
            ]
            .into(),
        );
        let footer = footer(&[
            T::Null,
            T::UInt16,
            T::Float16,
            T::Utf8,
            T::Decimal128(10, 2),
            T::Date32,
            T::Time64(TimeUnit::Nanosecond),
            T::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
            T::Interval(IntervalUnit::YearMonth),
            list_of(structs.clone()),
            structs,
            lists(20),
        ]);
        check_bytes(&footer).expect("it is one");
        for length in (0..footer.len()).step_by(13) {
            check_bytes(&footer[..length]).expect_err("it is cut off");
        }
    }

    #[test]
    fn numbers_that_are_written_out_are_read() {
        // The logical type of a variant, and a field that a later version may add.
        let variant = [field(0, STRUCT), 32, STOP, STOP];
        let element = [
            &[field(4, BINARY), 0, field(6, STRUCT)][..],
            &variant,
            &[STOP],
        ]
        .concat();
        let schema = [&[field(2, LIST), field(1, STRUCT)][..], &element].concat();
        let later = [
            &[field(0, BINARY)][..],
            &number(2 * 32_767),
            &[1, b'x', STOP],
        ]
        .concat();
        check_bytes(&[&schema[..], &later].concat()).expect("it is one");
        let again = [field(0, INT32), 4, 0, STOP];
        let error = check_bytes(&[&schema[..], &again].concat()).expect_err("it was there");
        assert!(error.to_string().contains("in no order"), "{error}");
    }

    #[test]
    fn columns_that_are_nested_without_end_are_refused() {
        check_bytes(&nested(GROUPS_MAX, 1)).expect("not too deep");
        for (footer, reason) in [
            (nested(GROUPS_MAX + 1, 1), "64 levels"),
            (nested(3, i32::MAX as u64), "more columns than bytes"),
        ] {
            let error = check_bytes(&footer).expect_err(reason);
            assert!(error.to_string().contains(reason), "{error}");
        }
    }

    /// As many groups, each of which says that it has so many others.
    fn nested(groups: usize, children: u64) -> Vec<u8> {
        let mut bytes = vec![field(2, LIST), field(15, STRUCT)];
        bytes.extend(number(groups as u64));
        for _ in 0..groups {
            bytes.extend([field(4, BINARY), 1, b'g', field(1, INT32)]);
            bytes.extend(number(children * 2));
            bytes.push(STOP);
        }
        bytes.push(STOP);
        bytes
    }
}
