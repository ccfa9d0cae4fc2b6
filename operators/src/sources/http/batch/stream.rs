//! The bytes of a batch's body as they come, uncompressed.

use std::io;
use std::pin::Pin;
use std::time::Duration;

use async_compression::tokio::bufread::{GzipDecoder, ZstdDecoder};
use async_compression::zstd::DParameter;
use axum::body::Body;
use futures::TryStreamExt;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::io::StreamReader;

use super::super::body::next_bytes;
use super::super::content::Coding;

/// The greatest window of zstd, as a power of two: what RFC 9659 has for HTTP.
const WINDOW_LOG: u32 = 23;
/// How much a decoder writes at once.
const READ_BYTES: usize = 64 << 10;
/// For how long what still comes is read when the answer is known.
const LINGER: Duration = Duration::from_secs(1);

/// A body that is being read.
pub(super) enum Stream {
    Plain(Body),
    Coded(Pin<Box<dyn AsyncRead + Send>>),
}

impl Stream {
    pub fn new(body: Body, coding: Coding) -> Self {
        let compressed = |body: Body| StreamReader::new(body.into_data_stream().map_err(io::Error::other));
        match coding {
            Coding::Identity => Self::Plain(body),
            Coding::Zstd => {
                let window = [DParameter::window_log_max(WINDOW_LOG)];
                let mut decoder = ZstdDecoder::with_params(compressed(body), &window);
                decoder.multiple_members(true);
                Self::Coded(Box::pin(decoder))
            }
            Coding::Gzip => {
                let mut decoder = GzipDecoder::new(compressed(body));
                decoder.multiple_members(true);
                Self::Coded(Box::pin(decoder))
            }
        }
    }

    /// What a decoder takes beside what it has read.
    pub fn memory(coding: Coding) -> usize {
        match coding {
            Coding::Identity => 0,
            Coding::Gzip => READ_BYTES + (64 << 10),
            Coding::Zstd => READ_BYTES + (1 << WINDOW_LOG) + (256 << 10),
        }
    }

    /// Lets go of what still comes, for a moment: a client that sends all before it reads would find its connection reset
    /// and never see the answer.
    pub async fn discard(&mut self) {
        let let_go = async {
            let mut bytes = Vec::new();
            while self.read(&mut bytes).await.is_ok_and(|read| read > 0) {
                bytes.clear();
            }
        };
        let _ = tokio::time::timeout(LINGER, let_go).await;
    }

    /// Adds bytes to the end; how many, which is 0 at the end of the body. Nothing is lost when it is given up.
    pub async fn read(&mut self, into: &mut Vec<u8>) -> Result<usize, String> {
        match self {
            Self::Plain(body) => loop {
                match next_bytes(body).await {
                    None => return Ok(0),
                    Some(Ok(bytes)) if bytes.is_empty() => {}
                    Some(Ok(bytes)) => {
                        into.extend_from_slice(&bytes);
                        return Ok(bytes.len());
                    }
                    Some(Err(error)) => return Err(error.to_string()),
                }
            },
            Self::Coded(decoder) => {
                into.reserve(READ_BYTES);
                decoder.read_buf(into).await.map_err(|error| error.to_string())
            }
        }
    }
}
