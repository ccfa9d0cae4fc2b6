//! The sender's side of a compressed batch.

use async_compression::Level;
use async_compression::tokio::write::ZstdEncoder;
use tokio::io::AsyncWriteExt;

/// Compresses a batch as `Content-Encoding: zstd` has it, quickly rather than well.
///
/// # Errors
/// When the compressor cannot be set up, for want of memory.
pub async fn zstd(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = ZstdEncoder::with_quality(Vec::with_capacity(bytes.len() / 4), Level::Fastest);
    encoder.write_all(bytes).await?;
    encoder.shutdown().await?;
    Ok(encoder.into_inner())
}
