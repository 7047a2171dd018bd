//! One module for each group of commands.

mod budget;
mod config;
mod doctor;
mod explain;
mod focus;
mod instance;
mod list;
mod logs;
mod metrics;
mod notifications;
mod outputs;
mod plan;
mod reconcile;
mod report;
mod rerun;
mod serve;
mod show;
mod simulate;
mod submit;
mod wait;

use std::{future::Future, path::Path};

use bursar_config::{Checked, Config, ConfigFile, Problem, Problems, ReadError, read_config};
use clap::CommandFactory;

pub(crate) use self::{instance::programs, report::text as report_text, serve::init_logging, submit::user};
use crate::{
    args::{Cli, Command, Global},
    client::Client,
    exit::{Failure, NOT_FOUND, OK, Outcome, USAGE},
    output::{note, write_all},
    source::Source,
};

/// Runs what was typed.
pub(crate) fn run(cli: Cli) -> Outcome {
    let Cli { global, command } = cli;
    let context = || Context::new(&global);
    match command {
        Command::Serve(serve) => serve::run(&global, &serve),
        Command::Submit(submit) => block_on(submit::run(context()?, submit, false)),
        Command::Sweep(submit) => block_on(submit::run(context()?, submit, true)),
        Command::Ls(wanted) => block_on(list::experiments(context()?, wanted)),
        Command::Sweeps(limit) => block_on(list::sweeps(context()?, limit)),
        Command::Show(named) => block_on(show::run(context()?, named)),
        Command::Logs(wanted) => block_on(logs::run(context()?, wanted)),
        Command::Rerun(rerun) => block_on(rerun::run(context()?, rerun)),
        Command::Outputs(wanted) => block_on(outputs::run(context()?, wanted)),
        Command::Metrics(wanted) => block_on(metrics::run(context()?, wanted)),
        Command::Cancel(wanted) => block_on(submit::cancel(context()?, wanted)),
        Command::Explain(named) => block_on(explain::run(context()?, named)),
        Command::Plan(wanted) => block_on(plan::run(context()?, wanted)),
        Command::Offers(wanted) => block_on(list::offers(context()?, wanted)),
        Command::Instances(wanted) => block_on(list::instances(context()?, wanted)),
        Command::Budgets => block_on(budget::list(context()?)),
        Command::Budget(command) => block_on(budget::change(context()?, command)),
        Command::Report(wanted) => block_on(report::run(context()?, wanted)),
        Command::Reconcile(wanted) => block_on(reconcile::run(context()?, wanted)),
        Command::Notifications(wanted) => block_on(notifications::run(context()?, wanted)),
        Command::Doctor => block_on(doctor::run(&global)),
        Command::Config(command) => config::run(&global, command),
        Command::Simulate(command) => simulate::run(&global, command),
        Command::Demo(demo) => crate::demo::run(&demo, global.json),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "bursar", &mut script);
            write_all(&script)?;
            Ok(OK)
        }
        Command::Man { folder } => man(&folder),
        Command::Agent(agent) => instance::agent(&agent),
        Command::LocalHost(host) => instance::local_host(&host),
        Command::DemoTrain(train) => crate::demo::train_command(&train),
    }
}

/// What most commands need: the configuration and the daemon that it speaks of.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) config: Config,
    pub(crate) client: Client,
    pub(crate) json: bool,
    /// The daemon was named by the configuration and not by an address, so its store may be on this machine.
    pub(crate) is_local: bool,
    /// There is a configuration, or there need not be one.
    is_configured: bool,
}

impl Context {
    fn new(global: &Global) -> Result<Self, Failure> {
        let ConfigFile { file, config } = read(global.config.as_deref())?;
        let is_configured = file.is_some() || global.url.is_some();
        let address = config.listen;
        let url = global.url.clone().unwrap_or_else(|| {
            if address.ip().is_unspecified() {
                format!("http://127.0.0.1:{}", address.port())
            } else {
                format!("http://{address}")
            }
        });
        let mut client = Client::new(&url)?;
        if !is_configured {
            client = client.unconfigured();
        }
        Ok(Self { config, client, json: global.json, is_local: global.url.is_none(), is_configured })
    }

    /// Where reading commands read.
    pub(crate) async fn source(&self) -> Result<Source, Failure> {
        Source::find(self.client.clone(), &self.config, self.is_local).await
    }

    /// Why a spec could not be used. What it names may stand in a configuration that was not found.
    pub(crate) fn spec_unreadable(&self, error: ReadError) -> Failure {
        let is_of_configuration = |problem: &Problem| {
            ["project", "outputs"].iter().any(|key| problem.key_path.split('.').next() == Some(key))
        };
        let may_be_elsewhere = !self.is_configured
            && matches!(&error, ReadError::Invalid(Problems(problems)) if problems.iter().any(is_of_configuration));
        let failure = unreadable("the spec")(error);
        if may_be_elsewhere { failure.hint(UNCONFIGURED) } else { failure }
    }

    /// What specs are checked against before they are sent: the projects of a daemon elsewhere are not known here.
    pub(crate) fn known(&self) -> Option<&Config> {
        self.is_local.then_some(&self.config)
    }
}

/// Reads the configuration and shows what looks wrong in it.
pub(crate) fn read(given: Option<&Path>) -> Result<ConfigFile, Failure> {
    let Checked { value, warnings } = read_config(given).map_err(unreadable(CONFIGURATION))?;
    show_warnings(&warnings);
    Ok(value)
}

/// What to do where the defaults stand for a configuration that somebody may have meant.
pub(crate) const UNCONFIGURED: &str = "no configuration was found (./bursar.yaml or ~/.config/bursar/bursar.yaml), so the defaults stand; name one by --config or BURSAR_CONFIG";

/// What `unreadable` calls the configuration, of which the environment is a part: there may be no file at all.
pub(crate) const CONFIGURATION: &str = "the configuration";

/// What could not be used, with the exit code that says why.
pub(crate) fn unreadable(what: &str) -> impl Fn(ReadError) -> Failure {
    move |error| match error {
        ReadError::NotFound(_) => Failure::new(NOT_FOUND, error.to_string()),
        ReadError::Invalid(problems) => Failure::new(USAGE, format!("{what} has problems\n{problems}")),
        ReadError::TooLarge(_) | ReadError::NotUtf8 { .. } => Failure::new(USAGE, error.to_string()),
        ReadError::Unreadable { .. } => error.into(),
    }
}

/// Shows what may be meant but looks wrong.
pub(crate) fn show_warnings(warnings: &[Problem]) {
    for warning in warnings {
        note(&format!("warning: {warning}"));
    }
}

/// Writes a manual page for each command that is not hidden.
#[expect(clippy::disallowed_methods, reason = "the folder that was asked for is made here")]
fn man(folder: &Path) -> Outcome {
    std::fs::create_dir_all(folder)?;
    clap_mangen::generate_to(Cli::command(), folder)?;
    Ok(OK)
}

/// Runs a command's future on this thread.
pub(crate) fn block_on(future: impl Future<Output = Outcome>) -> Outcome {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}
