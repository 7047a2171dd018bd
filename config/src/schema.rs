//! The JSON Schemas of what people write, for editors and for `conform`.

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::Value;

use crate::raw::{RawConfig, RawSpec};

/// The schema of the daemon's configuration.
#[must_use]
pub fn schema_config() -> Value {
    schema_of::<RawConfig>("bursar configuration")
}

/// The schema of an experiment, which with a `sweep` section is a sweep.
#[must_use]
pub fn schema_experiment() -> Value {
    schema_of::<RawSpec>("bursar experiment or sweep")
}

/// Without references: our types are not recursive, and so `conform` need not follow any.
fn schema_of<T: JsonSchema>(title: &str) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    schema.insert("title".to_owned(), title.into());
    schema.into()
}
