//! `slipstream apply`: a follower as a document says it should be.

mod document;
mod plan;
mod template;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use reqwest::Method;
use serde::de::DeserializeOwned;
use serde_json::Value;
use slipstream_frontend::{Attachment, FollowerDatabase, ProvisioningState};

use crate::client::{Client, Credentials, FOLLOWER_URL};
pub(crate) use document::Document;
use plan::AttachStep;

/// Flags of `slipstream apply`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  slipstream apply -f follower.yaml --dry-run
  slipstream apply -f follower.yaml
  slipstream apply -f template.json --set databaseName=nyc --set followerClusterName=follower
  slipstream show follower --output yaml > follower.yaml

A document names attachments and, by database, caching, principals and how both combine:
  attachments:
    - {leader: leader, database: nyc, sharing: {tablesToInclude: ['fl*']}}
  databases:
    nyc:
      cachingPoliciesModificationKind: Replace
      caching: 7d
      tables: {flights: 3d}
      principals: [{role: Viewer, principal: 'aaduser=ada@example.org'}]

What it says of a database is all that holds there; attachments that it does not name stay, unless
--prune is given. An Azure deployment template with attachedDatabaseConfigurations works too.")]
pub(crate) struct ApplyArgs {
    /// HTTP address of the follower.
    #[arg(long, value_name = "URL", env = "SLIPSTREAM_URL", default_value = FOLLOWER_URL)]
    url: String,
    /// How to get in.
    #[command(flatten)]
    credentials: Credentials,
    /// The document: YAML or JSON.
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Say what would be changed, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Detach what the document does not name.
    #[arg(long)]
    prune: bool,
    /// A deployment template's parameters, as a file of its own.
    #[arg(long, value_name = "FILE")]
    parameters: Option<PathBuf>,
    /// One parameter of a deployment template; may be given several times.
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = pair)]
    set: Vec<(String, String)>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| format!("'{text}' is not NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// What a follower says of itself.
pub(crate) struct Current {
    pub(crate) attachments: Vec<Attachment>,
    pub(crate) databases: Vec<FollowerDatabase>,
}

impl Current {
    pub(crate) async fn read(client: &Client) -> anyhow::Result<Self> {
        Ok(Self {
            attachments: get(client, "attachments").await?,
            databases: get(client, "overrides").await?,
        })
    }
}

async fn get<T: DeserializeOwned>(client: &Client, what: &str) -> anyhow::Result<T> {
    let request = client.request(Method::GET, &["v1", what]);
    let answer = client.send(request).await?.json().await;
    answer.with_context(|| format!("the node's {what} cannot be read"))
}

/// Runs the command.
pub(crate) async fn run(args: ApplyArgs) -> anyhow::Result<()> {
    let wanted = read(&args)?;
    let client = Client::new(&args.url, &args.credentials)?;
    let current = Current::read(&client).await?;
    let mark = if args.dry_run { "would " } else { "" };
    let mut changes = 0;

    for step in plan::attachments(&wanted, &current.attachments, args.prune)? {
        changes += 1;
        crate::print(format!("{mark}{step}"))?;
        if args.dry_run {
            continue;
        }
        let request = match &step {
            AttachStep::Put { request, .. } => client
                .request(Method::POST, &["v1", "attachments"])
                .json(request),
            AttachStep::Detach { name } => {
                client.request(Method::DELETE, &["v1", "attachments", name])
            }
        };
        client.send(request).await?;
    }

    // What was attached just now has settings only from now on.
    let current = if args.dry_run {
        current
    } else {
        Current::read(&client).await?
    };
    for (database, spec) in &wanted.databases {
        let known = current
            .databases
            .iter()
            .find(|known| known.database == *database);
        let overrides = match known {
            Some(known) => known.overrides.clone(),
            None if args.dry_run => wanted.overrides_when_attached(database),
            None => bail!(
                "database '{database}' is not followed here: the document has to attach it, under \
                 that name"
            ),
        };
        for command in plan::commands(database, spec, &overrides)? {
            changes += 1;
            crate::print(format!("{mark}run {command}"))?;
            if !args.dry_run {
                let body = serde_json::json!({"sql": command});
                let request = client.request(Method::POST, &["v1", "sql"]).json(&body);
                client.send(request).await?;
            }
        }
    }
    let file = args.file.display();
    crate::print(match (changes, args.dry_run) {
        (0, _) => format!("nothing to change: the follower is as {file} says"),
        (changes, true) => format!("{changes} changes, none made: --dry-run"),
        (changes, false) => format!("{changes} changes made"),
    })?;
    if args.dry_run {
        return Ok(());
    }
    check_served(&wanted, &current.attachments)
}

/// Fails when something is attached as the document says, and cannot be served.
fn check_served(wanted: &Document, attachments: &[Attachment]) -> anyhow::Result<()> {
    let failed = attachments.iter().filter(|attachment| {
        attachment.provisioning_state == ProvisioningState::Failed
            && wanted.attachments.iter().any(|spec| {
                spec.leader == attachment.leader
                    && spec.database == attachment.terms.database.to_string()
            })
    });
    let failed = failed.map(|attachment| {
        let error = attachment.error.as_ref();
        let why = error.map_or("", |error| error.message.as_str());
        format!(
            "'{}' is attached, but cannot be served: {why}",
            attachment.name
        )
    });
    let failed: Vec<_> = failed.collect();
    if failed.is_empty() {
        return Ok(());
    }
    bail!(failed.join("; "))
}

/// Reads the document, or makes one of a deployment template.
fn read(args: &ApplyArgs) -> anyhow::Result<Document> {
    let value = value_of(&args.file)?;
    if !template::is_template(&value) {
        if args.parameters.is_some() || !args.set.is_empty() {
            bail!("--parameters and --set are for deployment templates");
        }
        let text = std::fs::read_to_string(&args.file)?;
        return serde_saphyr::from_str(&text)
            .map_err(|error| anyhow::anyhow!("{}: {error}", args.file.display()));
    }
    let mut parameters: BTreeMap<String, Value> = BTreeMap::new();
    if let Some(file) = &args.parameters {
        parameters.extend(template::parameters_of(value_of(file)?)?);
    }
    let set = args.set.iter().cloned();
    parameters.extend(set.map(|(name, value)| (name, Value::String(value))));
    template::document(&value, &parameters)
        .with_context(|| format!("deployment template {}", args.file.display()))
}

fn value_of(file: &Path) -> anyhow::Result<Value> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_saphyr::from_str(&text)
        .map_err(|error| anyhow::anyhow!("{} is neither YAML nor JSON: {error}", file.display()))
}
