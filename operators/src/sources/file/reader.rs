//! One file after the other, with the position in each.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cornjacket_core::door::{Bundle, EnvelopeTemplate, Message, Rejects};
use cornjacket_core::source::{Progress, Pull, Reader, Unit};
use cornjacket_core::{Error, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Files, Format, csv, lines, parquet};

/// Bytes of a bundle, about, and messages at most.
pub(super) const BUNDLE_BYTES: usize = 1 << 20;
pub(super) const BUNDLE_MESSAGES: usize = 8_192;
/// How many bytes at its start a file is known by.
const HEAD_BYTES: u64 = 4_096;

/// Where reading stands in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// Bytes read, or rows for Parquet.
    pub(super) offset: u64,
    /// Lines or rows read.
    pub(super) number: u64,
    /// How many of the file's first bytes `head` is the hash of.
    head_bytes: u64,
    head: String,
    /// How many other files were read under this path before.
    #[serde(default, skip_serializing_if = "is_zero")]
    generation: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What a format's reader gives.
#[derive(Debug, Default)]
pub(super) struct Piece {
    pub(super) bytes: Vec<u8>,
    pub(super) messages: Vec<Message>,
    /// Where reading stands behind it.
    pub(super) offset: u64,
    pub(super) number: u64,
}

/// Reads one file of a format.
pub(super) trait FormatReader: Send {
    /// The next messages; `None` at the end. A piece may have no messages.
    fn next(&mut self) -> Result<Option<Piece>>;

    /// How many bytes of the file are read, about.
    fn bytes_read(&self) -> u64;
}

/// Reads the files of a source.
pub(super) struct FilesReader {
    source: Arc<str>,
    format: Format,
    envelope: Option<Arc<EnvelopeTemplate>>,
    folder: PathBuf,
    /// Files to come, the next one last.
    files: Vec<PathBuf>,
    /// By path relative to the pipeline file.
    places: BTreeMap<String, Place>,
    open: Option<Open>,
    done: u64,
    total: u64,
}

struct Open {
    name: String,
    path: PathBuf,
    reader: Box<dyn FormatReader>,
    bytes: u64,
}

pub(super) fn failed(path: &Path, error: &impl std::fmt::Display) -> Error {
    Error::Conflict(format!("{} cannot be read: {error}", path.display()))
}

impl FilesReader {
    pub(super) fn new(files: &Files, mut found: Vec<PathBuf>, position: Option<&str>) -> Result<Self> {
        let places = position.map_or_else(|| Ok(BTreeMap::new()), serde_json::from_str);
        let places = places.map_err(|error| Error::Corrupt(format!("the position of {}: {error}", files.source)))?;
        let size = |path: &PathBuf| path.metadata().map_or(0, |metadata| metadata.len());
        let total = found.iter().map(size).sum();
        found.reverse();
        Ok(Self {
            source: Arc::clone(&files.source),
            format: files.format,
            envelope: files.envelope.clone(),
            folder: files.folder.clone(),
            files: found,
            places,
            open: None,
            done: 0,
            total,
        })
    }

    /// Opens the next file where the last run left it.
    fn open_next(&mut self) -> Result<bool> {
        let Some(path) = self.files.pop() else { return Ok(false) };
        let name = path.strip_prefix(&self.folder).unwrap_or(&path).display().to_string();
        let place = self.place_in(&name, &path)?;
        let reader: Box<dyn FormatReader> = match self.format {
            Format::Ndjson => Box::new(lines::Lines::open(&path, &place)?),
            Format::Csv => Box::new(csv::Rows::open(&path, &place, self.envelope.as_ref())?),
            Format::Parquet => Box::new(parquet::Rows::open(&path, &place, self.envelope.as_ref())?),
        };
        let bytes = path.metadata().map_or(0, |metadata| metadata.len());
        self.places.insert(name.clone(), place);
        self.open = Some(Open { name, path, reader, bytes });
        Ok(true)
    }

    /// The stored place in a file, if it is still that file; its start otherwise.
    fn place_in(&self, name: &str, path: &Path) -> Result<Place> {
        let Some(place) = self.places.get(name) else { return Ok(Place::default()) };
        if place.head_bytes == 0 || head_of(path, place.head_bytes)? == (place.head_bytes, place.head.clone()) {
            return Ok(place.clone());
        }
        tracing::warn!(
            source = &*self.source,
            file = name,
            "another file is there than the one read before: read anew"
        );
        Ok(Place { generation: place.generation + 1, ..Place::default() })
    }

    fn bundle(&mut self, piece: Piece) -> Result<Option<Bundle>> {
        let Some(Open { name, path, .. }) = &self.open else { return Ok(None) };
        let place = self.places.entry(name.clone()).or_default();
        (place.offset, place.number) = (piece.offset, piece.number);
        if place.head_bytes < HEAD_BYTES {
            (place.head_bytes, place.head) = head_of(path, HEAD_BYTES)?;
        }
        let origin = match place.generation {
            0 => name.clone(),
            generation => format!("{name}#{}", generation + 1),
        };
        let position = serde_json::to_string(&self.places).map_err(|error| Error::Compute(error.to_string()))?;
        Ok(Some(Bundle {
            source: Arc::clone(&self.source),
            origin: origin.into(),
            bytes: piece.bytes,
            messages: piece.messages,
            known: Vec::new(),
            envelope: self.envelope.clone(),
            position: Some(position),
            receipts: Vec::new(),
            rejects: Rejects::DeadLetters,
            chain: None,
        }))
    }
}

impl Reader for FilesReader {
    fn next(&mut self) -> Result<Pull> {
        loop {
            if self.open.is_none() && !self.open_next()? {
                return Ok(Pull::End);
            }
            let Some(open) = &mut self.open else { continue };
            match open.reader.next()? {
                Some(piece) if piece.messages.is_empty() => {}
                Some(piece) => {
                    if let Some(bundle) = self.bundle(piece)? {
                        return Ok(Pull::Bundle(bundle));
                    }
                }
                None => {
                    self.done += open.bytes;
                    self.open = None;
                }
            }
        }
    }

    fn progress(&self) -> Option<Progress> {
        let open = self.open.as_ref().map_or(0, |open| open.reader.bytes_read());
        Some(Progress { done: (self.done + open).min(self.total), total: self.total, unit: Unit::Bytes })
    }
}

/// The hash of a file's first bytes, and how many they are.
fn head_of(path: &Path, bytes: u64) -> Result<(u64, String)> {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(bytes).read_to_end(&mut head));
    read.map_err(|error| failed(path, &error))?;
    let hash = Sha256::digest(&head);
    let text = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    Ok((head.len() as u64, text))
}
