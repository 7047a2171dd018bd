//! Storing what an attempt made: checkpoints while it runs and once more when it has ended, then its outputs.
//!
//! One job at a time, aside. Only what a manifest in the store lists counts as saved: should the instance be gone the next
//! moment, that is what is left.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use bursar_model::{
    AttemptId, Timestamp,
    agent_api::{AttemptOrder, Data, StoreAccess},
};
use bursar_storage::{Place, Saved, StorageError, explain, store_outputs};
use tokio::time::Instant;

use crate::{data::ShelfSlot, folder::Folder, job::Job, wall_clock};

/// Between two looks for something new. As long as a save takes, it rests at least, so that it takes half of the line.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A file that was written so long ago is taken to be all there: programs that write several in one go need less between
/// them, and those that need more give them hidden names or `*.tmp` first.
const SETTLED: bursar_model::Span = bursar_model::Span::from_secs(1);

/// After a failure. The store was asked again and again already.
const REST_AFTER_FAILURE: Duration = Duration::from_secs(10);

/// Stores the work of one attempt.
#[derive(Debug)]
pub(crate) struct Saver {
    attempt: AttemptId,
    number: u32,
    /// Whether checkpoints are stored.
    saves: bool,
    checkpoints: PathBuf,
    work: PathBuf,
    outputs: BTreeMap<String, StoreAccess>,
    shelf: ShelfSlot,
    job: Option<Job<Outcome>>,
    not_before: Option<Instant>,
    newest: Option<Kept>,
    /// The last try failed, and the experiment's log says so.
    failing: bool,
    /// A later attempt has begun: there is nothing to be stored any more.
    fenced: bool,
    /// How far the end is.
    ending: Ending,
}

/// A checkpoint that is stored.
#[derive(Debug, Clone, Copy)]
struct Kept {
    /// As of when the work is safe.
    as_of: Timestamp,
    took: Duration,
}

/// What is done when nothing of the attempt runs any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    NotYet,
    Checkpoint,
    Outputs,
    Done,
}

#[derive(Debug)]
enum Outcome {
    Checkpoint {
        result: Result<Option<Saved>, StorageError>,
        took: Duration,
    },
    /// What there is to say of each.
    Outputs(Vec<String>),
}

impl Saver {
    /// Nothing where the attempt stores nothing.
    pub(crate) fn new(order: &AttemptOrder, data: &Data, folder: &Folder, shelf: ShelfSlot) -> Option<Self> {
        let saves = data.checkpoints.is_some();
        (saves || !data.outputs.is_empty()).then(|| Self {
            attempt: order.attempt,
            number: order.number,
            saves,
            checkpoints: folder.checkpoints(),
            work: folder.work(),
            outputs: data.outputs.clone(),
            shelf,
            job: None,
            not_before: None,
            newest: None,
            failing: false,
            fenced: false,
            ending: Ending::NotYet,
        })
    }

    /// Whether it is this that says when the work was saved.
    pub(crate) fn saves(&self) -> bool {
        self.saves
    }

    /// As of when the work is safe, and how long that took to store.
    pub(crate) fn newest(&self) -> Option<(Timestamp, Duration)> {
        self.newest.map(|kept| (kept.as_of, kept.took))
    }

    /// Looks after an attempt that runs: takes in what was stored, and begins to store what is new. What there is to say
    /// goes to `note`.
    pub(crate) fn look(&mut self, now: Instant, note: impl Fn(&str)) {
        self.take_in(now, None, &note);
        if self.saves && !self.fenced && self.job.is_none() && self.not_before.is_none_or(|at| now >= at) {
            self.save(Some(wall_clock() - SETTLED));
        }
    }

    /// Stores the last checkpoint and the outputs of an attempt of which nothing runs. Says whether that is done.
    pub(crate) fn finish(
        &mut self,
        now: Instant,
        told_to_stop: Option<Instant>,
        note: impl Fn(&str),
    ) -> bool {
        self.take_in(now, told_to_stop, &note);
        // What began while it still ran may lack what it wrote last.
        while self.job.is_none() && self.ending != Ending::Done {
            match self.ending {
                Ending::NotYet => {
                    self.ending = Ending::Checkpoint;
                    if self.saves && !self.fenced {
                        self.save(None);
                    }
                }
                Ending::Checkpoint => {
                    self.ending = Ending::Outputs;
                    if !self.outputs.is_empty() && !self.fenced {
                        self.store_outputs();
                    }
                }
                Ending::Outputs | Ending::Done => self.ending = Ending::Done,
            }
        }
        self.ending == Ending::Done
    }

