//! Functions that make much of little, and how much they may make.
//!
//! `repeat('a', 2000000000)` is a short text, and two gigabytes. Functions make room for their answers outside
//! of the memory that queries share, and those of constants while a query is planned, before any limit holds.
//! So what these would make of a batch of rows is worked out before they make it.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, IntervalMonthDayNanoArray, new_null_array,
};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, FieldRef, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit,
    TimeUnit,
};
use datafusion::common::{ExprSchema, exec_err, resources_err};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::logical_expr::interval_arithmetic::Interval;
use datafusion::logical_expr::preimage::PreimageResult;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ExpressionPlacement, ReturnFieldArgs, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, StructFieldMapping,
};
use datafusion::scalar::ScalarValue;

/// Bytes that a function may make of a batch of rows, beyond those that it has: thousands of times what rows
/// usually have.
const ANSWER_BYTES_MAX: i128 = 256 << 20;
/// Of a character, an offset, an index or a value of a list, at most.
const ITEM_BYTES: i128 = 8;
const DAY: i128 = 24 * 60 * 60 * 1_000_000_000;

/// A function that asks first how much it would make, where it could be much.
pub(crate) fn bounded(function: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    let makes = match function.name() {
        "repeat" | "array_repeat" => Makes::Copies,
        "lpad" | "rpad" => Makes::Characters,
        "array_resize" => Makes::Elements,
        "range" | "generate_series" => Makes::Series,
        "replace" => Makes::Replacements,
        _ => return function,
    };
    Arc::new(ScalarUDF::from(Bounded { function, makes }))
}

/// What a function makes of its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Makes {
    /// The first, as many times as the second says.
    Copies,
    /// As many characters as the second says.
    Characters,
    /// As many elements of a list as the second says, those beyond it the third or nulls.
    Elements,
    /// A list of what lies between the first and the second, a third apart.
    Series,
    /// The first, with the third where the second was.
    Replacements,
}

impl Makes {
    /// Bytes of the answer beyond those of what it is made of, at most.
    fn bytes(self, arguments: &Arguments) -> Result<i128> {
        match self {
            Self::Copies => {
                let counts = arguments.numbers(1)?;
                let most = counts.iter().flatten().max().unwrap_or(0);
                let rows = ITEM_BYTES * arguments.count();
                let more = i128::from(most.saturating_sub(1).max(0));
                let coarse = (arguments.bytes(0) + rows).saturating_mul(more);
                if coarse <= ANSWER_BYTES_MAX {
                    return Ok(coarse);
                }
                let each = arguments.rows().map(|row| {
                    let copies = arguments.number(&counts, row).unwrap_or(0);
                    let more = (copies - 1).max(0);
                    (arguments.bytes_at(0, row) + ITEM_BYTES).saturating_mul(more)
                });
                Ok(each.fold(0, i128::saturating_add))
            }
            Self::Characters => {
                let lengths = arguments.numbers(1)?;
                let widest = arguments.values.get(2).map_or(1, widest_character);
                let coarse = arguments.total(&lengths, widest);
                if coarse <= ANSWER_BYTES_MAX {
                    return Ok(coarse);
                }
                let each = arguments.rows().map(|row| {
                    let length = arguments.number(&lengths, row).unwrap_or(0);
                    (length - arguments.bytes_at(0, row)).max(0) * widest
                });
                Ok(each.fold(0, i128::saturating_add))
            }
            Self::Elements => {
                let element = match arguments.values.get(2) {
                    Some(_) => {
                        let widest = arguments.rows().map(|row| arguments.bytes_at(2, row));
                        widest.max().unwrap_or(0)
                    }
                    None => match arguments.data_type(0) {
                        DataType::List(field) | DataType::LargeList(field) => {
                            bytes(new_null_array(field.data_type(), 1).as_ref())
                        }
                        _ => 0,
                    },
                };
                let lengths = arguments.numbers(1)?;
                Ok(arguments.total(&lengths, element.max(ITEM_BYTES)))
            }
            Self::Series => series(arguments),
            Self::Replacements => replacements(arguments),
        }
    }
}

