//! How a connection ends: the client is told why, what it had sent is stored, and its will goes out if it is due.

use std::time::Duration;

use mqtt_proto::v5::{Disconnect, DisconnectReasonCode as Reason, Packet};
use tokio::io::AsyncWriteExt;
use tokio::sync::OwnedMutexGuard;

use super::super::wire::Broken;
use super::{Connection, End, stored};

impl Connection {
    pub(super) async fn finish(mut self, end: End, turn: OwnedMutexGuard<()>) {
        let (reason, is_will_wanted, expiry) = match end {
            End::Closed => (None, true, None),
            End::Left { is_will_wanted, expiry } => (None, is_will_wanted, expiry),
            End::Kicked => (Some(Reason::SessionTakenOver), true, None),
            End::Stopping => (Some(Reason::ServerShuttingDown), false, None),
            End::Broken(Broken { reason, why }) => {
                tracing::debug!(client = &*self.client.id, why, "a client is sent away");
                (Some(reason), true, None)
            }
        };
        let is_stopping = matches!(reason, Some(Reason::ServerShuttingDown));
        if !is_stopping {
            self.say_goodbye(reason).await;
        }
        self.settle().await;
        if is_stopping {
            self.say_goodbye(reason).await;
        }
        let lasts = expiry.unwrap_or(self.client.expiry);
        let filters = self.session.end(expiry);
        self.shared.hub.forget(&self.client.id, &filters);
        // A will whose time is the session's comes when that is over, so not before it has begun to run out.
        if let Some(will) = self.client.will.take().filter(|_| is_will_wanted) {
            self.shared.leave_will(will, &self.session, lasts);
        }
        drop(turn);
    }

    async fn say_goodbye(&mut self, reason: Option<Reason>) {
        if let Some(reason) = reason {
            self.send(Packet::Disconnect(Disconnect::new(reason)));
        }
        let goodbye = async {
            // The client may be gone already.
            if !self.is_cut {
                let _ = self.writer.write_all(&self.out).await;
            }
            let _ = self.writer.shutdown().await;
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), goodbye).await;
        self.out.clear();
    }

    /// What was received is stored, though nobody may be there to hear of it.
    async fn settle(&mut self) {
        while self.storing.is_some() || !self.batch.is_empty() {
            if self.storing.is_none() {
                self.store_batch();
            }
            match stored(&mut self.storing).await {
                Some(publishes) => self.acknowledge(publishes),
                None => return,
            }
        }
    }
}
