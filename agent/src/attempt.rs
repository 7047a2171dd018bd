//! One attempt on this instance: from its order to the moment at which nothing of it runs and its log is delivered.

mod report;
mod scripts;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use bursar_model::{
    AttemptEnd, AttemptId, POINTS_BYTES_MAX, StopReason, Timestamp,
    agent_api::{AttemptOrder, LOG_BYTES_MAX, Work},
};
use rustix::process::{Pid, WaitStatus, getpid};
use tokio::{task::AbortHandle, time::Instant};

use self::report::Record;
use crate::{
    cache::Held,
    checkpoints::Checkpoints,
    containers::Engine,
    data::{Fetching, ShelfSlot},
    deadline::LONGEST,
    delivery::Delivery,
    folder::Folder,
    mask::Mask,
    metrics::Metrics,
    notice::Notice,
    prepare::{Keeping, Preparation, Prepared, Setup},
    processes::{self, Mark, Which},
    provenance,
    runtime::{Pull, Runtime},
    saver::Saver,
    settings::AgentSettings,
    usage::{IdleGpus, Sample, Subject, probe_mark},
    workdir::{Carrier, WantedBy},
};

/// How often a running attempt's log is looked at.
const LOG_TICK: Duration = Duration::from_millis(250);

/// How long new parts of a log are gathered: not to be noticed by whoever follows it.
const LOG_GATHER: Duration = Duration::from_millis(150);

/// How long new metrics are gathered: a plot may be so old.
const POINTS_GATHER: Duration = Duration::from_secs(2);

/// How much of its log an attempt may keep on the instance: what the daemon takes, and a byte more that tells it so.
const LOG_BYTES_KEPT: u64 = LOG_BYTES_MAX + 1;

/// The variable that every process of a node has in its environment: it tells them from all others, those of other nodes of
/// the attempt included.
pub(crate) const NODE_VARIABLE: &str = "BURSAR_NODE_ID";

/// How often is looked for what is left of an attempt whose shell has ended.
const CLEARING_TICK: Duration = Duration::from_millis(50);

/// An attempt that the daemon wants here.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) id: AttemptId,
    /// The daemon no longer lists it: it is removed as soon as nothing of it runs.
    pub(crate) forgotten: bool,
    /// When this agent got it.
    begun: Instant,
    folder: Folder,
    log: Delivery,
    points: Delivery,
    checkpoints: Checkpoints,
    /// Which node of which attempt it is, in one word.
    node: String,
    /// What its processes are known by; the session is that of the script that ran last.
    mark: Mark,
    env: BTreeMap<String, String>,
    work: Work,
    runtime: Runtime,
    removal: Removal,
    record: Record,
    /// What `setup` made, or is to make: held so that it stays.
    setup: Setup,
    /// What is done aside for it.
    aside: Option<AbortHandle>,
    stage: Stage,
    stop: Option<Stop>,
    /// When `run` started.
    started: Option<Started>,
    metrics: Metrics,
    /// 1 for the first of its experiment.
    number: u32,
    /// Where what is fetched to this instance is kept for the next attempt.
    cache: PathBuf,
    shelf: ShelfSlot,
    /// Stores what it made, where that is to outlive the instance.
    saver: Option<Saver>,
    idle_gpus: IdleGpus,
    /// When to look for metrics again.
    look_at: Instant,
    /// It is over, and all that it reported was taken in.
    reported: bool,
    /// It was shown that the cloud takes the instance back.
    noticed: bool,
}

#[derive(Debug)]
enum Stage {
    /// What it starts with is brought here.
    Preparing,
    /// `setup` runs.
    Setup { shell: Pid },
    /// What `setup` made becomes the working folder.
    Keeping,
    /// `run` runs.
    Running { shell: Pid },
    /// The shell has ended; whatever it left behind is waited for or killed.
    Clearing { end: AttemptEnd },
    /// Nothing of it runs, and what it made is being stored: until then, where it was told so after its end.
    Saving { end: AttemptEnd, until: Option<Instant> },
    /// Nothing of it runs, and nothing more is stored.
    Over { end: AttemptEnd, at: Instant },
}

/// What has to be done about its containers before it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Removal {
    /// There are none.
    NotNeeded,
    /// There are, or may be: once nothing of it runs they are removed.
    Needed,
    /// Nothing of it runs.
    Due,
    /// The engine was told.
    UnderWay,
}

#[derive(Debug, Clone, Copy)]
struct Started {
    at: Instant,
    wall: Timestamp,
}

