//! What an attempt starts with: brought to the instance before its first script, step by step, away from the agent's loop.

use std::path::PathBuf;

use tokio::task::spawn_blocking;

use crate::{
    folder::Folder,
    runtime::{Image, Pull},
};

/// All that has to be there before an attempt's first script.
#[derive(Debug)]
pub(crate) struct Preparation {
    pub(crate) folder: Folder,
    /// What its working folder starts as a copy of.
    pub(crate) workdir: Option<PathBuf>,
    pub(crate) checkpoints: PathBuf,
    /// The image that its scripts run in.
    pub(crate) pull: Option<Pull>,
}

/// What preparing an attempt came to.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    /// What its scripts run in.
    pub(crate) image: Option<Image>,
}

impl Preparation {
    /// Does all steps. What went wrong is for people: the attempt ends with it.
    pub(crate) async fn run(self) -> Result<Prepared, String> {
        let Self { folder, workdir, checkpoints, pull } = self;
        let new = folder.clone();
        let made = spawn_blocking(move || new.make(workdir.as_deref(), &checkpoints));
        made.await.unwrap_or_else(|error| Err(error.to_string()))?;
        let image = match pull {
            Some(pull) => Some(pull.run(&folder).await?),
            None => None,
        };
        Ok(Prepared { image })
    }
}
