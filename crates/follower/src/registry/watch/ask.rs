//! Asking a leader what it makes of this node's configurations.

use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use slipstream_model::{BucketId, DatabaseId, DatabaseName};
use slipstream_proto::sync::admin_client::AdminClient;
use slipstream_proto::sync::{DescribeClusterRequest, DescribeClusterResponse, FollowerIdentity};

use super::{Brought, Watch};
use crate::attachments::Configuration;
use crate::link::LeaderChannel;

/// What a leader is given to answer for all of a node's configurations. Past it the bucket is read,
/// so that a leader that is slow to refuse costs the others no more than this.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// Configurations that a leader is asked about at once: enough to hide the way there and back, and
/// few for a leader that many followers ask.
const ASKED_AT_ONCE: usize = 8;

/// A connection to a leader.
pub(super) type Client = AdminClient<LeaderChannel>;

impl Watch {
    /// What each configuration brings, as its leader says; `None` where only the log can tell.
    pub(super) async fn ask(
        &mut self,
        leader: &str,
        configurations: &[Configuration],
    ) -> Vec<Option<Vec<Brought>>> {
        let asked = tokio::time::timeout(ASK_TIMEOUT, self.try_ask(leader, configurations)).await;
        let answers = asked.ok().flatten().unwrap_or_default();
        if answers.len() == configurations.len() && answers.iter().all(Option::is_some) {
            return answers;
        }
        // It may be another one, or back, when it is dialled again.
        self.clients.remove(leader);
        let missing = configurations.len() - answers.len();
        let silence = std::iter::repeat_with(|| None).take(missing);
        answers.into_iter().chain(silence).collect()
    }

    async fn try_ask(
        &mut self,
        leader: &str,
        configurations: &[Configuration],
    ) -> Option<Vec<Option<Vec<Brought>>>> {
        let client = match self.clients.get(leader) {
            Some(client) => client.clone(),
            None => {
                let first = configurations.first()?;
                let known = self.registry.leader(leader);
                let url = known.map_or(first.leader_url.as_str(), |known| known.url.as_str());
                let dialer = &self.registry.context.dialer;
                let client = dialer.admin_client(leader, url).await.ok()?;
                self.clients.insert(leader.to_owned(), client.clone());
                client
            }
        };
        let node = &self.registry.context.node;
        let asking: Vec<_> = configurations
            .iter()
            .map(|configuration| {
                describe(
                    client.clone(),
                    node.identity(&configuration.name),
                    leader.to_owned(),
                    configuration.bucket_id,
                )
            })
            .collect();
        Some(stream::iter(asking).buffered(ASKED_AT_ONCE).collect().await)
    }
}

async fn describe(
    mut client: Client,
    follower: FollowerIdentity,
    leader: String,
    bucket: BucketId,
) -> Option<Vec<Brought>> {
    let request = DescribeClusterRequest {
        follower: Some(follower),
    };
    let answer = client.describe_cluster(request).await.ok()?.into_inner();
    brought(&answer, &leader, bucket)
}

/// The databases of an answer; `None` when another cluster gave it, or it makes no sense.
fn brought(
    answer: &DescribeClusterResponse,
    leader: &str,
    bucket: BucketId,
) -> Option<Vec<Brought>> {
    if answer.cluster != leader || BucketId::from_slice(&answer.bucket_id) != Some(bucket) {
        return None;
    }
    let databases = answer.databases.iter().map(|database| {
        let name = DatabaseName::new(database.name.clone()).ok()?;
        Some((name, DatabaseId::from_slice(&database.database_id)?))
    });
    databases.collect()
}

#[cfg(test)]
mod tests {
    use slipstream_proto::sync::DatabaseDescription;

    use super::*;

    #[test]
    fn an_answer_counts_when_it_is_the_leaders_and_whole() {
        let bucket = BucketId::default();
        let description = |name: &str| DatabaseDescription {
            name: name.to_owned(),
            database_id: DatabaseId::default().as_bytes().to_vec().into(),
            version: 1,
        };
        let answer = DescribeClusterResponse {
            cluster: "north".to_owned(),
            location: String::new(),
            bucket_id: bucket.as_bytes().to_vec().into(),
            databases: vec![description("d")],
        };
        let name = DatabaseName::new("d").expect("a name");
        let expected = vec![(name, DatabaseId::default())];
        assert_eq!(brought(&answer, "north", bucket), Some(expected));
        assert_eq!(brought(&answer, "west", bucket), None);
        let elsewhere = DescribeClusterResponse {
            bucket_id: vec![7; 16].into(),
            ..answer.clone()
        };
        assert_eq!(brought(&elsewhere, "north", bucket), None);
        let garbled = DescribeClusterResponse {
            databases: vec![description("d"), description("")],
            ..answer
        };
        assert_eq!(brought(&garbled, "north", bucket), None);
    }
}
