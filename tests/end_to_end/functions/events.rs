//! Events with values at the ends of their types, and random ones.

use rand::Rng;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};

const TEXTS: &[&str] = &[
    "",
    "a",
    "A b",
    "äöü",
    "🦀",
    "0",
    "-1",
    "1e400",
    "NaN",
    "2024-02-29",
    "9999-12-31T23:59:59Z",
    "12:30:60",
    "%",
    "\\",
    "'",
    "\u{0}",
    "(((",
    "[a-z",
    "{\"a\":1}",
    "day",
    "utf8",
    "\u{202e}x",
    "a,b,c",
];
const BIGS: &[i64] =
    &[0, 1, -1, 2, 10, 100, 1 << 31, 1 << 53, i64::MAX, i64::MIN, i64::MAX - 1, 4_000_000_000, 2_000_000_000];
const INTS: &[i32] = &[0, 1, -1, 7, 1_000_000, i32::MAX, i32::MIN, 2_932_896, 2_932_897, -719_528];
const DOUBLES: &[f64] = &[0.0, -0.0, 1.0, -1.5, 1e308, -1e308, 5e-324, 9.3e18, 0.1, 1e15];
const TIMES: &[&str] = &[
    "2026-01-01T00:00:00Z",
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999Z",
    "1677-09-21T00:12:43Z",
    "2262-04-11T23:47:17Z",
    "1970-01-01T00:00:00Z",
    "1969-12-31T23:59:59.999999Z",
    "2024-02-29T12:00:00+05:45",
];

/// The pipeline's event type.
pub const TYPE: &str = "
  fuzz.value:
    payload:
      t: { type: string, optional: true }
      u: { type: string, optional: true }
      n: { type: bigint, optional: true }
      i: { type: int, optional: true }
      f: { type: float, optional: true }
      d: { type: double, optional: true }
      b: { type: boolean, optional: true }
      ts: { type: timestamp, optional: true }
      j: { type: json, optional: true }
      l: { type: list<bigint>, optional: true }
      ls: { type: list<string>, optional: true }
      m: { x: { type: double, optional: true }, y: { type: string, optional: true } }
    watermark: { delay: 0s, idle: 1h, max_ahead: 10000d }
";

/// An event in its minute.
pub fn event(minute: u32, rng: &mut impl Rng) -> Value {
    let key = ["a", "b", "c"].choose(rng).copied().unwrap_or("a");
    let second = rng.random_range(0..60);
    json!({
        "event_type": "fuzz.value", "aggregate_id": key, "event_time": format!("2026-01-01T00:{minute:02}:{second:02}Z"),
        "payload": payload(rng),
    })
}

fn payload(rng: &mut impl Rng) -> Value {
    let mut fields = serde_json::Map::new();
    let all: [(&str, Value); 12] = [
        ("t", text(rng).into()),
        ("u", text(rng).into()),
        ("n", big(rng).into()),
        ("i", (*INTS.choose(rng).unwrap_or(&0)).into()),
        ("f", json!(double(rng).clamp(-3e38, 3e38))),
        ("d", json!(double(rng))),
        ("b", rng.random::<bool>().into()),
        ("ts", (*TIMES.choose(rng).unwrap_or(&"")).into()),
        ("j", json!({"a": [big(rng), {"b": text(rng)}], "t": text(rng), "n": double(rng)})),
        ("l", (0..rng.random_range(0..4)).map(|_| big(rng)).collect()),
        ("ls", (0..rng.random_range(0..4)).map(|_| text(rng)).collect()),
        ("m", json!({"x": double(rng), "y": text(rng)})),
    ];
    for (name, value) in all {
        if name == "m" || !rng.random_ratio(1, 12) {
            fields.insert(name.into(), value);
        }
    }
    fields.into()
}

fn text(rng: &mut impl Rng) -> String {
    match rng.random_range(0..20) {
        0 => "x".repeat(rng.random_range(1..5_000)),
        1..5 => rng.random_range(-1_000_000..1_000_000_i64).to_string(),
        _ => (*TEXTS.choose(rng).unwrap_or(&"")).to_string(),
    }
}

fn big(rng: &mut impl Rng) -> i64 {
    if rng.random_ratio(1, 4) { rng.random() } else { *BIGS.choose(rng).unwrap_or(&0) }
}

fn double(rng: &mut impl Rng) -> f64 {
    if rng.random_ratio(1, 4) { rng.random_range(-1e6..1e6) } else { *DOUBLES.choose(rng).unwrap_or(&0.0) }
}
