//! Records what came of attempts: those that end at the same time share a transaction, so that many receivers cost the
//! engine, which writes to the same file, little.

use std::sync::Arc;
use std::time::Duration;

use cornjacket_core::delivery::Attempt;
use cornjacket_core::environment::Clock;
use cornjacket_core::store::Store;
use tokio::sync::{mpsc, oneshot};

/// Attempts in one transaction at most.
const MOST: usize = 256;
/// How long to wait while the store cannot be written.
const RETRY: Duration = Duration::from_millis(500);

/// An attempt to record, and who waits until it is.
pub(super) struct Record {
    pub(super) attempt: Attempt,
    pub(super) done: oneshot::Sender<()>,
}

/// Hands an attempt in and waits until it is recorded; does not return if that cannot be any more.
pub(super) async fn record(recorder: &mpsc::Sender<Record>, attempt: Attempt) {
    let (done, recorded) = oneshot::channel();
    // The delivery is still pending then, and the next process tries it again.
    if recorder.send(Record { attempt, done }).await.is_ok() {
        let _ = recorded.await;
    }
}

/// Records until everyone who hands in is gone.
pub(super) async fn run(mut records: mpsc::Receiver<Record>, store: Arc<dyn Store>, clock: Arc<dyn Clock>) {
    let mut batch = Vec::with_capacity(MOST);
    while records.recv_many(&mut batch, MOST).await > 0 {
        let (attempts, waiting): (Vec<Attempt>, Vec<_>) =
            batch.drain(..).map(|record| (record.attempt, record.done)).unzip();
        let attempts = Arc::new(attempts);
        while !write(&store, &clock, &attempts).await {
            tokio::time::sleep(RETRY).await;
        }
        for done in waiting {
            // Whoever no longer waits needs no answer.
            let _ = done.send(());
        }
    }
}

async fn write(store: &Arc<dyn Store>, clock: &Arc<dyn Clock>, attempts: &Arc<Vec<Attempt>>) -> bool {
    let (store, now, attempts) = (Arc::clone(store), clock.now(), Arc::clone(attempts));
    let outcome = tokio::task::spawn_blocking(move || store.record_attempts(now, &attempts)).await;
    match outcome {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::warn!(%error, "what came of deliveries cannot be recorded yet");
            false
        }
        Err(error) => {
            tracing::error!(%error, "what came of deliveries cannot be recorded");
            false
        }
    }
}
