//! The `sweep` section: which trials its matrix comes to.

use std::sync::Arc;

use bursar_model::{AshaRules, BudgetTerms, ExperimentSpec, ParamValue, Params, SweepSpec};

use super::{
    asha::check_asha,
    budget::check_work_budget,
    expand::{Dimension, RandomDimension, dimension},
    words,
};
use crate::{
    problem::{Problem, Report, did_you_mean},
    raw::{RawSpec, RawSweep},
};

/// How many trials a sweep may come to: what a daemon can queue within a second. More is a slip in a range.
pub const TRIALS_MAX: usize = 100_000;
/// Each entry of `include` and `exclude` is held against each trial: so many take a tenth of a second at most.
const ENTRIES_MAX: usize = 100;
/// Parameters of one trial. Each is an environment variable of its process.
const PARAMS_MAX: usize = 32;

/// A checked sweep without its experiment.
#[derive(Debug)]
pub(super) struct Sweep {
    trials: Vec<Params>,
    budget: Option<Arc<BudgetTerms>>,
    max_parallel: Option<u32>,
    asha: Option<AshaRules>,
}

impl Sweep {
    /// Together with what each trial is.
    pub(super) fn of(self, experiment: ExperimentSpec) -> SweepSpec {
        let Self { trials, budget, max_parallel, asha } = self;
        SweepSpec { experiment, trials, budget, max_parallel, asha }
    }
}

/// Checks the section and expands its matrix; `spec` is the document around it.
pub(super) fn check_sweep(report: &mut Report, raw: &RawSweep, spec: &RawSpec) -> Sweep {
    let RawSweep { matrix, samples, seed, include, exclude, budget, max_parallel, asha } = raw;
    check_names(report, raw, spec);
    let (told, estimated) = (BudgetTerms::default_thresholds(), spec.estimate.is_some());
    let budget =
        budget.as_ref().and_then(|budget| check_work_budget(report, "sweep.budget", budget, told, estimated));
    let max_parallel =
        max_parallel.and_then(|n| words::count(report, "sweep.max_parallel", n, 1, TRIALS_MAX as u32));
    let (mut listed, mut random) = (Vec::new(), Vec::new());
    let mut combinations: usize = 1;
    let mut shape = String::new();
    // A matrix of more is refused, and its rest not even looked at: each range may be a hundred thousand values.
    for (name, raw) in matrix.iter().take(PARAMS_MAX) {
        match dimension(report, &format!("sweep.matrix.{name}"), raw) {
            Some(Dimension::Values(values)) => {
                combinations = combinations.saturating_mul(values.len());
                shape += &format!("{}{name}: {}", if shape.is_empty() { "" } else { " × " }, values.len());
                // What comes to too much is not kept either.
                if combinations <= TRIALS_MAX {
                    listed.push((name.as_str(), values));
                }
            }
            Some(Dimension::Random(draw)) => random.push((name.as_str(), draw)),
            None => {}
        }
    }
    let samples = check_samples(report, *samples, *seed, !random.is_empty());
    let count = combinations.saturating_mul(samples);
    let mut trials = Vec::new();
    if count > TRIALS_MAX {
        let times = if random.is_empty() { String::new() } else { format!("; samples: {samples}") };
        let message = format!("comes to {count} trials, more than {TRIALS_MAX} ({shape}{times})");
        report.error(Problem::new("sweep.matrix", message));
    } else if !matrix.is_empty() && matrix.len() <= PARAMS_MAX {
        trials = combine(&listed, &random, samples, seed.unwrap_or_default().cast_unsigned());
    }
    leave_out(report, exclude, &mut trials);
    add(include, matrix, &mut trials);
    // Where the matrix itself is wrong, that it comes to nothing is no news.
    if trials.is_empty() && report.errors.is_empty() {
        let hint = "give `matrix` a parameter with values, such as `lr: [0.1, 0.01]`";
        report.error(Problem::new("sweep", "comes to no trials").hint(hint));
    }
    let asha = asha.as_ref().and_then(|asha| check_asha(report, asha, spec, trials.len()));
    Sweep { trials, budget, max_parallel, asha }
}

