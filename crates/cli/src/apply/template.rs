//! Azure deployment templates: those that attach databases.
//!
//! Of the template language there is what such templates use: parameters, variables, `concat`,
//! `resourceId` and `resourceGroup().location` (*Template functions*, Azure documentation).

use std::collections::BTreeMap;

use anyhow::{Context, anyhow, bail};
use serde::Deserialize;
use serde_json::{Map, Value};
use slipstream_model::{PrincipalsModificationKind, TableLevelSharing};
use winnow::ascii::multispace0;
use winnow::combinator::{alt, delimited, preceded, repeat, separated};
use winnow::prelude::*;
use winnow::token::{take_till, take_while};

use super::document::{AttachmentSpec, Document};

const CLUSTER: &str = "Microsoft.Kusto/clusters";
const CONFIGURATION: &str = "Microsoft.Kusto/clusters/attachedDatabaseConfigurations";
/// How deep calls may nest.
const NESTING_MAX: usize = 32;

/// Whether a file is a deployment template, rather than a document of our own.
pub(super) fn is_template(value: &Value) -> bool {
    value["$schema"]
        .as_str()
        .is_some_and(|schema| schema.contains("deploymentTemplate"))
}

/// A parameter file: `{"parameters": {"name": {"value": ...}}}`, or bare names and values.
///
/// # Errors
/// When it is something else.
pub(super) fn parameters_of(value: Value) -> anyhow::Result<BTreeMap<String, Value>> {
    let Value::Object(mut all) = value else {
        bail!("a parameter file is an object");
    };
    if let Some(Value::Object(inner)) = all.remove("parameters") {
        all = inner;
    } else {
        all.remove("$schema");
        all.remove("contentVersion");
    }
    let values = all.into_iter().map(|(name, value)| match value {
        Value::Object(mut inner) if inner.contains_key("value") => {
            (name, inner.remove("value").unwrap_or_default())
        }
        value => (name, value),
    });
    Ok(values.collect())
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Properties {
    database_name: String,
    cluster_resource_id: String,
    default_principals_modification_kind: PrincipalsModificationKind,
    #[serde(default)]
    table_level_sharing_properties: TableLevelSharing,
    database_name_override: Option<String>,
    database_name_prefix: Option<String>,
}

/// The attachments of a template.
///
/// # Errors
/// When an expression cannot be read, a parameter is missing, or a resource is of another kind.
pub(super) fn document(
    template: &Value,
    given: &BTreeMap<String, Value>,
) -> anyhow::Result<Document> {
    let scope = Scope::new(template, given)?;
    let resources = template["resources"].as_array();
    let mut document = Document::default();
    for resource in resources.context("the template has no resources")? {
        let kind = resource["type"].as_str().unwrap_or_default();
        if kind.eq_ignore_ascii_case(CLUSTER) {
            eprintln!("leaving out the resource of type {CLUSTER}: the follower is there already");
            continue;
        }
        if !kind.eq_ignore_ascii_case(CONFIGURATION) {
            bail!(
                "a resource of type '{kind}' is nothing that can be applied here: only {CONFIGURATION}"
            );
        }
        let resource = scope.evaluate(resource)?;
        let name = resource["name"].as_str().unwrap_or_default();
        let name = name.rsplit('/').next().unwrap_or_default();
        for (what, value) in [
            ("name", &Value::from(name)),
            ("databaseName", &resource["properties"]["databaseName"]),
            (
                "clusterResourceId",
                &resource["properties"]["clusterResourceId"],
            ),
        ] {
            if value.as_str().is_none_or(str::is_empty) {
                bail!(
                    "{what} of an attached database configuration is empty: set its parameter \
                       with --set or --parameters"
                );
            }
        }
        let properties: Properties = serde_json::from_value(resource["properties"].clone())
            .with_context(|| format!("properties of configuration '{name}'"))?;
        let leader = properties.cluster_resource_id.trim_end_matches('/');
        let leader = leader.rsplit('/').next().unwrap_or_default();
        let location = resource["location"]
            .as_str()
            .filter(|text| !text.is_empty());
        document.attachments.push(AttachmentSpec {
            name: Some(name.to_owned()),
            leader: leader.to_owned(),
            database: properties.database_name,
            sharing: properties.table_level_sharing_properties,
            database_name_override: properties.database_name_override,
            database_name_prefix: properties.database_name_prefix,
            default_principals_modification_kind: properties.default_principals_modification_kind,
            location: location.map(str::to_owned),
        });
    }
    Ok(document)
}

/// What expressions can name.
struct Scope {
    parameters: BTreeMap<String, Value>,
    variables: Map<String, Value>,
}

impl Scope {
    fn new(template: &Value, given: &BTreeMap<String, Value>) -> anyhow::Result<Self> {
        let declared = template["parameters"]
            .as_object()
            .cloned()
            .unwrap_or_default();
        if let Some(unknown) = given.keys().find(|name| !declared.contains_key(*name)) {
            let known: Vec<_> = declared.keys().map(String::as_str).collect();
            bail!(
                "the template has no parameter '{unknown}'; it has {}",
                known.join(", ")
            );
        }
        let mut parameters = BTreeMap::new();
        for (name, declaration) in &declared {
            let value = given.get(name).or_else(|| declaration.get("defaultValue"));
            let value = value.with_context(|| {
                format!("parameter '{name}' has no value: give it with --set {name}=...")
            })?;
            parameters.insert(name.clone(), value.clone());
        }
        let mut scope = Self {
            parameters,
            variables: Map::new(),
        };
        // Default values are expressions too, and variables may use parameters.
        for (name, value) in scope.parameters.clone() {
            let value = scope.evaluate(&value)?;
            scope.parameters.insert(name, value);
        }
        let variables = template["variables"]
            .as_object()
            .cloned()
            .unwrap_or_default();
        for (name, value) in variables {
            let value = scope.evaluate(&value)?;
            scope.variables.insert(name, value);
        }
        Ok(scope)
    }

    /// A value with its expressions worked out.
    fn evaluate(&self, value: &Value) -> anyhow::Result<Value> {
        Ok(match value {
            Value::String(text) => match text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
                Some(inner) if !text.starts_with("[[") => {
                    let expression = expression
                        .parse(inner.trim())
                        .map_err(|_| anyhow!("the expression {text} cannot be read"))?;
                    self.call(&expression, 0).with_context(|| text.clone())?
                }
                // Two brackets stand for one that means nothing.
                Some(_) => Value::String(text[1..].to_owned()),
                None => value.clone(),
            },
            Value::Array(items) => {
                let items = items.iter().map(|item| self.evaluate(item));
                Value::Array(items.collect::<anyhow::Result<_>>()?)
            }
            Value::Object(members) => {
                let members = members
                    .iter()
                    .map(|(name, value)| Ok((name.clone(), self.evaluate(value)?)));
                Value::Object(members.collect::<anyhow::Result<_>>()?)
            }
            other => other.clone(),
        })
    }

    fn call(&self, expression: &Expression, depth: usize) -> anyhow::Result<Value> {
        if depth > NESTING_MAX {
            bail!("the expression nests too deep");
        }
        let Expression::Call {
            name,
            arguments,
            members,
        } = expression
        else {
            let Expression::Text(text) = expression else {
                bail!("not an expression");
            };
            return Ok(Value::String(text.clone()));
        };
        let arguments = arguments
            .iter()
            .map(|argument| self.call(argument, depth + 1));
        let arguments: Vec<Value> = arguments.collect::<anyhow::Result<_>>()?;
        let text = |index: usize| {
            let argument = arguments.get(index).and_then(Value::as_str);
            argument.with_context(|| format!("{name} takes a text in place {}", index + 1))
        };
        let mut value = match name.to_ascii_lowercase().as_str() {
            "parameters" => {
                let wanted = text(0)?;
                let known = self.parameters.get(wanted);
                known
                    .cloned()
                    .with_context(|| format!("there is no parameter '{wanted}'"))?
            }
            "variables" => {
                let wanted = text(0)?;
                let known = self.variables.get(wanted);
                known
                    .cloned()
                    .with_context(|| format!("there is no variable '{wanted}'"))?
            }
            "concat" => {
                let parts = arguments.iter().map(|part| match part {
                    Value::String(text) => Ok(text.clone()),
                    Value::Number(number) => Ok(number.to_string()),
                    other => Err(anyhow!("concat takes texts, not {other}")),
                });
                Value::String(parts.collect::<anyhow::Result<String>>()?)
            }
            // Subscription and resource group mean nothing here: the last part counts.
            "resourceid" => {
                let parts = (0..arguments.len())
                    .map(text)
                    .collect::<anyhow::Result<Vec<_>>>()?;
                Value::String(parts.join("/"))
            }
            "resourcegroup" => serde_json::json!({"location": ""}),
            other => bail!(
                "the function '{other}' is not known here: there are parameters, variables, concat, \
                 resourceId and resourceGroup"
            ),
        };
        for member in members {
            value = value[member.as_str()].take();
        }
        Ok(value)
    }
}

