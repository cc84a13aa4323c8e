//! Values for the placeholders of a statement.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::ParamValues;
use datafusion::logical_expr::LogicalPlan;
use datafusion::scalar::ScalarValue;

use crate::{QueryError, QueryErrorKind};

/// Values of `$1`, `$2`... or of `$name`.
///
/// ```
/// use datafusion::scalar::ScalarValue;
/// use slipstream_query::Parameters;
///
/// let positional = Parameters::positional(vec![ScalarValue::from(7_i64)]);
/// let named = Parameters::named([("carrier", ScalarValue::from("UA"))]);
/// assert!(!positional.is_empty() && !named.is_empty());
/// assert!(Parameters::default().is_empty());
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Parameters(Values);

#[derive(Debug, Clone, PartialEq)]
enum Values {
    Positional(Vec<ScalarValue>),
    Named(BTreeMap<String, ScalarValue>),
}

impl Default for Values {
    fn default() -> Self {
        Self::Positional(Vec::new())
    }
}

impl Parameters {
    /// Values of `$1`, `$2`..., in order.
    pub fn positional(values: Vec<ScalarValue>) -> Self {
        Self(Values::Positional(values))
    }

    /// Values of `$name`; names without the `$`.
    pub fn named<N: Into<String>>(values: impl IntoIterator<Item = (N, ScalarValue)>) -> Self {
        Self(Values::Named(
            values.into_iter().map(|(n, v)| (n.into(), v)).collect(),
        ))
    }

    /// One row of a batch, its columns in order: what Flight SQL clients bind.
    ///
    /// # Errors
    /// When there is no such row.
    pub fn from_row(batch: &RecordBatch, row: usize) -> Result<Self, QueryError> {
        if row >= batch.num_rows() {
            let message = format!(
                "there is no row {row} of parameters, only {}",
                batch.num_rows()
            );
            return Err(QueryError::new(QueryErrorKind::Planning, message));
        }
        let columns = batch.columns().iter();
        let values: Result<Vec<_>, _> = columns
            .map(|column| ScalarValue::try_from_array(column, row))
            .collect();
        Ok(Self::positional(values?))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        match &self.0 {
            Values::Positional(values) => values.is_empty(),
            Values::Named(values) => values.is_empty(),
        }
    }

    /// The value of a placeholder as plans write it: `$1`, `$name`.
    fn get_mut(&mut self, placeholder: &str) -> Option<&mut ScalarValue> {
        let name = placeholder
            .strip_prefix(['$', ':', '@'])
            .unwrap_or(placeholder);
        match &mut self.0 {
            Values::Positional(values) => {
                let position = name.parse::<usize>().ok()?.checked_sub(1)?;
                values.get_mut(position)
            }
            Values::Named(values) => values.get_mut(name),
        }
    }
}

impl From<Vec<ScalarValue>> for Parameters {
    fn from(values: Vec<ScalarValue>) -> Self {
        Self::positional(values)
    }
}

/// The placeholders of a plan, `$1` before `$2` before `$10`, with their types; type `Null` where
/// the statement leaves it open.
pub(crate) fn parameter_schema(plan: &LogicalPlan) -> Result<Schema, QueryError> {
    let mut fields: Vec<Field> = plan
        .get_parameter_fields()?
        .into_iter()
        .map(|(name, field)| {
            let data_type = field.map_or(DataType::Null, |field| field.data_type().clone());
            Field::new(name, data_type, true)
        })
        .collect();
    let position = |field: &Field| field.name()[1..].parse::<usize>().unwrap_or(usize::MAX);
    fields.sort_by_cached_key(|field| (position(field), field.name().clone()));
    Ok(Schema::new(fields))
}

/// Puts the values in the place of the placeholders.
pub(crate) fn bind(
    plan: LogicalPlan,
    mut parameters: Parameters,
) -> Result<LogicalPlan, QueryError> {
    let fail = |message| Err(QueryError::new(QueryErrorKind::Planning, message));
    let wanted = parameter_schema(&plan)?;
    for field in wanted.fields() {
        let Some(value) = parameters.get_mut(field.name()) else {
            return fail(format!("no value was sent for parameter {}", field.name()));
        };
        if let Some(cast) = adapt(value, field.data_type()).map_err(|error| {
            let message = format!(
                "parameter {} cannot be read as {}: {}",
                field.name(),
                field.data_type(),
                QueryError::from(error)
            );
            QueryError::new(QueryErrorKind::Planning, message)
        })? {
            *value = cast;
        }
    }
    if wanted.fields().is_empty() {
        if parameters.is_empty() {
            return Ok(plan);
        }
        return fail(
            "values were sent, but the statement has no parameters ($1, $name)".to_owned(),
        );
    }
    let values = match parameters.0 {
        Values::Positional(values) => ParamValues::from(values),
        Values::Named(values) => ParamValues::from(values.into_iter().collect::<Vec<_>>()),
    };
    Ok(plan.with_param_values(values)?)
}

/// A value in the type that the statement expects at its place; `None` when it stays as it is.
///
/// JSON knows few types: a time arrives as text, an `Int32` as an `Int64`. Text is read as
/// whatever is expected. Another value changes its type only where that loses nothing, so that
/// `n = 1.5` never becomes `n = 1`.
fn adapt(
    value: &ScalarValue,
    expected: &DataType,
) -> Result<Option<ScalarValue>, datafusion::error::DataFusionError> {
    let found = value.data_type();
    if expected == &DataType::Null || expected == &found {
        return Ok(None);
    }
    if found.is_null() || found.is_string() {
        return value.cast_to(expected).map(Some);
    }
    let cast = value.cast_to(expected).ok();
    Ok(cast.filter(|cast| cast.cast_to(&found).is_ok_and(|back| &back == value)))
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::TimeUnit;

    use super::*;

    #[test]
    fn text_is_read_as_what_is_expected() {
        let expected = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let text = ScalarValue::from("2013-01-01T05:00:00Z");
        let adapted = adapt(&text, &expected).expect("a time").expect("changes");
        assert_eq!(adapted.data_type(), expected);
        assert!(adapt(&ScalarValue::from("soon"), &expected).is_err());
    }

    #[test]
    fn a_number_changes_its_type_only_without_loss() {
        let one = adapt(&ScalarValue::from(1_i64), &DataType::Int32).expect("fits");
        assert_eq!(one, Some(ScalarValue::from(1_i32)));
        let half = adapt(&ScalarValue::from(1.5_f64), &DataType::Int32).expect("stays");
        assert_eq!(half, None);
        let large = adapt(&ScalarValue::from(i64::MAX), &DataType::Int32).expect("stays");
        assert_eq!(large, None);
    }
}
