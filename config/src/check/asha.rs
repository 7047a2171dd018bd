//! The `sweep.asha` section: how trials are halved.

use bursar_model::{AshaMode, AshaRules};

use super::words;
use crate::{
    problem::{Problem, Report, shortened},
    raw::{RawAsha, RawSpec},
};

const ETA_DEFAULT: u32 = 3;
/// With more, hardly any sweep would have a second rung.
const ETA_MAX: u32 = 1000;
/// The standings of all trials are one row of the store, written again with every report: of so many it is a megabyte.
const TRIALS_MAX: usize = 10_000;
/// The longest name of a metric: what still fits a table.
const METRIC_LEN_MAX: usize = 256;

/// The rules, if all are there and fit; `spec` is the document around them.
pub(super) fn check_asha(
    report: &mut Report,
    raw: &RawAsha,
    spec: &RawSpec,
    trials: usize,
) -> Option<AshaRules> {
    let RawAsha { metric, mode, resource, eta, min, max } = raw;
    let metric = metric.as_ref().and_then(|name| metric_name(report, "sweep.asha.metric", name));
    if raw.metric.is_none() {
        let hint = "name a metric that every trial reports, such as `metric: loss`";
        report.error(Problem::new("sweep.asha.metric", "is missing").hint(hint));
    }
    let resource = match resource {
        Some(name) => metric_name(report, "sweep.asha.resource", name),
        None => Some("step".to_owned()),
    };
    if let (Some(metric), Some(resource)) = (&metric, &resource)
        && metric == resource
    {
        let message =
            format!("`{}` is the resource: trials would be compared by how far they are", shortened(metric));
        report.error(Problem::new("sweep.asha.metric", message));
    }
    let mode = match mode {
        Some(mode) => {
            let words = [("min", AshaMode::Min), ("max", AshaMode::Max)];
            words::word(report, "sweep.asha.mode", mode, &words)
        }
        None => {
            let hint = "`mode: min` for a loss, `mode: max` for an accuracy";
            report.error(Problem::new("sweep.asha.mode", "is missing").hint(hint));
            None
        }
    };
    let eta = match eta {
        Some(eta) => words::count(report, "sweep.asha.eta", *eta, 2, ETA_MAX),
        None => Some(ETA_DEFAULT),
    };
    let min = resource_at(report, "sweep.asha.min", *min, "how far a trial runs before it is compared first");
    let max = resource_at(report, "sweep.asha.max", *max, "how far the best trials run");
    if let (Some(min), Some(max)) = (min, max)
        && min >= max
    {
        report.error(Problem::new("sweep.asha.max", format!("{max} is not more than min, which is {min}")));
    }
    if trials > TRIALS_MAX {
        let message = format!("a sweep with asha may come to {TRIALS_MAX} trials, this one to {trials}");
        report.error(Problem::new("sweep.asha", message));
    }
    if spec.checkpoint.as_ref().is_none_or(|checkpoint| checkpoint.interval.is_none()) {
        let hint =
            "save on SIGTERM and start from what was saved; `checkpoint: {interval: 5m}` says that it does";
        let message = "is missing: a trial that asha pauses and lets go on later would start over";
        report.warn(Problem::new("checkpoint.interval", message).hint(hint));
    }
    Some(AshaRules { metric: metric?, mode: mode?, resource: resource?, eta: eta?, min: min?, max: max? })
}

fn metric_name(report: &mut Report, path: &str, name: &str) -> Option<String> {
    let fits = (1..=METRIC_LEN_MAX).contains(&name.len()) && !name.contains(char::is_control);
    if !fits {
        let message = format!("`{}` is no name of 1 to {METRIC_LEN_MAX} bytes", shortened(name));
        report.error(Problem::new(path, message));
    }
    fits.then(|| name.to_owned())
}

fn resource_at(report: &mut Report, path: &str, given: Option<i64>, what: &str) -> Option<u64> {
    let Some(number) = given else {
        report.error(Problem::new(path, "is missing").hint(format!("say {what}, as a whole number")));
        return None;
    };
    let found = u64::try_from(number).ok().filter(|number| *number > 0);
    if found.is_none() {
        report.error(Problem::new(path, format!("`{number}` is not more than 0")));
    }
    found
}
