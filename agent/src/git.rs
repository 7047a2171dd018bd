//! A working folder out of a git repository: what it holds at one commit, fetched by the `git` program into a bare
//! repository that the instance keeps.
//!
//! A token travels in the environment of `git` alone, from where a helper script reads it when git asks: neither the URL
//! nor any command line nor a file holds it.

use std::{
    fs::File,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    process::Command,
    sync::Arc,
    time::Duration,
};

use bursar_model::Digest;
use sha2::{Digest as _, Sha256};

use crate::{
    attempt::NODE_VARIABLE,
    cache::{Cache, Held, aside},
    helpers::Helpers,
    shim,
    unpack::unpack,
    workdir::Place,
};

/// How long fetching a commit may take: a large repository over a slow line.
const FETCH_LIMIT: Duration = Duration::from_secs(30 * 60);

/// How long what needs no network may take.
const LOCAL_LIMIT: Duration = Duration::from_secs(10 * 60);

/// What answers when git asks for a name or a password.
const ASKPASS: &str = "#!/bin/sh\ncase \"$1\" in\nUsername*) echo x-access-token ;;\n*) printf '%s\\n' \"$BURSAR_GIT_TOKEN\" ;;\nesac\n";

/// A commit to fetch.
#[derive(Debug)]
pub(crate) struct Commit {
    pub(crate) url: String,
    pub(crate) commit: String,
    /// The folder inside the repository that is wanted.
    pub(crate) path: Option<String>,
    pub(crate) token: Option<String>,
    /// For whom: what is started for it ends with it.
    pub(crate) node: String,
}

impl Commit {
    /// Unpacks what the repository holds at this commit into an empty folder.
    pub(crate) async fn bring(
        self,
        into: &Arc<impl Place>,
        cache: &Cache,
        helpers: &Helpers,
    ) -> Result<(), String> {
        let name = format!("git-{}", Digest::from_bytes(Sha256::digest(&self.url).into()));
        // One at a time: git's own locks would fail those that come second.
        let turn = cache.turn(name).await;
        let repository = turn.path();
        let git = Git { repository: &repository, token: self.token.as_deref(), node: &self.node, helpers };
        let _held: Held = match turn.held() {
            Some(held) => {
                self.fetch(&git).await?;
                held
            }
            None => {
                git.run(&["init", "--quiet", "--bare"], LOCAL_LIMIT).await.map_err(no_git)?;
                let path = repository.join("askpass");
                write_askpass(&path).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
                self.fetch(&git).await?;
                aside(move || Ok(turn.keep())).await?
            }
        };
        let tree = match &self.path {
            Some(path) => format!("{}:{path}", self.commit),
            None => self.commit.clone(),
        };
        let archive = into.path().with_extension("tar");
        let output = format!("--output={}", archive.display());
        let archived = git.run(&["archive", "--format=tar", &output, &tree], LOCAL_LIMIT).await;
        archived.map_err(|error| format!("{} at {tree}: {error}", self.url))?;
        let into = Arc::clone(into);
        aside(move || {
            let unpacked = File::open(&archive)
                .map_err(|error| error.to_string())
                .and_then(|file| unpack(io::BufReader::new(file), &into.path()));
            remove(&archive);
            unpacked
        })
        .await
    }

    async fn fetch(&self, git: &Git<'_>) -> Result<(), String> {
        let Self { url, commit, path: _, token: _, node: _ } = self;
        let object = format!("{commit}^{{commit}}");
        if git.run(&["cat-file", "-e", &object], LOCAL_LIMIT).await.is_ok() {
            return Ok(());
        }
        let shallow = ["fetch", "--quiet", "--no-tags", "--depth=1", "--", url, commit];
        if git.run(&shallow, FETCH_LIMIT).await.is_err() {
            // Older servers give only what a branch or tag names.
            let all =
                ["fetch", "--quiet", "--", url, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"];
            git.run(&all, FETCH_LIMIT).await.map_err(|error| format!("cannot fetch {url}: {error}"))?;
        }
        let found = git.run(&["cat-file", "-e", &object], LOCAL_LIMIT).await;
        found.map(drop).map_err(|_| format!("{url} has no commit {commit}"))
    }
}

struct Git<'a> {
    repository: &'a Path,
    token: Option<&'a str>,
    node: &'a str,
    helpers: &'a Helpers,
}

impl Git<'_> {
    async fn run(&self, arguments: &[&str], limit: Duration) -> Result<String, String> {
        let mut command: Command = shim::tied_to_this_thread("git".as_ref());
        // Nothing but what was asked for: no hooks, no helper that would keep the token, no questions on a terminal.
        command.args(["-c", "core.hooksPath=/dev/null", "-c", "credential.helper=", "-c", "gc.auto=0"]);
        command.arg("--git-dir").arg(self.repository).args(arguments);
        command.env("GIT_TERMINAL_PROMPT", "0").env("GIT_ALLOW_PROTOCOL", "https:http:ssh:git:file");
        command.env("GIT_SSH_COMMAND", "ssh -oBatchMode=yes -oStrictHostKeyChecking=accept-new");
        command.env(NODE_VARIABLE, self.node);
        command.env("GIT_ASKPASS", self.repository.join("askpass"));
        if let Some(token) = self.token {
            command.env("BURSAR_GIT_TOKEN", token);
        }
        self.helpers.run(command, None, limit).await
    }
}

fn no_git(error: String) -> String {
    format!("git cannot be used on this instance: {error}")
}

fn write_askpass(path: &Path) -> io::Result<()> {
    let mut file = File::options().create(true).truncate(true).write(true).mode(0o700).open(path)?;
    file.write_all(ASKPASS.as_bytes())
}

#[expect(clippy::disallowed_methods, reason = "the edge: what was only made to be unpacked goes again")]
fn remove(path: &Path) {
    let _ = std::fs::remove_file(path);
}