/// An expression between brackets.
#[derive(Debug, Clone, PartialEq)]
enum Expression {
    Text(String),
    Call {
        name: String,
        arguments: Vec<Self>,
        /// `.location` behind it.
        members: Vec<String>,
    },
}

fn expression(input: &mut &str) -> winnow::Result<Expression> {
    delimited(multispace0, alt((text, call)), multispace0).parse_next(input)
}

/// Quotes are doubled.
fn text(input: &mut &str) -> winnow::Result<Expression> {
    let part = delimited('\'', take_till(0.., '\''), '\'');
    let parts: Vec<&str> = repeat(1.., part).parse_next(input)?;
    Ok(Expression::Text(parts.join("'")))
}

fn word(input: &mut &str) -> winnow::Result<String> {
    take_while(1.., |c: char| c.is_ascii_alphanumeric() || c == '_')
        .map(str::to_owned)
        .parse_next(input)
}

fn call(input: &mut &str) -> winnow::Result<Expression> {
    let name = word(input)?;
    let arguments =
        delimited(('(', multispace0), separated(0.., expression, ','), ')').parse_next(input)?;
    let members = repeat(0.., preceded('.', word)).parse_next(input)?;
    Ok(Expression::Call {
        name,
        arguments,
        members,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn template() -> Value {
        json!({
            "$schema": "https://schema.management.azure.com/schemas/2015-01-01/deploymentTemplate.json#",
            "parameters": {
                "follower": {"type": "string"},
                "database": {"type": "string", "defaultValue": ""},
                "kind": {"type": "string", "defaultValue": "Union"},
                "location": {"type": "string", "defaultValue": "[resourceGroup().location]"},
            },
            "variables": {"leader": "[resourceId('Microsoft.Kusto/clusters', 'north')]"},
            "resources": [
                {"type": "Microsoft.Kusto/clusters", "name": "[parameters('follower')]"},
                {
                    "type": CONFIGURATION,
                    "name": "[concat(parameters('follower'), '/', 'it''s')]",
                    "location": "[parameters('location')]",
                    "properties": {
                        "databaseName": "[parameters('database')]",
                        "clusterResourceId": "[variables('leader')]",
                        "defaultPrincipalsModificationKind": "[parameters('kind')]",
                        "tableLevelSharingProperties": {"tablesToInclude": ["[[a]"]},
                    },
                },
            ],
        })
    }

    fn given(pairs: &[(&str, &str)]) -> BTreeMap<String, Value> {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| ((*name).to_owned(), Value::from(*value)))
            .collect()
    }

    #[test]
    fn a_template_is_its_attachments() {
        let parameters = given(&[("follower", "south"), ("database", "*")]);
        let found = document(&template(), &parameters).expect("readable");
        let [attachment] = &found.attachments[..] else {
            panic!("{found:?}");
        };
        assert_eq!(attachment.name(), "it's");
        assert_eq!(
            (attachment.leader.as_str(), attachment.database.as_str()),
            ("north", "*")
        );
        assert_eq!(attachment.sharing.tables_to_include, ["[a]"]);
        assert_eq!(attachment.location, None);
    }

    #[test]
    fn what_a_template_lacks_is_named() {
        for (parameters, phrase) in [
            (given(&[]), "parameter 'follower' has no value"),
            (given(&[("follower", "f")]), "databaseName"),
            (
                given(&[("follower", "f"), ("databse", "d")]),
                "no parameter 'databse'",
            ),
            (
                given(&[("follower", "f"), ("database", "d"), ("kind", "Both")]),
                "Both",
            ),
            (
                given(&[("follower", "f"), ("database", "[guid('x')]")]),
                "the function 'guid'",
            ),
        ] {
            let error = document(&template(), &parameters).expect_err(phrase);
            let said = format!("{error:#}");
            assert!(said.contains(phrase), "{phrase}: {said}");
        }
    }

    #[test]
    fn a_parameter_file_has_values_in_either_form() {
        let azure = json!({"$schema": "x", "parameters": {"a": {"value": 1}}});
        let bare = json!({"a": 1});
        for file in [azure, bare] {
            let read = parameters_of(file).expect("readable");
            assert_eq!(read, [("a".to_owned(), json!(1))].into());
        }
    }
}
