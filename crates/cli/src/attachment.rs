//! `slipstream attach` and `slipstream detach`.

use std::time::Duration;

use anyhow::Context;
use reqwest::Method;
use slipstream_frontend::{
    AttachRequest, AttachedDatabase, Attachment, Invitation, InviteRequest, ProvisioningState,
};
use slipstream_model::{PrincipalsModificationKind, TableLevelSharing};

use crate::client::{Client, Credentials, FOLLOWER_URL, LEADER_URL};

/// Flags of `slipstream attach`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  slipstream attach --leader leader --database nyc
  slipstream attach --leader leader --database '*' --prefix of_leader_
  slipstream attach --leader leader --database nyc --include-table 'flights*' --rename nyc_small

A configuration of the same name is changed to what is said now. The follower must have been started with --leader NAME=GRPC_URL of that name.")]
pub(crate) struct AttachArgs {
    /// HTTP address of the follower.
    #[arg(long, value_name = "URL", env = "SLIPSTREAM_URL", default_value = FOLLOWER_URL)]
    url: String,
    /// How to get in.
    #[command(flatten)]
    credentials: Credentials,
    /// The leader cluster.
    #[arg(long, value_name = "NAME")]
    leader: String,
    /// The database at the leader; '*' for all, those created later included.
    #[arg(long, value_name = "DATABASE")]
    database: String,
    /// Name of the attached database configuration [default: the database's, or 'all'].
    #[arg(long, value_name = "CONFIGURATION")]
    name: Option<String>,
    /// Follow only tables of this name; '*' in it stands for any characters. May be repeated.
    #[arg(long, value_name = "PATTERN")]
    include_table: Vec<String>,
    /// Do not follow tables of this name, even if included. May be repeated.
    #[arg(long, value_name = "PATTERN")]
    exclude_table: Vec<String>,
    /// Follow only functions of this name. May be repeated.
    #[arg(long, value_name = "PATTERN")]
    include_function: Vec<String>,
    /// Do not follow functions of this name, even if included. May be repeated.
    #[arg(long, value_name = "PATTERN")]
    exclude_function: Vec<String>,
    /// What the database is called here; not with '*'.
    #[arg(long, value_name = "NAME", conflicts_with = "prefix")]
    rename: Option<String>,
    /// What stands here in front of each database's name.
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<String>,
    /// How principals combine: Union, Replace or None.
    #[arg(long, value_name = "KIND", default_value_t)]
    principals: PrincipalsModificationKind,
    /// The token of an invitation.
    #[arg(
        long,
        value_name = "TOKEN",
        env = "SLIPSTREAM_INVITATION",
        hide_env_values = true
    )]
    invitation: Option<String>,
}

/// Flags of `slipstream detach`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  slipstream detach --name nyc
  slipstream detach --name nyc --follower science --url http://127.0.0.1:7411    from the leader")]
pub(crate) struct DetachArgs {
    /// HTTP address of the follower.
    #[arg(long, value_name = "URL", env = "SLIPSTREAM_URL", default_value = FOLLOWER_URL)]
    url: String,
    /// How to get in.
    #[command(flatten)]
    credentials: Credentials,
    /// Name of the attached database configuration.
    #[arg(long, value_name = "CONFIGURATION")]
    name: String,
    /// Detach this follower cluster; --url is the leader's address then.
    #[arg(long, value_name = "CLUSTER")]
    follower: Option<String>,
}

/// Flags of `slipstream invite`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Example:
  slipstream invite --database nyc --include-table 'fl*' --expires-in 2d
  slipstream attach --leader leader --database nyc --invitation TOKEN      at the invited follower")]
pub(crate) struct InviteArgs {
    /// HTTP address of the leader.
    #[arg(long, value_name = "URL", env = "SLIPSTREAM_URL", default_value = LEADER_URL)]
    url: String,
    /// How to get in.
    #[command(flatten)]
    credentials: Credentials,
    /// The database that may be attached with the token.
    #[arg(long, value_name = "DATABASE")]
    database: String,
    /// Tables that may be followed; * stands for any characters. May be given several times.
    #[arg(long, value_name = "PATTERN")]
    include_table: Vec<String>,
    /// Tables that may not.
    #[arg(long, value_name = "PATTERN")]
    exclude_table: Vec<String>,
    /// For whom, for people.
    #[arg(long, value_name = "TEXT")]
    invitee: Option<String>,
    /// How long the token can be used, such as 2d [default: 7d].
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    expires_in: Option<Duration>,
}

/// Lets whoever has the token attach a database.
pub(crate) async fn invite(args: InviteArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.url, &args.credentials)?;
    let body = InviteRequest {
        database: args.database,
        invitee: args.invitee,
        sharing: TableLevelSharing {
            tables_to_include: args.include_table,
            tables_to_exclude: args.exclude_table,
            ..TableLevelSharing::default()
        },
        expires_in: args.expires_in,
    };
    let request = client
        .request(Method::POST, &["v1", "invitations"])
        .json(&body);
    let answer = client.send(request).await?.json().await;
    let invitation: Invitation = answer.context("the node's answer is garbled")?;
    eprintln!(
        "invitation {} to database '{}', until {}; keep what follows, it is not shown again:",
        invitation.id, body.database, invitation.expires_at
    );
    crate::print(invitation.token)?;
    Ok(())
}

/// Makes a follower follow a database.
pub(crate) async fn attach(args: AttachArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.url, &args.credentials)?;
    let body = AttachRequest {
        name: args.name,
        sharing: TableLevelSharing {
            tables_to_include: args.include_table,
            tables_to_exclude: args.exclude_table,
            functions_to_include: args.include_function,
            functions_to_exclude: args.exclude_function,
            ..TableLevelSharing::default()
        },
        database_name_override: args.rename,
        database_name_prefix: args.prefix,
        default_principals_modification_kind: args.principals,
        invitation: args.invitation,
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
        ProvisioningState::Succeeded => served(&attachment.databases),
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
    crate::print(format!(
        "database '{}' of leader '{}' is attached as '{}' and {state}",
        attachment.terms.database, attachment.leader, attachment.name
    ))?;
    Ok(())
}

/// Under which names, and at which versions.
fn served(databases: &[AttachedDatabase]) -> String {
    let served = databases.iter().filter_map(|database| {
        let version = database.version?;
        Some(format!("'{}' at version {version}", database.name))
    });
    let served: Vec<_> = served.collect();
    match &served[..] {
        [] => "brings no database yet".to_owned(),
        served => format!("is served as {}", served.join(", ")),
    }
}

/// Makes a follower stop following.
pub(crate) async fn detach(args: DetachArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.url, &args.credentials)?;
    let path = match &args.follower {
        None => vec!["v1", "attachments", &args.name],
        Some(follower) => vec!["v1", "followers", follower, &args.name],
    };
    let request = client.request(Method::DELETE, &path);
    client.send(request).await?;
    crate::print(format!("configuration '{}' is detached", args.name))?;
    Ok(())
}
