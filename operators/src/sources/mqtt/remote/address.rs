//! Where an outside broker is: `CJ_MQTT_URL`.
//!
//! `mqtt://user:password@host:1883`, or `mqtts://…:8883` with TLS. User name and password may have percent escapes. What
//! belongs to the connection comes as a query behind it:
//!
//! - `ca=/etc/ca.pem`: the certificate authorities to trust instead of the machine's own;
//! - `cert=/etc/me.pem&key=/etc/me.key`: the certificate to show to the broker;
//! - `share=name`: a group of processes that share the messages among them (`$share/name/…`).
//!
//! Files are read again with each connection, so renewed certificates need no restart.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rumqttc::{TlsConfiguration, Transport};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use url::Url;

/// An outside broker, and how to talk to it.
#[derive(Clone)]
pub struct Address {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) credentials: Option<(String, String)>,
    pub(super) share: Option<String>,
    tls: Option<Tls>,
}

#[derive(Clone, Default)]
struct Tls {
    authorities: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
}

impl Address {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong with it, without the password.
    pub fn parse(text: &str) -> Result<Self, String> {
        const FORM: &str = "write mqtt://user:password@host:1883, or mqtts://… for TLS";
        let url = Url::parse(text).map_err(|error| format!("it is no URL ({error}): {FORM}"))?;
        let (is_secure, port) = match url.scheme() {
            "mqtt" => (false, 1883),
            "mqtts" => (true, 8883),
            other => return Err(format!("its scheme is `{other}`: {FORM}")),
        };
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(format!("it has no host: {FORM}"))?;
        if !matches!(url.path(), "" | "/") || url.fragment().is_some() {
            return Err(format!("a broker has neither path nor fragment: {FORM}"));
        }
        let credentials = match (url.username(), url.password()) {
            ("", None) => None,
            (user, password) => Some((unescaped(user)?, unescaped(password.unwrap_or_default())?)),
        };
        let mut address = Self {
            // The resolver and TLS want the bare address.
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: url.port().unwrap_or(port),
            credentials,
            share: None,
            tls: is_secure.then(Tls::default),
        };
        address.take_options(&url)?;
        Ok(address)
    }

    fn take_options(&mut self, url: &Url) -> Result<(), String> {
        let (mut certificate, mut key) = (None, None);
        for (name, value) in url.query_pairs() {
            match (name.as_ref(), &mut self.tls) {
                ("share", _) if value.is_empty() || value.contains(['/', '+', '#', '\0']) => {
                    return Err("`share` is a name without / + #, such as share=iot".into());
                }
                ("share", _) => self.share = Some(value.into_owned()),
                ("ca" | "cert" | "key", None) => {
                    return Err(format!("`{name}` is for TLS: write mqtts:// in front"));
                }
                ("ca", Some(tls)) => tls.authorities = Some(PathBuf::from(value.as_ref())),
                ("cert", Some(_)) => certificate = Some(PathBuf::from(value.as_ref())),
                ("key", Some(_)) => key = Some(PathBuf::from(value.as_ref())),
                _ => return Err(format!("there is no option `{name}`: ca, cert, key and share are known")),
            }
        }
        match (certificate, key, &mut self.tls) {
            (Some(certificate), Some(key), Some(tls)) => tls.identity = Some((certificate, key)),
            (None, None, _) => {}
            _ => return Err("`cert` and `key` belong together".into()),
        }
        Ok(())
    }

    /// Whether it is spoken to over TLS.
    pub(super) fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    /// How bytes get there.
    ///
    /// # Errors
    /// Which file cannot be used, and why.
    pub(super) fn transport(&self) -> Result<Transport, String> {
        let Some(tls) = &self.tls else { return Ok(Transport::Tcp) };
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(tls.roots()?);
        let config = match &tls.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let key_of = PrivateKeyDer::from_pem_file(key);
                let key_of = key_of.map_err(|error| format!("no key can be read from {}: {error}", key.display()))?;
                let usable = builder.with_client_auth_cert(certificates(certificate)?, key_of);
                usable.map_err(|error| format!("the certificate {} cannot be used: {error}", certificate.display()))?
            }
        };
        Ok(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(config))))
    }
}

impl Tls {
    fn roots(&self) -> Result<RootCertStore, String> {
        let found = match &self.authorities {
            Some(file) => certificates(file)?,
            None => rustls_native_certs::load_native_certs().certs,
        };
        let mut roots = RootCertStore::empty();
        let (usable, _) = roots.add_parsable_certificates(found);
        match (usable, &self.authorities) {
            (0, Some(file)) => Err(format!("no certificate in {} can be used", file.display())),
            (0, None) => Err("this machine has no certificate authorities: name some with ?ca=/file.pem".into()),
            _ => Ok(roots),
        }
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match found {
        Ok(found) if found.is_empty() => Err(format!("there is no certificate in {}", file.display())),
        Ok(found) => Ok(found),
        Err(error) => Err(format!("no certificate can be read from {}: {error}", file.display())),
    }
}

/// The text that percent escapes stand for.
fn unescaped(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let escaped = after.get(..2).and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        if let (b'%', Some(escaped)) = (byte, escaped) {
            bytes.push(escaped);
            rest = &after[2..];
        } else {
            bytes.push(*byte);
            rest = after;
        }
    }
    String::from_utf8(bytes).map_err(|_| "user name and password must be UTF-8".into())
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { "mqtts" } else { "mqtt" };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The password is nobody's business.
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let address =
            Address::parse("mqtt://device%201:p%40ss+w%C3%B6rd@broker.example?share=iot").expect("an address");
        assert_eq!((address.host.as_str(), address.port), ("broker.example", 1883));
        assert_eq!(address.credentials, Some(("device 1".into(), "p@ss+wörd".into())));
        assert_eq!(address.share.as_deref(), Some("iot"));
        assert_eq!(format!("{address} {address:?}"), "mqtt://broker.example:1883 mqtt://broker.example:1883");
        assert!(matches!(address.transport(), Ok(Transport::Tcp)));
        let address = Address::parse("mqtts://[::1]/?ca=/nowhere/ca.pem").expect("an address");
        assert_eq!((address.host.as_str(), address.port), ("::1", 8883));
        assert_eq!((address.to_string().as_str(), &address.credentials), ("mqtts://[::1]:8883", &None));
        let reason = address.transport().map(|_| ()).expect_err("no such file");
        assert!(reason.contains("/nowhere/ca.pem"), "{reason}");
    }

    #[test]
    fn wrong_addresses_are_refused_without_the_password() {
        let cases = [
            ("broker:1883", "its scheme is `broker`"),
            ("", "it is no URL"),
            ("mqtt://", "it has no host"),
            ("http://u:secret@broker", "its scheme is `http`"),
            ("mqtt://u:secret@broker:99999", "it is no URL"),
            ("mqtt://u:secret@broker/path", "neither path nor fragment"),
            ("mqtt://u:secret@broker?ca=/x", "write mqtts://"),
            ("mqtts://u:secret@broker?cert=/x", "belong together"),
            ("mqtts://u:secret@broker?share=a/b", "`share` is a name"),
            ("mqtts://u:secret@broker?qos=2", "no option `qos`"),
            ("mqtt://%ff@broker", "must be UTF-8"),
        ];
        for (text, expected) in cases {
            let reason = Address::parse(text).map(|_| ()).expect_err(text);
            assert!(reason.contains(expected) && !reason.contains("secret"), "{text}: {reason}");
        }
    }
}
