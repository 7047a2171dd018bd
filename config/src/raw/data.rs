//! What an experiment gets from object stores and leaves there, and the installation's own store, as they were written.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, MapAccess, SeqAccess, Visitor},
};

use super::RawSecret;

/// The store of this installation: checkpoints and outputs are kept in it, so that work goes on wherever there is a place.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["url"]))]
pub struct RawStorage {
    /// `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`, or `file:///folder` for a folder that all
    /// machines share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Where the store answers, where that is not the cloud's own address: `http://127.0.0.1:9000`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Its region. Default the cloud's, or `us-east-1` where an endpoint is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// What opens it, by the names of the cloud's own variables: `{AWS_ACCESS_KEY_ID: {env: NAME}, …}`. Looked up when an
    /// agent is given work, and never stored. Default what the instances have by themselves, such as their role.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub credentials: BTreeMap<String, RawSecret>,
    /// How many checkpoints of each experiment are kept. Default 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoints_kept: Option<i64>,
}

/// Paths that are stored, each with the URL that it is stored at, if any: `results`, `[results, model.pt]` or
/// `{results: s3://bucket/x, model.pt: }`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct RawOutputs(pub BTreeMap<String, Option<String>>);

impl<'de> Deserialize<'de> for RawOutputs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OutputsVisitor;
        impl<'de> Visitor<'de> for OutputsVisitor {
            type Value = RawOutputs;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path, a list of paths, or a map from paths to URLs")
            }
            fn visit_str<E: Error>(self, path: &str) -> Result<RawOutputs, E> {
                Ok(RawOutputs(BTreeMap::from([(path.to_owned(), None)])))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<RawOutputs, A::Error> {
                let mut outputs = BTreeMap::new();
                while let Some(path) = list.next_element()? {
                    outputs.insert(path, None);
                }
                Ok(RawOutputs(outputs))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawOutputs, A::Error> {
                let mut outputs = BTreeMap::new();
                while let Some((path, url)) = map.next_entry()? {
                    outputs.insert(path, url);
                }
                Ok(RawOutputs(outputs))
            }
        }
        deserializer.deserialize_any(OutputsVisitor)
    }
}

impl JsonSchema for RawOutputs {
    fn schema_name() -> Cow<'static, str> {
        "RawOutputs".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [
            {"type": "string"},
            {"type": "array", "items": {"type": "string"}},
            {"type": "object", "additionalProperties": {"type": ["string", "null"]}},
        ]})
    }
}