/// We ended it.
#[derive(Debug, Clone, Copy)]
struct Stop {
    at: Instant,
    why: StopReason,
    kill_at: Instant,
}

impl Attempt {
    /// An attempt that is to be prepared.
    pub(crate) fn new(order: &AttemptOrder, work: Work, settings: &AgentSettings, now: Instant) -> Self {
        let folder = Folder::new(&settings.work_dir, order.attempt);
        // Several nodes of one attempt may be on one machine: each knows its own processes.
        let node = format!("{}/{}", order.attempt, settings.instance);
        let checkpoints = match work.data.checkpoints {
            Some(_) => folder.checkpoints(),
            None => settings.checkpoint_root.join(order.experiment.to_string()),
        };
        let shelf = ShelfSlot::default();
        // Of several nodes the first stores for all: they would overwrite what the others store.
        let stores = work.rank == 0;
        let saver = stores.then(|| Saver::new(order, &work.data, &folder, shelf.clone())).flatten();
        let runtime = scripts::runtime(order, &work, settings, &checkpoints);
        let mut env = runtime.base_environment(&folder);
        // What `setup` makes serves other trials too, so it knows nothing of the parameters: `run` gets them.
        env.extend(work.envs.iter().map(|(name, value)| (name.clone(), value.clone())));
        let login = work.container.as_ref().and_then(|container| container.registry.as_ref());
        let hidden = work.secrets.iter().filter_map(|name| work.envs.get(name));
        let hidden = hidden.chain(login.map(|login| &login.password)).map(String::as_str);
        for (name, value) in [
            ("BURSAR_EXPERIMENT_ID", order.experiment.to_string()),
            ("BURSAR_ATTEMPT_ID", order.attempt.to_string()),
            ("BURSAR_ATTEMPT", order.number.to_string()),
            ("BURSAR_INSTANCE_ID", settings.instance.to_string()),
            (NODE_VARIABLE, node.clone()),
            ("BURSAR_CHECKPOINT_DIR", checkpoints.display().to_string()),
            ("BURSAR_METRICS", folder.metrics().display().to_string()),
            ("BURSAR_NOTICE_FILE", folder.notice().display().to_string()),
            // Set even when empty: without the variable, CUDA would show every device.
            ("CUDA_VISIBLE_DEVICES", runtime.visible_devices(&work.devices)),
        ] {
            env.insert(name.to_owned(), value);
        }
        Self {
            id: order.attempt,
            forgotten: false,
            begun: now,
            log: Delivery::new(folder.log(), LOG_BYTES_KEPT, LOG_GATHER, Mask::new(hidden)),
            points: Delivery::new(folder.points(), POINTS_BYTES_MAX, POINTS_GATHER, Mask::default()),
            metrics: Metrics::new(&folder),
            mark: Mark { variable: format!("{NODE_VARIABLE}={node}"), session: None, container: None },
            node,
            folder,
            checkpoints: Checkpoints::new(checkpoints),
            env,
            work,
            runtime,
            removal: Removal::NotNeeded,
            record: Record::Open,
            setup: Setup::Here,
            aside: None,
            stage: Stage::Preparing,
            stop: None,
            started: None,
            number: order.number,
            cache: settings.work_dir.join("cache"),
            shelf,
            saver,
            idle_gpus: IdleGpus::default(),
            look_at: now,
            reported: false,
            noticed: false,
        }
    }

    /// An attempt that was to stop before this agent heard of it.
    pub(crate) fn never_started(
        order: &AttemptOrder,
        why: StopReason,
        settings: &AgentSettings,
        now: Instant,
    ) -> Self {
        let mut attempt = Self::new(order, Work::default(), settings, now);
        attempt.stop = Some(Stop { at: now, why, kill_at: now });
        attempt.stage = Stage::Over { end: AttemptEnd::Stopped { why }, at: now };
        attempt
    }

