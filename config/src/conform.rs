//! Holds a document against its JSON Schema and reports every unknown key and wrong type in one go.
//!
//! The schema that editors get is the one that is enforced here, so the two cannot drift apart. What does not conform
//! is left out of the result: the rest can still be checked, and its problems be shown together with these. Only the
//! part of JSON Schema that our own types come to is understood: `type`, `properties`, `additionalProperties`,
//! `items`, `anyOf`. Bounds and words are left to `check`, which serves the wire too and has better messages. Two keywords
//! are ours: `x-instead` says what to write where the type is wrong, and `x-not-here` why a key that people know from
//! elsewhere has no meaning where they wrote it.

use serde_json::{Map, Number, Value};

use crate::{
    node::{Entry, Kind, Node, join},
    problem::{PROBLEMS_MAX, Problem, did_you_mean, shortened},
};

/// What of the document conforms, as the raw types read it, and what does not.
pub(crate) fn conform(root: &Node, schema: &Value) -> (Value, Vec<Problem>) {
    let mut problems = Vec::new();
    let value = conform_node(root, schema, "", &mut problems);
    (value.unwrap_or_else(|| Value::Object(Map::new())), problems)
}

fn conform_node(node: &Node, schema: &Value, path: &str, problems: &mut Vec<Problem>) -> Option<Value> {
    let Some((value_type, schema)) = alternatives(schema).into_iter().find(|(name, _)| admits(name, node))
    else {
        problems.push(Problem { place: Some(node.place), ..mismatch(node, schema, path) });
        return None;
    };
    match &node.kind {
        Kind::Plain(text) | Kind::Quoted(text) => scalar(text, value_type),
        Kind::List(items) => {
            let schema = schema.get("items").unwrap_or(&Value::Bool(true));
            let item = |(index, item)| conform_node(item, schema, &format!("{path}[{index}]"), problems);
            Some(Value::Array(items.iter().enumerate().filter_map(item).collect()))
        }
        Kind::Map(entries) => Some(Value::Object(conform_map(entries, schema, path, problems))),
    }
}

fn conform_map(
    entries: &[Entry],
    schema: &Value,
    path: &str,
    problems: &mut Vec<Problem>,
) -> Map<String, Value> {
    let properties = schema.get("properties").and_then(Value::as_object);
    let others = schema.get("additionalProperties").filter(|schema| schema.is_object());
    let mut map = Map::new();
    for Entry { key, key_place, value } in entries {
        let path = join(path, key);
        let own = properties.and_then(|properties| properties.get(key));
        let Some(schema) = own.or(others) else {
            // Looking for what was meant takes time, and so many are not shown.
            if problems.len() >= PROBLEMS_MAX {
                continue;
            }
            if let Some(why) = schema.get("x-not-here").and_then(|keys| keys.get(key)?.as_str()) {
                problems.push(Problem { place: Some(*key_place), ..Problem::new(path, why) });
                continue;
            }
            let known = properties.into_iter().flat_map(Map::keys).map(String::as_str);
            let hint = did_you_mean(key, known.clone())
                .or_else(|| section_with(key, properties))
                .or_else(|| all_known(known));
            let problem = Problem::new(path, "unknown key").maybe_hint(hint);
            problems.push(Problem { place: Some(*key_place), ..problem });
            continue;
        };
        // `envs:` with nothing below it is a section that somebody emptied.
        if own.is_some() && value.is_null() {
            continue;
        }
        if let Some(value) = conform_node(value, schema, &path, problems) {
            map.insert(key.clone(), value);
        }
    }
    map
}

/// Every type that the schema admits, in its order of preference, with the schema of that type.
fn alternatives(schema: &Value) -> Vec<(&str, &Value)> {
    match (schema.get("anyOf"), schema.get("type")) {
        (Some(Value::Array(any)), _) => any.iter().flat_map(alternatives).collect(),
        (_, Some(Value::Array(names))) => {
            names.iter().filter_map(Value::as_str).map(|name| (name, schema)).collect()
        }
        (_, Some(Value::String(name))) => vec![(name, schema)],
        _ => Vec::new(),
    }
}

fn admits(value_type: &str, node: &Node) -> bool {
    match (&node.kind, value_type) {
        (Kind::List(_), "array") | (Kind::Map(_), "object") => true,
        (Kind::Plain(_), "null") => node.is_null(),
        (Kind::Plain(_), "string") => !node.is_null(),
        (Kind::Quoted(_), "string") => true,
        (Kind::Plain(text), _) => scalar(text, value_type).is_some(),
        _ => false,
    }
}

/// The scalar as a value of that type, where its text is one.
fn scalar(text: &str, value_type: &str) -> Option<Value> {
    match value_type {
        "null" => Some(Value::Null),
        "string" => Some(Value::String(text.to_owned())),
        "boolean" => match text {
            "true" | "True" | "TRUE" => Some(Value::Bool(true)),
            "false" | "False" | "FALSE" => Some(Value::Bool(false)),
            _ => None,
        },
        "integer" => text.parse::<i64>().ok().map(Value::from),
        // Rust also reads `inf` and `nan`, which are words here.
        "number" if text.bytes().any(|b| b.is_ascii_digit()) => {
            text.parse().ok().and_then(Number::from_f64).map(Value::Number)
        }
        _ => None,
    }
}

/// Never repeats what stands there where it may be a secret: where a map was wanted.
fn mismatch(node: &Node, schema: &Value, path: &str) -> Problem {
    let wanted: Vec<_> =
        alternatives(schema).into_iter().map(|(name, _)| name).filter(|name| *name != "null").collect();
    let instead = alternatives(schema)
        .into_iter()
        .map(|(_, schema)| schema)
        .chain([schema])
        .find_map(|schema| schema.get("x-instead").and_then(Value::as_str));
    let found = match &node.kind {
        Kind::Plain(_) if node.is_null() => "nothing".to_owned(),
        Kind::Plain(_) | Kind::Quoted(_) if wanted.contains(&"object") => "text".to_owned(),
        Kind::Plain(text) => format!("`{}`", shortened(text)),
        Kind::Quoted(text) => format!("the text `\"{}\"`", shortened(text)),
        Kind::List(_) => "a list".to_owned(),
        Kind::Map(_) => "a map".to_owned(),
    };
    let mut names: Vec<_> = wanted.into_iter().map(name_of).collect();
    names.dedup();
    let message = format!("expected {}, found {found}", names.join(" or "));
    Problem::new(path, message).maybe_hint(instead.map(str::to_owned))
}

fn name_of(value_type: &str) -> &str {
    match value_type {
        "string" => "text",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "true or false",
        "array" => "a list",
        "object" => "a map",
        other => other,
    }
}

/// The section below these properties that has such a key, as a hint.
fn section_with(key: &str, properties: Option<&Map<String, Value>>) -> Option<String> {
    let has = |schema: &Value| {
        alternatives(schema).iter().any(|(_, schema)| schema["properties"].get(key).is_some())
    };
    let (section, _) = properties?.iter().find(|(_, schema)| has(schema))?;
    Some(format!("did you mean `{section}.{key}`?"))
}

/// All keys, where they are few enough to help.
fn all_known<'a>(known: impl Iterator<Item = &'a str> + Clone) -> Option<String> {
    const LISTED_MAX: usize = 8;
    let count = known.clone().count();
    (1..=LISTED_MAX)
        .contains(&count)
        .then(|| format!("the keys here are {}", known.collect::<Vec<_>>().join(", ")))
}