    /// Gives up what is under way.
    pub(crate) fn give_up(&mut self, note: impl Fn(&str)) {
        match self.ending {
            Ending::Checkpoint => note("the time is over: its last checkpoint is not stored"),
            Ending::Outputs => note("the time is over: its outputs are not stored"),
            Ending::NotYet | Ending::Done => {}
        }
        self.job = None;
        self.ending = Ending::Done;
    }

    fn take_in(&mut self, now: Instant, told_to_stop: Option<Instant>, note: &impl Fn(&str)) {
        let Some(outcome) = self.job.as_mut().and_then(Job::poll) else { return };
        self.job = None;
        let at_the_end = self.ending == Ending::Checkpoint;
        match outcome {
            Ok(Outcome::Checkpoint { result: Ok(saved), took }) => {
                self.failing = false;
                self.not_before = Some(now + took.max(LOOK_EVERY));
                if let Some(saved) = saved {
                    // From the word to the manifest, where there was a word: that is what a notice has to be enough for.
                    let from_the_word = told_to_stop.filter(|_| at_the_end).map(|told| now - told);
                    let as_of = Timestamp::from_millis(saved.modified_ms).min(wall_clock());
                    self.newest = Some(Kept { as_of, took: from_the_word.unwrap_or(took) });
                    if at_the_end {
                        note(&format!(
                            "stored the last checkpoint: {} files, {} bytes",
                            saved.files, saved.bytes
                        ));
                    }
                }
            }
            // It is being written: another look will find it whole.
            Ok(Outcome::Checkpoint { result: Err(StorageError::Changed(_)), .. }) if !at_the_end => {
                self.not_before = Some(now + LOOK_EVERY);
            }
            Ok(Outcome::Checkpoint { result: Err(error), .. }) => {
                self.fenced |= matches!(error, StorageError::Fenced(_));
                self.failed(now, &explain(&error), note);
            }
            Ok(Outcome::Outputs(said)) => said.iter().for_each(|line| note(line)),
            Err(error) => self.failed(now, &error.to_string(), note),
        }
    }

    fn failed(&mut self, now: Instant, why: &str, note: &impl Fn(&str)) {
        tracing::warn!(attempt = %self.attempt, why, "the work of an attempt cannot be stored");
        if !self.failing || self.ending != Ending::NotYet {
            note(&format!("cannot be stored: {why}"));
        }
        self.failing = true;
        self.not_before = Some(now + REST_AFTER_FAILURE);
    }

    fn save(&mut self, settled: Option<Timestamp>) {
        // It is not there where the attempt was never prepared.
        let Some(mut shelf) = self.shelf.take() else { return };
        let (slot, folder) = (self.shelf.clone(), self.checkpoints.clone());
        self.job = Some(Job::begin(move || async move {
            let began = Instant::now();
            let result = shelf.save(&folder, settled.map(Timestamp::as_millis)).await;
            let took = began.elapsed();
            // Not at the end: nothing is to be waited for then but what counts.
            if matches!(result, Ok(Some(_)))
                && settled.is_some()
                && let Err(error) = shelf.clear().await
            {
                tracing::debug!(error = explain(&error), "old checkpoints are left for the next time");
            }
            slot.put(shelf);
            Outcome::Checkpoint { result, took }
        }));
    }

    fn store_outputs(&mut self) {
        // What goes to one place goes there with one listing.
        let mut by_place: BTreeMap<String, (StoreAccess, Vec<String>)> = BTreeMap::new();
        for (path, access) in &self.outputs {
            let (_, paths) =
                by_place.entry(access.url.clone()).or_insert_with(|| (access.clone(), Vec::new()));
            paths.push(path.clone());
        }
        let (attempt, number, work) = (self.attempt, self.number, self.work.clone());
        self.job = Some(Job::begin(move || async move {
            let mut said = Vec::new();
            for (access, paths) in by_place.into_values() {
                let stored = match Place::open(&access) {
                    Ok(place) => store_outputs(&place, number, attempt, &work, &paths).await,
                    Err(error) => Err(error),
                };
                match stored {
                    Ok(outputs) => {
                        let bytes: u64 = outputs.files.iter().map(|file| file.size).sum();
                        said.push(format!("stored outputs: {} files, {bytes} bytes", outputs.files.len()));
                        let missing = outputs.missing.iter();
                        said.extend(missing.map(|path| format!("there is no `{path}` among its outputs")));
                    }
                    Err(error) => said.push(format!("outputs cannot be stored: {}", explain(&error))),
                }
            }
            Outcome::Outputs(said)
        }));
    }
}
