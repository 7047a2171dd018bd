//! A working folder as it was written: a text, or a map that says more.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, MapAccess, Visitor, value::MapAccessDeserializer},
};

/// A working folder: a path or URL, or a map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum RawWorkdir {
    /// A path, or the URL of a git repository with `@` and a branch, tag or commit.
    Text(String),
    /// One of the two that can travel.
    Map(RawWorkdirMap),
}

/// A git repository, or a folder that was packed already.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawWorkdirMap {
    /// The URL of a git repository: `https`, `http`, `ssh`, `git` or `file`. Submodules and LFS files are not fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub git: Option<String>,
    /// A branch, tag or commit, which `bursar submit` makes a commit; over the API a full commit id. Default `HEAD`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#ref: Option<String>,
    /// The folder inside the repository that the working folder starts with. Default all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The one of `secrets` that holds the token or password to fetch with. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// SHA-256 of a packed folder that the daemon has. Written by `bursar submit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archive: Option<String>,
    /// How large that is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<i64>,
}

impl<'de> Deserialize<'de> for RawWorkdir {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WorkdirVisitor;
        impl<'de> Visitor<'de> for WorkdirVisitor {
            type Value = RawWorkdir;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path, a URL or {git: URL, ref: NAME}")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<RawWorkdir, E> {
                Ok(RawWorkdir::Text(text.to_owned()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawWorkdir, A::Error> {
                RawWorkdirMap::deserialize(MapAccessDeserializer::new(map)).map(RawWorkdir::Map)
            }
        }
        deserializer.deserialize_any(WorkdirVisitor)
    }
}

impl JsonSchema for RawWorkdir {
    fn schema_name() -> Cow<'static, str> {
        "RawWorkdir".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [{"type": "string"}, generator.subschema_for::<RawWorkdirMap>()]})
    }
}

/// As it travels.
impl From<bursar_model::Workdir> for RawWorkdir {
    fn from(workdir: bursar_model::Workdir) -> Self {
        Self::Map(match workdir {
            bursar_model::Workdir::Archive { digest, bytes } => RawWorkdirMap {
                archive: Some(digest.to_string()),
                bytes: i64::try_from(bytes).ok(),
                ..RawWorkdirMap::default()
            },
            bursar_model::Workdir::Git { url, commit, path, token } => {
                RawWorkdirMap { git: Some(url), r#ref: Some(commit), path, token, ..RawWorkdirMap::default() }
            }
        })
    }
}
