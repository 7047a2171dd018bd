//! The built program.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::LazyLock,
};

use serde_json::Value;

/// What a command said, and how it ended.
#[derive(Debug)]
pub struct Said {
    /// The exit code; nothing where a signal ended it.
    pub code: Option<i32>,
    /// Data.
    pub stdout: String,
    /// Everything else.
    pub stderr: String,
}

impl Said {
    /// Of a command that has ended.
    #[must_use]
    pub fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// This, where it ended with this code.
    ///
    /// # Panics
    /// When it ended otherwise.
    #[must_use]
    pub fn with_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// Its data as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("no JSON ({error}): {self:#?}"))
    }
}

/// The program: the one that `BURSAR_BIN` names, or that Cargo builds now in the profile of this test, with the clouds that
/// this test was built with.
#[must_use]
pub fn path() -> &'static Path {
    static PATH: LazyLock<PathBuf> =
        LazyLock::new(|| env::var_os("BURSAR_BIN").map_or_else(|| build("bursar", "bursar"), PathBuf::from));
    &PATH
}

/// The agent as a program of its own: the one that `BURSAR_AGENT_BIN` names, or that Cargo builds now.
#[must_use]
pub fn agent() -> &'static Path {
    static PATH: LazyLock<PathBuf> = LazyLock::new(|| {
        env::var_os("BURSAR_AGENT_BIN").map_or_else(|| build("bursar-agent", "bursar-agent"), PathBuf::from)
    });
    &PATH
}

/// A command with nothing of our own environment but the way to programs: a developer's settings change no test.
#[must_use]
pub fn command(home: &Path) -> Command {
    let mut command = Command::new(path());
    command.env_clear().env("HOME", home).current_dir(home);
    if let Some(path) = env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}

/// Cargo does not tell tests of one package where the program of another is, but does say so while it builds it.
fn build(package: &str, name: &str) -> PathBuf {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--locked", "--package", package, "--manifest-path", manifest]);
    cargo.arg("--message-format=json");
    if cfg!(feature = "aws") && package == "bursar" {
        cargo.args(["--features", "aws"]);
    }
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let said = Said::of(cargo.output().unwrap()).with_code(0);
    let executable = said.stdout.lines().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        (message["target"]["name"] == name).then(|| message["executable"].as_str().map(PathBuf::from))?
    });
    executable.expect("Cargo names what it built")
}