    /// All that has to be there before its first script: to be done aside, as it may take long.
    pub(crate) fn preparation(&mut self, carrier: Carrier) -> Preparation {
        let pull = match (&self.runtime, &self.work.container) {
            (Runtime::Container(container), Some(work)) => Some(Pull {
                engine: container.engine(),
                work: work.clone(),
                mark: (NODE_VARIABLE, self.node.clone()),
                helpers: carrier.helpers.clone(),
            }),
            (Runtime::Process | Runtime::Container(_), _) => None,
        };
        let data = std::mem::take(&mut self.work.data);
        // What is brought into the working folder itself is not in the folder that is kept.
        let can_keep_setup = data.mounts.is_empty() && data.checkpoint_path.is_none();
        let fetching = Fetching {
            attempt: self.id,
            number: self.number,
            folder: self.folder.clone(),
            checkpoints: self.checkpoints.folder().to_owned(),
            cache: self.cache.clone(),
            shelf: self.shelf.clone(),
            data,
        };
        Preparation {
            folder: self.folder.clone(),
            carrier,
            workdir: self.work.workdir.clone(),
            wanted_by: WantedBy { node: self.node.clone(), envs: self.work.envs.clone() },
            setup_key: self.work.setup_key.filter(|_| self.work.setup.is_some() && can_keep_setup),
            checkpoints: self.checkpoints.folder().to_owned(),
            pull,
            fetching: Some(fetching).filter(|fetching| !fetching.data.is_empty()),
        }
    }

    /// All is there for its first script, or cannot be.
    pub(crate) fn prepared(&mut self, result: Result<Prepared, String>, now: Instant) {
        // It came while the attempt was stopped.
        if !matches!(self.stage, Stage::Preparing) {
            return;
        }
        let Prepared { image, setup } = match result {
            Ok(prepared) => prepared,
            Err(error) => {
                self.stage = Stage::Over { end: AttemptEnd::NotStarted { error }, at: now };
                return;
            }
        };
        self.record = Record::Made { ran_with: provenance::ran_with(image.as_ref()), sent: false };
        if let (Runtime::Container(container), Some(image)) = (&mut self.runtime, image) {
            container.set_image(image);
        }
        self.setup = setup;
        self.start_setup(now);
    }

    /// Something is done aside for it from now on, which is given up when it is stopped.
    pub(crate) fn waits_for(&mut self, task: AbortHandle) {
        self.aside = Some(task);
    }

    /// What `setup` made is to be kept, once: to be done aside, as it may take long.
    pub(crate) fn keeping(&mut self) -> Option<Keeping> {
        if !matches!(self.stage, Stage::Keeping) {
            return None;
        }
        match std::mem::replace(&mut self.setup, Setup::Here) {
            Setup::ToDo(turn) => Some(Keeping { folder: self.folder.clone(), turn }),
            Setup::Here | Setup::Done(_) => None,
        }
    }

    /// The working folder is as `setup` made it, or cannot be.
    pub(crate) fn kept(&mut self, result: Result<Held, String>, now: Instant) {
        match result {
            // It came while the attempt was stopped.
            _ if !matches!(self.stage, Stage::Keeping) => {}
            Ok(held) => {
                self.setup = Setup::Done(held);
                self.start_run(now);
            }
            Err(error) => self.clear(AttemptEnd::NotStarted { error }),
        }
    }

    /// A child of the agent ended: says whether it was this attempt's shell.
    pub(crate) fn exited(&mut self, pid: Pid, status: WaitStatus, now: Instant) -> bool {
        let in_setup = match self.stage {
            Stage::Setup { shell } if shell == pid => true,
            Stage::Running { shell } if shell == pid => false,
            Stage::Setup { .. }
            | Stage::Running { .. }
            | Stage::Preparing
            | Stage::Keeping
            | Stage::Clearing { .. }
            | Stage::Saving { .. }
            | Stage::Over { .. } => return false,
        };
        let end = match (self.stop, status.exit_status()) {
            (Some(stop), _) => AttemptEnd::Stopped { why: stop.why },
            // It may have saved and left before anybody told it to: no failure of its own.
            (None, code) if self.noticed && code != Some(0) => {
                AttemptEnd::Stopped { why: StopReason::Interrupted }
            }
            (None, Some(code)) => AttemptEnd::Exited { code },
            (None, None) => AttemptEnd::Killed { signal: status.terminating_signal().unwrap_or_default() },
        };
        if in_setup && end == (AttemptEnd::Exited { code: 0 }) {
            match self.setup {
                Setup::ToDo(_) => self.stage = Stage::Keeping,
                Setup::Here | Setup::Done(_) => self.start_run(now),
            }
        } else {
            self.explain(&end);
            if in_setup {
                self.folder.note(&format!("setup: {end}; run is not started"));
            }
            self.clear(end);
        }
        true
    }

