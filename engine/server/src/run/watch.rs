//! `--watch`: a look at the pipeline's files now and then.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cornjacket_compiler::Pipeline;

use super::{compile, one_http_source};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_millis(300);

/// What a file was like: when it was written and how long it is. `None` if it is not there.
type Stamp = Option<(SystemTime, u64)>;

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |file: &PathBuf| file.metadata().ok().and_then(|found| Some((found.modified().ok()?, found.len())));
    files.iter().map(stamp).collect()
}

/// Waits until the files have changed to another pipeline that can run in the place of this one. For ever if they are not
/// watched.
pub(super) async fn changed(pipeline: &Pipeline, is_watching: bool) -> Arc<Pipeline> {
    if !is_watching {
        return std::future::pending().await;
    }
    let mut files = pipeline.files.clone();
    let mut seen = stamps(&files);
    loop {
        tokio::time::sleep(LOOK).await;
        let now = stamps(&files);
        if now == seen {
            continue;
        }
        // An editor may write in several steps.
        tokio::time::sleep(LOOK).await;
        seen = stamps(&files);
        if seen != now {
            // The next look finds it at rest.
            seen = vec![None; files.len()];
            continue;
        }
        let file = files[0].clone();
        let Ok(compiled) = tokio::task::spawn_blocking(move || compile(&file)).await else { continue };
        let Some(next) = compiled else {
            tracing::warn!("the changed file has errors: going on with the last one that had none");
            continue;
        };
        files.clone_from(&next.files);
        seen = stamps(&files);
        if let Err(reason) = can_follow(pipeline, &next) {
            tracing::warn!("the changed file cannot be taken up by this process: {reason:#}");
            continue;
        }
        tracing::info!("the file has changed: taking it up");
        return Arc::new(next);
    }
}

/// Whether a pipeline can run in the place of another, on what is stored.
fn can_follow(pipeline: &Pipeline, next: &Pipeline) -> anyhow::Result<()> {
    one_http_source(next)?;
    if pipeline.name != next.name {
        anyhow::bail!(
            "its name has changed from {} to {}, and state is kept by name: stop and start it",
            pipeline.name,
            next.name
        );
    }
    for (topic, partitions) in &next.catalogue.topics {
        if pipeline.catalogue.topics.get(topic).is_some_and(|before| before != partitions) {
            anyhow::bail!("the number of partitions of {topic} is fixed when it is first used");
        }
    }
    Ok(())
}
