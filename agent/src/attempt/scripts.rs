//! How an attempt's scripts are started, and what their exit codes mean.

use std::{collections::BTreeMap, path::Path};

use bursar_model::{
    AttemptEnd,
    agent_api::{AttemptOrder, Work},
};
use rustix::process::Pid;
use tokio::time::Instant;

use super::{Attempt, Removal, Stage, Started};
use crate::{
    containers::Engine,
    folder::Folder,
    prepare::Setup,
    rendezvous,
    runtime::{Container, Runtime},
    settings::AgentSettings,
    wall_clock,
};

/// Variables that say who an attempt is: no parameter of a trial stands for them.
const OURS: [&str; 2] = ["BURSAR_", "CUDA_VISIBLE_DEVICES"];

/// What a client answers, and a shell, whose process was killed by the kernel: 128 and the number of SIGKILL.
const KILLED: i32 = 137;

/// What an engine's client answers where it could not run the container.
const NOT_RUN: i32 = 125;

impl Attempt {
    pub(super) fn start_setup(&mut self, now: Instant) {
        let Some(script) = self.work.setup.take() else { return self.start_run(now) };
        let place = match &self.setup {
            Setup::Done(made) => {
                self.folder.comes_with(made.path().to_owned());
                self.folder.note("setup: done on this instance before, with the same workdir, image, envs and secrets; not run again");
                return self.start_run(now);
            }
            Setup::ToDo(turn) => {
                self.folder.comes_with(turn.path());
                turn.path()
            }
            Setup::Here => self.folder.work(),
        };
        // Where it ran is where it stays: what it made, such as a virtual environment, may name itself by its path.
        let mut env = self.env.clone();
        env.insert("HOME".to_owned(), place.display().to_string());
        self.start(&script, &self.folder.working_in(place), &env, now, |shell| Stage::Setup { shell });
    }

    pub(super) fn start_run(&mut self, now: Instant) {
        let run = std::mem::take(&mut self.work.run);
        // What lies there already is no work of this attempt, whatever its time says.
        let wall = wall_clock();
        let _ = self.checkpoints.newest(wall);
        let mut env = std::mem::take(&mut self.work.params);
        env.retain(|name, _| !OURS.iter().any(|ours| name.starts_with(ours)));
        // What `setup` makes outlives the nodes that there are now.
        env.extend(rendezvous::variables(&self.work));
        for (name, value) in &self.env {
            env.entry(name.clone()).or_insert_with(|| value.clone());
        }
        self.start(&run, &self.folder.clone(), &env, now, |shell| Stage::Running { shell });
        if matches!(self.stage, Stage::Running { .. }) {
            self.started = Some(Started { at: now, wall });
        }
    }

    pub(super) fn start(
        &mut self,
        script: &str,
        folder: &Folder,
        env: &BTreeMap<String, String>,
        now: Instant,
        stage: fn(Pid) -> Stage,
    ) {
        self.mark.container = None;
        if let Runtime::Container(_) = self.runtime {
            self.removal = Removal::Needed;
        }
        match self.runtime.start(script, folder, env) {
            Ok(shell) => {
                tracing::info!(attempt = %self.id, name = self.work.name, pid = shell.as_raw_pid(), "started");
                self.mark.session = Some(shell);
                self.stage = stage(shell);
            }
            Err(error) => {
                let error = format!("cannot start a script in {}: {error}", folder.work().display());
                self.stage = Stage::Over { end: AttemptEnd::NotStarted { error }, at: now };
            }
        }
    }

    /// Says in the log what an exit code means where only we know.
    pub(super) fn explain(&self, end: &AttemptEnd) {
        let Runtime::Container(container) = &self.runtime else { return };
        match end {
            AttemptEnd::Exited { code: KILLED } => self.folder.note(&format!(
                "a process of the container was killed: most likely all together took more than the {} MiB of \
                 memory that the experiment asks for (resources.memory)",
                container.memory_mib()
            )),
            AttemptEnd::Exited { code: NOT_RUN } => {
                self.folder.note("exit code 125 is that of the container engine where it cannot run a container");
            }
            AttemptEnd::Exited { .. }
            | AttemptEnd::Killed { .. }
            | AttemptEnd::NotStarted { .. }
            | AttemptEnd::InstanceLost { .. }
            | AttemptEnd::Stopped { .. } => {}
        }
    }
}

/// What the work asks for.
pub(super) fn runtime(
    order: &AttemptOrder,
    work: &Work,
    settings: &AgentSettings,
    checkpoints: &Path,
) -> Runtime {
    let Some(container) = &work.container else { return Runtime::Process };
    // Where there is neither, the pull says so.
    let engine = settings.container_engine.or_else(Engine::detect).unwrap_or(Engine::Podman);
    Runtime::Container(Box::new(Container::new(
        engine,
        settings.instance,
        order.attempt,
        container.clone(),
        work.devices.clone(),
        checkpoints.to_owned(),
    )))
}
