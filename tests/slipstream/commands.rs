//! Kusto's management commands, on leader and follower, over every door that takes text.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::cluster::{Node, Site, Store, eventually, program};

/// A leader with `d.t` of one row, and a follower that has attached it.
async fn pair(site: &Site) -> Result<(Node, Node)> {
    let leader = site.leader("north").await?;
    leader.create_database("d").await?;
    leader
        .ingest("d", "t", "format=csv&create=true", "word\nx\n")
        .await?;
    let follower = site.follower("south", &leader).await?;
    follower.attach(&leader, "d").await?;
    Ok((leader, follower))
}

/// Runs a command that answers one row.
async fn one(node: &Node, text: &str) -> Result<Value> {
    let mut rows = node.command("d", text).await?;
    ensure!(rows.len() == 1, "{text}: {rows:?}");
    Ok(rows.remove(0))
}

fn parsed(row: &Value, column: &str) -> Result<Value> {
    let text = row[column].as_str();
    let text = text.with_context(|| format!("{column} of {row}"))?;
    serde_json::from_str(text).with_context(|| text.to_owned())
}

#[tokio::test]
async fn a23_a24_a29_a30_a_followers_own_caching_policies() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let (leader, mut follower) = pair(site).await?;
        let shown = one(&follower, ".show follower database d").await?;
        let columns: Vec<_> = shown.as_object().into_iter().flatten().map(|(k, _)| k).collect();
        assert_eq!(columns.len(), 8, "{columns:?}");
        assert_eq!(shown["CachingPolicyOverride"], Value::Null);
        assert_eq!(shown["AuthorizedPrincipalsOverride"], "[]");
        assert_eq!(shown["CachingPoliciesModificationKind"], "Union");
        assert_eq!(shown["IsAutoPrefetchEnabled"], false);
        assert_eq!(shown["TableMetadataOverrides"], "{}");
        let path = shown["LeaderClusterMetadataPath"].as_str().unwrap_or_default();
        ensure!(path.starts_with("file://") && path.contains("/databases/"), "{path}");

        for command in [
            ".alter follower database d policy caching hot = 7d",
            ".alter follower database d table t policy caching hot = 3d",
            ".alter follower database d tables (t, u) policy caching hot = 2d",
            ".alter follower database d materialized-view v policy caching hot = 1d",
            ".alter follower database d caching-policies-modification-kind = replace",
            ".alter follower database d prefetch-extents = true",
        ] {
            follower.command("d", command).await?;
        }
        let check = async |follower: &Node| {
            let shown = one(follower, ".show follower database d").await?;
            let span = |text: &str| json!({"DataHotSpan": {"Value": text}, "IndexHotSpan": {"Value": text}});
            assert_eq!(parsed(&shown, "CachingPolicyOverride")?, span("7.00:00:00"));
            assert_eq!(
                parsed(&shown, "TableMetadataOverrides")?,
                json!({
                    "t": {"CachingPolicyOverride": span("2.00:00:00")},
                    "u": {"CachingPolicyOverride": span("2.00:00:00")},
                    "_MV_v": {"CachingPolicyOverride": span("1.00:00:00")},
                })
            );
            assert_eq!(shown["CachingPoliciesModificationKind"], "Replace");
            assert_eq!(shown["IsAutoPrefetchEnabled"], true);
            Ok::<_, anyhow::Error>(())
        };
        check(&follower).await?;
        follower.terminate().await?;
        follower.restart().await?;
        follower.wait_ready().await?;
        check(&follower).await?;

        for command in [
            ".delete follower database d policy caching",
            ".delete follower database d tables (t, u) policy caching",
            ".delete follower database d materialized-views (v) policy caching",
        ] {
            follower.command("d", command).await?;
        }
        let shown = one(&follower, ".show follower database d").await?;
        assert_eq!(shown["CachingPolicyOverride"], Value::Null);
        assert_eq!(shown["TableMetadataOverrides"], "{}");
        let at_leader = one(&leader, ".show table t policy caching").await?;
        assert_eq!(at_leader["Policy"], "null", "the leader knows nothing of it");
        assert_eq!(leader.command("d", ".show follower databases").await?.len(), 0);
        let refused = leader.command_refused("d", ".show follower database d").await?;
        assert_eq!(refused.code, "not_a_followed_database");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn c08_a26_the_effective_policy_explains_itself() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let (leader, follower) = pair(site).await?;
        leader
            .command("d", ".alter database d policy caching hot = 30d")
            .await?;
        let altered = leader
            .command("d", ".alter table t policy caching hot = 10d")
            .await?;
        let version = altered[0]["Version"].as_u64().context("a version")?;
        follower.wait_for_version("d", version).await?;
        let effective = async || one(&follower, ".show effective policy caching table t").await;

        let shown = effective().await?;
        assert_eq!(shown["Source"], "LeaderTable");
        assert_eq!(
            parsed(&shown, "EffectivePolicy")?["DataHotSpan"],
            "10.00:00:00"
        );
        assert_eq!(
            parsed(&shown, "LeaderDatabasePolicy")?["DataHotSpan"],
            "30.00:00:00"
        );
        assert_eq!(shown["AppliedVersion"], version);

        // Under Union the override of a database does not shrink a table that has its own.
        follower
            .command("d", ".alter follower database d policy caching hot = 1d")
            .await?;
        assert_eq!(effective().await?["Source"], "LeaderTable");
        follower
            .command(
                "d",
                ".alter follower database d caching-policies-modification-kind = replace",
            )
            .await?;
        let shown = effective().await?;
        assert_eq!(shown["Source"], "DatabaseOverride");
        assert_eq!(
            parsed(&shown, "EffectivePolicy")?["DataHotSpan"],
            "1.00:00:00"
        );
        let why = shown["Explanation"].as_str().unwrap_or_default();
        ensure!(why.contains("Replace"), "{why}");

        // Replace without an override: everything is hot; 0d: nothing.
        follower
            .command("d", ".delete follower database d policy caching")
            .await?;
        let shown = effective().await?;
        assert_eq!(
            (&shown["Source"], &shown["EffectivePolicy"]),
            (&json!("Nothing"), &Value::Null)
        );
        assert_eq!(
            follower
                .command("d", ".show table t extents hot")
                .await?
                .len(),
            1
        );
        follower
            .command("d", ".alter follower database d policy caching hot = 0d")
            .await?;
        assert_eq!(
            follower
                .command("d", ".show table t extents hot")
                .await?
                .len(),
            0
        );
        assert_eq!(
            leader
                .command("d", ".show table t extents hot")
                .await?
                .len(),
            1
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a62_extents_are_shown_with_their_columns_by_tags_and_by_heat() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let (leader, follower) = pair(site).await?;
        leader
            .ingest(
                "d",
                "t",
                "format=csv&tag=drop-by:1&tag=a&creation_time=2020-01-01T00:00:00Z",
                "word\ny\n",
            )
            .await?;
        let receipt = leader
            .ingest("d", "t", "format=csv&tag=drop-by:2", "word\nz\nz\n")
            .await?;
        follower
            .wait_for_version("d", receipt["version"].as_u64().context("a version")?)
            .await?;
        for node in [&leader, &follower] {
            let all = node.command("d", ".show table t extents").await?;
            assert_eq!(all.len(), 3);
            let columns: Vec<_> = all[0].as_object().into_iter().flatten().collect();
            assert_eq!(columns.len(), 19, "{columns:?}");
            let count = async |filter: &str| {
                let command = format!(".show table t extents {filter}");
                Ok::<_, anyhow::Error>(node.command("d", &command).await?.len())
            };
            assert_eq!(count("where tags has 'drop-by:1'").await?, 1);
            assert_eq!(count("where tags contains 'drop-by'").await?, 2);
            assert_eq!(count("where tags !has 'drop-by:1'").await?, 2);
            assert_eq!(
                count("where tags contains 'drop-by' and tags !contains 'a'").await?,
                1
            );
            let id = all[0]["ExtentId"].as_str().context("an id")?;
            assert_eq!(count(&format!("({id})")).await?, 1);
            assert_eq!(node.command("d", ".show cluster extents").await?.len(), 3);
            assert_eq!(node.command("", ".show database d extents").await?.len(), 3);
            assert_eq!(
                node.command("d", ".show tables (t) extents").await?.len(),
                3
            );
        }
        // Hot by the time of creation, which the second extent was given years ago.
        follower
            .command("d", ".alter follower database d policy caching hot = 1d")
            .await?;
        assert_eq!(
            follower
                .command("d", ".show table t extents hot")
                .await?
                .len(),
            2
        );
        let missing = leader
            .command_refused("d", ".show table gone extents")
            .await?;
        assert_eq!(
            (missing.status, missing.code.as_str()),
            (400, "table_not_found")
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a67_databases_are_shown_with_details_and_statistics() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let (leader, follower) = pair(site).await?;
        for (node, mode) in [(&leader, "ReadWrite"), (&follower, "ReadOnlyFollowing")] {
            let basic = one(node, ".show databases").await?;
            assert_eq!(basic["DatabaseAccessMode"], mode);
            assert_eq!(basic["DatabaseName"], "d");
            assert_eq!(basic["IsCurrent"], true);
            let details = one(node, ".show database d details").await?;
            assert_eq!(details["NumberOfTables"], 1);
            let stats = one(node, ".show databases (d) datastats").await?;
            assert_eq!(
                (&stats["RowCount"], &stats["TotalExtents"]),
                (&json!(1), &json!(1))
            );
            assert_eq!(
                (&stats["HotRowCount"], &stats["HotExtents"]),
                (&json!(1), &json!(1))
            );
            let table = one(node, ".show table t details").await?;
            assert_eq!(
                (&table["TotalRowCount"], &table["TableName"]),
                (&json!(1), &json!("t"))
            );
            let schema = one(node, ".show table t cslschema").await?;
            assert_eq!(schema["Schema"], "word:string");
            let schema = one(node, ".show database d schema as json").await?;
            let schema = parsed(&schema, "DatabaseSchema")?;
            assert_eq!(
                schema["Databases"]["d"]["Tables"]["t"]["OrderedColumns"][0]["CslType"],
                "string"
            );
            let healthy = one(node, ".show diagnostics").await?;
            assert_eq!(healthy["IsHealthy"], true);
            ensure!(
                !node.command("d", ".show capacity").await?.is_empty(),
                "capacity"
            );
            assert_eq!(one(node, ".show cluster").await?["Name"], node.cluster());
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_leader_is_managed_by_commands_and_the_follower_learns_of_it() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let (leader, follower) = pair(site).await?;
        let created = leader
            .command("d", ".create table u (n:long, s:string 'a text', at:datetime, j:dynamic, g:guid, ok:bool, x:real, m:decimal, i:int, span:timespan)")
            .await?;
        let schema = parsed(&created[0], "Schema")?;
        let types: Vec<_> = schema["OrderedColumns"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|column| column["CslType"].as_str().unwrap_or_default().to_owned())
            .collect();
        assert_eq!(
            types,
            ["long", "string", "datetime", "dynamic", "guid", "bool", "real", "decimal", "int", "timespan"]
        );
        leader.command("d", ".alter-merge table u (extra:string)").await?;
        let refused = leader.command_refused("d", ".alter-merge table u (n:string)").await?;
        assert_eq!(refused.code, "column_type_differs");
        leader
            .command("d", ".create-or-alter function with (docstring='late ones', folder='f') \
                 late(n:long=5) { SELECT * FROM u WHERE n > $n }")
            .await?;
        leader
            .command("d", ".alter database d policy retention '{\"SoftDeletePeriod\": \"10.00:00:00\"}'")
            .await?;
        leader.command("d", ".alter-merge table u policy retention softdelete = 5d").await?;
        leader
            .command("d", ".alter table t policy row_level_security enable \"word <> 'x'\"")
            .await?;
        let last = leader.command("d", ".drop table gone ifexists").await?;
        let version = last[0]["Version"].as_u64().context("a version")?;
        follower.wait_for_version("d", version).await?;

        let at_follower = one(&follower, ".show function late").await?;
        assert_eq!(at_follower["Parameters"], "(n:long=5)");
        assert_eq!(at_follower["DocString"], "late ones");
        assert_eq!(follower.count("d", "SELECT count(*) FROM late(7)").await?, 0);
        let retention = one(&follower, ".show table u policy retention").await?;
        assert_eq!(parsed(&retention, "Policy")?["SoftDeletePeriod"], "5.00:00:00");
        assert_eq!(follower.count("d", "SELECT count(*) FROM t").await?, 0, "row-level security");
        let details = one(&follower, ".show database d details").await?;
        assert_eq!(parsed(&details, "RetentionPolicy")?["SoftDeletePeriod"], "10.00:00:00");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_dropped_column_is_gone_everywhere_and_its_name_stays_taken() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let (mut leader, follower) = pair(site).await?;
        leader
            .ingest("d", "u", "format=csv&create=true", "a,b,c\n1,2,3\n4,5,6\n")
            .await?;
        leader.sql("d", "ALTER TABLE u DROP COLUMN b").await?;
        leader.ingest("d", "u", "format=csv", "a,c\n7,9\n").await?;
        // Checkpoints hold the statistics of older extents, which name the column.
        for _ in 0..70 {
            leader.ingest("d", "u", "format=csv", "a,c\n0,0\n").await?;
        }
        leader.terminate().await?;
        leader.restart().await?;
        leader.wait_ready().await?;
        let last = leader.command("d", ".drop table gone ifexists").await?;
        let version = last[0]["Version"].as_u64().context("a version")?;
        follower.wait_for_version("d", version).await?;
        for node in [&leader, &follower] {
            let schema = one(node, ".show table u cslschema").await?;
            assert_eq!(schema["Schema"], "a:long,c:long");
            assert_eq!(node.count("d", "SELECT sum(a) + sum(c) FROM u").await?, 30);
            assert_eq!(
                node.count("d", "SELECT max(c) FROM u WHERE a > 1").await?,
                9
            );
            let gone = node.refused("d", "SELECT b FROM u").await?;
            assert_eq!(gone.status, 400, "{gone}");
        }
        let taken = leader
            .refused("d", "ALTER TABLE u ADD COLUMN b VARCHAR")
            .await?;
        ensure!(taken.message.contains("stays taken"), "{taken}");
        let missing = leader.command_refused("d", ".drop column u.b").await?;
        assert_eq!(missing.code, "column_not_found");

        // What row-level security needs stays; the last column stays.
        leader
            .command(
                "d",
                ".alter table u policy row_level_security enable \"c > 0\"",
            )
            .await?;
        let needed = leader.command_refused("d", ".drop column u.c").await?;
        assert_eq!(needed.code, "column_in_use");
        leader
            .command("d", ".delete table u policy row_level_security")
            .await?;
        leader.command("d", ".drop table u columns (c)").await?;
        let last = leader.command_refused("d", ".drop column u.a").await?;
        ensure!(last.message.contains("at least one column"), "{last}");
        // Columns stay where they are, and new ones come last.
        let order = leader
            .command_refused("d", ".alter table u (z:string, a:long)")
            .await?;
        ensure!(order.code == "unsupported", "{order}");
        ensure!(order.message.contains("(a, z)"), "{order}");
        let altered = leader
            .command("d", "// Only this one.\n.alter table u (z:string)")
            .await?;
        ensure!(
            altered[0]["Schema"]
                .as_str()
                .is_some_and(|s| s.contains("\"z\"")),
            "{altered:?}"
        );
        assert_eq!(leader.count("d", "SELECT count(*) FROM u").await?, 73);
        assert_eq!(leader.count("d", "SELECT count(z) FROM u").await?, 0);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_database_keeps_rows_for_some_time_and_a_table_need_not() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let (leader, _) = pair(site).await?;
        for command in [
            ".alter-merge database d policy retention softdelete = 0d",
            r#".alter database d policy retention '{"SoftDeletePeriod": "00:00:00"}'"#,
        ] {
            let refused = leader.command_refused("d", command).await?;
            ensure!(refused.code == "invalid_argument", "{refused}");
            ensure!(
                refused.message.contains("soft-delete period of 0"),
                "{refused}"
            );
        }
        leader
            .command("d", ".alter-merge table t policy retention softdelete = 0d")
            .await?;
        leader
            .command(
                "d",
                r#".alter database d policy merge '{"MaxRangeInHours": 8}'"#,
            )
            .await?;
        let details = one(&leader, ".show database d details").await?;
        let policy = details["MergePolicy"].to_string();
        ensure!(
            policy.contains("MaxRangeInHours") && policy.contains('8'),
            "{policy}"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a35_a36_a43_a_follower_changes_its_own_settings_and_nothing_else() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let (leader, follower) = pair(site).await?;
        for command in [
            ".create table u (a:long)",
            ".create-merge table t (b:long)",
            ".drop table t",
            ".create function f() { SELECT 1 }",
            ".create external table e (a:long) kind=storage dataformat=csv ('s3://b/x.csv')",
            ".alter database d policy retention '{\"SoftDeletePeriod\": \"1.00:00:00\"}'",
            ".alter-merge table t policy retention softdelete = 1d",
            ".delete table t policy retention",
            ".alter table t policy row_level_security enable \"false\"",
            ".delete table t policy row_level_security",
        ] {
            let refused = follower.command_refused("d", command).await?;
            assert_eq!(
                (refused.status, refused.code.as_str()),
                (403, "read_only_follower"),
                "{command}"
            );
        }
        let dropped = follower.command_refused("", ".drop database d").await?;
        assert_eq!(dropped.status, 403, "{dropped}");
        assert_eq!(follower.count("d", "SELECT count(*) FROM t").await?, 1);
        // The words for a database's own caching policy and principals change this side alone.
        follower
            .command("d", ".alter table t policy caching hot = 1d")
            .await?;
        follower
            .command("d", ".add database d viewers ('aaduser=x')")
            .await?;
        assert_eq!(
            one(&leader, ".show table t policy caching").await?["Policy"],
            "null"
        );
        assert_eq!(
            leader
                .command("d", ".show database d principals")
                .await?
                .len(),
            0
        );
        let shown = one(&follower, ".show effective policy caching table t").await?;
        assert_eq!(shown["Source"], "TableOverride");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a11_external_tables_are_followed_and_filtered_like_tables() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let files = site.path().join("files");
        std::fs::create_dir_all(files.join("weather"))?;
        std::fs::write(files.join("weather/1.csv"), "at,rain\nEWR,1\nJFK,2\n")?;
        std::fs::write(files.join("weather/2.csv"), "at,rain\nLGA,3\n")?;
        std::fs::write(
            files.join("planes.json"),
            "{\"tail\": \"N1\"}\n{\"tail\": \"N2\"}\n",
        )?;
        let shown = files.display().to_string();
        let options = ["--external-files", shown.as_str()];
        let mut leader = site.start("leader", "north", "north", &options).await?;
        leader.wait_ready().await?;
        leader.create_database("d").await?;
        let weather = format!(
            ".create external table weather (at:string, rain:long) kind=storage dataformat=csv \
             ('file://{shown}/weather/') with (includeHeaders='all', docstring='by the hour')"
        );
        leader.command("d", &weather).await?;
        let planes = format!(
            ".create external table planes (tail:string) kind=storage dataformat=json \
             ('file://{shown}/planes.json')"
        );
        let made = leader.command("d", &planes).await?;
        assert_eq!(made[0]["TableName"], "planes");
        assert_eq!(leader.count("d", "SELECT sum(rain) FROM weather").await?, 6);
        assert_eq!(leader.count("d", "SELECT count(*) FROM planes").await?, 2);
        // Files come and go; the next query sees them.
        std::fs::write(files.join("weather/3.csv"), "at,rain\nSFO,4\n")?;
        assert_eq!(
            leader.count("d", "SELECT sum(rain) FROM weather").await?,
            10
        );

        let address = format!("north={}", leader.grpc_url());
        let options = ["--leader", &address, "--external-files", &shown];
        let mut follower = site.start("follower", "south", "south", &options).await?;
        follower.wait_ready().await?;
        let request = json!({"leader": "north", "database": "d",
            "sharing": {"externalTablesToExclude": ["pl*"]}});
        let (status, answer) = follower.post_json("/v1/attachments", &request).await?;
        ensure!(status == 200, "{status} {answer}");
        eventually("the external table is followed", async || {
            Ok(follower.count("d", "SELECT count(*) FROM weather").await? == 4)
        })
        .await?;
        let listed = follower.command("d", ".show external tables").await?;
        assert_eq!(listed.len(), 1, "{listed:?}");
        let hidden = follower.refused("d", "SELECT * FROM planes").await?;
        assert_eq!(hidden.code, "table_not_found");

        // A node shows its own files only where it was told to.
        let address = format!("north={}", leader.grpc_url());
        let mut careful = site
            .start("follower", "west", "west", &["--leader", &address])
            .await?;
        careful.wait_ready().await?;
        careful.attach(&leader, "d").await?;
        let refused = careful.refused("d", "SELECT * FROM weather").await?;
        ensure!(refused.message.contains("--external-files"), "{refused}");
        let secret = ".create external table s (a:long) kind=storage dataformat=csv \
             (h'https://x/y.csv;KEY')";
        let refused = leader.command_refused("d", secret).await?;
        ensure!(!refused.message.contains("KEY"), "{refused}");
        let taken = leader
            .refused("d", "CREATE TABLE weather (a BIGINT)")
            .await?;
        assert_eq!(taken.code, "table_exists");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn nothing_that_somebody_names_leads_into_the_bucket() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let all = site.path().display().to_string();
        let options = ["--external-files", all.as_str()];
        let mut leader = site.start("leader", "north", "north", &options).await?;
        leader.wait_ready().await?;
        leader.create_database("d").await?;
        leader
            .ingest("d", "t", "format=csv&create=true", "word\nx\n")
            .await?;
        let external = |name: &str, locations: &str| {
            format!(
                ".create external table {name} (word:string) kind=storage dataformat=parquet \
                 ({locations})"
            )
        };
        // The name that plans have for the store of extents.
        let refused = leader
            .command_refused("d", &external("a", "'slipstream://extents/etc/'"))
            .await?;
        ensure!(refused.message.contains("of no kind"), "{refused}");

        let bucket = site.bucket_directory();
        let outside = site.path().join("outside");
        std::fs::create_dir(&outside)?;
        std::os::unix::fs::symlink(&bucket, outside.join("link"))?;
        let folder = bucket.join(site.only_database_folder()?).join("extents");
        let file = std::fs::read_dir(&folder)?.next().context("an extent")??;
        let file = file.path().display().to_string();
        let (bucket, outside) = (bucket.display(), outside.display());
        for (name, location) in [
            ("b", format!("'file://{file}'")),
            ("c", format!("'file://{bucket}/databases/'")),
            ("e", format!("'file://{bucket}/'")),
            ("f", format!("'file://{outside}/link/databases/'")),
        ] {
            leader.command("d", &external(name, &location)).await?;
            let sql = format!("SELECT * FROM {name}");
            let refused = leader.refused("d", &sql).await?;
            ensure!(
                refused.message.contains("the bucket that the databases"),
                "{location}: {refused}"
            );
        }
        let two = format!("'file://{outside}/', 's3://other/x/'");
        leader.command("d", &external("g", &two)).await?;
        let refused = leader.refused("d", "SELECT * FROM g").await?;
        ensure!(refused.message.contains("several buckets"), "{refused}");

        let url = format!("format=parquet&url=file://{file}");
        let refused = leader.ingest_refused("d", "t", &url, "").await?;
        assert_eq!((refused.status, refused.code.as_str()), (403, "own_bucket"));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a68_history_is_of_the_node_that_was_asked() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let (leader, follower) = pair(site).await?;
        leader
            .sql("d", "SELECT 'asked of the leader' FROM t")
            .await?;
        follower
            .sql("d", "SELECT 'asked of the follower' FROM t")
            .await?;
        follower.command("d", ".show tables").await?;
        let texts = async |node: &Node, command: &str| {
            let rows = node.command("d", command).await?;
            let texts = rows
                .iter()
                .map(|row| row["Text"].as_str().unwrap_or_default().to_owned());
            Ok::<_, anyhow::Error>(texts.collect::<Vec<_>>().join("\n"))
        };
        let shown = texts(&follower, ".show queries").await?;
        ensure!(shown.contains("asked of the follower"), "{shown}");
        ensure!(!shown.contains("asked of the leader"), "{shown}");
        let shown = texts(&leader, ".show queries").await?;
        ensure!(!shown.contains("asked of the follower"), "{shown}");
        let shown = texts(&follower, ".show commands").await?;
        ensure!(shown.contains(".show tables"), "{shown}");
        let shown = texts(&leader, ".show commands").await?;
        ensure!(!shown.contains(".show tables"), "{shown}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_mistake_is_pointed_at_on_every_door() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = site.leader("north").await?;
        leader.create_database("d").await?;
        let wrong = ".show tabels";
        let refused = leader.command_refused("d", wrong).await?;
        assert_eq!(
            (refused.status, refused.code.as_str()),
            (400, "syntax_error")
        );
        ensure!(refused.message.contains("did you mean 'table"), "{refused}");
        let refused = leader.refused("d", wrong).await?;
        ensure!(refused.message.contains("^^^^^^"), "{refused}");
        let shell = program()
            .args(["sql", "--url", &leader.http_url(), "-d", "d", wrong])
            .output()?;
        let said = String::from_utf8_lossy(&shell.stderr);
        ensure!(
            !shell.status.success() && said.contains("did you mean"),
            "{said}"
        );
        let shell = program()
            .args([
                "sql",
                "--url",
                &leader.http_url(),
                "-d",
                "d",
                ".show tables",
            ])
            .output()?;
        let said = String::from_utf8_lossy(&shell.stdout);
        ensure!(
            shell.status.success() && said.contains("TableName"),
            "{said}"
        );
        let nowhere = leader.command_refused("", ".show tables").await?;
        ensure!(
            nowhere.message.contains("name it in the command"),
            "{nowhere}"
        );
        Ok(())
    })
    .await
}
