//! Bringing an image to the instance before the first script, and finding out which it is by its digest.
//!
//! An image that the instance has is not pulled again: a digest says which it has to be, and where only a tag is given the
//! record of the attempt says which it was.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use bursar_model::agent_api::{ContainerWork, RegistryLogin};

use crate::{containers::Engine, folder::Folder, helpers::Helpers, shim};

/// The largest images have some tens of GB, which take a quarter of an hour over a poor line. An attempt that is to stop
/// does not wait for it.
const PULL_LIMIT: Duration = Duration::from_secs(3600);

/// How long the engine may take to look something up.
const LOOK_LIMIT: Duration = Duration::from_secs(60);

/// What the credentials for the registry of images without a registry in their name are filed under, by Podman and Docker.
const DOCKER_HUB: [&str; 2] = ["docker.io", "https://index.docker.io/v1/"];

/// An image on this instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    /// By what the engine knows it, whatever becomes of its names.
    pub(crate) id: String,
    /// By what it can be pulled again: `repository@sha256:…`. One that was made here has its id only.
    pub(crate) digest: String,
    /// The engine's name and version.
    pub(crate) engine: String,
}

/// What is needed to bring an image here.
#[derive(Debug)]
pub(crate) struct Pull {
    pub(crate) engine: Engine,
    pub(crate) work: ContainerWork,
    /// In the environment of the engine's client, so that it ends with the attempt.
    pub(crate) mark: (&'static str, String),
    pub(crate) helpers: Helpers,
}

impl Pull {
    /// Finds the image or pulls it, with the engine's progress in the attempt's log.
    pub(crate) async fn run(self, folder: &Folder) -> Result<Image, String> {
        let (name, program) = (self.work.image.as_str(), self.engine.program());
        let version = self.ask(&["--version"]).await.map_err(|error| {
            format!("{program} does not work here, and containers need it or Docker on the instance: {error}")
        })?;
        let found = match self.look().await {
            Ok(found) => found,
            Err(_) => {
                let pulled = self.pull(folder).await;
                pulled.map_err(|error| format!("{program} cannot pull {name}: {error}"))?;
                self.look().await.map_err(|error| format!("{program} does not know {name}: {error}"))?
            }
        };
        let (id, digest) = identity(&found).ok_or_else(|| format!("{program} says nothing of {name}"))?;
        Ok(Image { id, digest, engine: short_version(program, &version) })
    }

    async fn look(&self) -> Result<String, String> {
        self.ask(&["image", "inspect", "--format", "{{.Id}} {{join .RepoDigests \" \"}}", &self.work.image])
            .await
    }

    async fn ask(&self, arguments: &[&str]) -> Result<String, String> {
        self.helpers.run(self.command(arguments, None), None, LOOK_LIMIT).await
    }

    async fn pull(&self, folder: &Folder) -> Result<(), String> {
        let credentials = folder.registry();
        if let Some(login) = &self.work.registry {
            let written = write_credentials(&credentials, &self.work.image, login);
            written.map_err(|error| format!("its credentials cannot be written: {error}"))?;
        }
        let given = self.work.registry.is_some().then_some(credentials.as_path());
        let command = self.command(&["pull", &self.work.image], given);
        let pulled = self.helpers.run(command, Some(&folder.log()), PULL_LIMIT).await;
        forget_credentials(&credentials);
        pulled.map(drop)
    }

