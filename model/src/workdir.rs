//! What an attempt's working folder starts with, as it travels: an archive under its digest, or a commit of a git
//! repository. A path would mean something on the submitter's machine alone.

use std::{
    fmt,
    path::{Component, Path},
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How large a packed working folder may be, in bytes: code with its small files. Every instance fetches it, so data
/// belongs in a place that instances read from.
pub const PACKED_BYTES_MAX: u64 = 1 << 30;

/// How much a working folder may hold unpacked, in bytes: a small archive must not fill a disk.
pub const UNPACKED_BYTES_MAX: u64 = 32 << 30;

/// How deep a working folder may be. Deeper ones are loops of mounts, or no source trees.
pub const DEPTH_MAX: usize = 64;

/// How many files and folders a working folder may hold: enough for a source tree with its packages, too few to fill a
/// disk with inodes because somebody named `/`.
pub const ENTRIES_MAX: usize = 500_000;

/// What a working folder starts with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum Workdir {
    /// A folder that was packed: a tar file under gzip, kept by the daemon.
    Archive {
        /// Its address.
        digest: Digest,
        /// How large it is.
        bytes: u64,
    },
    /// What a git repository holds at a commit, without its history.
    Git {
        /// Where to fetch from. Never with a password in it.
        url: String,
        /// The full id of the commit.
        commit: String,
        /// The folder inside the repository that it is; none is all of it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path: Option<String>,
        /// The variable, of those in `secrets`, that holds the token to fetch with.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<String>,
    },
}

/// A SHA-256: the address of content. As text, 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// A text is no SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not 64 lower-case hexadecimal digits of a SHA-256")]
pub struct NoDigest;

impl Digest {
    /// Of these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = NoDigest;

    fn from_str(text: &str) -> Result<Self, NoDigest> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Ok(byte - b'0'),
            b'a'..=b'f' => Ok(byte - b'a' + 10),
            _ => Err(NoDigest),
        };
        let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return Err(NoDigest) };
        let pairs: &[[u8; 2]; 32] = pairs.try_into().map_err(|_| NoDigest)?;
        let mut bytes = [0; 32];
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// How an entry of a working folder may be called: a path that leads down from the folder and nowhere else.
#[must_use]
pub fn is_inside(path: &Path) -> bool {
    let down = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    down && path.components().count() <= DEPTH_MAX
}

/// Whether a link at `link` leads to a place in its folder, whatever else is there. It may go up first, no further than
/// the folder, and then down. A `..` after a name is refused: where that name is itself a link, it would start from
/// somewhere else than it seems to.
#[must_use]
pub fn leads_inside(link: &Path, target: &Path) -> bool {
    let mut room = link
        .parent()
        .map_or(0, |parent| parent.components().filter(|part| matches!(part, Component::Normal(_))).count());
    let mut went_down = false;
    for part in target.components() {
        match part {
            Component::CurDir => {}
            Component::Normal(_) => went_down = true,
            Component::ParentDir if went_down || room == 0 => return false,
            Component::ParentDir => room -= 1,
            Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_read_as_it_is_written_and_nothing_else_is() {
        let text = "00ff".repeat(16);
        assert_eq!(text.parse::<Digest>().unwrap().to_string(), text);
        for wrong in ["", "00", &"0".repeat(63), &"0".repeat(65), &"F".repeat(64), &"../".repeat(21)] {
            assert_eq!(wrong.parse::<Digest>(), Err(NoDigest), "{wrong}");
        }
    }

    #[test]
    fn a_link_may_lead_anywhere_in_its_folder_and_nowhere_else() {
        let inside = |link: &str, target: &str| leads_inside(Path::new(link), Path::new(target));
        assert!(inside("a/b/link", "../../c"));
        assert!(inside("link", "a/b"));
        assert!(inside("link", "./a"));
        assert!(inside("a/./link", ".."));
        assert!(!inside("a/b/link", "../../../c"));
        assert!(!inside("link", ".."));
        assert!(!inside("link", "/etc/passwd"));
        // Where `l` leads to the folder itself, this would be the folder above it.
        assert!(!inside("link", "a/b/c/l/../x"));
    }

    #[test]
    fn an_entry_lies_below_the_folder() {
        for (path, inside) in
            [("a/b", true), ("./a", true), ("a/../b", false), ("../a", false), ("/a", false)]
        {
            assert_eq!(is_inside(Path::new(path)), inside, "{path}");
        }
        assert!(!is_inside(Path::new(&"d/".repeat(DEPTH_MAX + 1))));
    }
}
