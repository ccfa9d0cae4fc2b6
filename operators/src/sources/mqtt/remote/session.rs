//! What a source remembers of its session at the broker: its client id, and what it subscribed to.
//!
//! A broker keeps a session by its client id. So the id must stay the same over restarts, and must be nobody else's: it has
//! a random part, made once and kept in the data folder. The filters are kept because the broker keeps them as well: one
//! that was taken out of the pipeline file must be unsubscribed from.

use std::collections::BTreeSet;
use std::io::{Error, ErrorKind, Write};
use std::path::{Path, PathBuf};

use cornjacket_core::environment::Random;
use serde::{Deserialize, Serialize};

/// A session, as it is kept in a file of its own.
#[derive(Debug)]
pub(super) struct Session {
    file: PathBuf,
    kept: Kept,
}

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    client_id: String,
    filters: BTreeSet<String>,
}

impl Session {
    /// Reads it, or begins it. `folder` is the data folder.
    ///
    /// # Errors
    /// When its file cannot be read or written.
    pub fn open(folder: &Path, (pipeline, source): (&str, &str), random: &dyn Random) -> std::io::Result<Self> {
        let folder = folder.join("mqtt");
        let file = folder.join(format!("{}.json", plain(source)));
        match std::fs::read(&file) {
            Ok(bytes) => {
                let kept = serde_json::from_slice(&bytes)
                    .map_err(|error| Error::new(ErrorKind::InvalidData, format!("{}: {error}", file.display())))?;
                Ok(Self { file, kept })
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                std::fs::create_dir_all(&folder)?;
                let mut bytes = [0; 6];
                random.fill(&mut bytes);
                let unique: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                let client_id = format!("cornjacket-{}-{}-{unique}", plain(pipeline), plain(source));
                let session = Self { file, kept: Kept { client_id, filters: BTreeSet::new() } };
                session.write()?;
                Ok(session)
            }
            Err(error) => Err(error),
        }
    }

    /// How the broker knows us.
    pub fn client_id(&self) -> &str {
        &self.kept.client_id
    }

    /// What the broker may still have subscribed us to, although it is not wanted.
    pub fn unwanted(&self, wanted: &[String]) -> Vec<String> {
        self.kept.filters.iter().filter(|filter| !wanted.contains(filter)).cloned().collect()
    }

    /// Notes, before they are subscribed to, what the broker may have in its session.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn note(&mut self, filters: &[String]) -> std::io::Result<()> {
        let count = self.kept.filters.len();
        self.kept.filters.extend(filters.iter().cloned());
        if self.kept.filters.len() == count { Ok(()) } else { self.write() }
    }

    /// Notes that the broker has these and no others.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn settle(&mut self, filters: &[String]) -> std::io::Result<()> {
        let filters: BTreeSet<String> = filters.iter().cloned().collect();
        if self.kept.filters == filters {
            return Ok(());
        }
        self.kept.filters = filters;
        self.write()
    }

    /// All of it is in the file or what was there before.
    fn write(&self) -> std::io::Result<()> {
        let draft = self.file.with_extension("json.new");
        let mut file = std::fs::File::create(&draft)?;
        file.write_all(&serde_json::to_vec(&self.kept)?)?;
        file.sync_all()?;
        std::fs::rename(&draft, &self.file)
    }
}

/// A name with nothing in it that a broker or a file system could object to.
fn plain(name: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    name.chars().map(|letter| if is_plain(letter) { letter } else { '-' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(u8);

    impl Random for Fixed {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(self.0);
        }
    }

    fn texts(filters: &[&str]) -> Vec<String> {
        filters.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_client_id_stays_and_is_this_folders_own() {
        let folders = [tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder")];
        let open = |folder: usize, random| Session::open(folders[folder].path(), ("iot", "my source"), &Fixed(random));
        let id = |folder, random| open(folder, random).expect("a session").client_id().to_owned();
        assert_eq!(id(0, 7), "cornjacket-iot-my-source-070707070707");
        assert_eq!(id(0, 8), "cornjacket-iot-my-source-070707070707");
        assert_eq!(id(1, 9), "cornjacket-iot-my-source-090909090909");
        std::fs::write(folders[0].path().join("mqtt/my-source.json"), "{").expect("written");
        assert!(open(0, 1).expect_err("broken").to_string().contains("my-source.json"));
    }

    #[test]
    fn filters_that_are_no_longer_wanted_are_known_over_restarts() {
        let folder = tempfile::tempdir().expect("a folder");
        let open = || Session::open(folder.path(), ("p", "s"), &Fixed(1)).expect("a session");
        let mut session = open();
        session.note(&texts(&["a", "b"])).expect("written");
        let mut session = {
            drop(session);
            open()
        };
        assert_eq!(session.unwanted(&texts(&["b", "c"])), texts(&["a"]));
        session.note(&texts(&["b", "c"])).expect("written");
        assert_eq!(open().unwanted(&texts(&["b", "c"])), texts(&["a"]));
        session.settle(&texts(&["b", "c"])).expect("written");
        assert!(open().unwanted(&texts(&["b", "c"])).is_empty());
    }
}
