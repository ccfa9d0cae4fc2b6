use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use cornjacket_core::component::{erased, parse_settings};
use cornjacket_core::diagnostic::SourceFile;
use serde::Deserialize;

use super::*;
use crate::report::Care;

#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    text: String,
    count: u8,
    ratio: Option<f64>,
    on: bool,
    list: Vec<i32>,
    map: BTreeMap<String, u32>,
    choice: Option<Choice>,
    pair: (u8, u8),
    inner: Option<Box<Settings>>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Choice {
    Plain,
    Number(u32),
    Record { size: u32 },
}

/// Reads `s:` both directly and through the object-safe detour that components take; both must say the same.
fn settings(yaml: &str) -> Result<Settings, String> {
    let read = |erased: bool| {
        let file = Arc::new(SourceFile { path: PathBuf::from("t.yaml"), text: yaml.into() });
        let mut report = Report::new(file, Care::Run);
        let mut root = crate::yaml::parse(&mut report).expect(yaml);
        crate::expand::expand(&mut root, &|_| Some("7".into()), &mut report);
        let entry = root.entry("s").expect(yaml);
        let found = if erased {
            let boxed = read_with(&entry.value, &entry.key_span, &mut report, |deserializer| {
                parse_settings::<Settings>(&mut <dyn erased::Deserializer>::erase(deserializer))
            });
            boxed.map(|boxed| *boxed.downcast::<Settings>().expect("its own type"))
        } else {
            super::read(entry, &mut report)
        };
        found.ok_or_else(|| {
            let diagnostics = report.finish();
            let place = diagnostics[0].place.clone().expect("a place");
            format!("{} @ {}", diagnostics[0].message, &yaml[place.span])
        })
    };
    let direct = read(false);
    assert_eq!(direct, read(true), "{yaml}");
    direct
}

#[test]
fn settings_of_every_shape_are_read() {
    let yaml = "s: { text: 8080, count: '${N}', ratio: 1e3, on: true, list: [-1, 2], map: { a: 1 }, choice: plain, pair: [1, 2],
        inner: { text: \"true\", ratio: null, choice: { record: { size: 3 } } } }";
    let found = settings(yaml).expect("right settings");
    assert_eq!((found.text.as_str(), found.count, found.ratio, found.on), ("8080", 7, Some(1000.0), true));
    assert_eq!((found.list, found.map["a"], found.choice, found.pair), (vec![-1, 2], 1, Some(Choice::Plain), (1, 2)));
    let inner = found.inner.expect("an inner one");
    assert_eq!((inner.text.as_str(), inner.ratio, inner.choice), ("true", None, Some(Choice::Record { size: 3 })));
    assert_eq!(settings("s: { choice: { number: 4 } }").expect("a number").choice, Some(Choice::Number(4)));
    assert_eq!(settings("s:").expect("nothing is no settings"), Settings::default());
}

#[test]
fn what_does_not_fit_is_placed_at_the_value_or_key_itself() {
    let cases = [
        ("s: { inner: { txt: a } }", "there is no setting `txt` here @ txt"),
        ("s: { count: 300 }", "found `300` @ 300"),
        ("s: { count: '3' }", "found `3` @ '3'"),
        ("s: { ratio: .nan }", "expected a number, found `.nan` @ .nan"),
        ("s: { on: yes }", "expected true or false, found `yes` @ yes"),
        ("s: { list: [1, two, 3] }", "found `two` @ two"),
        ("s: { list: 1 }", "expected a list, found `1` @ 1"),
        ("s: { map: { a: b } }", "found `b` @ b"),
        ("s: { choice: plan }", "`plan` is none of the values allowed here @ plan"),
        ("s: { choice: number }", "`number` needs settings under it @ number"),
        ("s: { choice: { plain: 1 } }", "`plain` takes no settings @ plain"),
        ("s: { choice: { record: {} } }", "the setting `size` is missing @ record"),
        ("s: { text: [a] }", "expected a text, found a list @ ["),
        ("s: { text: }", "expected a text, found nothing @ text"),
        ("s: [1]", "expected a map of settings, found a list @ ["),
    ];
    for (yaml, wanted) in cases {
        let found = settings(yaml).expect_err(yaml);
        assert!(found.ends_with(wanted), "{yaml}: {found}");
    }
}
