//! Env over file: which variables the daemon knows, and what they change in the document.
//!
//! The variables are derived from the schema, so a new scalar has its own at once: `BURSAR_` and the key, or the
//! section and the key, in capitals. They are laid over the tree before it is checked, so that a wrong variable is
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
            variables.insert(format!("{PREFIX}{key}").to_uppercase(), key.to_owned());
        }
    }
    variables
}

/// Lays the variables over the document. Returns the key paths that they set, each with its variable.
pub(crate) fn lay_over(
    root: &mut Node,
    variables: &BTreeMap<String, String>,
    env: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut set = BTreeMap::new();
    for (variable, path) in variables {
        // An empty variable is how a shell says that there is none.
        let Some(value) = env.get(variable).filter(|value| !value.is_empty()) else { continue };
        let keys: Vec<_> = path.split('.').collect();
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

fn properties(schema: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let own = schema.get("properties");
    let any = schema.get("anyOf").and_then(Value::as_array).into_iter().flatten();
    own.into_iter()
        .chain(any.filter_map(|schema| schema.get("properties")))
        .filter_map(Value::as_object)
        .flatten()
        .map(|(key, schema)| (key.as_str(), schema))
}

fn is_scalar(schema: &Value) -> bool {
    let scalar = |name: &Value| matches!(name.as_str(), Some("string" | "number" | "integer" | "boolean"));
    match schema.get("type") {
        Some(Value::Array(names)) => names.iter().any(scalar),
        Some(name) => scalar(name),
        None => schema.get("anyOf").and_then(Value::as_array).is_some_and(|any| any.iter().any(is_scalar)),
    }
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
