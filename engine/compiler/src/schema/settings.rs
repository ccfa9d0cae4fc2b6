//! The settings of a component as a schema: what `schemars` derives from the settings struct, brought into one form.
//!
//! [`plain_settings`] has every definition in its place, words as `enum` with their meanings, and no `null`: the reference
//! pages are made from it. [`editor_settings`] also lets pass what the compiler takes beyond that: placeholders
//! everywhere, and nothing where a setting may be left out.

use cornjacket_core::component::Description;
use serde_json::{Map, Value, json};

use super::shape::{PLACEHOLDER, allow_null, for_each_inner, or_placeholder, placeholder, plain};

/// Marks what may be null; it is in no schema that leaves this module.
const NULLABLE: &str = "x-nullable";

/// How deep definitions may lie in each other. Settings are no trees, so nothing comes near it.
const MAX_DEPTH: usize = 8;

/// The schema of a component's settings, for reading.
pub(super) fn plain_settings(description: &Description) -> Map<String, Value> {
    let mut schema = marked_settings(description);
    remove_marks(&mut schema);
    schema
}

/// The schema of a component's settings, for an editor.
pub(super) fn editor_settings(description: &Description) -> Map<String, Value> {
    let mut schema = marked_settings(description);
    loosen(&mut schema);
    schema
}

fn marked_settings(description: &Description) -> Map<String, Value> {
    let Value::Object(mut schema) = (description.schema)().to_value() else { return Map::new() };
    let definitions = schema.remove("$defs").or_else(|| schema.remove("definitions")).unwrap_or_default();
    put_in_place(&mut schema, &definitions, 0);
    simplify(&mut schema);
    schema.remove("$schema");
    schema.remove("title");
    schema
}

/// Replaces references by what they refer to; what stands beside a reference goes before it.
fn put_in_place(schema: &mut Map<String, Value>, definitions: &Value, depth: usize) {
    if let Some(Value::String(reference)) = schema.remove("$ref") {
        let name = reference.rsplit('/').next().unwrap_or_default();
        if let (Some(Value::Object(target)), true) = (definitions.get(name), depth < MAX_DEPTH) {
            for (keyword, value) in target {
                schema.entry(keyword).or_insert_with(|| value.clone());
            }
            put_in_place(schema, definitions, depth + 1);
            return;
        }
    }
    for_each_inner(schema, &mut |inner| put_in_place(inner, definitions, depth + 1));
}

/// Brings what schemars writes into the form that editors read best.
fn simplify(schema: &mut Map<String, Value>) {
    collect_words(schema);
    unite_items(schema);
    for_each_inner(schema, &mut simplify);
    unwrap_optional(schema);
    describe_variant(schema);
    // Editors would check formats such as `uri` against placeholders, and those of numbers say nothing to them.
    schema.remove("format");
    if schema.get("default").is_some_and(Value::is_null) {
        schema.remove("default");
    }
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        let before = types.len();
        types.retain(|one| one != "null");
        let is_nullable = types.len() < before;
        if let [one] = types.as_slice() {
            let one = one.clone();
            schema.insert("type".into(), one);
        }
        if is_nullable {
            schema.insert(NULLABLE.into(), true.into());
        }
    }
}

/// `oneOf` constants with descriptions become one `enum` with meanings.
fn collect_words(schema: &mut Map<String, Value>) {
    let Some(Value::Array(choices)) = schema.get("oneOf") else { return };
    let (mut words, mut meanings) = (Vec::new(), Vec::new());
    for choice in choices {
        let meaning = choice.get("description").cloned().unwrap_or_else(|| "".into());
        match (choice.get("const"), choice.get("enum")) {
            (Some(word), _) => words.push(word.clone()),
            (None, Some(Value::Array(several))) => words.extend(several.iter().cloned()),
            _ => return,
        }
        meanings.resize(words.len(), meaning);
    }
    schema.remove("oneOf");
    schema.insert("type".into(), "string".into());
    schema.insert("enum".into(), words.into());
    schema.insert("enumDescriptions".into(), meanings.into());
}

/// A list of so many values of one type: draft 07 does not know `prefixItems`.
fn unite_items(schema: &mut Map<String, Value>) {
    let Some(Value::Array(items)) = schema.remove("prefixItems") else { return };
    if let Some(first) = items.first().filter(|first| items.iter().all(|item| item == *first)) {
        schema.insert("items".into(), first.clone());
    }
}

/// `anyOf` something or null becomes something that is nullable.
fn unwrap_optional(schema: &mut Map<String, Value>) {
    let Some(Value::Array(choices)) = schema.get_mut("anyOf") else { return };
    let before = choices.len();
    choices.retain(|choice| choice.get("type").is_none_or(|one| one != "null"));
    if choices.len() == before {
        return;
    }
    if let [Value::Object(only)] = choices.as_slice() {
        let only = only.clone();
        schema.remove("anyOf");
        for (keyword, value) in only {
            schema.entry(keyword).or_insert(value);
        }
    }
    schema.insert(NULLABLE.into(), true.into());
}

/// A variant of an enum is a map with one key, whose documentation stands at the map.
fn describe_variant(schema: &mut Map<String, Value>) {
    let Some(description) = schema.get("description").cloned() else { return };
    let Some(Value::Object(properties)) = schema.get_mut("properties") else { return };
    if properties.len() == 1 {
        for property in properties.values_mut().filter_map(Value::as_object_mut) {
            property.entry("description").or_insert_with(|| description.clone());
        }
    }
}

fn remove_marks(schema: &mut Map<String, Value>) {
    schema.remove(NULLABLE);
    for_each_inner(schema, &mut remove_marks);
}

/// Lets placeholders pass, and nothing where it may be left out or where a map may be empty.
fn loosen(schema: &mut Map<String, Value>) {
    for_each_inner(schema, &mut loosen);
    let is_nullable = schema.remove(NULLABLE).is_some();
    let is_map = schema.get("type").is_some_and(|one| one == "object");
    let may_be_empty = is_map && schema.get("required").is_none();
    loosen_words(schema);
    loosen_type(schema);
    if is_nullable || may_be_empty {
        allow_null(schema);
    }
}

fn loosen_words(schema: &mut Map<String, Value>) {
    let Some(words) = schema.remove("enum") else { return };
    let mut listed = Map::from_iter([("enum".to_string(), words)]);
    for keyword in ["type", "enumDescriptions"] {
        listed.extend(schema.remove(keyword).map(|value| (keyword.to_string(), value)));
    }
    schema.insert("anyOf".into(), json!([listed, placeholder()]));
}

/// Editors show the pattern itself where nothing else is said of it, and nobody reads that.
fn loosen_pattern(schema: &mut Map<String, Value>) {
    let Some(Value::String(pattern)) = schema.get_mut("pattern") else { return };
    *pattern = or_placeholder(pattern);
    let example = schema.get("examples").and_then(|examples| examples.get(0)).map(plain);
    if let Some(example) = example {
        schema.entry("patternErrorMessage").or_insert_with(|| format!("write it such as {example}").into());
    }
}

fn loosen_type(schema: &mut Map<String, Value>) {
    let Some(Value::String(one)) = schema.get("type") else { return };
    let message = match one.as_str() {
        "boolean" => "write true or false",
        "integer" => "write a whole number, without quotes",
        "number" => "write a number, without quotes",
        "string" => {
            loosen_pattern(schema);
            return;
        }
        _ => return,
    };
    let types = json!([one, "string"]);
    schema.insert("type".into(), types);
    schema.insert("pattern".into(), PLACEHOLDER.into());
    schema.insert("patternErrorMessage".into(), message.into());
}
