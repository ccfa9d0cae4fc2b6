//! The password file, in Mosquitto's format: `name:$7$iterations$salt$hash` (PBKDF2 with SHA-512) or `name:$6$salt$hash`
//! (SHA-512 of password and salt), as `mosquitto_passwd` writes it.

use std::collections::HashMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha512};

/// More iterations than this would let a client keep a processor busy.
const MAX_ITERATIONS: u32 = 10_000_000;

/// Who may connect.
#[derive(Clone, Default)]
pub struct Passwords(HashMap<String, Entry>);

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "passwords of {} users", self.0.len())
    }
}

#[derive(Clone)]
struct Entry {
    /// `None` for a single SHA-512.
    iterations: Option<u32>,
    salt: Vec<u8>,
    hash: Vec<u8>,
}

impl Passwords {
    /// Reads a file's text.
    ///
    /// # Errors
    /// Which line is wrong, and why.
    pub fn parse(text: &str) -> Result<Self, String> {
        // Some editors put a byte order mark at the start, which is no part of the first name.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut entries = HashMap::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |why: &str| format!("line {number} of the password file {why}");
            let (name, secret) = line.split_once(':').ok_or_else(|| wrong("is not `name:hash`"))?;
            let entry = entry(secret).map_err(|why| wrong(&why))?;
            if entries.insert(name.to_owned(), entry).is_some() {
                return Err(wrong(&format!("has the user `{name}` a second time")));
            }
        }
        Ok(Self(entries))
    }

    /// Whether this is the user's password. It takes time on purpose: call it where blocking is allowed.
    #[must_use]
    pub fn verify(&self, name: &str, password: &[u8]) -> bool {
        // A name that does not exist takes as long as one that does.
        let nobody = Entry { iterations: Some(101), salt: vec![0; 12], hash: vec![0; 64] };
        let (entry, exists) = self.0.get(name).map_or((&nobody, false), |entry| (entry, true));
        let found = entry.hash_of(password);
        let difference = found.iter().zip(&entry.hash).fold(0, |sum, (a, b)| sum | (a ^ b));
        exists && difference == 0 && found.len() == entry.hash.len()
    }
}

impl Entry {
    fn hash_of(&self, password: &[u8]) -> Vec<u8> {
        match self.iterations {
            Some(rounds) => {
                let mut hash = vec![0; 64];
                pbkdf2::pbkdf2_hmac::<Sha512>(password, &self.salt, rounds, &mut hash);
                hash
            }
            None => Sha512::new().chain_update(password).chain_update(&self.salt).finalize().to_vec(),
        }
    }
}

fn entry(secret: &str) -> Result<Entry, String> {
    let parts: Vec<&str> = secret.split('$').collect();
    let (iterations, salt, hash) = match parts.as_slice() {
        ["", "7", iterations, salt, hash] => {
            let iterations = iterations.parse().ok().filter(|count| (1..=MAX_ITERATIONS).contains(count));
            (Some(iterations.ok_or("has no proper number of iterations")?), salt, hash)
        }
        ["", "6", salt, hash] => (None, salt, hash),
        ["", kind, ..] => {
            return Err(format!("has the hash `${kind}$`; write it with `mosquitto_passwd -H sha512-pbkdf2`"));
        }
        _ => return Err("has a password that is not hashed; run `mosquitto_passwd -U` on the file".into()),
    };
    let read = |text: &str| STANDARD.decode(text).map_err(|_| "is not in base 64 where it should be".to_string());
    let entry = Entry { iterations, salt: read(salt)?, hash: read(hash)? };
    if entry.hash.len() == 64 { Ok(entry) } else { Err("has a hash that is not of 64 bytes".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Made with `mosquitto_passwd -H sha512-pbkdf2` and `-H sha512` (Mosquitto 2.0).
    const FILE: &str = "# devices
device:$7$101$nOt2beq6GXW978bj$bJUeHCucMiust2HgRFQm21Iu4MuleM24L+CFyyNqYMWZu1fk2oikAivn/Vavma40JYWtiTeWiDhZDCJUT8nB5g==

old:$6$F0R+e5wZpJ1Vk9Ah$VP3xs7jIsLuJpImlKMRjkqoh2Waw+6DSDbtQ6G7Qo9Iv2l+kPB/7/pCQNHFH9HFHZo+q0c69DeEp7nWJzk9zAg==
";

    #[test]
    fn files_of_mosquitto_are_read() {
        let passwords = Passwords::parse(FILE).expect("a file");
        for name in ["device", "old"] {
            assert!(passwords.verify(name, "s3cret pässword".as_bytes()));
            assert!(!passwords.verify(name, b"s3cret password"));
            assert!(!passwords.verify(name, b""));
        }
        assert!(!passwords.verify("nobody", "s3cret pässword".as_bytes()));
        assert_eq!(format!("{passwords:?}"), "passwords of 2 users");
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_name() {
        let first = FILE.split_once('\n').expect("lines").1;
        for file in
            [format!("\u{feff}{first}"), format!("\u{feff}{FILE}"), format!("\u{feff}{FILE}").replace('\n', "\r\n")]
        {
            let passwords = Passwords::parse(&file).expect("a file");
            assert!(passwords.verify("device", "s3cret pässword".as_bytes()), "{file:?}");
        }
        // It is taken off at the start, and nowhere else.
        let passwords = Passwords::parse(&format!("\n\u{feff}{first}")).expect("a file");
        assert!(!passwords.verify("device", "s3cret pässword".as_bytes()));
        assert!(passwords.verify("\u{feff}device", "s3cret pässword".as_bytes()));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let cases = [
            ("\nx", "line 2 of the password file is not `name:hash`"),
            ("a:b", "is not hashed; run `mosquitto_passwd -U`"),
            ("a:$argon2id$v=19$x", "has the hash `$argon2id$`"),
            ("a:$7$0$AAAA$AAAA", "no proper number of iterations"),
            ("a:$6$AAAA$AAAA", "not of 64 bytes"),
            ("a:$6$*$AAAA", "not in base 64"),
        ];
        for (text, expected) in cases {
            let error = Passwords::parse(text).map(|_| ()).expect_err("wrong");
            assert!(error.contains(expected), "{error}");
        }
    }
}
