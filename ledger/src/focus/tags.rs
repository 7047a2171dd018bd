//! The tags of a charge and of its lines: what all lines share, and what each has for itself.

use std::borrow::Cow;

use super::{FocusInstance, FocusLine, TAG_PREFIX, text::Object};

type Tag<'a> = (&'a str, Cow<'a, str>);

/// The tags of the lines of one charge.
#[derive(Debug)]
pub(super) struct TagSets<'a> {
    lines: Vec<Vec<Tag<'a>>>,
}

impl<'a> TagSets<'a> {
    pub(super) fn of(instance: &FocusInstance<'a>, lines: &[FocusLine<'a>]) -> Self {
        Self { lines: lines.iter().map(|line| tags_of(instance, line)).collect() }
    }

    /// The tags that all lines share, as a key-value object.
    pub(super) fn common(&self) -> Vec<u8> {
        let first = self.lines.first().into_iter().flatten();
        object(first.filter(|tag| self.is_common(tag)))
    }

    /// The tags that not all lines share, of the line with this index.
    pub(super) fn own(&self, line: usize) -> Vec<u8> {
        object(self.lines[line].iter().filter(|tag| !self.is_common(tag)))
    }

    fn is_common(&self, tag: &Tag<'_>) -> bool {
        self.lines.iter().all(|line| line.contains(tag))
    }
}

fn tags_of<'a>(instance: &FocusInstance<'a>, line: &FocusLine<'a>) -> Vec<Tag<'a>> {
    // Our own keys begin with `TAG_PREFIX`: FOCUS wants one for what the data's generator defines.
    let mut tags = vec![
        ("bursar/category", Cow::Owned(line.category.to_string())),
        ("bursar/experiment", Cow::Owned(line.experiment.to_string())),
        ("bursar/experiment-name", Cow::Borrowed(line.experiment_name)),
        ("bursar/instance", Cow::Owned(instance.id.to_string())),
        ("bursar/project", Cow::Borrowed(line.project)),
        ("bursar/provider", Cow::Borrowed(instance.provider)),
        ("bursar/user", Cow::Borrowed(line.user)),
    ];
    tags.extend(line.sweep.map(|sweep| ("bursar/sweep", Cow::Owned(sweep.to_string()))));
    let labels = line.labels.iter().filter(|(key, _)| !key.starts_with(TAG_PREFIX));
    tags.extend(labels.map(|(key, value)| (key.as_str(), Cow::Borrowed(value.as_str()))));
    tags
}

fn object<'t>(tags: impl Iterator<Item = &'t Tag<'t>>) -> Vec<u8> {
    let mut object = Object::default();
    for (key, value) in tags {
        object.text(key, value);
    }
    object.finish()
}
