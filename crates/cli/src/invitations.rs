//! `slipstream invitations`: which invitations there are, and taking them back.

use anyhow::Context;
use comfy_table::{ContentArrangement, Table, presets};
use reqwest::Method;
use slipstream_frontend::InvitationDescription;

use crate::client::{Client, Credentials, LEADER_URL};

/// Flags of `slipstream invitations`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  slipstream invitations list
  slipstream invitations revoke 6f9619ff-8b86-d011-b42d-00c04fc964ff

Followers that came by an invitation stay attached when it is revoked: slipstream detach ends that.")]
pub(crate) struct InvitationsArgs {
    /// HTTP address of the leader.
    #[arg(
        long,
        value_name = "URL",
        env = "SLIPSTREAM_URL",
        default_value = LEADER_URL,
        global = true
    )]
    url: String,
    /// How to get in.
    #[command(flatten)]
    credentials: Credentials,
    #[command(subcommand)]
    command: InvitationsCommand,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum InvitationsCommand {
    /// List the invitations that were not revoked, those that have expired included.
    List,
    /// Take an invitation back: nobody attaches with its token from now on.
    Revoke {
        /// The invitation's id, as the list shows it.
        id: String,
    },
}

/// Runs the command.
pub(crate) async fn run(args: InvitationsArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.url, &args.credentials)?;
    match args.command {
        InvitationsCommand::List => {
            let request = client.request(Method::GET, &["v1", "invitations"]);
            let answer = client.send(request).await?.json().await;
            let all: Vec<InvitationDescription> = answer.context("the node's answer is garbled")?;
            crate::print(table(&all))?;
        }
        InvitationsCommand::Revoke { id } => {
            let request = client.request(Method::DELETE, &["v1", "invitations", &id]);
            client.send(request).await?;
            crate::print(format!("invitation {id} is revoked"))?;
        }
    }
    Ok(())
}

fn table(invitations: &[InvitationDescription]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::UTF8_BORDERS_ONLY)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(["id", "database", "invitee", "expires", "filters"]);
    for known in invitations {
        let filters = if known.sharing.is_everything() {
            String::new()
        } else {
            serde_json::to_string(&known.sharing).unwrap_or_default()
        };
        table.add_row([
            known.id.clone(),
            known.database.clone(),
            known.invitee.clone(),
            known.expires_at.to_string(),
            filters,
        ]);
    }
    table
}
