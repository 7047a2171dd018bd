//! What runs on instances: the agent, the local machine that it runs on, and the start of attempts.

use bursar_daemon::serve::Programs;
use bursar_providers::local::Program;

use crate::{
    args::{Agent, LocalHost},
    exit::{Failure, OK, Outcome},
};

/// How this program starts itself as host and agent of a local instance.
pub(crate) fn programs() -> Result<Programs, Failure> {
    let path = std::env::current_exe()?;
    let with = |command: &str| Program { path: path.clone(), args: vec![command.to_owned()] };
    Ok(Programs { host: with("local-host"), agent: with("agent") })
}

/// `bursar agent`: the worker on an instance, until its lease ends or it is told to power off.
pub(super) fn agent(agent: &Agent) -> Outcome {
    super::init_logging(0, false);
    bursar_agent::run(bursar_agent::AgentSettings::read(&agent.settings)?)?;
    Ok(OK)
}

/// `bursar local-host`: plays the machine that a local instance is.
pub(super) fn local_host(host: &LocalHost) -> Outcome {
    super::init_logging(0, false);
    bursar_providers::local::host::run(&host.folder)?;
    Ok(OK)
}
