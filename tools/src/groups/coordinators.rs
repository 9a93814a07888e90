//! Which broker coordinates which group, found for many groups at once.

use std::collections::BTreeMap;

use milena_server::client::{Client, ClientError, Target};
use milena_server::protocol::messages::find_coordinator::{FindCoordinatorRequest, FindCoordinatorResponse};

use crate::cluster_args::CommandError;

/// The groups of each broker, by its id.
pub(super) type Coordinators = BTreeMap<i32, Vec<String>>;

/// Groups that one question about several names.
pub(super) const BATCH_LENGTH: usize = 200;

pub(super) async fn coordinators(
    client: &mut Client,
    groups: &[String],
) -> Result<Coordinators, CommandError> {
    Ok(client.retry(async |client| find(client, groups).await).await?)
}

async fn find(client: &mut Client, groups: &[String]) -> Result<Coordinators, ClientError> {
    let request = |group: &String| FindCoordinatorRequest {
        key: group.clone().into(),
        key_type: 0,
    };
    let requests: Vec<FindCoordinatorRequest<'_>> = groups.iter().map(request).collect();
    let answers = client.call_all(Target::Any, &requests).await?;
    let mut coordinators = Coordinators::new();
    for (group, answer) in groups.iter().zip(&answers) {
        let response: FindCoordinatorResponse<'_> = answer.decode()?;
        ClientError::check(response.error_code, response.error_message.as_deref(), || {
            format!("group {group}")
        })?;
        coordinators
            .entry(response.node_id)
            .or_default()
            .push(group.clone());
    }
    Ok(coordinators)
}
