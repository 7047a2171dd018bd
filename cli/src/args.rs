//! What can be typed.

use std::{num::NonZeroUsize, ops::Range, path::PathBuf};

use bursar_ledger::bill::Basis;
use bursar_model::Span;
use bursar_sim::replay::Wanted;
use clap::{Args, Parser, Subcommand, ValueHint};

use crate::output::Format;

/// Runs queues of ML experiments on spot and on-demand instances, under budgets that cannot be broken.
#[derive(Debug, Parser)]
#[command(name = "bursar", version, propagate_version = true, max_term_width = 100, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  bursar demo                         see all of it in under a minute, on this machine
  bursar serve                        run the daemon
  bursar submit experiment.yaml       queue an experiment; add --wait to see it end
  bursar plan experiment.yaml         what it would run on and cost, and why not elsewhere
  bursar report --by project,day      who spent what
  bursar reconcile bill.csv.gz        what the cloud asked for, against what was charged

Exit codes: 0 ok, 1 failed, 2 usage, 3 refused by budget or policy, 4 not found, 5 daemon unreachable";

/// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The configuration [default: ./bursar.yaml, then ~/.config/bursar/bursar.yaml]
    #[arg(long, global = true, value_name = "FILE", env = "BURSAR_CONFIG", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
    /// A daemon elsewhere, by its IP address [default: where the configuration has it listen]
    #[arg(long, global = true, value_name = "URL", env = "BURSAR_URL", value_hint = ValueHint::Url)]
    pub(crate) url: Option<String>,
    /// Print one JSON document instead of tables
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say more on standard error; twice for all
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the daemon
    Serve(Serve),
    /// Queue experiments or sweeps
    #[command(
        after_help = "Examples:\n  bursar submit experiment.yaml\n  bursar submit --wait experiment.yaml\n  bursar submit --name try-2 --env LR=0.01 experiment.yaml\n  cat experiment.yaml | bursar submit -"
    )]
    Submit(Submit),
    /// Queue a sweep: an experiment for each combination of parameters
    #[command(after_help = "Examples:\n  bursar sweep sweep.yaml\n  bursar sweep --wait sweep.yaml")]
    Sweep(Submit),
    /// List experiments, the newest first
    #[command(
        after_help = "Examples:\n  bursar ls\n  bursar ls --live\n  bursar ls --sweep digits --state failed --json"
    )]
    Ls(List),
    /// List sweeps, the newest first
    Sweeps(Limit),
    /// Show everything about an experiment, a sweep or an instance
    Show(Show),
    /// Print an experiment's log
    #[command(
        after_help = "Examples:\n  bursar logs my-experiment\n  bursar logs -f my-experiment\n  bursar logs -f --tail 20 --since 10m my-experiment\n  bursar logs --attempt 2 exp_0123456789abc"
    )]
    Logs(Logs),
    /// Queue an experiment once more: the same spec, image, seed and variables; says what can differ all the same
    #[command(
        after_help = "Examples:\n  bursar rerun my-experiment\n  bursar rerun --wait --set LR=0.01 exp_0123456789abc"
    )]
    Rerun(Rerun),
    /// List what an experiment left behind, or fetch it
    #[command(
        after_help = "Examples:\n  bursar outputs my-experiment\n  bursar outputs my-experiment --to results"
    )]
    Outputs(Outputs),
    /// Plot what an experiment reports, or compare the trials of a sweep
    #[command(
        after_help = "Examples:\n  bursar metrics my-experiment\n  bursar metrics my-experiment loss gpu.utilization\n  bursar metrics --csv my-experiment loss > loss.csv\n  bursar metrics digits accuracy --best max"
    )]
    Metrics(Metrics),
    /// End experiments or whole sweeps, with their checkpoints kept
    #[command(after_help = "Of a name that several live ones share none is ended: say which by its id")]
    Cancel(Cancel),
    /// Say why an experiment waits or runs where it does, and what the alternatives cost
    Explain(Named),
    /// Show what an experiment would run on and cost, without launching anything
    #[command(after_help = "Examples:\n  bursar plan experiment.yaml\n  bursar plan --all experiment.yaml")]
    Plan(Plan),
    /// List what can be rented, at today's prices
    Offers(Offers),
    /// List instances, the newest first, or end some early
    #[command(after_help = "Examples:\n  bursar instances --live\n  bursar instances end ins_0123456789abc")]
    Instances(Instances),
    /// List budgets: what is spent, held and left, and when it will be used up
    Budgets,
    /// Change what a budget allows, while work runs
    #[command(subcommand)]
    Budget(BudgetCommand),
    /// Report what was spent
    #[command(
        after_help = "Examples:\n  bursar report\n  bursar report --by experiment --sweep digits\n  bursar report --by project,day --since last-month --until month --format csv\n  bursar report --by label:team,month\n  bursar report --since 30d --format html --output spend.html\n  bursar report --format focus --output focus.csv"
    )]
    Report(Report),
    /// Compare a cloud's bill with what was charged, and correct the charges
    #[command(
        after_help = "Formats, by their header: FOCUS, AWS Cost and Usage Report (2.0 and legacy), GCP billing export (CSV, JSON lines); each also as .gz\n\nExamples:\n  bursar reconcile export-00001.csv.gz export-00002.csv.gz\n  bursar reconcile --apply bill-2026-11.csv\n  bursar reconcile --basis billed --json bill-2026-11.csv | jq .leaks\n\nExits with 1 where the bill has resources with our tag that nobody here knows"
    )]
    Reconcile(Reconcile),
    /// List what webhooks were told, the newest first, or test one
    #[command(after_help = "Examples:\n  bursar notifications\n  bursar notifications test team")]
    Notifications(Notifications),
    /// Check that everything is well: configuration, daemon, store, invariants
    Doctor,
    /// Check or describe configuration and specs
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Try policies on a market of the past, or test the daemon against everything that can go wrong
    #[command(subcommand)]
    Simulate(SimulateCommand),
    /// See all of it in under a minute, on this machine: a budget-capped sweep of real training runs
    #[command(
        after_help = "Examples:\n  bursar demo\n  bursar demo --keep /tmp/bursar-demo\n  bursar demo --json | jq .trials"
    )]
    Demo(Demo),
    /// Write a completion script
    #[command(
        after_help = "Example:\n  bursar completions bash > ~/.local/share/bash-completion/completions/bursar"
    )]
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages
    #[command(hide = true)]
    Man {
        /// Into this folder
        #[arg(value_hint = ValueHint::DirPath)]
        folder: PathBuf,
    },
    /// The worker on an instance
    #[command(hide = true)]
    Agent(Agent),
    /// The machine that a local instance is
    #[command(hide = true)]
    LocalHost(LocalHost),
    /// The training run of `bursar demo`
    #[command(hide = true)]
    DemoTrain(crate::demo::train::TrainArgs),
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Write logs as JSON lines
    #[arg(long)]
    pub(crate) log_json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Submit {
    /// YAML or JSON files; `-` is standard input
    #[arg(required = true, value_hint = ValueHint::FilePath)]
    pub(crate) files: Vec<PathBuf>,
    /// Wait for the end, and exit with its outcome
    #[arg(long, short)]
    pub(crate) wait: bool,
    /// Another name than the file says
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Another project than the file says
    #[arg(long, value_name = "PROJECT")]
    pub(crate) project: Option<String>,
    /// Set an environment variable of the experiment; may be given several times
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// Makes it safe to repeat: the same key and files are accepted once
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Option<String>,
    /// Show what it would run on and cost instead
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only in this state: queued, running, succeeded, failed, cancelled, stopped or refused
    #[arg(long, value_parser = ["queued", "running", "succeeded", "failed", "cancelled", "stopped", "refused"])]
    pub(crate) state: Option<String>,
    /// Only of this project
    #[arg(long)]
    pub(crate) project: Option<String>,
    /// Only trials of this sweep (id or name)
    #[arg(long)]
    pub(crate) sweep: Option<String>,
    /// Only of this user
    #[arg(long)]
    pub(crate) user: Option<String>,
    /// Only those that are not over
    #[arg(long)]
    pub(crate) live: bool,
    /// Only those whose name contains this
    pub(crate) text: Option<String>,
    #[command(flatten)]
    pub(crate) limit: Limit,
}

