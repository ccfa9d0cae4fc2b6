//! API keys: who may use which service. A file has a key a line, of which it knows only the SHA-256:
//!
//! ```text
//! # name     SHA-256 of the key, in hex                                          scopes         how much, if bounded
//! collector  5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5    ingest         rate=1000/s
//! grafana    c775e7b757ede630cd0aa1113bd102661ab38829ca52a6422ab782862f268646    query
//! ```
//!
//! The file is read again when it changes, so that a key can be given or taken away without a restart. A file that is
//! wrong then changes nothing: who was known stays known, and the log says what is wrong.
//!
//! A key is looked up by comparing its hash with all that are known, each in constant time, so how long that takes says
//! nothing of any key.

mod layer;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use cornjacket_operators::sources::http::{Caller, Rate};
use parking_lot::RwLock;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::signal::unix::{SignalKind, signal};

pub use layer::guard;

/// How often the file is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// What a key may be for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// To hand in events.
    Ingest,
    /// To ask the query service.
    Query,
    /// To see what is sent outside.
    Actions,
    /// To change what is there: replay or discard dead letters, send deliveries again.
    Admin,
}

/// A line of the file.
#[derive(Debug)]
struct Key {
    hash: [u8; 32],
    scopes: Vec<Scope>,
    caller: Caller,
    /// How its rate is written.
    rate: Option<String>,
}

/// The keys of a file, as it is now.
#[derive(Debug)]
pub struct Keys {
    file: PathBuf,
    now: RwLock<Now>,
}

#[derive(Debug)]
struct Now {
    text: String,
    keys: Arc<[Key]>,
}

/// What became of a key that somebody showed.
#[derive(Debug)]
enum Found {
    /// It may do what was asked.
    Allowed(Caller),
    /// It is known, and may not.
    OutOfScope(Arc<str>),
    /// Nobody has it.
    Unknown,
}

impl Scope {
    const ALL: [Self; 4] = [Self::Ingest, Self::Query, Self::Actions, Self::Admin];

    /// Its name in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Query => "query",
            Self::Actions => "actions",
            Self::Admin => "admin",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == text)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Keys {
    /// Reads the file.
    ///
    /// # Errors
    /// When it cannot be read, or a line of it is wrong; the message names all that are.
    pub fn open(file: &Path) -> Result<Arc<Self>> {
        let text = read(file)?;
        let keys = parse(&text).with_context(|| wrong(file))?;
        tracing::info!("{} API keys from {}", keys.len(), file.display());
        Ok(Arc::new(Self { file: file.to_path_buf(), now: RwLock::new(Now { text, keys: keys.into() }) }))
    }

    /// Reads the file again whenever it has changed, and at every SIGHUP.
    ///
    /// # Errors
    /// When the signal cannot be waited for.
    pub fn follow(self: &Arc<Self>) -> Result<()> {
        let mut hang_up = signal(SignalKind::hangup()).context("SIGHUP cannot be waited for")?;
        let keys = Arc::clone(self);
        tokio::spawn(async move {
            let mut told = String::new();
            loop {
                let is_asked = tokio::select! {
                    () = tokio::time::sleep(LOOK_INTERVAL) => false,
                    _ = hang_up.recv() => true,
                };
                match keys.reload() {
                    Err(error) => {
                        let text = format!("{error:#}");
                        // Once is enough, until it changes.
                        if is_asked || text != told {
                            tracing::error!("the API keys stay as they are: {text}");
                        }
                        told = text;
                    }
                    Ok(changed) => {
                        told.clear();
                        if changed || is_asked {
                            tracing::info!("{} API keys from {}", keys.now.read().keys.len(), keys.file.display());
                        }
                    }
                }
            }
        });
        Ok(())
    }

    /// Reads the file again; whether it has changed.
    fn reload(&self) -> Result<bool> {
        let text = read(&self.file)?;
        if self.now.read().text == text {
            return Ok(false);
        }
        let mut keys = parse(&text).with_context(|| wrong(&self.file))?;
        let mut now = self.now.write();
        for key in &mut keys {
            // A key that is as it was has not got a new allowance.
            if let Some(old) = now.keys.iter().find(|old| old.hash == key.hash && old.rate == key.rate) {
                key.caller.rate.clone_from(&old.caller.rate);
            }
        }
        *now = Now { text, keys: keys.into() };
        Ok(true)
    }

    /// Looks a key up.
    fn find(&self, secret: &[u8], scope: Scope) -> Found {
        let hash: [u8; 32] = Sha256::digest(secret).into();
        let keys = Arc::clone(&self.now.read().keys);
        let mut found = Found::Unknown;
        for key in keys.iter() {
            if bool::from(key.hash.ct_eq(&hash)) {
                let is_allowed = key.scopes.contains(&scope);
                let caller = key.caller.clone();
                found = if is_allowed { Found::Allowed(caller) } else { Found::OutOfScope(caller.name) };
            }
        }
        found
    }
}

fn read(file: &Path) -> Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("the API keys in {} cannot be read", file.display()))
}

fn wrong(file: &Path) -> String {
    format!("the API keys in {} are wrong", file.display())
}

fn parse(text: &str) -> Result<Vec<Key>> {
    // Some editors put a byte order mark at the start, which is no part of the first name.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (mut keys, mut faults) = (Vec::<Key>::new(), Vec::new());
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match parse_line(line) {
            Ok(key) if keys.iter().any(|other| other.hash == key.hash) => {
                faults.push(format!("line {number}: this key is there already"));
            }
            Ok(key) => keys.push(key),
            Err(error) => faults.push(format!("line {number}: {error}")),
        }
    }
    match faults.as_slice() {
        [] if keys.is_empty() => bail!("there is no key in it: write a line with a name, a SHA-256 in hex, and scopes"),
        [] => Ok(keys),
        faults => bail!("{}", faults.join("; ")),
    }
}

