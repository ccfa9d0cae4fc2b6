//! Reading bodies with bounds: each has a greatest size and a greatest time, and all that are being read share a budget
//! of bytes, of which each takes only what has arrived.
//!
//! When the budget is used up, whoever needs more waits a little, and those that are slowest to send what they announced
//! are let go: so slow clients, however many, do not keep the others out.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::answer::Problem;

/// How long a body is left alone, however slowly it comes.
const GRACE: Duration = Duration::from_secs(1);
/// Bodies that come with fewer bytes a second than this are let go when memory is short,
const SLOW_BYTES: usize = 64 << 10;
/// if they hold more than this: letting the others go would make no room.
const SMALL_BYTES: usize = 16 << 10;
/// How long a body that holds little waits for room; one that holds more gives it up after [`GRACE`].
const ROOM_PATIENCE: Duration = Duration::from_secs(3);
/// How often those who are slow are asked to go meanwhile.
const ROOM_INTERVAL: Duration = Duration::from_millis(100);

/// Bytes that bodies may still take.
#[derive(Clone)]
pub(super) struct Budget(Arc<Room>);

struct Room {
    left: AtomicUsize,
    /// Somebody gave bytes back.
    freed: Notify,
    /// Somebody needs bytes that are not there.
    short: Notify,
}

/// Bytes taken from a budget for one body, given back on drop.
pub(super) struct Share {
    budget: Budget,
    bytes: usize,
    began: Instant,
    /// Until when it has sent enough; never more than [`GRACE`] ahead, so that who stops sending is slow soon.
    paid_until: Instant,
}

impl Budget {
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Room { left: AtomicUsize::new(bytes), freed: Notify::new(), short: Notify::new() }))
    }

    pub fn share(&self) -> Share {
        Share { budget: self.clone(), bytes: 0, began: Instant::now(), paid_until: Instant::now() }
    }

    /// How many bytes are not taken.
    #[cfg(test)]
    pub fn left(&self) -> usize {
        self.0.left.load(Ordering::Relaxed)
    }
}

impl Share {
    fn try_grow(&mut self, bytes: usize) -> bool {
        let less = |left: usize| left.checked_sub(bytes);
        let is_taken = self.budget.0.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok();
        if is_taken {
            self.bytes += bytes;
        }
        is_taken
    }

    /// Takes bytes that have arrived; waits a little if there are not as many left.
    pub async fn grow(&mut self, bytes: usize) -> Result<(), Problem> {
        self.arrive(bytes);
        self.take(bytes).await
    }

    /// Counts bytes that have arrived.
    pub fn arrive(&mut self, bytes: usize) {
        let now = Instant::now();
        let worth = Duration::from_micros(bytes as u64 * 1_000_000 / SLOW_BYTES as u64);
        self.paid_until = (self.paid_until.max(now) + worth).min(now + GRACE);
    }

    /// Takes bytes for something else; waits a little if there are not as many left.
    pub async fn take(&mut self, bytes: usize) -> Result<(), Problem> {
        if self.try_grow(bytes) {
            return Ok(());
        }
        let room = Arc::clone(&self.budget.0);
        let began = Instant::now();
        loop {
            let freed = room.freed.notified();
            if self.try_grow(bytes) {
                return Ok(());
            }
            // Where all room is held by those that wait for more, whoever waited longest makes some.
            let patience = if self.bytes > SMALL_BYTES { GRACE } else { ROOM_PATIENCE };
            if began.elapsed() >= patience {
                return Err(Problem::busy().closing());
            }
            room.short.notify_waiters();
            let _ = tokio::time::timeout(ROOM_INTERVAL, freed).await;
        }
    }

    /// Gives back all but so many bytes.
    pub fn shrink_to(&mut self, bytes: usize) {
        let freed = self.bytes.saturating_sub(bytes);
        self.bytes -= freed;
        if freed > 0 {
            self.budget.0.left.fetch_add(freed, Ordering::Relaxed);
            self.budget.0.freed.notify_waiters();
        }
    }

