//! The `sweep` section as it was written.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use bursar_model::{ParamValue, Params};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};

use super::{LimitOr, RawWorkBudget};

/// One trial for each combination of the matrix. Each parameter becomes an environment variable of its name.
/// Trials stand in the alphabetical order of the names; the last name changes fastest.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawSweep {
    /// What each parameter takes on: a list `[0.1, 0.01]`; a range `0..4` (0, 1, 2, 3) or `0..=4`; a space
    /// `{linspace: [0, 1, 5]}` or `{logspace: [1e-4, 1e-1, 4]}` from the first to the last of so many values; or drawn
    /// at random for each sample: `{uniform: [0, 1]}`, `{loguniform: [1e-5, 1e-1]}`, `{randint: [0, 100]}` (100 is
    /// left out), `{choice: [adam, sgd]}`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub matrix: BTreeMap<String, RawDimension>,
    /// How many times random parameters are drawn. Each draw is tried with each combination of the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub samples: Option<i64>,
    /// Where the random draws start. The same seed gives the same trials on every machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
    /// Each entry is added to the trials whose own parameters it does not contradict; one that fits no trial becomes
    /// a trial of its own. Comes after `exclude`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<BTreeMap<String, ParamShape>>")]
    pub include: Vec<Params>,
    /// Leaves out the trials that have all values of an entry.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<BTreeMap<String, ParamShape>>")]
    pub exclude: Vec<Params>,
    /// What all trials together may ever cost: a number is the limit in USD, a hard cap; a map says more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<LimitOr<RawWorkBudget>>,
    /// How many trials may run at once. Default no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_parallel: Option<i64>,
    /// Stops trials early by asynchronous successive halving (ASHA): all are compared at rungs, the best go on, the
    /// others pause and are stopped in the end. Trials append JSON lines such as `{"step": 3, "loss": 0.5}` to the file
    /// that `BURSAR_METRICS` names, and save their work when they are paused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asha: Option<RawAsha>,
}

/// How the trials of a sweep are halved.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawAsha {
    /// The metric that trials are compared by, such as `loss`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<String>,
    /// Which values of it are better: `min` or `max`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// The metric that says how far a trial is, a number that grows. Default `step`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// One in so many goes on from each rung. Default 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta: Option<i64>,
    /// The resource of the first rung. The next are at `min`·eta, `min`·eta² and so on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<i64>,
    /// The resource of the last rung. Who is let go on to it runs to its own end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<i64>,
}

/// What one parameter takes on.
#[derive(Debug, Clone, PartialEq)]
pub enum RawDimension {
    /// These values.
    Values(Vec<ParamValue>),
    /// A range such as `0..4`.
    Range(String),
    /// A space to divide or to draw from.
    Space(RawSpace),
}

/// A space to divide or to draw from: exactly one of these.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawSpace {
    /// `[first, last, count]`: evenly spaced values, both ends among them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linspace: Option<Vec<f64>>,
    /// `[first, last, count]`: values at equal ratios, both ends among them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logspace: Option<Vec<f64>>,
    /// `[low, high]`: any number between, all as likely.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uniform: Option<Vec<f64>>,
    /// `[low, high]`: any number between, all orders of magnitude as likely.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loguniform: Option<Vec<f64>>,
    /// `[low, high]`: a whole number from `low` to `high` - 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub randint: Option<Vec<i64>>,
    /// One of these values.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<ParamShape>>")]
    pub choice: Option<Vec<ParamValue>>,
}

/// The schema of `ParamValue`, whose crate knows none. The order matters to `conform`: text comes last, so that
/// `0.1` is a number here.
struct ParamShape;

impl JsonSchema for ParamShape {
    fn schema_name() -> Cow<'static, str> {
        "ParamValue".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["integer", "number", "boolean", "string"]})
    }
}

impl Serialize for RawDimension {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Values(values) => values.serialize(serializer),
            Self::Range(text) => text.serialize(serializer),
            Self::Space(space) => space.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for RawDimension {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct DimensionVisitor;
        impl<'de> Visitor<'de> for DimensionVisitor {
            type Value = RawDimension;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a list of values, a range such as 0..4, or a space such as {linspace: [0, 1, 5]}",
                )
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<RawDimension, E> {
                Ok(RawDimension::Range(text.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<RawDimension, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = list.next_element()? {
                    values.push(value);
                }
                Ok(RawDimension::Values(values))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawDimension, A::Error> {
                RawSpace::deserialize(MapAccessDeserializer::new(map)).map(RawDimension::Space)
            }
        }
        deserializer.deserialize_any(DimensionVisitor)
    }
}

impl JsonSchema for RawDimension {
    fn schema_name() -> Cow<'static, str> {
        "RawDimension".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let value = generator.subschema_for::<ParamShape>();
        let space = generator.subschema_for::<RawSpace>();
        json_schema!({
            "anyOf": [{"type": "array", "items": value}, {"type": "string"}, space],
            "x-instead": "a list of values, a range such as 0..4, or a space such as {linspace: [0, 1, 5]}"
        })
    }
}
