//! Reading bodies with bounds: each has a greatest size and a greatest time, and all that are being read share a budget
//! of bytes.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Body, HttpBody};

use super::answer::Problem;

/// Bytes that bodies may still take.
#[derive(Clone)]
pub(super) struct Budget(Arc<AtomicUsize>);

/// Bytes taken from a budget, given back on drop.
struct Share<'b> {
    budget: &'b Budget,
    bytes: usize,
}

impl Budget {
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(bytes)))
    }
}

impl Share<'_> {
    /// Takes more bytes; false if there are not as many left.
    fn grow(&mut self, bytes: usize) -> bool {
        let less = |left: usize| left.checked_sub(bytes);
        let is_taken = self.budget.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok();
        if is_taken {
            self.bytes += bytes;
        }
        is_taken
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.budget.0.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

/// Reads bodies.
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
        let mut share = Share { budget: &self.budget, bytes: 0 };
        let mut bytes = Vec::new();
        while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            // Trailers are of no interest.
            let Ok(chunk) = frame.map_err(|error| Problem::unreadable(&error))?.into_data() else { continue };
            if bytes.len() + chunk.len() > self.max_bytes {
                return Err(Problem::too_large(self.max_bytes));
            }
            if !share.grow(chunk.len()) {
                return Err(Problem::busy());
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }
}
