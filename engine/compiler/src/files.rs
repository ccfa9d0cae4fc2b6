//! Reading text files within bounds.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

/// The largest file that is read, in bytes. No pipeline comes near it; a device file or a wrong path may.
const MAX_BYTES: u64 = 4 << 20;

/// The text of a file, or why there is none, as the end of a sentence that begins with its path.
pub(crate) fn read_text(path: &Path) -> Result<String, String> {
    let broken = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => "does not exist".to_string(),
        _ => format!("cannot be read: {error}"),
    };
    if std::fs::metadata(path).map_err(broken)?.is_dir() {
        return Err("is a folder, not a file".into());
    }
    let mut bytes = Vec::new();
    File::open(path).map_err(broken)?.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(broken)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("is larger than {} MiB", MAX_BYTES >> 20));
    }
    String::from_utf8(bytes).map_err(|error| {
        let line = error.as_bytes()[..error.utf8_error().valid_up_to()].split(|byte| *byte == b'\n').count();
        format!("is not UTF-8 text (line {line})")
    })
}
