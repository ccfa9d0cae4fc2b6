//! Payload fields: `value: double`, `{ type: double, min: 0 }`, or a map of nested fields.

use std::collections::HashMap;

use cornjacket_core::catalogue::{ENVELOPE, Field, FieldType};
use regex::Regex;

use crate::names::{did_you_mean, meant};
use crate::node::{Entry, Node, Value};
use crate::report::Report;
use crate::section::unknown_keys;
use crate::settings::read;

/// The types that are no lists and no maps, by their names.
pub(crate) const SCALARS: [(&str, FieldType); 8] = [
    ("boolean", FieldType::Boolean),
    ("int", FieldType::Int),
    ("bigint", FieldType::BigInt),
    ("float", FieldType::Float),
    ("double", FieldType::Double),
    ("string", FieldType::String),
    ("timestamp", FieldType::Timestamp),
    ("json", FieldType::Json),
];

const LONG_FORM: [&str; 7] = ["type", "optional", "one_of", "min", "max", "max_length", "pattern"];

/// The fields of a payload; `None` if any of them is wrong, which is reported.
pub(crate) fn payload_fields(payload: &Entry, report: &mut Report) -> Option<Vec<Field>> {
    let fields = fields(payload, report);
    let entries = payload.value.entries().unwrap_or_default();
    let hiding = entries.iter().filter(|entry| ENVELOPE.iter().any(|name| entry.key.eq_ignore_ascii_case(name)));
    let mut hides = false;
    for entry in hiding {
        hides = true;
        let message = format!("the field `{}` would hide the event's own column of that name", entry.key);
        let hint = format!("name it otherwise, such as device_{}", entry.key);
        report.error("CJ103", &entry.key_span, message, Some(hint));
    }
    fields.filter(|_| !hides)
}

fn fields(owner: &Entry, report: &mut Report) -> Option<Vec<Field>> {
    let Some(entries) = owner.value.entries() else {
        let message = format!("expected fields under `{}`, found {}", owner.key, owner.value.kind());
        let dashes = if matches!(owner.value.value, Value::List(_)) { ", without dashes and brackets" } else { "" };
        let hint = format!("write a field a line, such as value: double{dashes}");
        report.error("CJ007", &owner.value.span, message, Some(hint));
        return None;
    };
    let mut seen: HashMap<String, &str> = HashMap::new();
    let mut fields = Some(Vec::new());
    for entry in entries {
        let is_named = check_name(entry, report);
        if let Some(other) = seen.insert(entry.key.to_lowercase(), &entry.key) {
            let message = format!("the fields `{other}` and `{}` differ in case only", entry.key);
            report.error(
                "CJ103",
                &entry.key_span,
                message,
                Some("databases do not tell such columns apart; rename one".into()),
            );
            fields = None;
        }
        let field = field(entry, report).filter(|_| is_named);
        fields = fields.zip(field).map(|(mut fields, field)| {
            fields.push(field);
            fields
        });
    }
    fields
}

fn check_name(entry: &Entry, report: &mut Report) -> bool {
    let is_right = !entry.key.is_empty() && entry.key.len() <= 63 && !entry.key.chars().any(char::is_control);
    if !is_right {
        let message = format!("`{}` is no name for a field", entry.key.escape_debug());
        report.error("CJ011", &entry.key_span, message, Some("write a name of 1 to 63 characters".into()));
    }
    is_right
}

fn field(entry: &Entry, report: &mut Report) -> Option<Field> {
    if entry.value.text().is_some() {
        return Some(Field::new(entry.key.as_str(), field_type(&entry.value, report)?));
    }
    if let Some((message, hint)) = no_type(entry) {
        let place = if entry.value.entries().is_some() { &entry.key_span } else { &entry.value.span };
        report.error("CJ102", place, message, Some(hint));
        return None;
    }
    match entry.value.entry("type") {
        Some(type_entry) if type_entry.value.text().is_some() => long_form(entry, type_entry, report),
        _ => Some(Field::new(entry.key.as_str(), FieldType::Struct(fields(entry, report)?))),
    }
}

/// Why a field that is no scalar has no type, and what to write.
fn no_type(entry: &Entry) -> Option<(String, String)> {
    let key = &entry.key;
    match (&entry.value.value, entry.value.entries()) {
        (Value::List(items), _) => {
            let item = items.first().and_then(Node::text).unwrap_or("string");
            Some((format!("the field `{key}` has a list for its type"), format!("write {key}: list<{item}>")))
        }
        (_, Some([])) => {
            let hint = match key.split_once(':') {
                Some((name, value)) => format!("write a space after the colon: {name}: {value}"),
                None => format!("write one after the colon, such as {key}: double"),
            };
            Some((format!("the field `{key}` has no type"), hint))
        }
        (_, Some(entries))
            if entries.iter().all(|inner| inner.key != "type" && LONG_FORM.contains(&inner.key.as_str())) =>
        {
            let hint = "name it beside the other settings, such as { type: double, … }".to_string();
            Some((format!("the field `{key}` has no type"), hint))
        }
        _ => None,
    }
}

/// Whether a text names a type.
pub(crate) fn is_type(text: &str) -> bool {
    parse_type(text).is_some()
}

