//! Our tags on the resources of a cloud, and how each bill spells them.

use std::fmt;

use serde::{
    Serialize,
    de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::fields::snake_case;

/// The tag that names the installation, on everything that it causes to exist. GCP's labels have no colon: there it is
/// `bursar-installation`.
pub const INSTALLATION: &str = "bursar:installation";
/// The tag that names the instance, on the instance and on its disks and addresses. GCP: `bursar-instance`.
pub const INSTANCE: &str = "bursar:instance";

/// Our tags on one resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize)]
pub struct OurTags {
    /// Which installation it belongs to.
    pub installation: Option<String>,
    /// Which instance, as the tag has it: another installation may not write ids as we do.
    pub instance: Option<String>,
}

impl OurTags {
    /// Whether it carries neither.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.installation.is_none() && self.instance.is_none()
    }

    /// Takes the value of a tag of ours, however the bill spells the key; other tags change nothing.
    ///
    /// `bursar:instance` is `user_bursar_instance` in CUR 2.0, `resourceTags/user:bursar:instance` in the legacy CUR,
    /// `resourceTags/bursar:instance` in the combined `tags` column of CUR 2.0, as it is in FOCUS, and
    /// `bursar-instance` among the labels of GCP.
    pub(super) fn set(&mut self, key: &str, value: &str) {
        let Some(tag) = our_tag(key) else { return };
        if value.is_empty() {
            return;
        }
        match tag {
            INSTALLATION => self.installation = Some(value.to_owned()),
            _ => self.instance = Some(value.to_owned()),
        }
    }

    /// Reads a JSON object of keys and values, or an array of objects with a `key` and a `value`.
    pub(super) fn from_json(text: &str) -> Result<Self, String> {
        // Most rows of a company's bill have tags, and none of ours: they need no parser.
        if !text.contains("bursar") {
            return Ok(Self::default());
        }
        let mut json = serde_json::Deserializer::from_str(text);
        json.deserialize_any(TagsVisitor).map_err(|error| format!("the tags are not JSON: {error}"))
    }
}

/// Which tag of ours a key spells.
pub(super) fn our_tag(key: &str) -> Option<&'static str> {
    if !key.contains("bursar") {
        return None;
    }
    let key = snake_case(key);
    let key = key.strip_prefix("resource_tags_").unwrap_or(&key);
    let key = key.strip_prefix("user_").unwrap_or(key);
    match key {
        "bursar_installation" => Some(INSTALLATION),
        "bursar_instance" => Some(INSTANCE),
        _ => None,
    }
}

struct TagsVisitor;

impl<'de> Visitor<'de> for TagsVisitor {
    type Value = OurTags;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tags, or an array of objects with a key and a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<OurTags, A::Error> {
        let mut tags = OurTags::default();
        while let Some(key) = map.next_key::<String>()? {
            if our_tag(&key).is_some() {
                tags.set(&key, map.next_value::<Option<String>>()?.as_deref().unwrap_or(""));
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(tags)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<OurTags, A::Error> {
        let mut tags = OurTags::default();
        while let Some(label) = seq.next_element::<Label>()? {
            tags.set(&label.key, label.value.as_deref().unwrap_or(""));
        }
        Ok(tags)
    }
}

#[derive(serde::Deserialize)]
struct Label {
    key: String,
    #[serde(default)]
    value: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both() -> OurTags {
        OurTags { installation: Some("lab".to_owned()), instance: Some("ins_1".to_owned()) }
    }

    #[test]
    fn every_cloud_s_spelling_is_known() {
        for text in [
            r#"{"bursar:installation":"lab","Name":"x","bursar:instance":"ins_1"}"#,
            r#"{"user_bursar_installation":"lab","user_bursar_instance":"ins_1","aws_created_by":"me"}"#,
            r#"{"resourceTags/bursar:installation":"lab","resourceTags/user:bursar:instance":"ins_1"}"#,
            r#"[{"key":"bursar-installation","value":"lab"},{"key":"bursar-instance","value":"ins_1"}]"#,
        ] {
            assert_eq!(OurTags::from_json(text), Ok(both()), "{text}");
        }
    }

    #[test]
    fn tags_of_others_and_empty_ones_are_none() {
        for text in [
            r#"{"team":"a"}"#,
            "",
            r#"{"my_bursar_instance":"ins_1","costCategory/bursar:instance":"x"}"#,
            r#"{"bursar:instance":""}"#,
        ] {
            assert_eq!(OurTags::from_json(text), Ok(OurTags::default()), "{text}");
        }
        assert!(OurTags::from_json(r#"{"bursar:instance""#).is_err());
    }
}
