//! An experiment or a sweep: what is asked, within bounds and with every default filled in.

use bursar_model::{
    CheckpointSpec, Deadline, Estimate, ExperimentSpec, IdleAction, ProjectName, Resources, Retry, Span,
    SpotPolicy, SweepSpec, Timestamp, UtilizationPolicy,
};

use super::{
    accelerators::{accelerator_name, accelerators},
    budget::check_work_budget,
    data::{check_data, folder, store_url},
    image::check_image,
    provenance::{check_registry_auth, check_source},
    quantities,
    sweep::check_sweep,
    words,
    workdir::check_workdir,
};
use crate::{
    config::{Config, Policy},
    problem::{Checked, Problem, Problems, Report, did_you_mean, shortened},
    raw::{RawCheckpoint, RawEstimate, RawResources, RawSpec, RawUtilizationPolicy, Written},
};

/// What an experiment gets that asks for no CPUs: one.
const CPUS_MILLI_DEFAULT: u32 = 1000;
/// What it gets that asks for no memory: one GiB.
const MEMORY_MIB_DEFAULT: u64 = 1024;
/// What it gets that asks for no disk: room for a dataset and some checkpoints.
const DISK_GIB_DEFAULT: u32 = 10;

/// An experiment that still fails after so many tries fails of itself, and each try costs money.
const RETRY_MAX: u32 = 1000;
/// More machines than these are not had at once in one zone, and each of them would have to be told of all others.
const NODES_MAX: u32 = 1000;
/// Alternatives are searched one by one for each offering.
const ALTERNATIVES_MAX: usize = 64;
/// A label is a word to filter by; texts belong in files.
const LABEL_LEN_MAX: usize = 256;
/// A thousand times as fast as the reference: beyond it the two do not run the same work.
const SPEED_MAX: f64 = 1000.0;

/// What was submitted, checked.
#[derive(Debug, Clone, PartialEq)]
pub enum Submission {
    /// One experiment.
    Experiment {
        /// What people call it.
        name: String,
        /// What it is.
        spec: ExperimentSpec,
    },
    /// A set of experiments.
    Sweep {
        /// What people call it.
        name: String,
        /// What it is.
        spec: SweepSpec,
    },
}

impl RawSpec {
    /// What it means, or everything that is wrong with it. Which projects exist and how long a grace may be is known
    /// where the daemon's configuration is, so nothing is said about either without it.
    ///
    /// # Errors
    /// Returns all problems at once.
    pub fn check(self, config: Option<&Config>) -> Result<Checked<Submission>, Problems> {
        let mut report = Report::default();
        let default_name = if self.sweep.is_some() { "sweep" } else { "experiment" };
        let name = self.name.clone().unwrap_or_else(|| default_name.to_owned());
        words::name(&mut report, "name", &name);
        let sweep = self.sweep.as_ref().map(|sweep| check_sweep(&mut report, sweep, &self));
        let spec = check_experiment(&mut report, self, config);
        let submission = match sweep {
            None => Submission::Experiment { name, spec },
            Some(sweep) => Submission::Sweep { name, spec: sweep.of(spec) },
        };
        report.finish(submission)
    }
}

