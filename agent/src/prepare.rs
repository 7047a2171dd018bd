//! What an attempt starts with: brought to the instance before its first script, step by step, away from the agent's loop.

use std::{path::PathBuf, sync::Arc};

use bursar_model::{Digest, Workdir};
use tokio::fs;

use crate::{
    cache::{Held, Turn, aside},
    data::Fetching,
    folder::Folder,
    job::Job,
    runtime::{Image, Pull},
    workdir::{Carrier, WantedBy},
};

/// All that has to be there before an attempt's first script.
#[derive(Debug)]
pub(crate) struct Preparation {
    pub(crate) folder: Folder,
    pub(crate) carrier: Carrier,
    /// What its working folder starts with.
    pub(crate) workdir: Option<Workdir>,
    pub(crate) wanted_by: WantedBy,
    /// What `setup` depends on, where the attempt has one whose result is kept.
    pub(crate) setup_key: Option<Digest>,
    pub(crate) checkpoints: PathBuf,
    /// The image that its scripts run in.
    pub(crate) pull: Option<Pull>,
    /// What comes out of object stores.
    pub(crate) fetching: Option<Fetching>,
}

/// What preparing an attempt came to.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// What its scripts run in.
    pub(crate) image: Option<Image>,
    pub(crate) setup: Setup,
}

/// What is left to do of `setup`.
#[derive(Debug)]
pub(crate) enum Setup {
    /// It runs in the working folder itself, and nothing is kept of it.
    Here,
    /// It is to run in a folder of the cache, of which the working folder becomes a copy.
    ToDo(Turn),
    /// The working folder is a copy of what it made before.
    Done(Held),
}

impl Preparation {
    /// Does all steps. What went wrong is for people: the attempt ends with it.
    pub(crate) async fn run(self) -> Result<Prepared, String> {
        let Self { folder, carrier, workdir, wanted_by, setup_key, checkpoints, pull, fetching } = self;
        let folder = Arc::new(folder);
        let new = Arc::clone(&folder);
        aside(move || new.make(&checkpoints)).await?;
        let image = match pull {
            Some(pull) => Some(pull.run(&folder).await?),
            None => None,
        };
        let setup = match setup_key {
            Some(key) => place_for_setup(key, &folder, &carrier, workdir, &wanted_by).await?,
            None => {
                if let Some(workdir) = workdir {
                    carrier.bring(workdir, &wanted_by, &folder).await?;
                }
                Setup::Here
            }
        };
        if let Some(fetching) = fetching {
            let fetched = Job::begin(move || fetching.run()).wait().await;
            fetched.map_err(|error| error.to_string())??;
        }
        Ok(Prepared { image, setup })
    }
}

/// A folder of the cache for `setup` to run in, or what it made there before, with the working folder filled from it.
async fn place_for_setup(
    key: Digest,
    folder: &Arc<Folder>,
    carrier: &Carrier,
    workdir: Option<Workdir>,
    wanted_by: &WantedBy,
) -> Result<Setup, String> {
    let name = format!("setup-{key}");
    if carrier.cache.is_being_made(&name) {
        folder.note("setup: another attempt on this instance is at the same one; waiting for it");
    }
    let turn = carrier.cache.turn(name).await;
    if let Some(made) = turn.held() {
        drop(turn);
        let (from, folder) = (made.path().to_owned(), Arc::clone(folder));
        aside(move || folder.fill(&from)).await?;
        return Ok(Setup::Done(made));
    }
    fs::create_dir(turn.path()).await.map_err(|error| error.to_string())?;
    let turn = Arc::new(turn);
    if let Some(workdir) = workdir {
        carrier.bring(workdir, wanted_by, &turn).await?;
    }
    let turn = Arc::into_inner(turn).ok_or("the folder for setup is in use")?;
    Ok(Setup::ToDo(turn))
}

/// What follows a `setup` that succeeded: the working folder is filled with what it made, which is kept for others.
#[derive(Debug)]
pub(crate) struct Keeping {
    pub(crate) folder: Folder,
    pub(crate) turn: Turn,
}

impl Keeping {
    /// Fills the working folder. What went wrong is for people: the attempt ends with it.
    pub(crate) async fn run(self) -> Result<Held, String> {
        let Self { folder, turn } = self;
        aside(move || {
            folder.fill(&turn.path())?;
            Ok(turn.keep())
        })
        .await
    }
}
