//! The agents that rented machines fetch at their boot: one static program for each kind of machine, made by
//! `deploy/agent/build`. They are read once and kept in memory, some ten megabytes, so that what is served is always what
//! the digest in the user data is of.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use axum::body::Bytes;

use crate::secrets;

/// The kinds of machines that agents are built for, as `uname -m` names them.
pub const ARCHES: [&str; 2] = ["x86_64", "aarch64"];

/// An agent has less than 10 MB, unless it was built for debugging; whatever is much larger is something else.
const BYTES_MAX: u64 = 256 << 20;

/// The agents that there are.
#[derive(Debug, Default)]
pub struct AgentBinaries(BTreeMap<String, AgentBinary>);

/// One of them.
#[derive(Clone)]
pub struct AgentBinary {
    /// The program.
    pub bytes: Bytes,
    /// Its SHA-256, in hex.
    pub sha256: String,
}

/// An agent that is there and cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {} as an agent: build it again with deploy/agent/build", .path.display())]
pub struct AgentBinariesError {
    /// Which.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

impl AgentBinaries {
    /// The agents in a folder, those that are there: `bursar-agent-x86_64` and `bursar-agent-aarch64`.
    ///
    /// # Errors
    /// When one is there and cannot be read.
    #[expect(
        clippy::disallowed_methods,
        reason = "the edge: agents are read here, before anything is served"
    )]
    pub fn read(folder: &Path) -> Result<Self, AgentBinariesError> {
        let mut found = BTreeMap::new();
        for arch in ARCHES {
            let path = folder.join(format!("bursar-agent-{arch}"));
            let read = path.metadata().and_then(|metadata| match metadata.len() {
                0..=BYTES_MAX => std::fs::read(&path),
                bytes => Err(io::Error::other(format!("{bytes} bytes are too many"))),
            });
            match read {
                Ok(bytes) => {
                    found.insert(arch.to_owned(), AgentBinary::new(bytes));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(AgentBinariesError { path, source }),
            }
        }
        Ok(Self(found))
    }

    /// The agent for a kind of machine.
    #[must_use]
    pub fn of(&self, arch: &str) -> Option<&AgentBinary> {
        self.0.get(arch)
    }

    /// The SHA-256 of each, by kind of machine.
    #[must_use]
    pub fn digests(&self) -> BTreeMap<String, String> {
        self.0.iter().map(|(arch, binary)| (arch.clone(), binary.sha256.clone())).collect()
    }
}

impl AgentBinary {
    fn new(bytes: Vec<u8>) -> Self {
        Self { sha256: secrets::digest(&bytes), bytes: bytes.into() }
    }
}

impl std::fmt::Debug for AgentBinary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentBinary").field("sha256", &self.sha256).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test looks at real files")]
    fn those_agents_are_served_that_are_there_under_the_digests_that_sha256sum_prints() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("bursar-agent-x86_64"), "abc").unwrap();
        std::fs::write(folder.path().join("bursar-agent-riscv64"), "abc").unwrap();
        let agents = AgentBinaries::read(folder.path()).unwrap();
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(agents.digests(), BTreeMap::from([("x86_64".to_owned(), digest.to_owned())]));
        assert_eq!(agents.of("x86_64").unwrap().bytes.as_ref(), b"abc");
        assert!(agents.of("aarch64").is_none());
        assert_eq!(AgentBinaries::read(&folder.path().join("none")).unwrap().digests(), BTreeMap::new());
    }
}
