//! Records in `store.db` that a start goes on from, as JSON with a checksum: a flipped digit in a position would be a hole or
//! a repeat in the results. What older versions wrote has none and is read as it is.

use cornjacket_core::log::Positions;
use cornjacket_core::store::Raise;
use cornjacket_core::{Error, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::checksum::{checksum, is_sound, seal};

fn seed(what: &str, pipeline: &str) -> u64 {
    checksum(0, format!("{what} {pipeline}").as_bytes())
}

/// A record as it is stored. `what` is what it is called when it cannot be read.
pub(super) fn to_record<T: Serialize>(value: &T, what: &str, pipeline: &str) -> Result<String> {
    let text = serde_json::to_string(value).map_err(|error| Error::Corrupt(error.to_string()))?;
    Ok(seal(&text, seed(what, pipeline)))
}

/// Reads what [`to_record`] wrote.
///
/// # Errors
/// [`Error::Corrupt`] when it is not what was written there.
pub(super) fn from_record<T: DeserializeOwned>(text: &str, what: &str, pipeline: &str) -> Result<T> {
    if !is_sound(text, seed(what, pipeline)) {
        return Err(Error::Corrupt(format!("{what} of {pipeline}: its checksum does not hold")));
    }
    serde_json::from_str(text).map_err(|error| Error::Corrupt(format!("{what} of {pipeline}: {error}")))
}

/// Raises with the positions of their epoch, under one checksum.
#[derive(Serialize, Deserialize)]
struct Raised {
    raises: Vec<Raise>,
    at: Positions,
}

pub(super) const RAISES: &str = "the raises";
pub(super) const EPOCH: &str = "an epoch's record";
pub(super) const SNAPSHOT: &str = "the snapshot";
pub(super) const STATE: &str = "the state";

/// The two columns of raises.
pub(super) fn to_raises(at: &Positions, raises: &[Raise], pipeline: &str) -> Result<(String, String)> {
    let positions = serde_json::to_string(at).map_err(|error| Error::Corrupt(error.to_string()))?;
    Ok((positions, to_record(&Raised { raises: raises.to_vec(), at: at.clone() }, RAISES, pipeline)?))
}

/// Reads what [`to_raises`] wrote, or the plain list of older versions.
///
/// # Errors
/// [`Error::Corrupt`] when they are not what was written there.
pub(super) fn from_raises((at, raises): (&str, &str), pipeline: &str) -> Result<(Positions, Vec<Raise>)> {
    if raises.starts_with('[') {
        return Ok((from_record(at, RAISES, pipeline)?, from_record(raises, RAISES, pipeline)?));
    }
    let Raised { raises, at } = from_record(raises, RAISES, pipeline)?;
    Ok((at, raises))
}

#[cfg(test)]
mod tests {
    use cornjacket_core::store::EpochRecord;

    use super::*;

    #[test]
    fn a_flipped_digit_is_an_error_and_never_another_position() {
        let record = EpochRecord { epoch: 7, ..EpochRecord::default() };
        let text = to_record(&record, EPOCH, "p").expect("JSON");
        assert_eq!(from_record::<EpochRecord>(&text, EPOCH, "p").expect("sound"), record);
        assert!(from_record::<EpochRecord>(&text.replace('7', "6"), EPOCH, "p").is_err());
        assert!(from_record::<EpochRecord>(&text, EPOCH, "q").is_err(), "another pipeline's");
        let unsealed = serde_json::to_string(&record).expect("JSON");
        assert_eq!(from_record::<EpochRecord>(&unsealed, EPOCH, "p").expect("of an older version"), record);

        let (at, raises) = to_raises(&record.positions, &[], "p").expect("JSON");
        assert!(from_raises((&at, &raises), "p").is_ok() && from_raises(("{}", "[]"), "p").is_ok());
        assert!(from_raises((&at, &raises.replace("raises", "raised")), "p").is_err());
    }
}
