//! Budgets: how much, in which periods, who is told, and what becomes of the work.

use std::sync::Arc;

use bursar_model::{BudgetTerms, OnExhausted, Schedule};

use super::words;
use crate::{
    problem::{Checked, Problem, Problems, Report},
    raw::{LimitOr, RawBudget, RawWorkBudget},
};

/// Ten times the limit: whoever wants to be told later has the wrong limit.
const THRESHOLD_MAX: u32 = 1000;

/// A budget of the configuration.
pub(super) fn check_budget(
    report: &mut Report,
    path: &str,
    LimitOr(raw): LimitOr<RawBudget>,
) -> Option<Arc<BudgetTerms>> {
    let RawBudget { limit, per, timezone, thresholds, on_exhausted } = raw;
    let schedule = periods(report, path, per.as_deref(), timezone.as_deref());
    let rest = RawWorkBudget { limit, thresholds, on_exhausted };
    let limits = terms(report, path, &rest, BudgetTerms::default_thresholds())?;
    Some(Arc::new(BudgetTerms { schedule, ..limits }))
}

/// The budget of an experiment or a sweep, which is told of at these parts unless it says otherwise. `estimated` is
/// whether the spec says how long an experiment takes.
pub(super) fn check_work_budget(
    report: &mut Report,
    path: &str,
    LimitOr(raw): &LimitOr<RawWorkBudget>,
    thresholds_default: Vec<u16>,
    estimated: bool,
) -> Option<Arc<BudgetTerms>> {
    let terms = terms(report, path, raw, thresholds_default)?;
    if terms.on_exhausted == OnExhausted::FinishRunning && !estimated {
        let message = "nothing says how long it takes, so money is held a lease at a time, as without this";
        let problem = Problem::new(format!("{path}.on_exhausted"), message);
        report.warn(problem.hint("give an estimate, such as `estimate: {duration: 3h}`"));
    }
    Some(Arc::new(terms))
}

impl RawBudget {
    /// The terms that a budget has after somebody changed what is named here: the rest stays as it is in `before`. A
    /// budget that ends with its work has no periods.
    ///
    /// # Errors
    /// Returns all problems at once. One is that there is no limit, neither before nor now.
    pub fn change(
        self,
        before: BudgetTerms,
        ends_with_its_work: bool,
    ) -> Result<Checked<BudgetTerms>, Problems> {
        let Self { limit, per, timezone, thresholds, on_exhausted } = self;
        let mut report = Report::default();
        let schedule = if ends_with_its_work && (per.is_some() || timezone.is_some()) {
            let message = "the budget of a sweep or an experiment has no periods: it counts all that the work ever costs";
            report.error(Problem::new("per", message));
            None
        } else if per.is_none() && timezone.is_some() {
            let problem = Problem::new("timezone", "says nothing about periods that are not named");
            report.error(problem.hint("name them as well, such as `per: month`"));
            None
        } else if per.is_some() {
            periods(&mut report, "", per.as_deref(), timezone.as_deref())
        } else {
            before.schedule
        };
        let on_exhausted = on_exhausted.as_deref().and_then(|text| when_exhausted(&mut report, "", text));
        let on_exhausted = on_exhausted.unwrap_or(before.on_exhausted);
        let thresholds = match thresholds {
            Some(written) => check_thresholds(&mut report, "thresholds", &written, on_exhausted),
            None => before.thresholds,
        };
        let limit = match limit {
            Some(limit) => words::budget(&mut report, "limit", &limit),
            None if before.limit.is_none() => {
                let problem = Problem::new("limit", "there is none yet, so the rest has no effect");
                report.error(problem.hint("name one, such as `limit: 100`"));
                None
            }
            None => before.limit,
        };
        report.finish(BudgetTerms { limit, schedule, thresholds, on_exhausted })
    }
}

/// The key of a budget that stands below `path`, or by itself where that is empty.
fn below(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn when_exhausted(report: &mut Report, path: &str, text: &str) -> Option<OnExhausted> {
    let words = [
        ("checkpoint-and-stop", OnExhausted::CheckpointAndStop),
        ("stop", OnExhausted::Stop),
        ("finish-running", OnExhausted::FinishRunning),
        ("notify-only", OnExhausted::NotifyOnly),
    ];
    words::word(report, &below(path, "on_exhausted"), text, &words)
}

fn terms(
    report: &mut Report,
    path: &str,
    raw: &RawWorkBudget,
    thresholds_default: Vec<u16>,
) -> Option<BudgetTerms> {
    let RawWorkBudget { limit, thresholds, on_exhausted } = raw;
    let on_exhausted = on_exhausted.as_deref().and_then(|text| when_exhausted(report, path, text));
    let on_exhausted = on_exhausted.unwrap_or_default();
    let thresholds = match thresholds {
        Some(written) => check_thresholds(report, &format!("{path}.thresholds"), written, on_exhausted),
        None => thresholds_default,
    };
    let Some(limit) = limit else {
        let problem = Problem::new(path, "has no limit, so it has no effect");
        report.warn(problem.hint("name one, such as `limit: 100`"));
        return None;
    };
    let limit = words::budget(report, &format!("{path}.limit"), limit);
    Some(BudgetTerms { limit, schedule: None, thresholds, on_exhausted })
}

/// Rising, each once.
fn check_thresholds(report: &mut Report, path: &str, written: &[i64], on_exhausted: OnExhausted) -> Vec<u16> {
    let mut thresholds = Vec::new();
    for (index, percent) in written.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let Some(percent) = words::count(report, &path, *percent, 1, THRESHOLD_MAX) else { continue };
        if percent > 100 && on_exhausted != OnExhausted::NotifyOnly {
            let message = format!("{percent} percent is never reached: spending ends at the limit");
            report.warn(Problem::new(path, message).hint("with `on_exhausted: notify-only` it goes on"));
        }
        thresholds.push(u16::try_from(percent).expect("the bound is below u16::MAX"));
    }
    thresholds.sort_unstable();
    thresholds.dedup();
    thresholds
}

fn periods(report: &mut Report, path: &str, per: Option<&str>, timezone: Option<&str>) -> Option<Schedule> {
    let timezone_path = below(path, "timezone");
    match per {
        Some(per) if !per.trim().eq_ignore_ascii_case("total") => {
            words::schedule(report, &below(path, "per"), per, &timezone_path, timezone)
        }
        Some(_) | None => {
            if timezone.is_some() {
                let problem = Problem::new(timezone_path, "has no effect on a budget without periods");
                report.warn(problem.hint("say how long they are, such as `per: month`"));
            }
            None
        }
    }
}
