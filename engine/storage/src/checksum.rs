//! Checksums of what is stored, so that a damaged byte is an error and never a wrong row.
//!
//! `SQLite` checks the pages that are still in the write-ahead log and no others. So blocks of events and parts of snapshots
//! carry the xxHash64 of their compressed bytes, and JSON that positions, clocks and results hang on ends with one of its own text. Both are
//! missing in what older versions wrote, which is read as it is.

use cornjacket_core::{Error, Result};
use twox_hash::XxHash64;

/// What stands around the sixteen digits at the end of sealed JSON.
const LABEL: &str = ",\"xxh64\":\"";
const END: &str = "\"}";
const DIGITS: usize = 16;
/// What stands between a stream and its checksum.
const MARK: &[u8; 8] = b"\0xxh64:\0";

/// The checksum of bytes; `seed` is what belongs to them and is stored elsewhere.
pub(crate) fn checksum(seed: u64, bytes: &[u8]) -> u64 {
    XxHash64::oneshot(seed, bytes)
}

/// Adds its checksum to the text of a JSON object that is not empty.
pub(crate) fn seal(json: &str, seed: u64) -> String {
    match json.strip_suffix('}') {
        Some(open) if open.len() > 1 => format!("{open}{LABEL}{:016x}{END}", checksum(seed, open.as_bytes())),
        _ => json.to_owned(),
    }
}

/// Whether a JSON object is as it was sealed, or was never sealed.
pub(crate) fn is_sound(json: &str, seed: u64) -> bool {
    let sealed = json.strip_suffix(END).and_then(|text| {
        let (rest, digits) = text.split_at_checked(text.len().checked_sub(DIGITS)?)?;
        Some((rest.strip_suffix(LABEL)?, digits))
    });
    sealed.is_none_or(|(open, digits)| digits == format!("{:016x}", checksum(seed, open.as_bytes())))
}

/// Puts a checksum behind a stream of rows.
pub(crate) fn seal_stream(bytes: &mut Vec<u8>) {
    let sum = checksum(0, bytes);
    bytes.extend_from_slice(MARK);
    bytes.extend_from_slice(&sum.to_le_bytes());
}

/// The stream of rows in sealed bytes, or in bytes that were never sealed.
///
/// # Errors
/// [`Error::Corrupt`] when they are not what was sealed.
pub(crate) fn open_stream(bytes: &[u8]) -> Result<&[u8]> {
    let Some((rest, sum)) = bytes.split_last_chunk::<8>() else { return Ok(bytes) };
    let Some(stream) = rest.strip_suffix(MARK) else { return Ok(bytes) };
    if checksum(0, stream) == u64::from_le_bytes(*sum) {
        return Ok(stream);
    }
    Err(Error::Corrupt("its checksum does not hold".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_of_sealed_json_is_found_unless_it_only_hides_the_seal() {
        let sealed = seal(r#"{"epoch":7,"raises":[]}"#, 3);
        assert!(is_sound(&sealed, 3) && !is_sound(&sealed, 4));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&sealed).expect("JSON")["epoch"], 7);
        let label = sealed.find(LABEL).expect("sealed");
        for at in (0..label).chain(label + LABEL.len()..sealed.len() - END.len()) {
            let mut bytes = sealed.clone().into_bytes();
            bytes[at] ^= 1;
            assert!(String::from_utf8(bytes).map_or(true, |text| !is_sound(&text, 3)), "byte {at}");
        }
        assert!(is_sound(r#"{"epoch":7}"#, 3), "what was never sealed is read as it is");
        assert_eq!(seal("{}", 0), "{}");
    }

    #[test]
    fn a_damaged_stream_is_found() {
        let mut bytes = b"rows".to_vec();
        assert_eq!(open_stream(&bytes).expect("unsealed"), b"rows");
        seal_stream(&mut bytes);
        assert_eq!(open_stream(&bytes).expect("sealed"), b"rows");
        bytes[1] ^= 4;
        assert!(open_stream(&bytes).is_err());
    }
}