/// What texts grow by when something in them is replaced.
fn replacements(arguments: &Arguments) -> Result<i128> {
    let [text, from, to] = [0, 1, 2].map(|argument| arguments.values.get(argument));
    let (Some(text), Some(from), Some(to)) = (text, from, to) else {
        return Ok(0);
    };
    if from.len() == 1 && to.len() == 1 {
        let (from, to) = (bytes(from.as_ref()), bytes(to.as_ref()));
        if to <= from {
            return Ok(0);
        }
        let places = match from {
            0 => arguments.bytes(0) + arguments.count(),
            from => arguments.bytes(0) / from,
        };
        let coarse = places.saturating_mul(to - from);
        if coarse <= ANSWER_BYTES_MAX {
            return Ok(coarse);
        }
    }
    let [texts, froms, tos] = [text, from, to].map(|values| cast(values, &DataType::LargeUtf8));
    let (texts, froms, tos) = (texts?, froms?, tos?);
    fn at(values: &ArrayRef, row: usize) -> &str {
        let values = values.as_string::<i64>();
        values.value(row % values.len().max(1))
    }
    let each = arguments.rows().map(|row| {
        let (text, from, to) = (at(&texts, row), at(&froms, row), at(&tos, row));
        let more = to.len().saturating_sub(from.len()) as i128;
        more.saturating_mul(text.matches(from).count() as i128)
    });
    Ok(each.fold(0, i128::saturating_add))
}

/// Bytes of the widest character of texts.
fn widest_character(texts: &ArrayRef) -> i128 {
    let text = (texts.len() == 1).then(|| cast(texts, &DataType::LargeUtf8).ok());
    let widest = text.flatten().and_then(|texts| {
        let text = texts.as_string::<i64>().value(0);
        text.chars().map(char::len_utf8).max()
    });
    // Of any.
    widest.unwrap_or(4) as i128
}

/// What a function is given: of a constant one value, of anything else one for each row.
struct Arguments {
    values: Vec<ArrayRef>,
    rows: usize,
}

impl Arguments {
    fn of(args: &ScalarFunctionArgs) -> Result<Self> {
        let constant = |argument: &ColumnarValue| matches!(argument, ColumnarValue::Scalar(_));
        let values = args.args.iter().map(|argument| match argument {
            ColumnarValue::Array(values) => Ok(Arc::clone(values)),
            ColumnarValue::Scalar(value) => value.to_array(),
        });
        Ok(Self {
            values: values.collect::<Result<_>>()?,
            rows: if args.args.iter().all(constant) {
                1
            } else {
                args.number_rows
            },
        })
    }

    fn rows(&self) -> std::ops::Range<usize> {
        0..self.rows
    }

    fn count(&self) -> i128 {
        self.rows as i128
    }

    fn data_type(&self, argument: usize) -> &DataType {
        self.values[argument].data_type()
    }

    fn numbers(&self, argument: usize) -> Result<Int64Array> {
        let numbers = cast(&self.values[argument], &DataType::Int64)?;
        Ok(numbers.as_primitive::<Int64Type>().clone())
    }

    fn number(&self, numbers: &Int64Array, row: usize) -> Option<i128> {
        let row = row % numbers.len().max(1);
        numbers.is_valid(row).then(|| numbers.value(row).into())
    }

    /// So many times what an argument's numbers are together.
    fn total(&self, numbers: &Int64Array, times: i128) -> i128 {
        let each = self.rows().filter_map(|row| self.number(numbers, row));
        each.map(|number| number.max(0)).sum::<i128>() * times
    }

    fn bytes(&self, argument: usize) -> i128 {
        let values = &self.values[argument];
        let times = if values.len() == 1 { self.count() } else { 1 };
        bytes(values.as_ref()) * times
    }

    fn bytes_at(&self, argument: usize, row: usize) -> i128 {
        let values = &self.values[argument];
        bytes(values.slice(row % values.len().max(1), 1).as_ref())
    }
}

