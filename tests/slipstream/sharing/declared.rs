//! Attachments written down in documents, and attached and detached with the command line.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{create, databases, tables};
use crate::cluster::{Node, Site, Store, eventually, program};

/// Runs `slipstream` against a node; gives what it printed.
fn slipstream(node: &Node, arguments: &[&str]) -> Result<String> {
    let ran = program()
        .args(arguments)
        .args(["--url", &node.http_url()])
        .output()?;
    let said = String::from_utf8_lossy(&ran.stderr);
    ensure!(ran.status.success(), "slipstream {arguments:?}: {said}");
    Ok(String::from_utf8(ran.stdout)?)
}

#[tokio::test]
async fn a_document_applied_twice_changes_nothing_the_second_time() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = site.leader("north").await?;
        create(&leader, "d", &["logs_a", "other"]).await?;
        let follower = site.follower("south", &leader).await?;
        let file = site.path().join("follower.yaml");
        let path = file.display().to_string();
        std::fs::write(
            &file,
            "
attachments:
  - leader: north
    database: d
    databaseNamePrefix: n_
    defaultPrincipalsModificationKind: Union
    sharing: {tablesToInclude: ['logs*']}
databases:
  n_d:
    principalsModificationKind: Replace
    cachingPoliciesModificationKind: Replace
    prefetchExtents: true
    caching: 7d
    tables: {logs_a: {hot: 3d, hotIndex: 9d}}
    principals: [{role: Viewer, principal: 'aaduser=ada@example.org', notes: it's her}]
",
        )?;
        let dry = slipstream(&follower, &["apply", "-f", &path, "--dry-run"])?;
        ensure!(
            dry.contains("would attach 'd'") && dry.contains("--dry-run"),
            "{dry}"
        );
        assert_eq!(databases(&follower).await?, Vec::<String>::new());

        let applied = slipstream(&follower, &["apply", "-f", &path])?;
        ensure!(applied.ends_with("7 changes made\n"), "{applied}");
        assert_eq!(tables(&follower, "n_d").await?, ["logs_a"]);
        let again = slipstream(&follower, &["apply", "-f", &path])?;
        assert_eq!(
            again,
            format!("nothing to change: the follower is as {path} says\n")
        );
        let dry = slipstream(&follower, &["apply", "-f", &path, "--dry-run"])?;
        assert_eq!(dry, again);

        // What the follower writes of itself is a document that changes nothing.
        let written = slipstream(&follower, &["show", "follower", "--output", "yaml"])?;
        let copy = site.path().join("copy.yaml");
        std::fs::write(&copy, &written)?;
        let path_of_copy = copy.display().to_string();
        let same = slipstream(&follower, &["apply", "-f", &path_of_copy, "--prune"])?;
        ensure!(same.starts_with("nothing to change"), "{written}\n{same}");

        // A document is JSON just as well.
        let json = json!({"attachments": [{"leader": "north", "database": "d",
            "databaseNamePrefix": "n_", "defaultPrincipalsModificationKind": "Union",
            "sharing": {"tablesToInclude": ["logs*"]}}]});
        let document = site.path().join("follower.json");
        std::fs::write(&document, json.to_string())?;
        let same = slipstream(&follower, &["apply", "-f", &document.display().to_string()])?;
        ensure!(same.starts_with("nothing to change"), "{same}");

        // What the document does not say any more does not hold any more.
        std::fs::write(&file, "attachments: []\ndatabases: {n_d: {}}\n")?;
        let less = slipstream(&follower, &["apply", "-f", &path])?;
        ensure!(
            less.contains(".delete follower database n_d policy caching"),
            "{less}"
        );
        std::fs::write(&file, "attachments: []\n")?;
        let pruned = slipstream(&follower, &["apply", "-f", &path, "--prune"])?;
        ensure!(pruned.contains("detach configuration 'd'"), "{pruned}");
        assert_eq!(databases(&follower).await?, Vec::<String>::new());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_deployment_template_of_the_seed_page_attaches() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = site.leader("north").await?;
        create(&leader, "d", &["t"]).await?;
        let follower = site.follower("south", &leader).await?;
        // The page's own, to the letter.
        let template = include_str!("../../data/follower-template.json");
        let file = site.path().join("template.json");
        std::fs::write(&file, template)?;
        let given = json!({"parameters": {
            "followerClusterName": {"value": "south"},
            "attachedDatabaseConfigurationsName": {"value": "adc"},
            "leaderClusterResourceId": {"value": "/subscriptions/s/resourceGroups/g/providers/Microsoft.Kusto/Clusters/north"},
            "defaultPrincipalsModificationKind": {"value": "Replace"},
            "location": {"value": "local"},
        }});
        let values = site.path().join("parameters.json");
        std::fs::write(&values, given.to_string())?;
        let (file, values) = (file.display().to_string(), values.display().to_string());
        let apply = ["apply", "-f", &file, "--parameters", &values, "--set", "databaseName=*"];
        let applied = slipstream(&follower, &apply)?;
        ensure!(applied.ends_with("1 changes made\n"), "{applied}");
        assert_eq!(databases(&follower).await?, ["d"]);
        let again = slipstream(&follower, &apply)?;
        ensure!(again.starts_with("nothing to change"), "{again}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_command_line_invites_and_detaches_from_the_leaders_side() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = site.leader("north").await?;
        create(&leader, "d", &["t", "u"]).await?;
        let follower = site.follower("south", &leader).await?;
        let token = slipstream(
            &leader,
            &["invite", "--database", "d", "--include-table", "t"],
        )?;
        let attach = [
            "attach",
            "--leader",
            "north",
            "--database",
            "d",
            "--invitation",
            token.trim(),
        ];
        slipstream(&follower, &attach)?;
        assert_eq!(tables(&follower, "d").await?, ["t"]);
        // What was granted stays; the token is of no more use.
        let listed = slipstream(&leader, &["invitations", "list"])?;
        ensure!(
            !listed.contains(token.trim()),
            "a secret is shown: {listed}"
        );
        let (_, all) = leader.get_json("/v1/invitations").await?;
        let id = all[0]["id"].as_str().context("an invitation")?;
        ensure!(
            listed.contains(id) && listed.contains("tablesToInclude"),
            "{listed}"
        );
        slipstream(&leader, &["invitations", "revoke", id])?;
        assert_eq!(leader.get_json("/v1/invitations").await?.1, json!([]));
        assert_eq!(tables(&follower, "d").await?, ["t"]);
        slipstream(&leader, &["detach", "--name", "d", "--follower", "south"])?;
        eventually("the follower lets go", async || {
            Ok(databases(&follower).await?.is_empty())
        })
        .await
    })
    .await
}