    /// Asks its processes to end, and lets them be killed after the grace, or earlier where that was said before. The
    /// first reason stands, unless it was to go on elsewhere and now it is not to go on at all.
    pub(crate) fn stop(&mut self, why: StopReason, kill_at: Instant, may_save: bool) {
        if let Some(stop) = &mut self.stop {
            stop.kill_at = stop.kill_at.min(kill_at);
            if stop.why.requeues() && !why.requeues() {
                stop.why = why;
                if let Stage::Clearing { end } | Stage::Saving { end, .. } | Stage::Over { end, .. } =
                    &mut self.stage
                {
                    *end = AttemptEnd::Stopped { why };
                }
            }
            return;
        }
        self.look_for_container();
        match self.stage {
            // Without time to save, a signal to save would leave half of a checkpoint: it is killed at the next look.
            Stage::Setup { .. } | Stage::Running { .. } if !may_save => {}
            Stage::Setup { shell } | Stage::Running { shell } => self.runtime.ask_to_end(shell, &self.mark),
            // Nothing is to be saved: what is on its way is given up.
            Stage::Preparing | Stage::Keeping => {
                self.aside.take().iter().for_each(AbortHandle::abort);
                self.kill();
                self.clear(AttemptEnd::Stopped { why });
            }
            // It ended of itself, and what it made is being stored: for no longer than this.
            Stage::Saving { ref mut until, .. } => {
                *until = Some(until.map_or(kill_at, |until| until.min(kill_at)));
                return;
            }
            // It ended of itself: what it left behind is being killed already.
            Stage::Clearing { .. } | Stage::Over { .. } => return,
        }
        tracing::info!(attempt = %self.id, %why, "stopping");
        self.stop = Some(Stop { at: Instant::now(), why, kill_at });
    }

    /// Does what is due: kills what outstayed the grace, and notices that nothing is left. `live` are the marks of all
    /// attempts that are not over.
    pub(crate) fn turn(&mut self, now: Instant, live: &[Mark]) {
        let age = now.saturating_duration_since(self.begun);
        if self.is_over() {
            self.reported = self.reported || self.metrics.finish(&self.folder, age);
        } else {
            self.log.cut();
            self.look_for_container();
            // Turns come as often as messages do; files are read as often as is said.
            if now >= self.look_at {
                self.look_at = now + LOG_TICK;
                self.metrics.look(&self.folder, age);
            }
        }
        let grace_over = self.stop.is_none_or(|stop| now >= stop.kill_at);
        match &self.stage {
            Stage::Setup { .. } | Stage::Running { .. } if self.stop.is_some() && grace_over => self.kill(),
            Stage::Preparing
            | Stage::Setup { .. }
            | Stage::Keeping
            | Stage::Running { .. }
            | Stage::Over { .. } => {}
            Stage::Clearing { end } => {
                // What came back to the agent may be this attempt's too: a process may have left its session and cleared
                // its environment. Whose it is cannot be told then, so such are left to the last attempt that clears.
                let others: Vec<Mark> = live.iter().filter(|mark| **mark != self.mark).cloned().collect();
                let alone = others.is_empty();
                let except: Vec<Mark> = others.into_iter().chain([probe_mark()]).collect();
                let strays = Which::DescendedFrom { ancestor: getpid(), except: &except };
                let none_of = |which| match grace_over {
                    true => processes::kill(which),
                    false => processes::find(which).is_empty(),
                };
                let nothing_marked = || none_of(Which::Marked(&self.mark));
                let no_strays = || !alone || none_of(strays);
                match self.removal {
                    // It is over when that is done and not before.
                    Removal::Needed if nothing_marked() && nothing_marked() => {
                        self.removal = Removal::Due;
                        return;
                    }
                    // The engine's own processes are strays too: they are let do what they were told.
                    Removal::Needed | Removal::Due | Removal::UnderWay => return,
                    Removal::NotNeeded => {}
                }
                let nothing_left = || nothing_marked() & no_strays();
                if nothing_left() && nothing_left() {
                    tracing::info!(attempt = %self.id, %end, "ended");
                    self.stage = Stage::Saving { end: end.clone(), until: None };
                    self.save(now);
                }
            }
            Stage::Saving { .. } => self.save(now),
        }
        if let (Stage::Running { .. }, Some(saver)) = (&self.stage, &mut self.saver) {
            saver.look(now, |line| self.folder.note(line));
        }
    }

    /// Stores what it made, and is over when that is done or its time is.
    fn save(&mut self, now: Instant) {
        let Stage::Saving { end, until } = &self.stage else { return };
        let told_to_stop = self.stop.map(|stop| stop.at);
        let note = |line: &str| self.folder.note(line);
        let mut saver = self.saver.as_mut().filter(|_| self.started.is_some());
        let done = saver.as_mut().is_none_or(|saver| saver.finish(now, told_to_stop, note));
        let until = until.iter().copied().chain(self.stop.map(|stop| stop.kill_at)).min();
        let time_is_over = self.forgotten || until.is_some_and(|until| now >= until);
        if !done && !time_is_over {
            return;
        }
        if let Some(saver) = saver.filter(|_| !done) {
            saver.give_up(note);
        }
        self.stage = Stage::Over { end: end.clone(), at: now };
    }