fn check_experiment(report: &mut Report, raw: RawSpec, config: Option<&Config>) -> ExperimentSpec {
    let RawSpec {
        name: _,
        project,
        resources,
        image,
        registry_auth,
        seed,
        source,
        workdir,
        setup,
        run,
        envs,
        secrets,
        spot_policy,
        max_price,
        deadline,
        budget,
        priority,
        retry,
        max_duration,
        utilization_policy,
        checkpoint,
        mounts,
        outputs,
        estimate,
        num_nodes,
        labels,
        sweep: _,
    } = raw;
    if let Some(image) = &image {
        check_image(report, image);
    } else if registry_auth.is_some() {
        let problem = Problem::new("registry_auth", "there is no image to pull");
        report.error(problem.hint("name it with `image`, or leave `registry_auth` out"));
    }
    for (path, script) in [("setup", &setup), ("run", &run)] {
        words::process_text(report, || path.to_owned(), script.as_deref().unwrap_or_default());
    }
    let run = run.unwrap_or_default();
    if run.trim().is_empty() {
        let problem = Problem::new("run", "there is nothing to run");
        report.error(problem.hint("name the command that is the experiment, such as `run: python train.py`"));
    }
    for (name, value) in &envs {
        words::variable(report, || format!("envs.{name}"), name);
        words::process_text(report, || format!("envs.{name}"), &value.0);
        if secrets.contains_key(name) {
            report.error(Problem::new(format!("secrets.{name}"), "stands in envs too"));
        }
    }
    for (name, value) in &labels {
        check_label(report, name, value);
    }
    let policies =
        [("spot", SpotPolicy::Spot), ("on-demand", SpotPolicy::OnDemand), ("auto", SpotPolicy::Auto)];
    let priority =
        priority.map(i32::try_from).map(|priority| priority.map_err(|_| "out of range for a priority"));
    let resources = check_resources(report, resources.unwrap_or_default());
    let has_accelerators = !resources.accelerators.is_empty();
    ExperimentSpec {
        project: check_project(report, project.as_deref().unwrap_or(Config::DEFAULT_PROJECT), config),
        resources,
        image,
        registry_auth: registry_auth.and_then(|auth| check_registry_auth(report, auth)),
        seed: seed.and_then(|seed| words::count(report, "seed", seed, 0, u32::MAX)),
        source: source.and_then(|source| check_source(report, source)),
        workdir: workdir.and_then(|workdir| check_workdir(report, workdir, &secrets)),
        setup: setup.filter(|setup| !setup.trim().is_empty()),
        run,
        envs: envs.into_iter().map(|(name, value)| (name, value.0)).collect(),
        secrets: secrets
            .into_iter()
            .filter_map(|(name, secret)| {
                let path = format!("secrets.{name}");
                words::variable(report, || path.clone(), &name);
                Some((name, words::secret(report, &path, secret)?))
            })
            .collect(),
        spot_policy: spot_policy
            .and_then(|text| words::word(report, "spot_policy", &text, &policies))
            .unwrap_or_default(),
        max_price: max_price.and_then(|price| words::price(report, "max_price", &price)),
        deadline: deadline.and_then(|text| check_deadline(report, &text)),
        // An experiment is one of many: who wants to be told of its cost says so.
        budget: budget
            .and_then(|budget| check_work_budget(report, "budget", &budget, Vec::new(), estimate.is_some())),
        priority: priority.and_then(|priority| report.take("priority", priority)).unwrap_or_default(),
        retry: Retry {
            limit: retry
                .and_then(|retry| retry.limit)
                .and_then(|limit| words::count(report, "retry", limit, 0, RETRY_MAX))
                .unwrap_or_default(),
        },
        max_duration: max_duration.and_then(|text| words::some_span(report, "max_duration", &text)),
        utilization_policy: utilization_policy
            .and_then(|policy| check_utilization(report, policy, has_accelerators)),
        checkpoint: check_checkpoint(report, checkpoint.unwrap_or_default(), config),
        data: check_data(report, mounts, outputs.unwrap_or_default(), config),
        estimate: estimate.and_then(|estimate| check_estimate(report, estimate)),
        num_nodes: num_nodes.and_then(|nodes| check_nodes(report, nodes)).unwrap_or(1),
        labels: labels.into_iter().map(|(name, value)| (name, value.0)).collect(),
    }
}

fn check_project(report: &mut Report, name: &str, config: Option<&Config>) -> ProjectName {
    words::name(report, "project", name);
    if let Some(config) = config
        && !config.projects.contains_key(name)
    {
        let known = config.projects.keys().map(ProjectName::as_str);
        let list = format!("the projects here are {}", known.clone().collect::<Vec<_>>().join(", "));
        let hint = match did_you_mean(name, known) {
            Some(hint) => format!("{hint} {list}"),
            None => list,
        };
        let message = format!("there is no project `{}`", shortened(name));
        report.error(Problem::new("project", message).hint(hint));
    }
    ProjectName::new(name)
}

fn check_resources(report: &mut Report, raw: RawResources) -> Resources {
    let RawResources { accelerators: alternatives, cpus, memory, disk_size } = raw;
    let alternatives = alternatives.map(|texts| texts.0).unwrap_or_default();
    if alternatives.len() > ALTERNATIVES_MAX {
        let message = format!("{} alternatives are more than {ALTERNATIVES_MAX}", alternatives.len());
        report.error(Problem::new("resources.accelerators", message));
    }
    let path = |index: usize| match alternatives.len() {
        1 => "resources.accelerators".to_owned(),
        _ => format!("resources.accelerators[{index}]"),
    };
    Resources {
        accelerators: alternatives
            .iter()
            .enumerate()
            .filter_map(|(index, text)| accelerators(report, &path(index), text))
            .collect(),
        cpus_milli: cpus
            .and_then(|cpus| quantities::cpus_milli(report, "resources.cpus", &cpus))
            .unwrap_or(CPUS_MILLI_DEFAULT),
        memory_mib: memory
            .and_then(|memory| quantities::memory_mib(report, "resources.memory", &memory))
            .unwrap_or(MEMORY_MIB_DEFAULT),
        disk_gib: disk_size
            .and_then(|disk| quantities::disk_gib(report, "resources.disk_size", &disk))
            .unwrap_or(DISK_GIB_DEFAULT),
    }
}

fn check_deadline(report: &mut Report, text: &str) -> Option<Deadline> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Some(Deadline::At(at));
    }
    if text.parse::<Span>().is_ok() {
        return words::some_span(report, "deadline", text).map(Deadline::After);
    }
    let message = format!(
        "`{}` is neither a time such as 2026-12-01T18:00:00Z nor a duration such as 8h",
        shortened(text)
    );
    report.error(Problem::new("deadline", message));
    None
}

