//! Env over file: which variables the daemon knows, and what they change in the document.
//!
//! The variables are derived from the schema, so a new scalar has its own at once: `BURSAR_` and the key, or the
//! section and the key, in capitals. A section that may be written as its main key alone, as `budget: 500` is, may be so
//! in the environment too. They are laid over the tree before it is checked, so that a wrong variable is
//! reported as a wrong key is, under the variable's name.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    node::{Entry, Kind, Node},
    problem::{Place, Problem, closest},
};

const PREFIX: &str = "BURSAR_";

/// The variables that can stand over a document of this schema, with the key path of each.
pub(crate) fn variables(schema: &Value) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for (key, schema) in properties(schema) {
        for (inner, _) in properties(schema).filter(|(_, schema)| is_scalar(schema)) {
            variables.insert(format!("{PREFIX}{key}_{inner}").to_uppercase(), format!("{key}.{inner}"));
        }
        if is_scalar(schema) {
            let path = short_for(schema).map_or_else(|| key.to_owned(), |inner| format!("{key}.{inner}"));
            variables.insert(format!("{PREFIX}{key}").to_uppercase(), path);
        }
    }
    variables
}

/// Lays the variables over the document. Returns the key paths that they set, each with its variable.
pub(crate) fn lay_over(
    root: &mut Node,
    schema: &Value,
    variables: &BTreeMap<String, String>,
    env: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut set = BTreeMap::new();
    for (variable, path) in variables {
        // An empty variable is how a shell says that there is none.
        let Some(value) = env.get(variable).filter(|value| !value.is_empty()) else { continue };
        let keys: Vec<_> = path.split('.').collect();
        if let [section, _] = *keys {
            write_out(root, section, schema);
        }
        if put(root, &keys, value) {
            set.insert(path.clone(), variable.clone());
        }
    }
    set
}

/// Variables that look like ours and are not. Others that begin with `BURSAR_` belong to the command line, the agent
/// and experiments, one of which may well have started this daemon: only a slip of the pen is worth a word.
pub(crate) fn unknown(variables: &BTreeMap<String, String>, env: &BTreeMap<String, String>) -> Vec<Problem> {
    let known = || variables.keys().filter_map(|name| name.strip_prefix(PREFIX));
    env.keys()
        .filter(|name| !variables.contains_key(*name))
        .filter_map(|name| {
            let meant = closest(name.strip_prefix(PREFIX)?, known())?;
            let problem = Problem::new("", "is no variable of the daemon and has no effect");
            let problem = problem.hint(format!("did you mean `{PREFIX}{meant}`?"));
            Some(Problem { source: Some(name.clone()), ..problem })
        })
        .collect()
}

/// Writes out a section that stands as its main key alone, so that other keys can be set beside it.
fn write_out(root: &mut Node, section: &str, schema: &Value) {
    let Some(key) = schema["properties"].get(section).and_then(short_for) else { return };
    let Kind::Map(entries) = &mut root.kind else { return };
    let alone = entries.iter_mut().find(|entry| entry.key == section && !entry.value.is_null());
    if let Some(Entry { value, .. }) = alone
        && let Kind::Plain(_) | Kind::Quoted(_) = value.kind
    {
        let main = Entry { key: key.to_owned(), key_place: value.place, value: value.clone() };
        value.kind = Kind::Map(vec![main]);
    }
}

/// The key that a scalar stands for where a map could stand.
fn short_for(schema: &Value) -> Option<&str> {
    variants(schema).into_iter().find_map(|schema| schema.get("x-short-for")?.as_str())
}

fn properties(schema: &Value) -> impl Iterator<Item = (&str, &Value)> {
    variants(schema)
        .into_iter()
        .filter_map(|schema| schema.get("properties")?.as_object())
        .flatten()
        .map(|(key, schema)| (key.as_str(), schema))
}

fn is_scalar(schema: &Value) -> bool {
    let scalar = |name: &Value| matches!(name.as_str(), Some("string" | "number" | "integer" | "boolean"));
    variants(schema)
        .into_iter()
        .filter_map(|schema| schema.get("type"))
        .any(|names| names.as_array().map_or_else(|| scalar(names), |names| names.iter().any(scalar)))
}

/// A schema with the alternatives in it, and those in them.
fn variants(schema: &Value) -> Vec<&Value> {
    let any = schema.get("anyOf").and_then(Value::as_array).into_iter().flatten();
    std::iter::once(schema).chain(any.flat_map(variants)).collect()
}

/// Sets a value below the keys, making sections as needed. A section that is no map is left for `conform` to refuse.
fn put(node: &mut Node, keys: &[&str], value: &str) -> bool {
    let place = Place { line: 1, column: 1 };
    let [key, rest @ ..] = keys else {
        *node = Node { place, kind: Kind::Plain(value.to_owned()) };
        return true;
    };
    if node.is_null() {
        node.kind = Kind::Map(Vec::new());
    }
    let Kind::Map(entries) = &mut node.kind else { return false };
    let index = entries.iter().position(|entry| entry.key == *key).unwrap_or_else(|| {
        let nothing = Node { place, kind: Kind::Plain(String::new()) };
        entries.push(Entry { key: (*key).to_owned(), key_place: place, value: nothing });
        entries.len() - 1
    });
    put(&mut entries[index].value, rest, value)
}
