//! docs/configuration.md is made from the schemas that are enforced, so it cannot say anything else.

#![expect(clippy::disallowed_methods, reason = "the test reads, and when asked writes, the page")]

use std::{fmt::Write as _, path::PathBuf};

use bursar_config::{schema_config, schema_experiment};
use serde_json::Value;

#[test]
fn the_reference_page_is_what_the_schemas_say() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let wanted = page();
    if std::env::var("BURSAR_UPDATE_DOCS").is_ok() {
        std::fs::write(&path, &wanted).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == wanted, "run `BURSAR_UPDATE_DOCS=1 cargo test -p bursar-config --test reference`");
}

fn page() -> String {
    let mut page = String::from(
        "# Configuration and specs\n\n\
         Every key, made from the schemas that `bursar config check` enforces (`bursar config schema` prints them for\n\
         editors). Amounts of money are in USD; durations are written `30s`, `5m`, `1h 30m`, `1d`; sizes are in GiB.\n\
         Unknown keys are refused.\n\n\
         The configuration is found by `--config`, `BURSAR_CONFIG`, `./bursar.yaml`, then `bursar/bursar.yaml` below\n\
         `$XDG_CONFIG_HOME` or `~/.config`.\n",
    );
    section(&mut page, "The daemon's configuration", &schema_config());
    section(&mut page, "Experiments and sweeps", &schema_experiment());
    page
}

fn section(page: &mut String, title: &str, schema: &Value) {
    let about = text(schema, "description");
    write!(page, "\n## {title}\n\n{about}\n\n| key | what it is |\n| --- | --- |\n")
        .expect("a string takes all that is written");
    keys(page, "", schema);
}

/// One row a key, the keys below it after it.
fn keys(page: &mut String, prefix: &str, schema: &Value) {
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        for (name, below) in properties {
            let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            row(page, &path, below);
            keys(page, &path, below);
        }
    }
    if let Some(below) = schema.get("additionalProperties").filter(|below| below.is_object()) {
        keys(page, &format!("{prefix}.NAME"), below);
    }
    if let Some(below) = schema.get("items") {
        keys(page, &format!("{prefix}[]"), below);
    }
    for variant in schema.get("anyOf").and_then(Value::as_array).into_iter().flatten() {
        keys(page, prefix, variant);
    }
}

fn row(page: &mut String, path: &str, schema: &Value) {
    let about = text(schema, "description").replace('\n', " ").replace('|', "\\|");
    writeln!(page, "| `{path}` | {about} |").expect("a string takes all that is written");
}

fn text(schema: &Value, key: &str) -> String {
    schema.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}