#[derive(Debug, Args)]
pub(crate) struct Limit {
    /// At most so many rows
    #[arg(long, short = 'n', default_value = "50")]
    pub(crate) limit: NonZeroUsize,
}

#[derive(Debug, Args)]
pub(crate) struct Named {
    /// An id, or a name (of several the newest)
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// An id, or a name (of several the newest)
    pub(crate) name: String,
    /// Go on until the experiment is over
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Of this attempt, or of all, one after another [default: the newest, and those that follow]
    #[arg(long, value_name = "N|all")]
    pub(crate) attempt: Option<String>,
    /// The node whose log it is, by rank, where it has several
    #[arg(long, value_name = "K", default_value_t = 0)]
    pub(crate) node: u32,
    /// Only the last so many lines
    #[arg(long, value_name = "LINES", value_parser = parse_lines)]
    pub(crate) tail: Option<u64>,
    /// Only what came since, such as 10m, today or 2026-11-22T18:00:00Z; to ten seconds, as logs are marked
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Metrics {
    /// An experiment or a sweep, by id or name (of several the newest)
    pub(crate) name: String,
    /// Metrics to plot; of a sweep the one to compare its trials by
    pub(crate) metrics: Vec<String>,
    /// Comma-separated values: every point of an experiment, every trial of a sweep
    #[arg(long, conflicts_with = "json")]
    pub(crate) csv: bool,
    /// At most so many points of each metric
    #[arg(long, default_value = "500")]
    pub(crate) points: usize,
    /// Of a sweep: whether the smallest or the largest value is best [default: as its asha says, else min]
    #[arg(long, value_enum)]
    pub(crate) best: Option<Best>,
}

/// Which value is best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Best {
    /// The smallest, as of a loss
    Min,
    /// The largest, as of an accuracy
    Max,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// An id, or a name (of several the newest)
    pub(crate) name: String,
    /// What this attempt of an experiment ran with
    #[arg(long, value_name = "N")]
    pub(crate) attempt: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct Rerun {
    /// An id, or a name (of several the newest)
    pub(crate) name: String,
    /// Another value for an environment variable or parameter; may be given several times
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) set: Vec<String>,
    /// Wait for the end, and exit with its outcome
    #[arg(long, short)]
    pub(crate) wait: bool,
    /// Makes it safe to repeat: the same key is accepted once
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Outputs {
    /// An id, or a name (of several the newest)
    pub(crate) name: String,
    /// Fetch all files into this folder
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) to: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Cancel {
    /// Experiments or sweeps, by id or by a name that only one live one has
    #[arg(required = true)]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// A YAML or JSON file; `-` is standard input
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    /// Show all candidates
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Offers {
    /// Only with this accelerator, such as A100
    #[arg(long, value_name = "NAME")]
    pub(crate) accelerator: Option<String>,
    #[command(flatten)]
    pub(crate) limit: Limit,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Instances {
    #[command(subcommand)]
    pub(crate) command: Option<InstancesCommand>,
    /// Only those that may exist
    #[arg(long)]
    pub(crate) live: bool,
    #[command(flatten)]
    pub(crate) limit: Limit,
}

#[derive(Debug, Subcommand)]
pub(crate) enum InstancesCommand {
    /// End instances on which nothing runs, before their idle time is over
    End {
        /// Their ids
        #[arg(required = true, value_name = "INSTANCE")]
        ids: Vec<String>,
        /// Though something runs there: it is told to save and stop, and goes on elsewhere
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Report {
    /// One or several of experiment, sweep, project, user, provider, region, instance-type, capacity-type, category,
    /// day, week, month, label:KEY
    #[arg(long, default_value = "project")]
    pub(crate) by: String,
    /// Only what was charged from then on: 2026-11-01, 7d, or the beginning of today, yesterday, week, month, quarter,
    /// year, last-week, last-month, … (UTC)
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Only what was charged before
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// Only this experiment (id or name)
    #[arg(long)]
    pub(crate) experiment: Option<String>,
    /// Only this sweep (id or name)
    #[arg(long)]
    pub(crate) sweep: Option<String>,
    /// Only this project
    #[arg(long)]
    pub(crate) project: Option<String>,
    /// Only this user
    #[arg(long)]
    pub(crate) user: Option<String>,
    /// Only experiments with this label (may be given several times: all of them)
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) label: Vec<String>,
    /// How to write it
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// Write it into this file
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Reconcile {
    /// All files of the months to compare, each row in one of them only
    #[arg(required = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) files: Vec<PathBuf>,
    /// Make the charges equal to the bill, by corrections
    #[arg(long)]
    pub(crate) apply: bool,
    /// What counts of a bill with commitments such as savings plans
    #[arg(long, value_enum, default_value_t)]
    pub(crate) basis: BillBasis,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum BillBasis {
    /// What commitments cost is spread over what they cover
    #[default]
    Effective,
    /// What the invoice asks for: nothing for what a commitment covers
    Billed,
}

impl From<BillBasis> for Basis {
    fn from(basis: BillBasis) -> Self {
        match basis {
            BillBasis::Effective => Self::Effective,
            BillBasis::Billed => Self::Billed,
        }
    }
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Notifications {
    #[command(subcommand)]
    pub(crate) command: Option<NotificationsCommand>,
    #[command(flatten)]
    pub(crate) limit: Limit,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NotificationsCommand {
    /// Have the daemon send a test to a webhook, and say what comes back
    Test {
        /// The webhook, by its name in the configuration
        webhook: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum BudgetCommand {
    /// Set, raise or lower it: what is not named stays as it is
    #[command(
        after_help = "Examples:\n  bursar budget set project vision --limit 500 --per month --timezone Europe/Berlin\n  bursar budget set sweep digits --limit 20\n  bursar budget set installation --thresholds 50,80,100\n\nWhat works beyond a lowered limit is told to save and stop; what waits for money goes on when a limit is raised"
    )]
    Set(BudgetSet),
    /// Lift the limit
    #[command(after_help = "Example:\n  bursar budget lift project vision")]
    Lift(BudgetOf),
}

#[derive(Debug, Args)]
pub(crate) struct BudgetOf {
    /// Whose budget
    #[arg(value_parser = ["installation", "project", "user", "sweep", "experiment"])]
    pub(crate) kind: String,
    /// The project, user, sweep or experiment (these by id, or by a name that only one live one has)
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
}

#[derive(Debug, Args)]
#[group(id = "change", required = true, multiple = true, args = ["limit", "per", "thresholds", "on_exhausted"])]
pub(crate) struct BudgetTerms {
    /// The most that may be spent: in each period where there are periods, else ever
    #[arg(long, value_name = "USD")]
    pub(crate) limit: Option<String>,
    /// When a new period begins: hour, day, week, month, quarter, year, five crontab fields, or `total` for none
    #[arg(long, value_name = "SCHEDULE")]
    pub(crate) per: Option<String>,
    /// The time zone of the periods, such as Europe/Berlin [default: UTC]
    #[arg(long, value_name = "ZONE", requires = "per")]
    pub(crate) timezone: Option<String>,
    /// At which parts of the limit somebody is told, in percent
    #[arg(long, value_name = "PERCENT", value_delimiter = ',')]
    pub(crate) thresholds: Option<Vec<i64>>,
    /// What becomes of running work when it is used up
    #[arg(long, value_parser = ["checkpoint-and-stop", "stop", "finish-running", "notify-only"])]
    pub(crate) on_exhausted: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct BudgetSet {
    #[command(flatten)]
    pub(crate) of: BudgetOf,
    #[command(flatten)]
    pub(crate) terms: BudgetTerms,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check a configuration, an experiment or a sweep, and show all problems at once
    Check {
        /// The file [default: the configuration]
        #[arg(value_hint = ValueHint::FilePath)]
        file: Option<PathBuf>,
    },
    /// Have the daemon that runs read its configuration again
    #[command(
        after_help = "What the file says of budgets, prices, notifications and policy counts at once; of what needs a restart the answer tells. A file with a mistake changes nothing. SIGHUP does the same, with the answer in the log"
    )]
    Reload,
    /// Print the JSON Schema, for editors
    Schema {
        /// Of what
        #[arg(value_enum, default_value_t)]
        of: SchemaOf,
    },
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum SchemaOf {
    /// Experiments and sweeps
    #[default]
    Experiment,
    /// The daemon's configuration
    Config,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SimulateCommand {
    /// Replay a workload on a market under one policy or several, and compare what it costs and how long people wait
    #[command(
        after_help = "Examples:\n  bursar simulate fleet --jobs jobs.csv\n  bursar simulate fleet --config now.yaml --config next.yaml --jobs jobs.csv.gz --market traces/ --html compared.html\n  bursar simulate fleet --jobs jobs.csv --market prices/ --from 2021-03-01 --days 14 --gpu V100 --json\n\nThe daemon, its store and its books are the real ones on virtual time; the providers of the configuration are replaced by the market. Exits with 1 where an invariant did not hold. See docs/simulate.md"
    )]
    Fleet(Box<SimulateFleet>),
    /// Run the daemon through crashes, lost replies, outages and interruptions by seed, and check every invariant
    #[command(
        after_help = "Examples:\n  bursar simulate chaos --seeds 0..1000\n  bursar simulate chaos --seeds 17 --json\n\nExits with 1 where an invariant did not hold; the seed repeats it"
    )]
    Chaos(SimulateChaos),
}

#[derive(Debug, Args)]
pub(crate) struct SimulateFleet {
    /// A configuration whose policy, budgets, discounts and projects are tried; several are compared
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) config: Vec<PathBuf>,
    /// The workload: a CSV with the columns submit_s, duration_s and gpus; also as .gz
    #[arg(long, value_name = "CSV", value_hint = ValueHint::FilePath)]
    pub(crate) jobs: PathBuf,
    /// A folder of prices, traces of availability and catalogs [default: a market generated from the seed]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::AnyPath)]
    pub(crate) market: Option<PathBuf>,
    /// The moment of the market at which the replay begins [default: when its oldest trace begins]
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<String>,
    /// How many days are replayed [default: as many as its traces have]
    #[arg(long, value_name = "N")]
    pub(crate) days: Option<u16>,
    /// Leave out jobs that were submitted before this time of the workload, such as 10d
    #[arg(long, value_name = "DURATION", default_value = "0s")]
    pub(crate) jobs_from: Span,
    /// Replay so many jobs at most
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// What jobs that name no accelerator may run on, such as V100,T4 [default: any on the market]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) gpu: Vec<String>,
    /// How many machines can be had where a trace only says that there were some
    #[arg(long, value_name = "N", default_value_t = Wanted::default().depth)]
    pub(crate) depth: u32,
    /// What spot costs where only the on-demand price is known, in percent of that
    #[arg(long, value_name = "PERCENT", default_value_t = Wanted::default().spot_percent,
          value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) spot_percent: u32,
    /// How coarsely time goes by: heartbeats and looks at the cloud are at least so far apart, and leases three times
    /// as long; 1h where no configuration has a budget, else 5m, because longer leases hold more of a budget
    #[arg(long, value_name = "DURATION")]
    pub(crate) pace: Option<Span>,
    /// Decides boot times and all else that is left to chance
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Write a page with curves
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) html: Option<PathBuf>,
    /// Write all figures, a row for each policy
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) csv: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct SimulateChaos {
    /// The seeds A up to and without B, as A..B, or one
    #[arg(long, value_name = "A..B", default_value = "0..100", value_parser = parse_seeds)]
    pub(crate) seeds: Range<u64>,
    /// How many run at once [default: as many as there are processors]
    #[arg(long, value_name = "N")]
    pub(crate) jobs: Option<NonZeroUsize>,
}

fn parse_lines(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("`{text}` is no number of lines, such as 20"))
}

fn parse_seeds(text: &str) -> Result<Range<u64>, String> {
    let number = |text: &str| text.parse::<u64>().map_err(|_| format!("`{text}` is no seed"));
    match text.split_once("..") {
        Some((from, to)) => Ok(number(from)?..number(to)?),
        None => {
            let seed = number(text)?;
            Ok(seed..seed.saturating_add(1))
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Leave configuration, store and logs in this folder
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) keep: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Agent {
    /// Its settings, a JSON file
    pub(crate) settings: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct LocalHost {
    /// The instance's folder
    pub(crate) folder: PathBuf,
}
