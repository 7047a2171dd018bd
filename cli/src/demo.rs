//! `bursar demo`: all of bursar in under a minute, on this machine.
//!
//! A daemon of its own in a folder of its own; a small cloud made of processes; a sweep of real training runs under a
//! budget that is too small for all of it; an interruption; and the bill. Everything goes through the daemon's API and
//! the same commands that people use.

mod play;
mod scene;
mod summary;
pub(crate) mod train;

use std::{io, path::PathBuf};

use crate::{
    args::Demo,
    exit::{Failure, OK, Outcome},
    output::{json, note},
};

/// Runs the demo.
pub(crate) fn run(demo: &Demo, as_json: bool) -> Outcome {
    let folder = match &demo.keep {
        Some(folder) => Folder::kept(folder.clone())?,
        None => Folder::temporary()?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let summary = runtime.block_on(play::play(&folder.path))?;
    if as_json {
        json(&summary.to_json())?;
    } else {
        crate::output::line(&summary.text())?;
    }
    if folder.is_kept {
        let config = folder.path.join(scene::CONFIG);
        note(&format!(
            "kept in {0}. Look around with:\n  bursar ls --config {1}\n  bursar report --by experiment,category --config {1}\n  bursar serve --config {1}",
            folder.path.display(),
            config.display()
        ));
    }
    if summary.leaked > 0 {
        return Err(Failure::new(
            crate::exit::FAILED,
            format!("{} instances were left running", summary.leaked),
        ));
    }
    Ok(OK)
}

/// `bursar demo-train`: the experiment of the demo.
pub(crate) fn train_command(args: &train::TrainArgs) -> Outcome {
    let env = train::TrainEnv::of_process()?;
    let ended = train::run(args, &env, &mut io::stdout(), &mut io::stderr())?;
    Ok(ended.exit_code())
}

/// Where the demo lives; removed afterwards unless it is to be kept.
struct Folder {
    path: PathBuf,
    is_kept: bool,
}

impl Folder {
    #[expect(clippy::disallowed_methods, reason = "the demo makes its own folder")]
    fn kept(path: PathBuf) -> Result<Self, Failure> {
        std::fs::create_dir_all(&path)?;
        let path = path.canonicalize()?;
        if path.read_dir()?.next().is_some() {
            return Err(Failure::new(crate::exit::USAGE, format!("{} is not empty", path.display()))
                .hint("give --keep a new folder; the demo starts from nothing"));
        }
        Ok(Self { path, is_kept: true })
    }

    #[expect(clippy::disallowed_methods, reason = "the demo makes its own folder")]
    fn temporary() -> Result<Self, Failure> {
        let name = format!("bursar-demo-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path)?;
        Ok(Self { path: path.canonicalize()?, is_kept: false })
    }
}

impl Drop for Folder {
    #[expect(clippy::disallowed_methods, reason = "the demo removes its own folder")]
    fn drop(&mut self) {
        if !self.is_kept {
            // A file that cannot be removed is in the system's folder for such files anyway.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}