    /// Both engines read the same file, and neither is given a password as an argument.
    fn command(&self, arguments: &[&str], credentials: Option<&Path>) -> Command {
        let mut command = shim::tied_to_this_thread(self.engine.program().as_ref());
        if let (Engine::Docker, Some(folder)) = (self.engine, credentials) {
            command.arg("--config").arg(folder);
        }
        command.args(arguments);
        if let (Engine::Podman, Some(folder)) = (self.engine, credentials) {
            command.arg("--authfile").arg(credentials_file(folder));
        }
        command.env(self.mark.0, &self.mark.1);
        command
    }
}

/// The id and the digest out of an id with any number of digests after it.
fn identity(found: &str) -> Option<(String, String)> {
    let mut words = found.split_whitespace();
    // Podman leaves out what kind of digest its ids are.
    let id = words.next()?;
    let id = if id.contains(':') { id.to_owned() } else { format!("sha256:{id}") };
    let digest = words.next().map_or_else(|| id.clone(), str::to_owned);
    Some((id, digest))
}

/// `podman 4.3.1` out of `podman version 4.3.1` or `Docker version 24.0.5, build ced0996`.
fn short_version(program: &str, words: &str) -> String {
    let version = words.split_whitespace().nth(2).unwrap_or("of unknown version");
    format!("{program} {}", version.trim_end_matches(','))
}

/// The registry that an image's name begins with, if it does: a host has a dot or a port, or is this one.
fn registry(image: &str) -> Option<&str> {
    let (host, _) = image.split_once('/')?;
    (host.contains(['.', ':']) || host == "localhost").then_some(host)
}

fn credentials_file(folder: &Path) -> PathBuf {
    folder.join("config.json")
}

/// In a folder that only the agent's user can enter.
fn write_credentials(folder: &Path, image: &str, login: &RegistryLogin) -> io::Result<()> {
    let RegistryLogin { username, password } = login;
    let auth = serde_json::json!({ "auth": base64(format!("{username}:{password}").as_bytes()) });
    let registries = registry(image).map_or_else(|| DOCKER_HUB.to_vec(), |host| vec![host]);
    let auths: serde_json::Map<_, _> =
        registries.into_iter().map(|registry| (registry.to_owned(), auth.clone())).collect();
    fs::DirBuilder::new().mode(0o700).create(folder)?;
    let path = credentials_file(folder);
    let mut file = fs::File::options().create_new(true).write(true).mode(0o600).open(path)?;
    file.write_all(serde_json::json!({ "auths": auths }).to_string().as_bytes())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the edge: the attempt's folder is not removed yet, its credentials are"
)]
fn forget_credentials(folder: &Path) {
    if let Err(error) = fs::remove_dir_all(folder)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::error!(folder = %folder.display(), %error, "the credentials of a registry cannot be removed");
    }
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let mut three = [0; 3];
        three[..chunk.len()].copy_from_slice(chunk);
        let number = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        for place in 0..4 {
            let six = (number >> (18 - 6 * place)) & 63;
            text.push(if place <= chunk.len() { char::from(ALPHABET[six as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_filed_under_the_images_registry() {
        assert_eq!(registry("ghcr.example/team/image:1"), Some("ghcr.example"));
        assert_eq!(registry("localhost:5000/image"), Some("localhost:5000"));
        assert_eq!(registry("team/image:1"), None);
        assert_eq!(registry("image"), None);
        let folder = tempfile::tempdir().unwrap();
        let login = RegistryLogin { username: "me".to_owned(), password: "hunter2".to_owned() };
        let registry = folder.path().join("registry");
        write_credentials(&registry, "ghcr.example/team/image:1", &login).unwrap();
        let mut file = fs::File::open(registry.join("config.json")).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::mode(&file.metadata().unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        let text = io::read_to_string(&mut file).unwrap();
        assert_eq!(text, r#"{"auths":{"ghcr.example":{"auth":"bWU6aHVudGVyMg=="}}}"#);
        forget_credentials(&registry);
        assert!(!registry.exists());
    }

    #[test]
    fn base64_is_that_of_the_standard() {
        for (plain, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn an_image_is_known_by_its_digest_and_one_made_here_by_its_id() {
        let found = "755c r/bb@sha256:8c18 other@sha256:8c18\n";
        assert_eq!(identity(found), Some(("sha256:755c".to_owned(), "r/bb@sha256:8c18".to_owned())));
        assert_eq!(identity("sha256:755c \n"), Some(("sha256:755c".to_owned(), "sha256:755c".to_owned())));
        assert_eq!(identity("\n"), None);
    }

    #[test]
    fn the_engines_version_is_what_follows_the_word() {
        assert_eq!(short_version("podman", "podman version 4.3.1\n"), "podman 4.3.1");
        assert_eq!(short_version("docker", "Docker version 24.0.5, build ced0996\n"), "docker 24.0.5");
    }
}