/// What to write instead of a text that names no type.
fn type_hint(text: &str) -> String {
    let proposed = |inner: &str| {
        if is_type(inner) { inner.to_string() } else { meant(inner, names_of_types()).unwrap_or("string").to_string() }
    };
    let text = text.trim();
    let lower = text.to_lowercase();
    if let Some(inner) = lower.strip_prefix("optional ").or_else(|| lower.strip_suffix('?')) {
        return format!("write {{ type: {}, optional: true }}", proposed(inner.trim()));
    }
    let list = lower.strip_prefix("list").or_else(|| lower.strip_prefix("array")).or_else(|| lower.strip_suffix("[]"));
    if let Some(inner) = list {
        return format!("write list<{}>", proposed(inner.trim_matches(['<', '>', '[', ']', '(', ')', ' '])));
    }
    if lower.starts_with("map<") || lower.starts_with("struct") {
        return "write json for keys that differ, or name the fields under it: { lat: double, lon: double }".into();
    }
    did_you_mean(text, names_of_types().chain(["list<double>"]))
}

fn names_of_types() -> impl Iterator<Item = &'static str> + Clone {
    SCALARS.iter().map(|(name, _)| *name)
}

/// The type that a scalar names.
fn field_type(node: &Node, report: &mut Report) -> Option<FieldType> {
    let text = node.text().unwrap_or_default();
    let found = parse_type(text);
    if found.is_none() {
        report.error("CJ102", &node.span, format!("there is no type `{}`", text.escape_debug()), Some(type_hint(text)));
    }
    found
}

/// Lists may be nested, but a text of angle brackets must not exhaust the stack.
const MAX_LISTS: usize = 8;

fn parse_type(text: &str) -> Option<FieldType> {
    let mut inner = text.trim();
    let mut lists = 0;
    while let Some(item) = inner.strip_prefix("list<").and_then(|rest| rest.strip_suffix('>')) {
        inner = item.trim();
        lists += 1;
    }
    let (_, scalar) = SCALARS.iter().find(|(name, _)| *name == inner)?;
    (lists <= MAX_LISTS).then(|| (0..lists).fold(scalar.clone(), |item, _| FieldType::List(Box::new(item))))
}

fn long_form(entry: &Entry, type_entry: &Entry, report: &mut Report) -> Option<Field> {
    let before = report.errors();
    unknown_keys(entry.value.entries().unwrap_or_default(), &LONG_FORM, report);
    let data_type = field_type(&type_entry.value, report)?;
    let mut field = Field::new(entry.key.as_str(), data_type);
    let mut restrictions = Restrictions { entry, field: &mut field, report };
    restrictions.read();
    (report.errors() == before).then_some(field)
}

/// Reads what restricts a field's values into the field.
struct Restrictions<'a> {
    entry: &'a Entry,
    field: &'a mut Field,
    report: &'a mut Report,
}

impl Restrictions<'_> {
    fn read(&mut self) {
        self.field.optional = self.value("optional").unwrap_or(false);
        let is_text = matches!(self.field.data_type, FieldType::String);
        let is_number =
            matches!(self.field.data_type, FieldType::Int | FieldType::BigInt | FieldType::Float | FieldType::Double);
        if self.fits("one_of", is_text, "texts") {
            self.read_one_of();
        }
        if self.fits("min", is_number, "numbers") {
            self.field.min = self.value("min");
        }
        if self.fits("max", is_number, "numbers") {
            self.field.max = self.value("max");
        }
        if self.fits("max_length", is_text, "texts") {
            self.field.max_length = self.value("max_length");
        }
        if self.fits("pattern", is_text, "texts") {
            self.read_pattern();
        }
        if self.field.min.zip(self.field.max).is_some_and(|(min, max)| min > max) {
            self.fault("max", "`max` is less than `min`, so no value would fit", "exchange them");
        }
    }

    fn value<T: serde::de::DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        read(self.entry.value.entry(name)?, self.report)
    }

    fn fault(&mut self, name: &str, message: impl Into<String>, hint: &str) {
        let place = self.entry.value.entry(name).map_or(&self.entry.key_span, |setting| &setting.value.span);
        self.report.error("CJ104", place, message, Some(hint.into()));
    }

    /// Whether a restriction is there and goes with the field's type.
    fn fits(&mut self, name: &str, does: bool, what: &str) -> bool {
        let is_there = self.entry.value.entry(name).is_some();
        if is_there && !does {
            let message =
                format!("`{name}` restricts {what}, and this field is of type {}", self.field.data_type.name());
            self.fault(name, message, "remove it, or change the field's type");
        }
        is_there && does
    }

    fn read_one_of(&mut self) {
        let Some(values) = self.value::<Vec<String>>("one_of") else { return };
        if values.is_empty() {
            self.fault("one_of", "`one_of` is empty, so no value would fit", "list the values that are allowed");
        }
        self.field.one_of = Some(values);
    }

    fn read_pattern(&mut self) {
        let Some(pattern) = self.value::<String>("pattern") else { return };
        // The whole text must match, whatever alternatives the pattern has.
        match Regex::new(&pattern).and_then(|_| Regex::new(&format!("^(?:{pattern})$"))) {
            Ok(regex) => self.field.pattern = Some(regex),
            Err(error) => {
                let reason = error.to_string();
                let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ");
                let message = format!("the pattern is no regular expression: {reason}");
                self.fault(
                    "pattern",
                    message,
                    "write it in the syntax of Rust's regex crate, such as '[A-Z]{2}[0-9]+'",
                );
            }
        }
    }
}
