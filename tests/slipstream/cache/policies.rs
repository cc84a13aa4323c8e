//! Policies that are nothing, everything, or make no sense.

use std::fmt::Write;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{cache_becomes, cached_follower, years};
use crate::cluster::{Node, Site, Store, eventually};

/// What a policy may say, and how many of four extents it makes hot, made when 2020 to 2023 began.
/// No two that follow each other make as many hot, so each shows when it has come into force.
const ACCEPTED: [(&str, usize); 9] = [
    ("hot = 0d", 0),
    // The longest span that Kusto has.
    ("hot = timespan(10675199.02:48:05.4775807)", 4),
    ("hotdata = 0d hotindex = 30d", 0),
    ("hot = 10675199d", 4),
    // The end of a window is inside it.
    (
        "hot = 0s, hot_window = datetime(2021-01-01) .. datetime(2021-01-01)",
        1,
    ),
    (
        "hot = 0d, hot_window = datetime(2020-06-01) .. datetime(2022-06-01), \
         hot_window = datetime(2021-06-01) .. datetime(2023-06-01)",
        3,
    ),
    (
        "hot = 0d, hot_window = datetime(2022-01-01) .. datetime(2023-01-01), \
         hot_window = datetime(2022-01-01) .. datetime(2023-01-01)",
        2,
    ),
    (
        "hot = 0d, hot_window = datetime(1990-01-01) .. datetime(1999-12-31)",
        0,
    ),
    (
        "hot = 10675199d, \
         hot_window = datetime(0001-01-01) .. datetime(9999-12-31 23:59:59.9999999)",
        4,
    ),
];

/// What it may not say, and a word of the reason.
const REFUSED: [(&str, &str); 12] = [
    ("hot = -1d", "timespan"),
    ("hot = timespan(-1d)", "'-1d' is no timespan"),
    (
        "hot = timespan(-1.00:00:00)",
        "'-1.00:00:00' is no timespan",
    ),
    ("hot = 10675200d", "'10675200d' is no timespan"),
    (
        "hot = 99999999999999999999999999d",
        "'99999999999999999999999999d' is no timespan",
    ),
    ("hot = soon", "timespan"),
    ("hot =", "timespan"),
    ("hotdata = 1d", "hotindex"),
    (
        "hot = 0d, hot_window = datetime(2022-01-01) .. datetime(2021-01-01)",
        "ends before it begins",
    ),
    ("hot = 0d, hot_window = datetime(2022-01-01)", "'..'"),
    (
        "hot = 0d, hot_window = datetime(yesterday) .. datetime(2021-01-01)",
        "'yesterday' is no moment",
    ),
    (
        "hot = 0d, hot_window = datetime(2021-01-01) .. datetime(10000-01-01)",
        "'10000-01-01' is no moment",
    ),
];

#[tokio::test]
async fn any_policy_that_can_be_written_down_is_followed_to_the_letter() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let leader = years(site, 2024).await?;
        let mut follower = cached_follower(site, &leader).await?;
        for (policy, hot) in ACCEPTED {
            comes_into_force(&leader, &follower, policy, hot).await?;
        }
        let hundred = format!("hot = 0d{}", windows(100)?);
        comes_into_force(&leader, &follower, &hundred, 0).await?;

        // What is written down is read again as it was.
        let (longest, hot) = ACCEPTED[1];
        comes_into_force(&leader, &follower, longest, hot).await?;
        let before = effective(&follower).await?;
        ensure!(follower.terminate().await?.success());
        follower.restart().await?;
        follower.wait_ready().await?;
        cache_becomes(&follower, "all are found again", |cache| {
            cache["ResidentExtents"] == hot
        })
        .await?;
        assert_eq!(effective(&follower).await?, before);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_policy_that_makes_no_sense_is_refused_and_changes_nothing() -> Result<()> {
    Site::run(Store::Directory, async |site| {
        let mut leader = years(site, 2022).await?;
        let mut follower = cached_follower(site, &leader).await?;
        let of_database = ".alter database d policy caching";
        let of_table = ".alter table t policy caching";
        leader
            .command("d", &format!("{of_database} hot = 20000d"))
            .await?;
        let sets = [
            (&leader, of_database),
            (&leader, of_table),
            (&follower, of_database),
            (&follower, of_table),
            (&follower, ".alter follower database d policy caching"),
            (
                &follower,
                ".alter follower database d table t policy caching",
            ),
        ];
        let too_many = format!("hot = 0d{}", windows(101)?);
        let too_many = (too_many.as_str(), "at most 100 hot windows");
        let of_leader = effective(&leader).await?;
        eventually("the follower has the leader's policy", async || {
            Ok(effective(&follower).await? == of_leader)
        })
        .await?;
        let before = (effective(&leader).await?, effective(&follower).await?);
        for (policy, reason) in REFUSED.into_iter().chain([too_many]) {
            for (node, set) in sets {
                let refused = node
                    .command_refused("d", &format!("{set} {policy}"))
                    .await?;
                assert_eq!(
                    (refused.status, refused.code.as_str()),
                    (400, "syntax_error"),
                    "{node}, {set} {policy}: {refused}"
                );
                ensure!(
                    refused.message.contains(reason),
                    "{node}, {set} {policy}: {refused}"
                );
            }
            let asked = format!("{} {policy} with (whatif=true)", sets[4].1);
            let refused = follower.command_refused("d", &asked).await?;
            assert_eq!(refused.code, "syntax_error", "{asked}: {refused}");
        }
        let after = (effective(&leader).await?, effective(&follower).await?);
        assert_eq!(after, before);
        leader.ensure_alive()?;
        follower.ensure_alive()
    })
    .await
}

/// Sets a policy on both sides, each its own: both have as many hot extents as it says, and the
/// follower has them on its disk.
async fn comes_into_force(leader: &Node, follower: &Node, policy: &str, hot: usize) -> Result<()> {
    let is_hot = ".show table t extents hot";
    leader
        .command("d", &format!(".alter database d policy caching {policy}"))
        .await?;
    assert_eq!(leader.command("d", is_hot).await?.len(), hot, "{policy}");
    let set = format!(".alter follower database d policy caching {policy}");
    let asked = format!("{set} with (whatif=true)");
    let preview = follower.command("d", &asked).await?;
    assert_eq!(preview.len(), 1, "{policy}: {preview:?}");
    follower.command("d", &set).await?;
    assert_eq!(follower.command("d", is_hot).await?.len(), hot, "{policy}");
    cache_becomes(follower, policy, |cache| {
        cache["HotExtents"] == hot && cache["ResidentExtents"] == hot
    })
    .await?;
    Ok(())
}

/// The policy that holds for the table, and where it comes from; not which version it was read at.
async fn effective(node: &Node) -> Result<(Value, Value)> {
    let rows = node
        .command("d", ".show effective policy caching table t")
        .await?;
    let row = rows.into_iter().next().context("a row")?;
    Ok((row["EffectivePolicy"].clone(), row["Source"].clone()))
}

/// So many windows in which nothing was made.
fn windows(count: usize) -> Result<String> {
    let mut text = String::new();
    for number in 0..count {
        let day = format!("{:02}-{:02}", 1 + number / 28 % 12, 1 + number % 28);
        write!(
            text,
            ", hot_window = datetime(1990-{day}) .. datetime(1991-{day})"
        )?;
    }
    Ok(text)
}
