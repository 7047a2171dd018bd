//! How an attempt's scripts run: as plain processes of this machine, or each in a container of one image.
//!
//! Both run the same scripts in the same working folder with the same environment, and both are one child of the agent,
//! started by the shim: the script's shell, or the engine's client that waits for the container. What differs is how its
//! processes are told to end, and that a container is cleared away.

mod container;
mod image;

use std::{collections::BTreeMap, io};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

pub(crate) use self::{
    container::Container,
    image::{Image, Pull},
};
use crate::{
    folder::Folder,
    processes::{self, Mark},
    shim,
};

/// How an attempt's scripts run.
#[derive(Debug)]
pub(crate) enum Runtime {
    /// As processes of this machine.
    Process,
    /// In containers.
    Container(Box<Container>),
}

impl Runtime {
    /// What every attempt finds in its environment before its own variables come on top.
    pub(crate) fn base_environment(&self, folder: &Folder) -> BTreeMap<String, String> {
        let mut environment = shim::base_environment(folder);
        if let Self::Container(_) = self {
            // These are the image's own.
            environment.remove("PATH");
            environment.remove("LANG");
        }
        environment
    }

    /// `CUDA_VISIBLE_DEVICES` where an attempt has these accelerators of the machine. A container sees no others, and
    /// numbers its own from 0.
    pub(crate) fn visible_devices(&self, devices: &[u32]) -> String {
        let numbers: Vec<String> = match self {
            Self::Process => devices.iter().map(u32::to_string).collect(),
            Self::Container(_) => (0..devices.len()).map(|number| number.to_string()).collect(),
        };
        numbers.join(",")
    }

    /// Starts a script; its id is also that of its session and of its process group.
    pub(crate) fn start(
        &mut self,
        script: &str,
        folder: &Folder,
        env: &BTreeMap<String, String>,
    ) -> io::Result<Pid> {
        match self {
            Self::Process => shim::start(shim::script(script, folder, env), folder),
            Self::Container(container) => {
                let command = container.command(script, folder, env)?;
                shim::start(command, folder)
            }
        }
    }

    /// Sends SIGTERM to what `start` started and all that is still in its process group.
    pub(crate) fn ask_to_end(&self, started: Pid, mark: &Mark) {
        // The client would pass the signal on to the script's shell alone, whose children save the work.
        if matches!(self, Self::Container(_)) && processes::terminate_container(mark) {
            return;
        }
        // Until the shim has made its own session there is no such group, only the process.
        if kill_process_group(started, Signal::TERM).is_err() {
            let _ = kill_process(started, Signal::TERM);
        }
    }

    /// The container that runs the script that was started last, once there is one.
    pub(crate) fn container_id(&self, folder: &Folder) -> Option<String> {
        match self {
            Self::Process => None,
            Self::Container(container) => container.id(folder),
        }
    }
}
