//! Door x operation x role.

use anyhow::{Context, Result, ensure};

use super::call::Target;
use super::operations::{changes, operations, operations_of_a_follower};
use super::{guarded, guarded_pair};
use crate::cluster::{Site, Store, eventually};

/// What an operation takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    Query,
    Metadata,
    Ingest,
    Create,
    Administer,
    ManageDatabases,
    Share,
    Monitor,
    /// A token, whatever its roles.
    Anybody,
}

/// The roles of Kusto's documentation, and what each is for. Written down a second time on
/// purpose: the node's own table is what is being tested.
const ROLES: &[(&str, &[Needs])] = &[
    (
        "admins",
        &[
            Needs::Query,
            Needs::Metadata,
            Needs::Ingest,
            Needs::Create,
            Needs::Administer,
        ],
    ),
    ("users", &[Needs::Query, Needs::Metadata, Needs::Create]),
    ("viewers", &[Needs::Query, Needs::Metadata]),
    ("unrestrictedviewers", &[Needs::Query, Needs::Metadata]),
    ("ingestors", &[Needs::Ingest]),
    ("monitors", &[Needs::Metadata]),
];

const CLUSTER_ROLES: &[(&str, &[Needs])] = &[
    (
        "AllDatabasesAdmin",
        &[
            Needs::Query,
            Needs::Metadata,
            Needs::Ingest,
            Needs::Create,
            Needs::Administer,
            Needs::ManageDatabases,
            Needs::Share,
            Needs::Monitor,
        ],
    ),
    (
        "AllDatabasesViewer",
        &[Needs::Query, Needs::Metadata, Needs::Monitor],
    ),
    ("AllDatabasesMonitor", &[Needs::Metadata, Needs::Monitor]),
    ("Contributor", &[Needs::Share]),
];

/// Whether a request was answered, if only that something is not there or not to be had in this
/// version (501).
const fn is_answer(status: u16) -> bool {
    (status < 500 || status == 501) && status != 401 && status != 403
}

#[tokio::test(flavor = "multi_thread")]
async fn every_role_does_on_every_door_what_it_is_for_and_nothing_else() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let (leader, operator) = guarded(site).await?;
        let operator_token = site.token("north", "aaduser=operator", &["AllDatabasesAdmin"])?;
        let mut callers: Vec<(&str, Option<String>, &[Needs])> = vec![("no role", None, &[])];
        callers[0].1 = Some(site.token("north", "aaduser=nobody", &[])?);
        for (role, allowed) in ROLES {
            let principal = format!("aaduser={role}");
            let add = format!(".add database d {role} ('{principal}')");
            operator.command("d", &add).await?;
            callers.push((*role, Some(site.token("north", &principal, &[])?), *allowed));
        }
        for (role, allowed) in CLUSTER_ROLES {
            let principal = format!("aadapp={role}");
            callers.push((
                *role,
                Some(site.token("north", &principal, &[role])?),
                *allowed,
            ));
        }
        eventually("the newest token is known", async || {
            let newest = callers.last().and_then(|caller| caller.1.as_deref());
            let (status, _) = leader
                .as_caller(newest)
                .send("GET", "/v1/attachments", None)
                .await?;
            Ok(status == 200)
        })
        .await?;

        let target = Target::leader(&leader, &operator_token).await?;
        let mut number = 0;
        for (needs, call) in operations() {
            for (role, token, allowed) in &callers {
                number += 1;
                let (status, code) = call.send(&target, token.as_deref(), number).await?;
                let is_allowed = needs == Needs::Anybody || allowed.contains(&needs);
                let what = call.what();
                if is_allowed {
                    ensure!(
                        is_answer(status),
                        "{role}: {what} was refused: {status} {code}"
                    );
                } else {
                    ensure!(
                        (status, code.to_lowercase().as_str()) == (403, "forbidden"),
                        "{role}: {what} answered {status} {code}"
                    );
                }
            }
            for token in [None, Some("0123456789abcdef")] {
                let (status, code) = call.send(&target, token, number).await?;
                ensure!(
                    status == 401 && code.eq_ignore_ascii_case("unauthenticated"),
                    "with token {token:?}: {} answered {status} {code}",
                    call.what()
                );
            }
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_role_holds_on_a_follower_too_whoever_gave_it() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let (leader, follower) = guarded_pair(site).await?;
        let mut callers: Vec<(String, String, &[Needs])> = vec![(
            "no role".into(),
            site.token("south", "aaduser=nobody", &[])?,
            &[],
        )];
        for (role, allowed) in ROLES {
            // Half of them by the leader, half by the follower itself.
            let principal = format!("aaduser={role}");
            let is_own = matches!(*role, "users" | "viewers" | "monitors");
            if is_own {
                let add = format!(".add follower database d {role} ('{principal}')");
                follower.command("d", &add).await?;
            } else {
                let add = format!(".add database d {role} ('{principal}')");
                leader.command("d", &add).await?;
            }
            callers.push((
                (*role).to_owned(),
                site.token("south", &principal, &[])?,
                *allowed,
            ));
        }
        for (role, allowed) in CLUSTER_ROLES {
            let token = site.token("south", &format!("aadapp={role}"), &[role])?;
            callers.push(((*role).to_owned(), token, *allowed));
        }
        eventually(
            "the newest token, and the newest principal, are known",
            async || {
                let newest = callers.last().map(|caller| caller.1.as_str());
                let (status, _) = follower
                    .as_caller(newest)
                    .send("GET", "/v1/attachments", None)
                    .await?;
                let known = follower.command("d", ".show database d principals").await?;
                Ok(status == 200 && known.len() == ROLES.len())
            },
        )
        .await?;
        let operator = site.token("south", "aaduser=operator", &["AllDatabasesAdmin"])?;
        let target = Target::follower(&follower, &operator);
        for (needs, call) in operations_of_a_follower() {
            for (role, token, allowed) in &callers {
                let (status, code) = call.send(&target, Some(token), 0).await?;
                let what = call.what();
                if needs == Needs::Anybody || allowed.contains(&needs) {
                    ensure!(
                        is_answer(status),
                        "{role}: {what} was refused: {status} {code}"
                    );
                } else {
                    ensure!(
                        (status, code.to_lowercase().as_str()) == (403, "forbidden"),
                        "{role}: {what} answered {status} {code}"
                    );
                }
            }
            let (status, _) = call.send(&target, None, 0).await?;
            ensure!(status == 401, "{} without a token: {status}", call.what());
        }

        // Nobody changes a database here, and whoever has no role in it hears nothing of it.
        for call in changes() {
            let (status, code) = call.send(&target, Some(&operator), 0).await?;
            let what = call.what();
            ensure!(
                code.to_lowercase().replace('_', "").contains("readonly"),
                "{what} answered {status} {code}"
            );
            let (status, _) = call.send(&target, None, 0).await?;
            ensure!(status == 401, "{what} without a token: {status}");
        }

        // What is asked at the leader is asked with the caller's own token, not with the node's.
        let viewer = &callers
            .iter()
            .find(|c| c.0 == "viewers")
            .context("a viewer")?
            .1;
        let at_leader = "SELECT * FROM at_leader('SELECT count(*) FROM t')";
        let refused = follower
            .as_caller(Some(viewer))
            .refused("d", at_leader)
            .await?;
        ensure!(refused.message.contains("not known here"), "{refused}");
        Ok(())
    })
    .await
}