/// Reads a name, a hash, scopes and perhaps a rate. Commas are as good as white space between them.
fn parse_line(line: &str) -> Result<Key> {
    let mut fields = line.split(|c: char| c.is_whitespace() || c == ',').filter(|field| !field.is_empty());
    let (Some(name), Some(hash)) = (fields.next(), fields.next()) else {
        bail!("a name, the SHA-256 of the key in hex, and its scopes were expected");
    };
    let hash = parse_hash(hash)?;
    let (mut scopes, mut rate) = (Vec::new(), None);
    for field in fields {
        if let Some(text) = field.strip_prefix("rate=") {
            if rate.replace(text.to_owned()).is_some() {
                bail!("there are two rates");
            }
        } else {
            let scope = Scope::parse(field);
            let wrong = || {
                anyhow!("`{field}` is no scope: ingest, query, actions and admin are, and rate=1000/s bounds ingest")
            };
            scopes.push(scope.ok_or_else(wrong)?);
        }
    }
    if scopes.is_empty() {
        bail!("the key of `{name}` has no scope: give it one or more of ingest, query, actions, admin");
    }
    let limit = rate.as_deref().map(Rate::parse).transpose().map_err(|message| anyhow!(message))?;
    let caller = Caller { name: name.into(), rate: limit.map(Arc::new) };
    Ok(Key { hash, scopes, caller, rate })
}

fn parse_hash(text: &str) -> Result<[u8; 32]> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let bytes = text.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    });
    let bytes: Option<Vec<u8>> = bytes.collect();
    // What is there instead may be the key itself: it is not repeated.
    let wrong = "the second field is no SHA-256 in hex, 64 digits: printf %s \"$KEY\" | sha256sum prints it";
    bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| anyhow!(wrong))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683";

    fn line(name: &str, key: &str, rest: &str) -> String {
        let hash: String = Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{name} {hash} {rest}\n")
    }

    #[test]
    fn a_line_is_a_name_a_hash_and_scopes() {
        assert_eq!(line("a", "key", ""), format!("a {HASH} \n"));
        let text = format!("# keys\n\n  gate\t{}  ingest,query rate=10/s # no comment\n", HASH.to_uppercase());
        let error = parse(&text).expect_err("a comment has a line of its own").to_string();
        assert!(error.starts_with("line 3: `#` is no scope"), "{error}");
        let keys = parse(&text.replace(" # no comment", "")).expect("keys");
        assert_eq!((&*keys[0].caller.name, keys[0].scopes.as_slice()), ("gate", &[Scope::Ingest, Scope::Query][..]));
        assert!(keys[0].caller.rate.is_some());
        assert_eq!(parse(&format!("a, {HASH}, admin")).expect("keys")[0].scopes, [Scope::Admin]);
    }

    #[test]
    fn what_is_wrong_is_named_by_its_line() {
        let cases = [
            ("", "there is no key"),
            ("a", "line 1: a name, the SHA-256"),
            ("#\na secret ingest", "line 2: the second field is no SHA-256"),
            (&format!("a {HASH}00 ingest"), "line 1: the second field"),
            (&format!("a {HASH}"), "line 1: the key of `a` has no scope"),
            (&format!("a {HASH} ingst"), "line 1: `ingst` is no scope"),
            (&format!("a {HASH} ingest rate=x"), "line 1: `x` is no rate"),
            (&format!("a {HASH} ingest rate=1/s rate=2/s"), "line 1: there are two rates"),
            (&format!("a {HASH} ingest\nb {HASH} query"), "line 2: this key is there already"),
        ];
        for (text, expected) in cases {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.starts_with(expected) && !error.contains("secret"), "{error}");
        }
        let both = parse("x\ny\n").expect_err("two lines are wrong").to_string();
        assert!(both.contains("line 1") && both.contains("line 2"), "{both}");
    }

    #[test]
    fn keys_are_found_by_what_they_hash_to() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let text =
            line("gate", "one", "ingest rate=1/h") + &line("gate", "two", "ingest") + &line("eye", "three", "query");
        std::fs::write(file.path(), &text).expect("written");
        let keys = Keys::open(file.path()).expect("keys");
        assert!(matches!(keys.find(b"two", Scope::Ingest), Found::Allowed(caller) if &*caller.name == "gate"));
        assert!(matches!(keys.find(b"three", Scope::Ingest), Found::OutOfScope(name) if &*name == "eye"));
        for wrong in ["", "four", "one ", HASH] {
            assert!(matches!(keys.find(wrong.as_bytes(), Scope::Ingest), Found::Unknown));
        }
        let rate = |keys: &Keys| match keys.find(b"one", Scope::Ingest) {
            Found::Allowed(caller) => caller.rate.map(|rate| Arc::as_ptr(&rate)),
            _ => None,
        };
        let before = rate(&keys);
        assert!(before.is_some() && !keys.reload().expect("it is the same"));
        // A file that is wrong changes nothing, one that is right does, and allowances go on.
        std::fs::write(file.path(), "x").expect("written");
        assert!(keys.reload().is_err() && rate(&keys) == before);
        std::fs::write(file.path(), line("new", "four", "admin") + &line("gate", "one", "ingest rate=1/h"))
            .expect("written");
        assert!(keys.reload().expect("it is right"));
        assert!(rate(&keys) == before && matches!(keys.find(b"two", Scope::Ingest), Found::Unknown));
        assert!(matches!(keys.find(b"four", Scope::Admin), Found::Allowed(_)));
    }
}