    /// Ends when others need room and this body comes too slowly to keep its own.
    pub async fn outstayed(&self) {
        loop {
            self.budget.0.short.notified().await;
            if self.bytes > SMALL_BYTES && self.began.elapsed() > GRACE && self.paid_until < Instant::now() {
                return;
            }
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

/// The next bytes of a body; `None` at its end. Nothing is lost when it is given up.
pub(super) async fn next_bytes(body: &mut Body) -> Option<Result<Bytes, axum::Error>> {
    loop {
        match poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await? {
            Ok(frame) => {
                // Trailers are of no interest.
                if let Ok(bytes) = frame.into_data() {
                    return Some(Ok(bytes));
                }
            }
            Err(error) => return Some(Err(error)),
        }
    }
}

/// Reads bodies whole.
pub(super) struct Reader {
    pub max_bytes: usize,
    pub timeout: Duration,
    pub budget: Budget,
}

impl Reader {
    /// Reads a body to its end. A declared length that is too much is refused before anything is read.
    pub async fn read(&self, body: Body, declared: Option<usize>) -> Result<Vec<u8>, Problem> {
        if declared.is_some_and(|bytes| bytes > self.max_bytes) {
            return Err(Problem::too_large(self.max_bytes));
        }
        let read = tokio::time::timeout(self.timeout, self.read_all(body));
        read.await.unwrap_or_else(|_| Err(Problem::too_slow()))
    }

    async fn read_all(&self, mut body: Body) -> Result<Vec<u8>, Problem> {
        let mut share = self.budget.share();
        let mut bytes = Vec::new();
        loop {
            let Some(chunk) = patiently(&share, next_bytes(&mut body)).await? else { return Ok(bytes) };
            let chunk = chunk.map_err(|error| Problem::unreadable(&error))?;
            if bytes.len() + chunk.len() > self.max_bytes {
                return Err(Problem::too_large(self.max_bytes));
            }
            share.grow(chunk.len()).await?;
            bytes.extend_from_slice(&chunk);
        }
    }
}

/// Waits for a client unless others need its room.
async fn patiently<T>(share: &Share, work: impl Future<Output = T>) -> Result<T, Problem> {
    tokio::select! {
        biased;
        outcome = work => Ok(outcome),
        () = share.outstayed() => Err(Problem::busy().closing()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_slow_makes_room() {
        let budget = Budget::new(100_000);
        let (mut slow, mut small) = (budget.share(), budget.share());
        small.grow(1).await.expect("there is room");
        let stays = tokio::spawn(async move { small.outstayed().await });
        slow.grow(80_000).await.expect("there is room");
        let leaves = tokio::spawn(async move { slow.outstayed().await });
        let mut other = budget.share();
        let began = Instant::now();
        other.grow(50_000).await.expect("room was made");
        assert!(began.elapsed() > GRACE / 2, "at first it was left alone");
        leaves.await.expect("it has left");
        other.shrink_to(10);
        assert_eq!(budget.left(), 99_989);
        assert!(!stays.is_finished(), "there is nothing to be had from it");
        drop(other);
        assert_eq!(budget.left(), 99_999);
    }

    #[tokio::test]
    async fn those_who_all_wait_for_more_do_not_hold_up_who_comes() {
        let budget = Budget::new(100_000);
        let mut waiting = Vec::new();
        for _ in 0..2 {
            let mut share = budget.share();
            share.grow(50_000).await.expect("there is room");
            waiting.push(tokio::spawn(async move { share.grow(50_000).await.is_err() }));
        }
        tokio::time::sleep(GRACE / 10).await;
        let mut other = budget.share();
        other.grow(60_000).await.expect("room was made");
        // One of them is enough: the other has its room then.
        let mut gone = 0;
        for waiting in waiting {
            gone += usize::from(waiting.await.expect("it ends"));
        }
        assert!(gone > 0);
    }
}
