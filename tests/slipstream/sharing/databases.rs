//! Which databases are followed, and under which names.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{create, databases, put, refused, tables};
use crate::cluster::{Site, Store, eventually};

#[tokio::test]
async fn a03_all_databases_are_followed_and_those_created_later() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = site.leader("north").await?;
        create(&leader, "one", &["t"]).await?;
        let follower = site.follower("south", &leader).await?;
        let attached = put(&follower, &json!({"leader": "north", "database": "*"})).await?;
        assert_eq!(attached["name"], "all");
        assert_eq!(databases(&follower).await?, ["one"]);
        create(&leader, "two", &["u"]).await?;
        eventually("the new database appears", async || {
            Ok(databases(&follower).await? == ["one", "two"])
        })
        .await?;
        eventually("and is served", async || {
            Ok(follower.count("two", "SELECT count(*) FROM u").await? == 1)
        })
        .await?;
        let refused = leader.ask_node("DROP DATABASE two").refused().await?;
        assert_eq!(refused.code, "database_followed");
        ensure!(refused.message.contains("south"), "{refused}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a02_a08_the_databases_of_two_leaders_are_followed_and_one_name_once() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let north = site.leader("north").await?;
        let west = site.leader("west").await?;
        create(&north, "sales", &["of_north"]).await?;
        create(&west, "sales", &["of_west"]).await?;
        create(&west, "stock", &["t"]).await?;
        let addresses = format!("north={},west={}", north.grpc_url(), west.grpc_url());
        let mut follower = site
            .start("follower", "south", "south", &["--leader", &addresses])
            .await?;
        follower.wait_ready().await?;
        put(
            &follower,
            &json!({"leader": "north", "database": "*", "name": "n"}),
        )
        .await?;
        let second = put(
            &follower,
            &json!({"leader": "west", "database": "*", "name": "w"}),
        )
        .await?;
        assert_eq!(databases(&follower).await?, ["sales", "stock"]);
        assert_eq!(tables(&follower, "sales").await?, ["of_north"]);
        let left_out = second["databases"]
            .as_array()
            .context("databases")?
            .iter()
            .find(|database| database["name"] == "sales")
            .context("the one that was left out")?;
        assert_eq!(left_out["error"]["code"], "database_name_conflict");

        // Once the name is free, the other one is followed.
        follower.detach("n").await?;
        eventually("the other database takes the name", async || {
            Ok(tables(&follower, "sales").await? == ["of_west"])
        })
        .await
    })
    .await
}

#[tokio::test]
async fn a16_a17_a_followed_database_has_another_name_or_a_prefix() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = site.leader("north").await?;
        create(&leader, "sales", &["t"]).await?;
        let follower = site.follower("south", &leader).await?;
        let renamed = json!({"leader": "north", "database": "sales", "name": "a",
            "database_name_override": "sales_of_north"});
        let attached = put(&follower, &renamed).await?;
        assert_eq!(attached["databases"][0]["original_name"], "sales");
        let prefixed = json!({"leader": "north", "database": "*", "name": "b",
            "database_name_prefix": "n_"});
        put(&follower, &prefixed).await?;
        assert_eq!(databases(&follower).await?, ["n_sales", "sales_of_north"]);
        for name in ["n_sales", "sales_of_north"] {
            assert_eq!(follower.count(name, "SELECT count(*) FROM t").await?, 1);
        }
        let joined = "SELECT count(*) FROM n_sales.t a JOIN t b ON a.word = b.word";
        assert_eq!(follower.count("sales_of_north", joined).await?, 1);
        let missing = follower.refused("sales", "SELECT 1").await?;
        assert_eq!(missing.code, "database_not_found");

        let contradiction = json!({"leader": "north", "database": "*", "name": "c",
            "database_name_override": "x"});
        let refusal = refused(&follower, &contradiction).await?;
        assert_eq!(refusal, (400, "invalid_sharing".to_owned()));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_location_is_one_place_however_it_is_written() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let place = ["--location", "North Central US"];
        let mut leader = site.start("leader", "north", "north", &place).await?;
        leader.wait_ready().await?;
        create(&leader, "d", &["t"]).await?;
        let address = format!("north={}", leader.grpc_url());
        let arguments = ["--leader", &address, "--location"];
        let near = [&arguments[..], &["northcentralus"]].concat();
        let mut follower = site.start("follower", "south", "south", &near).await?;
        follower.wait_ready().await?;
        let wanted = json!({"leader": "north", "database": "d",
            "location": "north central us"});
        put(&follower, &wanted).await?;
        assert_eq!(databases(&follower).await?, ["d"]);

        let far = [&arguments[..], &["mars"]].concat();
        let mut stranger = site.start("follower", "west", "west", &far).await?;
        stranger.wait_ready().await?;
        let followers = leader.get_json("/v1/followers").await?;
        let wanted = json!({"leader": "north", "database": "d"});
        let refusal = refused(&stranger, &wanted).await?;
        assert_eq!(refusal, (409, "location_mismatch".to_owned()));
        assert_eq!(leader.get_json("/v1/followers").await?, followers);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a04_a07_a_cluster_leads_and_follows_at_once_and_its_own_database_wins() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let north = site.leader("north").await?;
        create(&north, "sales", &["of_north"]).await?;
        create(&north, "stock", &["t"]).await?;
        let address = format!("north={}", north.grpc_url());
        let mut both = site
            .start("leader", "both", "both", &["--leader", &address])
            .await?;
        both.wait_ready().await?;
        create(&both, "sales", &["own"]).await?;
        put(&both, &json!({"leader": "north", "database": "*"})).await?;

        // Its own database is the one of that name; the other one is followed, read-only.
        assert_eq!(tables(&both, "sales").await?, ["own"]);
        assert_eq!(tables(&both, "stock").await?, ["t"]);
        let joined = "SELECT count(*) FROM own, stock.t";
        assert_eq!(both.count("sales", joined).await?, 1);
        for (database, sql) in [
            ("stock", "CREATE TABLE x (a INT)"),
            ("stock", "DROP TABLE t"),
            ("sales", "INSERT INTO stock.t VALUES ('x')"),
        ] {
            let refusal = both.refused(database, sql).await?;
            assert_eq!(refusal.code, "read_only_follower", "{sql}: {refusal}");
        }
        let refusal = both
            .ingest_refused("stock", "t", "format=csv", "word\nx\n")
            .await?;
        assert_eq!(refusal.code, "read_only_follower");
        let refusal = both.ask_node("DROP DATABASE stock").refused().await?;
        assert_eq!(refusal.code, "database_attached");

        // Once its own is dropped, the leader's appears; and makes room again.
        both.ask_node("DROP DATABASE sales").send().await?;
        eventually("the leader's database takes the name", async || {
            Ok(tables(&both, "sales").await? == ["of_north"])
        })
        .await?;
        create(&both, "sales", &["own_again"]).await?;
        assert_eq!(tables(&both, "sales").await?, ["own_again"]);

        // Who both leads and follows is followed for what it owns, and knows both after a restart.
        both.terminate().await?;
        both.restart().await?;
        both.wait_ready().await?;
        assert_eq!(databases(&both).await?, ["sales", "stock"]);
        assert_eq!(both.count("stock", "SELECT count(*) FROM t").await?, 1);
        Ok(())
    })
    .await
}