/// Bytes of the values of an array, those of texts that views share counted each time.
fn bytes(values: &dyn Array) -> i128 {
    fn within(elements: &ArrayRef, from: usize, to: usize) -> i128 {
        bytes(elements.slice(from, to - from).as_ref())
    }
    let viewed = |lengths: &mut dyn Iterator<Item = u32>| lengths.map(i128::from).sum();
    let ends = |offsets: Option<(i64, i64)>| offsets.map_or(0, |(from, to)| i128::from(to - from));
    let short = |offsets: &[i32]| {
        ends(
            offsets
                .first()
                .zip(offsets.last())
                .map(|(a, b)| ((*a).into(), (*b).into())),
        )
    };
    let long = |offsets: &[i64]| ends(offsets.first().copied().zip(offsets.last().copied()));
    match values.data_type() {
        DataType::Utf8 => short(values.as_string::<i32>().value_offsets()),
        DataType::Binary => short(values.as_binary::<i32>().value_offsets()),
        DataType::LargeUtf8 => long(values.as_string::<i64>().value_offsets()),
        DataType::LargeBinary => long(values.as_binary::<i64>().value_offsets()),
        DataType::Utf8View => viewed(&mut values.as_string_view().lengths()),
        DataType::BinaryView => viewed(&mut values.as_binary_view().lengths()),
        DataType::List(_) => {
            let lists = values.as_list::<i32>();
            let (first, last) = (lists.value_offsets()[0], lists.value_offsets()[lists.len()]);
            within(lists.values(), first as usize, last as usize)
        }
        DataType::LargeList(_) => {
            let lists = values.as_list::<i64>();
            let (first, last) = (lists.value_offsets()[0], lists.value_offsets()[lists.len()]);
            within(lists.values(), first as usize, last as usize)
        }
        DataType::Struct(_) => {
            let columns = values.as_struct().columns();
            columns.iter().map(|column| bytes(column.as_ref())).sum()
        }
        _ => {
            let size = values.to_data().get_slice_memory_size();
            size.unwrap_or_else(|_| values.get_array_memory_size()) as i128
        }
    }
}

/// Bytes of lists of numbers, dates or times.
fn series(arguments: &Arguments) -> Result<i128> {
    let given = arguments.values.len();
    let (starts, start_unit) = match given {
        1 => (Int64Array::from(vec![0]), 1),
        _ => ends(&arguments.values[0])?,
    };
    let (stops, stop_unit) = ends(&arguments.values[usize::from(given > 1)])?;
    let steps = Steps::of(arguments.values.get(2))?;
    let mut values = 0_i128;
    for row in arguments.rows() {
        let start = arguments.number(&starts, row);
        let stop = arguments.number(&stops, row);
        let Some(((start, stop), step)) = start.zip(stop).zip(steps.at(row)?) else {
            continue;
        };
        let distance = stop * stop_unit - start * start_unit;
        values += match step {
            0 => 0,
            step if distance.signum() == -step.signum() => 1,
            step => distance / step + 1,
        };
    }
    Ok(values.saturating_mul(ITEM_BYTES))
}

/// Where series begin or end, and what one of its units is: nanoseconds of times, or one of numbers.
fn ends(values: &ArrayRef) -> Result<(Int64Array, i128)> {
    let (unit, days) = match values.data_type() {
        DataType::Date32 => (DAY, true),
        DataType::Date64 | DataType::Timestamp(TimeUnit::Millisecond, _) => (1_000_000, false),
        DataType::Timestamp(TimeUnit::Second, _) => (1_000_000_000, false),
        DataType::Timestamp(TimeUnit::Microsecond, _) => (1_000, false),
        _ => (1, false),
    };
    let numbers = match days {
        true => cast(&cast(values, &DataType::Int32)?, &DataType::Int64)?,
        false => cast(values, &DataType::Int64)?,
    };
    Ok((numbers.as_primitive::<Int64Type>().clone(), unit))
}

/// How far apart the values of series are.
enum Steps {
    One,
    Numbers(Int64Array),
    Intervals(IntervalMonthDayNanoArray),
}

impl Steps {
    fn of(values: Option<&ArrayRef>) -> Result<Self> {
        Ok(match values {
            None => Self::One,
            Some(values)
                if *values.data_type() == DataType::Interval(IntervalUnit::MonthDayNano) =>
            {
                Self::Intervals(values.as_primitive::<IntervalMonthDayNanoType>().clone())
            }
            Some(values) => {
                let numbers = cast(values, &DataType::Int64)?;
                Self::Numbers(numbers.as_primitive::<Int64Type>().clone())
            }
        })
    }

