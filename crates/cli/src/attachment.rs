//! `slipstream attach` and `slipstream detach`.

use anyhow::Context;
use reqwest::Method;
use slipstream_frontend::{AttachRequest, Attachment, ProvisioningState};

use crate::client::{Client, FOLLOWER_URL};

/// Flags of `slipstream attach`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Example:
  slipstream attach --leader leader --database nyc

The follower must have been started with --leader NAME=GRPC_URL of that name.")]
pub(crate) struct AttachArgs {
    /// HTTP address of the follower.
    #[arg(long, value_name = "URL", env = "SLIPSTREAM_URL", default_value = FOLLOWER_URL)]
    url: String,
    /// The leader cluster.
    #[arg(long, value_name = "NAME")]
    leader: String,
    /// The database at the leader.
    #[arg(long, value_name = "DATABASE")]
    database: String,
    /// Name of the attached database configuration [default: the database's].
    #[arg(long, value_name = "CONFIGURATION")]
    name: Option<String>,
}

/// Flags of `slipstream detach`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Example:
  slipstream detach --name nyc")]
pub(crate) struct DetachArgs {
    /// HTTP address of the follower.
    #[arg(long, value_name = "URL", env = "SLIPSTREAM_URL", default_value = FOLLOWER_URL)]
    url: String,
    /// Name of the attached database configuration.
    #[arg(long, value_name = "CONFIGURATION")]
    name: String,
}

/// Makes a follower follow a database.
pub(crate) async fn attach(args: AttachArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.url)?;
    let body = AttachRequest {
        name: args.name,
        ..AttachRequest::of(args.leader, args.database)
    };
    let request = client
        .request(Method::POST, &["v1", "attachments"])
        .json(&body);
    let attachment: Attachment = client
        .send(request)
        .await?
        .json()
        .await
        .context("the node's answer is garbled")?;
    let state = match attachment.provisioning_state {
        ProvisioningState::Succeeded => {
            let version = attachment
                .databases
                .first()
                .and_then(|database| database.version)
                .map_or_else(String::new, |v| format!(" at version {v}"));
            format!("is served{version}")
        }
        ProvisioningState::Failed => {
            let why = attachment
                .error
                .map(|error| error.message)
                .unwrap_or_default();
            anyhow::bail!(
                "database '{}' is attached as '{}', but cannot be served: {why}",
                attachment.terms.database,
                attachment.name
            );
        }
        state => format!("is {state:?}: see slipstream show databases").to_lowercase(),
    };
    println!(
        "database '{}' of leader '{}' is attached as '{}' and {state}",
        attachment.terms.database, attachment.leader, attachment.name
    );
    Ok(())
}

/// Makes a follower stop following.
pub(crate) async fn detach(args: DetachArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.url)?;
    let request = client.request(Method::DELETE, &["v1", "attachments", &args.name]);
    client.send(request).await?;
    println!("configuration '{}' is detached", args.name);
    Ok(())
}