fn check_checkpoint(report: &mut Report, raw: RawCheckpoint, config: Option<&Config>) -> CheckpointSpec {
    let RawCheckpoint { interval, grace, path, store, accept_loss } = raw;
    if let Some(path) = &path {
        folder(report, "checkpoint.path", path);
    }
    let store = store.and_then(|url| store_url(report, "checkpoint.store", &url));
    let interval = interval.and_then(|text| words::some_span(report, "checkpoint.interval", &text));
    let written = grace.and_then(|text| words::span(report, "checkpoint.grace", &text));
    let (takes, accept_loss) = (written, accept_loss.unwrap_or_default());
    let checked = |grace| CheckpointSpec { interval, grace, takes, path, store, accept_loss };
    let Some(policy) = config.map(|config| config.policy) else {
        return checked(written.unwrap_or(CheckpointSpec::GRACE));
    };
    // What runs on after the lease is paid out of the drain allowance and out of nothing else.
    let (allowance, fits) = (policy.drain_allowance, policy.grace_max());
    let grace = written.unwrap_or_else(|| CheckpointSpec::GRACE.min(allowance).min(fits));
    if grace > allowance {
        let message = format!("a grace of {grace} is longer than what is held for it here");
        let hint = format!("at most {allowance}, which is policy.drain_allowance of the daemon");
        report.error(Problem::new("checkpoint.grace", message).hint(hint));
    } else if grace > fits {
        let Policy { lease, heartbeat, .. } = policy;
        let message = format!(
            "a grace of {grace} takes too much of a lease of {lease} that is renewed every {heartbeat}"
        );
        let longer = Policy::lease_for(grace, heartbeat);
        let hint = format!("at most {fits} here, or a policy.lease of the daemon of at least {longer}");
        report.error(Problem::new("checkpoint.grace", message).hint(hint));
    }
    checked(grace)
}

fn check_utilization(
    report: &mut Report,
    raw: RawUtilizationPolicy,
    has_accelerators: bool,
) -> Option<UtilizationPolicy> {
    if !has_accelerators {
        let problem = Problem::new("utilization_policy", "says what becomes of idle GPUs, and it has none");
        report.error(problem.hint("ask for some by `resources.accelerators`, or leave this out"));
    }
    let RawUtilizationPolicy { min_gpu_utilization, time_window, action } = raw;
    let actions = [("stop", IdleAction::Stop), ("notify", IdleAction::Notify)];
    let action = action.map(|text| words::word(report, "utilization_policy.action", &text, &actions));
    let mut needed = |key: &str, such_as: &str, is_there: bool| {
        if !is_there {
            let problem = Problem::new(format!("utilization_policy.{key}"), "is missing");
            report.error(problem.hint(format!("write it, such as `{key}: {such_as}`")));
        }
    };
    needed("min_gpu_utilization", "10", min_gpu_utilization.is_some());
    needed("time_window", "30m", time_window.is_some());
    let path = "utilization_policy.min_gpu_utilization";
    let least = min_gpu_utilization.and_then(|percent| words::count(report, path, percent, 1, 100));
    let window =
        time_window.and_then(|text| words::some_span(report, "utilization_policy.time_window", &text));
    Some(UtilizationPolicy {
        min_gpu_utilization: u8::try_from(least?).expect("it is at most 100"),
        time_window: window?,
        action: action.unwrap_or(Some(IdleAction::Stop))?,
    })
}

fn check_estimate(report: &mut Report, raw: RawEstimate) -> Option<Estimate> {
    let RawEstimate { duration, on, speeds } = raw;
    let on = on.and_then(|on| accelerator_name(report, "estimate.on", &on));
    let mut checked_speeds = std::collections::BTreeMap::new();
    for (name, speed) in speeds {
        let path = format!("estimate.speeds.{name}");
        if !(speed > 0.0 && speed <= SPEED_MAX) {
            report
                .error(Problem::new(&*path, format!("`{speed}` is not more than 0 and at most {SPEED_MAX}")));
        }
        if let Some(name) = accelerator_name(report, &path, &name)
            && checked_speeds.insert(name, speed).is_some()
        {
            report.error(Problem::new(path, "the same accelerator stands here twice"));
        }
    }
    let Some(duration) = duration else {
        let problem = Problem::new("estimate.duration", "is missing");
        report.error(problem.hint("say how long it takes without interruption, such as `duration: 3h`"));
        return None;
    };
    let duration = words::some_span(report, "estimate.duration", &duration)?;
    Some(Estimate { duration, on, speeds: checked_speeds })
}

fn check_nodes(report: &mut Report, nodes: i64) -> Option<u32> {
    let checked = u32::try_from(nodes).ok().filter(|nodes| (1..=NODES_MAX).contains(nodes));
    if checked.is_none() {
        let problem = Problem::new("num_nodes", format!("`{nodes}` is not between 1 and {NODES_MAX}"));
        report.error(problem.hint("how many instances it runs on at once; leave it out for one"));
    }
    checked
}

fn check_label(report: &mut Report, name: &str, value: &Written) {
    let path = format!("labels.{name}");
    words::name(report, &path, name);
    if value.0.len() > LABEL_LEN_MAX || value.0.contains(char::is_control) {
        let message = format!("a label is one line of at most {LABEL_LEN_MAX} bytes");
        report.error(Problem::new(path, message));
    }
}
