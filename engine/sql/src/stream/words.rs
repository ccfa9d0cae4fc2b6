//! Words for people: our names of types instead of the engine's, and the SQL's own words with their places.

use std::ops::Range;

use arrow::datatypes::DataType;

/// The engine's names of types, and ours.
const TYPES: [(&str, &str); 30] = [
    ("Utf8", "string"),
    ("Utf8View", "string"),
    ("LargeUtf8", "string"),
    ("String", "string"),
    ("Boolean", "boolean"),
    ("Int8", "int"),
    ("Int16", "int"),
    ("Int32", "int"),
    ("Int64", "bigint"),
    ("UInt8", "int"),
    ("UInt16", "int"),
    ("UInt32", "bigint"),
    ("UInt64", "bigint"),
    ("Float16", "float"),
    ("Float32", "float"),
    ("Float64", "double"),
    ("Decimal128", "decimal"),
    ("Decimal256", "decimal"),
    ("Null", "null"),
    ("Date32", "date"),
    ("Date64", "date"),
    ("Time64", "time"),
    ("Timestamp", "timestamp"),
    ("Interval", "interval"),
    ("IntervalMonthDayNano", "interval"),
    ("Duration", "interval"),
    ("Binary", "bytes"),
    ("Struct", "nested map"),
    ("Union", "json"),
    ("Map", "map"),
];

/// Our name of a type.
pub(super) fn type_name(data_type: &DataType) -> String {
    plain(&data_type.to_string())
}

/// A text of the engine with our names of types, and with literals as they are written.
pub(super) fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
        if end == 0 {
            out.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let (word, after) = rest.split_at(end);
        let (argument, after) = argument(after);
        match (ours(word), argument) {
            (Some(name), Some(inner)) => out += &with_argument(word, name, inner),
            (Some(name), None) => out += name,
            (None, Some(inner)) if word == "List" || word == "LargeList" => {
                out.extend(["list<", &plain(inner.trim_start_matches("non-null ")), ">"]);
            }
            (None, Some(inner)) => out.extend([word, "(", &plain(inner), ")"]),
            (None, None) => out += word,
        }
        rest = after;
    }
    out
}

fn ours(word: &str) -> Option<&'static str> {
    TYPES.iter().find(|(engine, _)| *engine == word).map(|(_, ours)| *ours)
}

/// What stands in the brackets that a text begins with, and what follows them.
fn argument(text: &str) -> (Option<&str>, &str) {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' if depth == 1 => return (Some(&text[1..at]), &text[at + 1..]),
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    (None, text)
}

/// `Timestamp(µs, "UTC")` is a type with its settings, `Int64(1)` a literal.
fn with_argument(word: &str, name: &str, inner: &str) -> String {
    let is_number = name == "bigint" || name == "int" || name == "double" || name == "float" || name == "boolean";
    match name {
        "string" => format!("'{}'", inner.trim_matches('"')),
        "decimal" => format!("{name}({inner})"),
        "interval" if word != "Interval" && word != "Duration" => "interval '…'".into(),
        _ if is_number => inner.into(),
        _ => name.into(),
    }
}

/// Where a word stands alone in a text, in any case, outside of comments and of texts in single quotes.
pub(super) fn find_word(sql: &str, word: &str) -> Option<Range<usize>> {
    find_words(sql, word).next()
}

/// Every such place.
pub(super) fn find_words<'a>(sql: &'a str, word: &str) -> impl Iterator<Item = Range<usize>> + 'a {
    let text = blanked(sql).to_ascii_lowercase();
    let word = word.to_ascii_lowercase();
    let part_of_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let mut found = Vec::new();
    for (at, _) in text.match_indices(&word) {
        let end = at + word.len();
        let alone = !part_of_word(text[..at].chars().next_back()) && !part_of_word(text[end..].chars().next());
        if alone && !word.is_empty() {
            found.push(at..end);
        }
    }
    found.into_iter()
}

/// The text with comments and the insides of single quotes blanked out; every byte keeps its place.
fn blanked(sql: &str) -> String {
    let mut out = String::with_capacity(sql.len());
    let (mut quoted, mut comment) = (false, false);
    let mut before = ' ';
    for c in sql.chars() {
        if comment {
            comment = c != '\n';
        } else if quoted {
            quoted = c != '\'';
        } else if c == '-' && before == '-' {
            comment = true;
        } else if c == '\'' {
            quoted = true;
        }
        let shown = !(comment || quoted) || c == '\n';
        if shown {
            out.push(c);
        } else {
            out.extend(std::iter::repeat_n(' ', c.len_utf8()));
        }
        before = c;
    }
    out
}

/// What stands between two marks.
pub(super) fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    Some(rest.split_once(after)?.0)
}

/// The name that was probably meant, if one is near enough.
pub(super) fn nearest<'a>(name: &str, names: &[&'a str]) -> Option<&'a str> {
    let distance = |other: &str| datafusion::common::utils::datafusion_strsim::levenshtein(name, other);
    let best = names.iter().min_by_key(|other| distance(other))?;
    (distance(best) <= 1 + name.chars().count() / 3).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_have_our_names_and_literals_their_own_form() {
        let cases = [
            ("Float64 + Utf8", "double + string"),
            ("Timestamp(µs, \"UTC\") > Int64", "timestamp > bigint"),
            ("List(non-null Utf8)", "list<string>"),
            ("Struct(\"lat\": non-null Float64, \"b\": List(Int32))", "nested map"),
            ("'Utf8(\"true\")' and Int64(1)", "''true'' and 1"),
            ("count(Int64(1))", "count(1)"),
            ("Union(Sparse, 0: (\"null\": Null))", "json"),
        ];
        for (engine, ours) in cases {
            assert_eq!(plain(engine), ours);
        }
    }

    #[test]
    fn words_are_found_outside_of_texts_and_comments() {
        let sql = "SELECT 'where', wherever -- where\nFROM \"é\" WHERE a";
        assert_eq!(find_word(sql, "where").map(|at| &sql[at]), Some("WHERE"));
        assert_eq!(find_word(sql, "\"é\"").map(|at| &sql[at]), Some("\"é\""));
        assert_eq!(find_word(sql, "nothing"), None);
    }
}