    /// The shortest that a step can be: months and days have no length of their own.
    fn at(&self, row: usize) -> Result<Option<i128>> {
        let of = |values: &dyn Array| {
            let row = row % values.len().max(1);
            values.is_valid(row).then_some(row)
        };
        match self {
            Self::One => Ok(Some(1)),
            Self::Numbers(numbers) => Ok(of(numbers).map(|row| numbers.value(row).into())),
            Self::Intervals(steps) => of(steps).map(|row| shortest(steps.value(row))).transpose(),
        }
    }
}

/// The shortest that an interval can be.
///
/// # Errors
/// When it can be nothing at all, as a month and 31 days back: a series would never end.
fn shortest(step: IntervalMonthDayNano) -> Result<i128> {
    let rest = i128::from(step.days) * DAY + i128::from(step.nanoseconds);
    let months = i128::from(step.months) * DAY;
    let (one, other) = (months * 28 + rest, months * 31 + rest);
    if one == 0 && other == 0 && rest == 0 {
        return Ok(0);
    }
    if one.signum() * other.signum() < 1 {
        return exec_err!("a series does not get on by an interval of {step:?}");
    }
    Ok(if one.abs() < other.abs() { one } else { other })
}

/// A function that may not make too much.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded {
    function: Arc<ScalarUDF>,
    makes: Makes,
}

