//! Names: which are allowed, and which one was probably meant.

/// The allowed name that was probably meant, if one is near enough.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |other: &str| strsim::damerau_levenshtein(name, other);
    let best = known.into_iter().min_by_key(|other| distance(other))?;
    (distance(best) <= 1 + name.chars().count() / 3).then_some(best)
}

/// What other tools call things, and what they are called here.
const SYNONYMS: [(&str, &str); 44] = [
    ("query", "sql"),
    ("select", "sql"),
    ("statement", "sql"),
    ("file", "sql_file"),
    ("primary_key", "key"),
    ("keys", "key"),
    ("enum", "one_of"),
    ("values", "one_of"),
    ("minimum", "min"),
    ("maximum", "max"),
    ("regex", "pattern"),
    ("nullable", "optional"),
    ("length", "max_length"),
    ("bool", "boolean"),
    ("integer", "int"),
    ("int32", "int"),
    ("int64", "bigint"),
    ("long", "bigint"),
    ("float32", "float"),
    ("float64", "double"),
    ("number", "double"),
    ("decimal", "double"),
    ("real", "float"),
    ("text", "string"),
    ("str", "string"),
    ("varchar", "string"),
    ("char", "string"),
    ("uuid", "string"),
    ("datetime", "timestamp"),
    ("date", "timestamp"),
    ("time", "timestamp"),
    ("object", "json"),
    ("any", "json"),
    ("input", "sources"),
    ("inputs", "sources"),
    ("output", "sinks"),
    ("outputs", "sinks"),
    ("queries", "streams"),
    ("transforms", "streams"),
    ("views", "streams"),
    ("schema", "payload"),
    ("fields", "payload"),
    ("columns", "payload"),
    ("name", "pipeline"),
];

/// The allowed name that was meant, by another tool's word for it or by a slip of the finger.
pub(crate) fn meant<'a>(name: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> Option<&'a str> {
    let lower = name.to_lowercase();
    let same = known.clone().into_iter().find(|other| other.to_lowercase() == lower);
    let synonym = SYNONYMS.iter().find(|(foreign, _)| *foreign == lower).map(|(_, ours)| *ours);
    let synonym = synonym.and_then(|ours| known.clone().into_iter().find(|other| *other == ours));
    same.or(synonym).or_else(|| nearest(name, known))
}

/// What to write instead of an unknown name.
pub(crate) fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let list = known.join(", ");
    match meant(name, known.iter().copied()) {
        _ if known.is_empty() => "nothing is declared that could be named here".into(),
        Some(near) if known.len() == 1 => format!("write `{near}`"),
        Some(near) => format!("did you mean `{near}`? Known here: {list}"),
        None => format!("known here: {list}"),
    }
}

/// Whether it may name a source, stream, sink or a part of an event type: `[a-z][a-z0-9_]*`, at most 63 characters, so
/// that it needs no quotes in SQL and fits every database.
pub(crate) fn is_identifier(name: &str) -> bool {
    name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// A name made fit for [`is_identifier`], as a proposal.
pub(crate) fn proposed_identifier(name: &str) -> String {
    let mut apart = String::new();
    for c in name.chars() {
        if c.is_uppercase() && apart.ends_with(|before: char| before.is_lowercase() || before.is_ascii_digit()) {
            apart.push('_');
        }
        apart.push(c);
    }
    let fit: String = apart
        .chars()
        .take(63)
        .map(|c| c.to_ascii_lowercase())
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    if is_identifier(&fit) { fit } else { format!("x{}", fit.chars().take(62).collect::<String>()) }
}
