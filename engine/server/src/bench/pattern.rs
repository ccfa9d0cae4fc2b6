//! Texts that match a regular expression, for fields with a `pattern`.
//!
//! The expression's syntax tree is walked and a choice is made at each branch. Assertions within the text (`\b`) and
//! limits of length may rule a text out, so each one is tried against the field before it is used.

use cornjacket_core::catalogue::Field;
use rand::Rng;
use rand::rngs::StdRng;
use regex_syntax::hir::{Class, Hir, HirKind};

/// Different texts of a field.
const TEXTS: usize = 64;
/// How often is tried to find them.
const TRIES: usize = 4_096;
/// How much more often than it must something is repeated.
const MORE: u32 = 6;
/// The longest text that is made: patterns may nest counts.
const LONGEST: usize = 4_096;

/// Some texts that a field with a pattern takes; none if none were found.
pub(super) fn texts(field: &Field, dice: &mut StdRng) -> Vec<String> {
    let fits = |text: &str| {
        field.pattern.as_ref().is_none_or(|pattern| pattern.is_match(text))
            && field.max_length.is_none_or(|most| text.chars().count() <= most)
    };
    if let Some(allowed) = &field.one_of {
        return allowed.iter().filter(|text| fits(text)).cloned().collect();
    }
    let Some(pattern) = &field.pattern else { return Vec::new() };
    let Ok(tree) = regex_syntax::parse(pattern.as_str()) else { return Vec::new() };
    let mut found = Vec::new();
    for round in 0..TRIES {
        let mut text = String::new();
        // Short ones first: a limit of length may leave no room for more.
        let more = if round % 2 == 0 { 0 } else { MORE };
        write(&tree, more, dice, &mut text);
        if fits(&text) && !found.contains(&text) {
            found.push(text);
        }
        if found.len() == TEXTS {
            break;
        }
    }
    found
}

fn write(tree: &Hir, more: u32, dice: &mut StdRng, text: &mut String) {
    if text.len() > LONGEST {
        return;
    }
    match tree.kind() {
        HirKind::Empty | HirKind::Look(_) => {}
        HirKind::Literal(literal) => text.push_str(&String::from_utf8_lossy(&literal.0)),
        HirKind::Class(class) => text.extend(character(class, dice)),
        HirKind::Repetition(repetition) => {
            let most = repetition.max.unwrap_or(u32::MAX).min(repetition.min.saturating_add(more));
            for _ in 0..dice.random_range(repetition.min..=most) {
                write(&repetition.sub, more, dice, text);
            }
        }
        HirKind::Capture(capture) => write(&capture.sub, more, dice, text),
        HirKind::Concat(parts) => parts.iter().for_each(|part| write(part, more, dice, text)),
        HirKind::Alternation(branches) => {
            if let Some(branch) = branches.get(dice.random_range(0..branches.len().max(1))) {
                write(branch, more, dice, text);
            }
        }
    }
}

/// A character of a class: one that people can read if there is any.
fn character(class: &Class, dice: &mut StdRng) -> Option<char> {
    let ranges: Vec<(u32, u32)> = match class {
        Class::Unicode(class) => {
            class.ranges().iter().map(|range| (u32::from(range.start()), u32::from(range.end()))).collect()
        }
        Class::Bytes(class) => {
            class.ranges().iter().map(|range| (u32::from(range.start()), u32::from(range.end()))).collect()
        }
    };
    let readable = |(first, last): &(u32, u32)| {
        let (first, last) = ((*first).max(0x21), (*last).min(0x7e));
        (first <= last).then_some((first, last))
    };
    let plain: Vec<(u32, u32)> = ranges.iter().filter_map(readable).collect();
    let ranges = if plain.is_empty() { ranges } else { plain };
    let (first, last) = *ranges.get(dice.random_range(0..ranges.len().max(1)))?;
    // Surrogates are no characters, and no class holds only them.
    char::from_u32(dice.random_range(first..=last)).or_else(|| char::from_u32(first))
}

#[cfg(test)]
mod tests {
    use cornjacket_core::catalogue::FieldType;
    use rand::SeedableRng;

    use super::*;

    fn made(pattern: &str, max_length: Option<usize>) -> Vec<String> {
        // The compiler's own way to a pattern is through a pipeline file.
        let yaml = format!(
            "pipeline: p\nevents:\n  a.b: {{ payload: {{ code: {{ type: string, pattern: '{pattern}' }} }} }}\n\
             sources: {{ api: {{ http: {{}} }} }}\n\
             sinks: {{ newest: {{ projection: {{ from: a.b, key: [aggregate_id] }} }} }}\n"
        );
        let path = std::path::Path::new("p.yaml");
        let outcome = cornjacket_compiler::load_text(path, yaml, &|_| None, &cornjacket_operators::REGISTRY);
        let pipeline = outcome.pipeline.expect("compiles");
        let mut field = pipeline.catalogue.types["a.b"].fields[0].clone();
        assert!(matches!(field.data_type, FieldType::String));
        field.max_length = max_length;
        texts(&field, &mut StdRng::seed_from_u64(1))
    }

    #[test]
    fn texts_match_their_pattern() {
        for (pattern, at_least) in [
            ("[A-Z]{2}-[0-9]{4}", TEXTS),
            ("\\d+(\\.\\d+)?", TEXTS),
            ("red|green|blue", 3),
            ("(?i)device_[a-f]", 12),
            ("x", 1),
            ("(a|b)*c", 10),
            (".+@example\\.(com|org)", TEXTS),
        ] {
            assert!(made(pattern, None).len() >= at_least, "{pattern}");
        }
        let short = made("[a-z]+", Some(2));
        assert!(!short.is_empty() && short.iter().all(|text| text.len() <= 2), "{short:?}");
        assert_eq!(made("[a-z]{5}", Some(2)), Vec::<String>::new());
    }
}