/// Every name can be an environment variable, and means one thing.
fn check_names(report: &mut Report, raw: &RawSweep, spec: &RawSpec) {
    let RawSweep { matrix, include, exclude, .. } = raw;
    let included = include.iter().enumerate().flat_map(|(index, entry)| {
        entry
            .keys()
            .filter(|name| !matrix.contains_key(*name))
            .map(move |name| (format!("sweep.include[{index}]"), name))
    });
    for (section, name) in matrix.keys().map(|name| ("sweep.matrix".to_owned(), name)).chain(included) {
        words::variable(report, || format!("{section}.{name}"), name);
        if spec.envs.contains_key(name) || spec.secrets.contains_key(name) {
            let message = "stands in envs or secrets too";
            report.error(Problem::new(format!("{section}.{name}"), message));
        }
    }
    if matrix.len() > PARAMS_MAX {
        report.error(Problem::new("sweep.matrix", format!("more than {PARAMS_MAX} parameters")));
    }
    for (path, entries) in [("sweep.include", include), ("sweep.exclude", exclude)] {
        if entries.len() > ENTRIES_MAX {
            report.error(Problem::new(path, format!("more than {ENTRIES_MAX} entries")));
        }
        for (index, entry) in entries.iter().enumerate() {
            if entry.is_empty() || entry.len() > PARAMS_MAX {
                let message = format!("an entry names 1 to {PARAMS_MAX} parameters");
                report.error(Problem::new(format!("{path}[{index}]"), message));
            }
            for (name, value) in entry {
                super::expand::check_value(report, || format!("{path}[{index}].{name}"), value);
            }
        }
    }
    for (index, entry) in exclude.iter().enumerate() {
        for name in entry.keys().filter(|name| !matrix.contains_key(*name)) {
            let hint = did_you_mean(name, matrix.keys().map(String::as_str));
            let problem =
                Problem::new(format!("sweep.exclude[{index}].{name}"), "is no parameter of the matrix");
            report.error(problem.maybe_hint(hint));
        }
    }
}

/// How many samples to draw: 1 without random parameters, so that it can be multiplied.
fn check_samples(report: &mut Report, samples: Option<i64>, seed: Option<i64>, random: bool) -> usize {
    if random {
        for (path, given, why) in [
            ("sweep.samples", samples.is_some(), "say how many times the random parameters are drawn"),
            ("sweep.seed", seed.is_some(), "any number will do; the same one gives the same trials again"),
        ] {
            if !given {
                report
                    .error(Problem::new(path, "is missing, but the matrix has random parameters").hint(why));
            }
        }
    } else if samples.is_some() || seed.is_some() {
        let path = if samples.is_some() { "sweep.samples" } else { "sweep.seed" };
        report.warn(Problem::new(path, "has no effect: the matrix has no random parameters"));
        return 1;
    }
    let samples = samples.and_then(|n| words::count(report, "sweep.samples", n, 1, TRIALS_MAX as u32));
    samples.map_or(1, |n| n as usize)
}

/// Every combination of the listed values with every sample. The last name changes fastest, samples faster still.
fn combine(
    listed: &[(&str, Vec<ParamValue>)],
    random: &[(&str, RandomDimension)],
    samples: usize,
    seed: u64,
) -> Vec<Params> {
    let mut trials = vec![Params::new()];
    for (name, values) in listed {
        let with = |trial: &Params, value: &ParamValue| {
            let mut trial = trial.clone();
            trial.insert((*name).to_owned(), value.clone());
            trial
        };
        trials = trials.iter().flat_map(|trial| values.iter().map(move |value| with(trial, value))).collect();
    }
    if random.is_empty() {
        return trials;
    }
    // Sample k is the same beside every combination: so combinations are compared on equal draws, and one more value
    // in a list does not shift what is drawn.
    let draw = |k: usize| {
        random.iter().map(move |(name, dimension)| ((*name).to_owned(), dimension.draw(name, seed, k)))
    };
    let drawn: Vec<Params> = (0..samples).map(|k| draw(k).collect()).collect();
    let with = |trial: &Params, sample: &Params| {
        let mut trial = trial.clone();
        trial.extend(sample.iter().map(|(name, value)| (name.clone(), value.clone())));
        trial
    };
    trials.iter().flat_map(|trial| drawn.iter().map(move |sample| with(trial, sample))).collect()
}

fn leave_out(report: &mut Report, exclude: &[Params], trials: &mut Vec<Params>) {
    for (index, entry) in exclude.iter().take(ENTRIES_MAX).enumerate() {
        let before = trials.len();
        trials.retain(|trial| {
            !entry.iter().all(|(name, value)| trial.get(name).is_some_and(|own| same(own, value)))
        });
        if trials.len() == before {
            report.warn(Problem::new(format!("sweep.exclude[{index}]"), "leaves out no trial"));
        }
    }
}

/// As the `include` of a GitHub Actions matrix: parameters of the matrix are never overwritten.
fn add<T>(include: &[Params], matrix: &std::collections::BTreeMap<String, T>, trials: &mut Vec<Params>) {
    let of_matrix = trials.len();
    for entry in include.iter().take(ENTRIES_MAX) {
        let mut fits_any = false;
        for trial in &mut trials[..of_matrix] {
            let fits = |(name, value): (&String, &ParamValue)| {
                !matrix.contains_key(name) || trial.get(name).is_some_and(|own| same(own, value))
            };
            if entry.iter().all(fits) {
                fits_any = true;
                trial.extend(entry.iter().map(|(name, value)| (name.clone(), value.clone())));
            }
        }
        if !fits_any {
            trials.push(entry.clone());
        }
    }
}

/// Whether people mean the same: `1` and `1.0` are the same number.
fn same(one: &ParamValue, other: &ParamValue) -> bool {
    match (one, other) {
        (ParamValue::Int(int), ParamValue::Float(float))
        | (ParamValue::Float(float), ParamValue::Int(int)) => *int as f64 == *float,
        _ => one == other,
    }
}