#[warn(
    clippy::missing_trait_methods,
    reason = "all are those of the function"
)]
impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn aliases(&self) -> &[String] {
        self.function.aliases()
    }

    fn display_name(&self, args: &[Expr]) -> Result<String> {
        self.function.schema_name(args)
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        self.function.schema_name(args)
    }

    fn signature(&self) -> &Signature {
        self.function.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.function.return_type(arg_types)
    }

    fn with_updated_config(&self, config: &ConfigOptions) -> Option<ScalarUDF> {
        let function = self.function.inner().with_updated_config(config)?;
        Some(ScalarUDF::from(Self {
            function: Arc::new(function),
            makes: self.makes,
        }))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.function.return_field_from_args(args)
    }

    fn is_nullable(&self, args: &[Expr], schema: &dyn ExprSchema) -> bool {
        #[expect(deprecated)]
        self.function.is_nullable(args, schema)
    }

    fn is_strict(&self) -> bool {
        self.function.inner().is_strict()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let bytes = self.makes.bytes(&Arguments::of(&args)?)?;
        if bytes > ANSWER_BYTES_MAX {
            return resources_err!(
                "{} would make more than {} MiB of some rows. Ask for less at a time; \
                 FROM generate_series(...) makes rows, and as many as are wanted",
                self.name(),
                ANSWER_BYTES_MAX >> 20
            );
        }
        self.function.invoke_with_args(args)
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        self.function.simplify(args, info)
    }

    fn preimage(
        &self,
        args: &[Expr],
        literal: &Expr,
        info: &SimplifyContext,
    ) -> Result<PreimageResult> {
        self.function.preimage(args, literal, info)
    }

    fn short_circuits(&self) -> bool {
        self.function.short_circuits()
    }

    fn conditional_arguments<'a>(
        &self,
        args: &'a [Expr],
    ) -> Option<(Vec<&'a Expr>, Vec<&'a Expr>)> {
        self.function.conditional_arguments(args)
    }

    fn evaluate_bounds(&self, input: &[&Interval]) -> Result<Interval> {
        self.function.evaluate_bounds(input)
    }

    fn propagate_constraints(
        &self,
        interval: &Interval,
        inputs: &[&Interval],
    ) -> Result<Option<Vec<Interval>>> {
        self.function.propagate_constraints(interval, inputs)
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        self.function.output_ordering(inputs)
    }

    fn preserves_lex_ordering(&self, inputs: &[ExprProperties]) -> Result<bool> {
        self.function.preserves_lex_ordering(inputs)
    }

    fn strictly_order_preserving(&self, inputs: &[ExprProperties]) -> Result<bool> {
        self.function.inner().strictly_order_preserving(inputs)
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        self.function.coerce_types(arg_types)
    }

    fn struct_field_mapping(&self, literals: &[Option<ScalarValue>]) -> Option<StructFieldMapping> {
        self.function.struct_field_mapping(literals)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.function.documentation()
    }

    fn placement(&self, args: &[ExpressionPlacement]) -> ExpressionPlacement {
        self.function.placement(args)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::StringArray;

    use super::*;

    fn texts(texts: &[&str]) -> ArrayRef {
        Arc::new(StringArray::from(texts.to_vec()))
    }

    fn numbers(numbers: &[i64]) -> ArrayRef {
        Arc::new(Int64Array::from(numbers.to_vec()))
    }

    fn bytes_of(makes: Makes, values: &[&ArrayRef]) -> i128 {
        let rows = values.iter().map(|values| values.len()).max().unwrap_or(0);
        let values = values.iter().map(|values| Arc::clone(values)).collect();
        makes.bytes(&Arguments { values, rows }).expect("counted")
    }

    #[test]
    fn what_there_was_before_does_not_count() {
        let rows = texts(&["abc", "aaaa", ""]);
        let (a, b, xyz) = (texts(&["a"]), texts(&["b"]), texts(&["xyz"]));
        let (narrow, wide) = (texts(&["-"]), texts(&["-\u{e9}"]));
        let [least, one, three] = [i64::MIN, 1, 3].map(|number| numbers(&[number]));
        let cases: [(Makes, &[&ArrayRef], i128); 8] = [
            (Makes::Copies, &[&rows, &one], 0),
            (Makes::Copies, &[&rows, &least], 0),
            // Two more of seven bytes, and of three places.
            (Makes::Copies, &[&rows, &three], 2 * (7 + 3 * 8)),
            (Makes::Replacements, &[&rows, &a, &b], 0),
            // At each of seven bytes, perhaps.
            (Makes::Replacements, &[&rows, &a, &xyz], 14),
            (Makes::Characters, &[&rows, &three], 9),
            (Makes::Characters, &[&rows, &three, &narrow], 9),
            (Makes::Characters, &[&rows, &three, &wide], 18),
        ];
        for (makes, values, expected) in cases {
            assert_eq!(bytes_of(makes, values), expected, "{makes:?}");
        }
    }

    #[test]
    fn what_is_coarsely_too_much_is_counted_row_by_row() {
        let long = "a".repeat(1 << 20);
        let rows = texts(&[&long, "a", "b"]);
        let counts = numbers(&[1, 1_000, 1_000_000]);
        let copies = bytes_of(Makes::Copies, &[&rows, &counts]);
        assert_eq!(copies, 999 * 9 + 999_999 * 9);
        let (from, to) = (texts(&["aa", "a", "a"]), texts(&[&"b".repeat(1 << 10)]));
        let replaced = bytes_of(Makes::Replacements, &[&rows, &from, &to]);
        assert_eq!(replaced, (1 << 19) * ((1 << 10) - 2) + (1 << 10) - 1);
        let padded = numbers(&[1 << 20, 100_000_000, 200_000_000]);
        let characters = bytes_of(Makes::Characters, &[&rows, &padded]);
        assert_eq!(characters, 300_000_000 - 2);
    }

    #[test]
    fn an_interval_is_as_short_as_it_can_be() {
        let interval = |months, days, nanoseconds| {
            shortest(IntervalMonthDayNano::new(months, days, nanoseconds))
        };
        assert_eq!(interval(0, 0, 5).expect("it gets on"), 5);
        assert_eq!(interval(1, 0, 0).expect("it gets on"), 28 * DAY);
        assert_eq!(interval(-1, 1, 0).expect("it gets on"), -27 * DAY);
        assert_eq!(interval(0, 0, 0).expect("refused by the function"), 0);
        for (months, days) in [(1, -28), (1, -30), (1, -31), (-1, 29)] {
            assert!(interval(months, days, 0).is_err(), "{months} {days}");
        }
    }
}
