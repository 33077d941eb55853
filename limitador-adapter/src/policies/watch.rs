//! Follows files and publishes every change.

use super::collection::CollectedPolicies;
use super::publish::Publish;
use super::sources::{LOOK_EVERY, Missing, Sources};
use std::path::PathBuf;
use std::time::Duration;

/// The pause after a failure.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Polls for changes. Never returns. Files are read on a blocking thread. If that thread panics, its state is
/// lost and everything is read again. Until that succeeds, the policies stay as they are.
pub async fn watch(sources: Sources, paths: Vec<PathBuf>, publish: Publish) {
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut kept = Some(sources);
    loop {
        look.tick().await;
        let (before, paths) = (kept.take(), paths.clone());
        let looked = tokio::task::spawn_blocking(move || look_once(before, &paths));
        let failure = match looked.await {
            Ok(Ok((sources, collected))) => {
                kept = Some(sources);
                if let Some(collected) = collected {
                    publish.publish(collected);
                }
                continue;
            }
            Ok(Err(missing)) => missing.to_string(),
            Err(died) => died.to_string(),
        };
        publish.metrics.watch_failures.increment(1);
        tracing::error!(failure, "the policies could not be read; those in force stay");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Returns the sources, and the collected policies if they have changed.
fn look_once(
    before: Option<Sources>,
    paths: &[PathBuf],
) -> Result<(Sources, Option<CollectedPolicies>), Missing> {
    let (sources, changed) = match before {
        Some(mut sources) => {
            let changed = sources.look();
            (sources, changed)
        }
        None => (Sources::open(paths)?, true),
    };
    let collected = changed.then(|| sources.collection.collect());
    Ok((sources, collected))
}
