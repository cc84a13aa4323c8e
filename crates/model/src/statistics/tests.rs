use arrow::array::{Float64Array, Int32Array, StringArray, TimestampMicrosecondArray};
use proptest::prelude::*;

use super::*;
use crate::{ColumnId, SortOrder};

fn statistics(batches: &[ArrayRef]) -> crate::ColumnStatistics {
    let mut builder = ColumnStatisticsBuilder::new(ColumnId(1), batches[0].data_type());
    batches.iter().for_each(|batch| builder.update(batch));
    builder.finish()
}

#[test]
fn a_column_keeps_its_type_through_statistics_and_back() {
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from(vec![Some(-3), None, Some(7)])),
        Arc::new(Float64Array::from(vec![
            Some(-0.5),
            None,
            Some(f64::INFINITY),
        ])),
        Arc::new(StringArray::from(vec![Some("a"), None, Some("ü")])),
        Arc::new(BooleanArray::from(vec![Some(false), None, Some(true)])),
        Arc::new(
            TimestampMicrosecondArray::from(vec![Some(1), None, Some(2)]).with_timezone("+02:00"),
        ),
        Arc::new(
            PrimitiveArray::<Decimal128Type>::from(vec![Some(-5), None, Some(5)])
                .with_precision_and_scale(20, 2)
                .expect("valid"),
        ),
        Arc::new(BinaryArray::from(vec![
            Some(&[0_u8][..]),
            None,
            Some(&[255][..]),
        ])),
    ];
    for array in arrays {
        let found = statistics(&[Arc::clone(&array)]);
        assert_eq!(found.null_count, 1);
        let back = StatisticValue::to_array(
            array.data_type(),
            [found.min.as_ref(), None, found.max.as_ref()].into_iter(),
        )
        .expect("same type");
        assert_eq!(&back, &array);
    }
}

#[test]
fn long_text_is_bounded_but_not_exact() {
    let long = "z".repeat(10_000);
    let found = statistics(&[Arc::new(StringArray::from(vec![long.as_str()]))]);
    assert!(!found.bounds_exact);
    let long = StatisticValue::Text(long);
    assert!(found.min.is_some_and(|min| min <= long));
    assert!(found.max.is_some_and(|max| max >= long));
}

#[test]
fn ascending_rows_are_noticed_across_batches() {
    let batch = |values: Vec<i32>| -> ArrayRef { Arc::new(Int32Array::from(values)) };
    let order = |batches: &[ArrayRef]| statistics(batches).sort_order;
    assert_eq!(
        order(&[batch(vec![1, 1, 2]), batch(vec![2, 5])]),
        SortOrder::Ascending
    );
    assert_eq!(
        order(&[batch(vec![1, 3]), batch(vec![2, 5])]),
        SortOrder::Unknown
    );
    assert_eq!(order(&[batch(vec![3, 1])]), SortOrder::Unknown);
    let with_null: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), None]));
    assert_eq!(order(&[with_null]), SortOrder::Unknown);
}

proptest! {
    #[test]
    fn statistics_of_parts_are_those_of_the_whole(
        values in prop::collection::vec(any::<Option<i8>>(), 0..20),
        cut in 0_usize..20,
    ) {
        let of = |values: &[Option<i8>]| {
            let array: ArrayRef = Arc::new(arrow::array::Int8Array::from(values.to_vec()));
            let mut builder = ColumnStatisticsBuilder::new(ColumnId(1), array.data_type());
            builder.update(&array);
            builder
        };
        let cut = cut.min(values.len());
        let parts = of(&values[..cut]).followed_by(of(&values[cut..]));
        prop_assert_eq!(parts.finish(), of(&values).finish());
    }

    #[test]
    fn bounds_are_the_smallest_and_largest_value(values in prop::collection::vec(any::<Option<i32>>(), 1..50)) {
        let found = statistics(&[Arc::new(Int32Array::from(values.clone()))]);
        let int = |value: Option<&i32>| value.map(|v| StatisticValue::Int(i64::from(*v)));
        prop_assert_eq!(found.min, int(values.iter().flatten().min()));
        prop_assert_eq!(found.max, int(values.iter().flatten().max()));
    }
}
