//! Signatures by Standard Webhooks (version 1 of the specification, symmetric): the HMAC-SHA256 over id, timestamp and body,
//! so that the receiver knows who calls, that nothing was changed, and when it was sent.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cornjacket_core::delivery::SigningKey;
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// The value of `webhook-signature`: one signature a key, with spaces between them, so that a receiver that knows one of
/// the keys can check it while another takes its place. `None` without keys.
pub(super) fn signature(keys: &[SigningKey], id: &str, seconds: i64, body: &[u8]) -> Option<String> {
    let one = |key: &SigningKey| {
        let mut mac = Hmac::<Sha256>::new_from_slice(key.bytes()).ok()?;
        mac.update(format!("{id}.{seconds}.").as_bytes());
        mac.update(body);
        Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
    };
    let signatures: Vec<String> = keys.iter().filter_map(one).collect();
    (!signatures.is_empty()).then(|| signatures.join(" "))
}

#[cfg(test)]
mod tests {
    use standardwebhooks::Webhook;

    use super::*;

    const SECRET: &str = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn key(secret: &str) -> SigningKey {
        SigningKey::new(STANDARD.decode(secret).expect("base64"))
    }

    #[test]
    fn the_specification_s_own_example() {
        let (id, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", br#"{"test": 2432232314}"#);
        let ours = signature(&[key(SECRET)], id, 1_614_265_330, body).expect("signed");
        assert_eq!(ours, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        let theirs = Webhook::new(&format!("whsec_{SECRET}")).expect("a key").sign(id, 1_614_265_330, body);
        assert_eq!(theirs.expect("signed"), ours);
    }

    #[test]
    fn each_of_several_keys_signs() {
        let other = "C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
        let both = signature(&[key(SECRET), key(other)], "msg_1", 7, b"{}").expect("signed");
        let each = [SECRET, other].map(|secret| signature(&[key(secret)], "msg_1", 7, b"{}").expect("signed"));
        assert_eq!(both, each.join(" "));
        assert_eq!(signature(&[], "msg_1", 7, b"{}"), None);
    }
}
