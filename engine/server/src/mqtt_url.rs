//! `CJ_MQTT_URL`: where an outside MQTT broker is, if there is one.
//!
//! The text is taken as it is, and read when somebody connects: what the command line refuses it prints, and a password is
//! in it.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use anyhow::anyhow;
use cornjacket_operators::sources::mqtt::Address;

/// The URL of an outside broker, or nothing.
#[derive(Clone, Default)]
pub struct MqttUrl(String);

impl MqttUrl {
    /// Whether an outside broker is named; otherwise the embedded one runs.
    pub fn is_set(&self) -> bool {
        !self.0.is_empty()
    }

    /// The outside broker, if one is named.
    ///
    /// # Errors
    /// What is wrong with the URL, without its password.
    pub fn address(&self) -> anyhow::Result<Option<Address>> {
        if !self.is_set() {
            return Ok(None);
        }
        let address = Address::parse(&self.0);
        address.map(Some).map_err(|reason| anyhow!("--mqtt-url (CJ_MQTT_URL) cannot be used: {reason}"))
    }
}

impl FromStr for MqttUrl {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.trim().to_owned()))
    }
}

impl fmt::Debug for MqttUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_set() { "MqttUrl(…)" } else { "MqttUrl()" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_the_embedded_broker_and_passwords_stay_secret() {
        let url = |text: &str| -> MqttUrl { text.parse().unwrap_or_default() };
        assert!(!url("").is_set() && !url(" ").is_set());
        assert!(url(" ").address().is_ok_and(|address| address.is_none()));
        let address = url("mqtt://u:secret@broker").address().expect("a URL").expect("an address");
        assert_eq!(address.to_string(), "mqtt://broker:1883");
        let wrong = url("http://u:secret@broker");
        let told = format!("{wrong:?} {:#}", wrong.address().expect_err("it is no MQTT URL"));
        assert!(told.contains("--mqtt-url") && !told.contains("secret"), "{told}");
    }
}