    /// Kills all its processes, without a grace. Says whether there were none.
    pub(crate) fn kill_all(&self) -> bool {
        processes::kill(Which::Marked(&self.mark))
    }

    /// The engine whose containers of this attempt are to be removed now, if so. `containers_removed` must follow.
    pub(crate) fn begin_removal(&mut self) -> Option<Engine> {
        let Runtime::Container(container) = &self.runtime else { return None };
        let due = self.removal == Removal::Due;
        due.then(|| {
            self.removal = Removal::UnderWay;
            container.engine()
        })
    }

    /// Its containers are gone, or the engine does not do what it is told. What is left then is dead, and the end of the
    /// instance removes it.
    pub(crate) fn containers_removed(&mut self, result: Result<(), String>) {
        if let Err(error) = result {
            tracing::error!(attempt = %self.id, error, "an attempt's containers cannot be removed");
        }
        self.removal = Removal::NotNeeded;
    }

    /// What its processes are known by.
    pub(crate) fn mark(&self) -> &Mark {
        &self.mark
    }

    /// What to look at to know what it uses; nothing before its first script and after its end.
    pub(crate) fn subject(&self) -> Option<Subject> {
        let is_there = matches!(self.stage, Stage::Setup { .. } | Stage::Running { .. });
        is_there.then(|| Subject {
            attempt: self.id,
            mark: self.mark.clone(),
            devices: self.work.devices.clone(),
        })
    }

    /// Takes in what it uses.
    pub(crate) fn uses(&mut self, sample: &Sample, now: Instant) {
        if !self.is_over() {
            self.metrics.note_usage(now.saturating_duration_since(self.begun), sample.metrics());
        }
        // While `setup` installs what it needs, no GPU can be used.
        let least = self.work.min_gpu_utilization.filter(|_| matches!(self.stage, Stage::Running { .. }));
        match (least, &sample.gpus) {
            (Some(least), Some(gpus)) => self.idle_gpus.note(gpus, least.into(), now),
            // What is not known is not idle.
            (None, _) | (_, None) => self.idle_gpus = IdleGpus::default(),
        }
    }

    /// When to look at it again if nothing happens.
    pub(crate) fn wake_at(&self, now: Instant) -> Option<Instant> {
        match self.stage {
            Stage::Preparing | Stage::Keeping => None,
            Stage::Setup { .. } | Stage::Running { .. } => {
                let tick = now + LOG_TICK;
                Some(self.stop.map_or(tick, |stop| tick.min(stop.kill_at.max(now + CLEARING_TICK))))
            }
            Stage::Clearing { .. } | Stage::Saving { .. } => Some(now + CLEARING_TICK),
            Stage::Over { .. } if !self.reported => Some(now),
            Stage::Over { .. } => [&self.log, &self.points].into_iter().filter_map(Delivery::retry_at).min(),
        }
    }

    /// Whether nothing of it runs any longer.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over { .. })
    }

    /// How long its processes may take to end where the agent stops it of itself.
    pub(crate) fn grace(&self) -> Duration {
        Duration::from_millis(self.work.grace_ms).min(LONGEST)
    }

    /// Lets the experiment see that the cloud takes the instance back.
    pub(crate) fn show_notice(&mut self, notice: Notice) {
        self.noticed = true;
        let shown = match self.stage {
            Stage::Preparing | Stage::Over { .. } => Ok(()),
            Stage::Setup { .. }
            | Stage::Keeping
            | Stage::Running { .. }
            | Stage::Clearing { .. }
            | Stage::Saving { .. } => self.folder.write_notice(notice),
        };
        if let Err(error) = shown {
            tracing::warn!(attempt = %self.id, %error, "the notice cannot be shown to the experiment");
        }
    }

    /// Its folder, to remove it.
    pub(crate) fn folder(&self) -> &Folder {
        &self.folder
    }

    fn clear(&mut self, end: AttemptEnd) {
        self.stage = Stage::Clearing { end };
    }

    /// A container is known only once its engine has made it.
    fn look_for_container(&mut self) {
        if self.mark.container.is_none() {
            self.mark.container = self.runtime.container_id(&self.folder);
        }
    }

    fn kill(&self) {
        let _ = self.kill_all();
    }
}
