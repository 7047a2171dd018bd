//! Secrets: the installation's key, what is derived from it, and comparing without telling by time.

use std::{
    fmt::Write as _,
    fs::OpenOptions,
    io::{self, Read, Write as _},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use bursar_model::{InstanceId, SecretRef};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The largest secret: a key file or a long token, not a data set.
const SECRET_MAX: u64 = 64 * 1024;

/// The installation's key: 256 random bits, made once, readable by its owner alone. The one-time secrets of instances
/// are derived from it, so that a launch repeated after a crash carries the same one and the store keeps none.
#[derive(Clone)]
pub struct InstallationKey([u8; 32]);

impl InstallationKey {
    /// The key of these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Reads the key, or makes it at the first start.
    ///
    /// # Errors
    /// When the file cannot be read or made, or is no key.
    pub fn load_or_create(path: &Path) -> io::Result<Self> {
        match OpenOptions::new().read(true).open(path) {
            Ok(mut file) => {
                let mut bytes = [0; 32];
                file.read_exact(&mut bytes)?;
                Ok(Self(bytes))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut bytes = [0; 32];
                getrandom::fill(&mut bytes).map_err(io::Error::other)?;
                let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
                file.write_all(&bytes)?;
                file.sync_all()?;
                Ok(Self(bytes))
            }
            Err(error) => Err(error),
        }
    }

    /// The one-time secret of an instance.
    #[must_use]
    pub fn instance_secret(&self, instance: InstanceId) -> String {
        let digest =
            Sha256::new().chain_update(self.0).chain_update(b"instance").chain_update(instance.to_string());
        hex(&digest.finalize())
    }
}

impl std::fmt::Debug for InstallationKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InstallationKey(..)")
    }
}

/// SHA-256 in hex: what is kept of a token, and what a program is known by.
#[must_use]
pub fn digest(secret: impl AsRef<[u8]>) -> String {
    hex(&Sha256::digest(secret.as_ref()))
}

/// Whether two secrets are the same, in a time that does not depend on where they differ.
#[must_use]
pub fn same(a: &str, b: &str) -> bool {
    a.as_bytes().ct_eq(b.as_bytes()).into()
}

/// A secret of a spec or of a webhook, as it is now. What went wrong is for people.
#[expect(
    clippy::disallowed_methods,
    reason = "secrets are looked up here, at the last moment, and never stored"
)]
pub(crate) async fn read(secret: &SecretRef) -> Result<String, String> {
    match secret {
        SecretRef::Env(name) => {
            std::env::var(name).map_err(|_| format!("the daemon has no environment variable {name}"))
        }
        SecretRef::File(path) => {
            let size = tokio::fs::metadata(path).await.map_err(|error| format!("{path}: {error}"))?.len();
            if size > SECRET_MAX {
                return Err(format!("{path} is larger than {SECRET_MAX} bytes"));
            }
            let text = tokio::fs::read_to_string(path).await.map_err(|error| format!("{path}: {error}"))?;
            Ok(text.trim_end_matches(['\r', '\n']).to_owned())
        }
    }
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a string takes all that is written");
    }
    text
}
