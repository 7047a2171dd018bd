//! Workloads: a CSV of jobs, one a row.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
    sync::Arc,
};

use bursar_config::Config;
use bursar_model::{
    AcceleratorName, Accelerators, Deadline, Estimate, ExperimentSpec, ProjectName, Resources, Span,
    SpotPolicy, UsdPerHour,
};

use super::table::{Problems, Table, TableError};
use crate::job::Job;

/// How often a job saves that does not say.
const CHECKPOINT: Span = Span::from_secs(1800);

/// A job of fewer CPUs than one still needs some; one with accelerators takes what comes with them.
const CPUS_MILLI: u32 = 1_000;

/// More than this after unpacking is no list of jobs.
const BYTES_MAX: u64 = 1 << 30;

/// Longer than this (about 300 years) nothing runs; keeps sums of moments far from their ends.
const SECONDS_MAX: f64 = 1e10;

const SECONDS: &str = "seconds, such as 3600 or 0.5";

const COLUMNS: &[&str] = &[
    "submit_s",
    "duration_s",
    "gpus",
    "gpu",
    "name",
    "project",
    "deadline_s",
    "estimate_s",
    "checkpoint_s",
    "priority",
    "spot_policy",
    "max_price",
    "cpus",
    "memory_gib",
];

/// One job.
#[derive(Debug, Clone, PartialEq)]
pub struct FleetJob {
    /// What it is called.
    pub name: Arc<str>,
    /// When it is submitted, from the start.
    pub submit: Span,
    /// From start to end without interruption.
    pub duration: Span,
    /// What the daemon is told of that.
    pub estimate: Span,
    /// How many accelerators it needs.
    pub gpus: u32,
    /// Of which kind; none means any.
    pub gpu: Option<AcceleratorName>,
    /// Who pays.
    pub project: ProjectName,
    /// From the submission until it must be finished.
    pub deadline: Option<Span>,
    /// How often it saves.
    pub checkpoint: Span,
    /// Higher goes first.
    pub priority: i32,
    /// Which capacity types it accepts.
    pub spot_policy: SpotPolicy,
    /// The highest price of an instance that it accepts.
    pub max_price: Option<UsdPerHour>,
    /// Virtual CPUs in thousandths.
    pub cpus_milli: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
}

/// Jobs in the order of their submission.
#[derive(Debug, Clone, Default)]
pub struct Workload {
    /// The jobs.
    pub jobs: Vec<FleetJob>,
    /// What was not understood or left out, for people.
    pub notes: Vec<String>,
}

impl Workload {
    /// Reads a file, packed by gzip or not.
    ///
    /// # Errors
    /// When it cannot be read, or has rows that are wrong: with all of them, up to a bound.
    pub fn read(path: &Path) -> Result<Self, TableError> {
        let name = path.display().to_string();
        let open = || -> io::Result<Box<dyn Read>> {
            let mut file = BufReader::new(File::open(path)?);
            let is_packed = io::BufRead::fill_buf(&mut file)?.starts_with(&[0x1f, 0x8b]);
            Ok(if is_packed { Box::new(flate2::bufread::MultiGzDecoder::new(file)) } else { Box::new(file) })
        };
        let input = open().map_err(|source| TableError::Unreadable { file: name.clone(), source })?;
        Self::parse(&name, input.take(BYTES_MAX))
    }

    /// The same from what was opened.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn parse(file: &str, input: impl Read) -> Result<Self, TableError> {
        let mut table = Table::open(file, input)?;
        table.require(&["submit_s", "duration_s", "gpus"])?;
        let mut problems = Problems::new(file);
        let mut jobs = Vec::new();
        while let Some(row) = table.next_row(&mut problems) {
            let seconds = |column| row.parsed(column, SECONDS, parse_seconds);
            let checked = (|| {
                let duration = row.required("duration_s", SECONDS, parse_seconds)?;
                let gpus = row.required("gpus", "a whole number", |text| text.parse().ok())?;
                let least_cpus = if gpus > 0 { 0 } else { CPUS_MILLI };
                Ok(FleetJob {
                    name: row.text("name").map_or_else(|| format!("job-{}", row.line).into(), Arc::from),
                    submit: row.required("submit_s", SECONDS, parse_seconds)?,
                    duration,
                    estimate: seconds("estimate_s")?.unwrap_or(duration),
                    gpus,
                    gpu: row.text("gpu").map(AcceleratorName::new),
                    project: ProjectName::new(row.text("project").unwrap_or(Config::DEFAULT_PROJECT)),
                    deadline: seconds("deadline_s")?,
                    checkpoint: seconds("checkpoint_s")?
                        .filter(|span| *span > Span::ZERO)
                        .unwrap_or(CHECKPOINT),
                    priority: row
                        .parsed("priority", "a whole number", |text| text.parse().ok())?
                        .unwrap_or(0),
                    spot_policy: row
                        .parsed("spot_policy", "`spot`, `on-demand` or `auto`", parse_spot_policy)?
                        .unwrap_or_default(),
                    max_price: row.parsed("max_price", "US dollars an hour, such as 1.50", |text| {
                        text.parse::<UsdPerHour>().ok().filter(|price| *price > UsdPerHour::ZERO)
                    })?,
                    cpus_milli: row.parsed("cpus", "a number of CPUs", parse_milli)?.unwrap_or(least_cpus),
                    memory_mib: row
                        .parsed("memory_gib", "GiB", parse_milli)?
                        .map_or(0, |milli| u64::from(milli) * 1024 / 1000),
                })
            })();
            match checked {
                Ok(job) => jobs.push(job),
                Err(problem) => problems.add(row.line, problem),
            }
        }
        problems.none()?;
        jobs.sort_by_key(|job: &FleetJob| job.submit);
        let unknown = table.unknown(COLUMNS);
        let notes = if unknown.is_empty() {
            Vec::new()
        } else {
            vec![format!("{file}: columns that mean nothing here: {}", unknown.join(", "))]
        };
        Ok(Self { jobs, notes })
    }

    /// Only what is submitted from `from` on and before `until`, at most so many; `from` becomes the start.
    pub fn cut(&mut self, from: Span, until: Span, limit: usize) {
        let before = self.jobs.len();
        self.jobs.retain(|job| from <= job.submit && job.submit < until);
        let in_time = self.jobs.len();
        self.jobs.truncate(limit);
        for job in &mut self.jobs {
            job.submit = job.submit.saturating_sub(from);
        }
        if in_time < before {
            let cut = before - in_time;
            self.notes
                .push(format!("{cut} of {before} jobs are submitted outside of the time that is replayed"));
        }
        if self.jobs.len() < in_time {
            self.notes.push(format!("the first {} of {in_time} jobs are replayed", self.jobs.len()));
        }
    }

    /// Names of accelerators as these are written.
    pub(super) fn rename(&mut self, kinds: &BTreeSet<AcceleratorName>) {
        for job in &mut self.jobs {
            let Some(name) = &job.gpu else { continue };
            let same = kinds.iter().find(|kind| kind.as_str().eq_ignore_ascii_case(name.as_str()));
            if let Some(kind) = same {
                job.gpu = Some(kind.clone());
            }
        }
    }

    /// The kinds of accelerators that jobs name, and whether some name none.
    #[must_use]
    pub fn kinds(&self) -> (BTreeSet<AcceleratorName>, bool) {
        let named = self.jobs.iter().filter_map(|job| job.gpu.clone()).collect();
        (named, self.jobs.iter().any(|job| job.gpus > 0 && job.gpu.is_none()))
    }
}

impl FleetJob {
    /// What is submitted, where any of these kinds would do for a job that names none.
    #[must_use]
    pub fn spec(&self, kinds: &BTreeSet<AcceleratorName>) -> ExperimentSpec {
        let of =
            |name: &AcceleratorName| Accelerators { name: name.clone(), count: self.gpus, memory_gib: None };
        let accelerators = match &self.gpu {
            _ if self.gpus == 0 => Vec::new(),
            Some(name) => vec![of(name)],
            None => kinds.iter().map(of).collect(),
        };
        let resources =
            Resources { accelerators, cpus_milli: self.cpus_milli, memory_mib: self.memory_mib, disk_gib: 0 };
        let estimate = Estimate { duration: self.estimate, on: None, speeds: Default::default() };
        ExperimentSpec {
            project: self.project.clone(),
            resources,
            spot_policy: self.spot_policy,
            max_price: self.max_price,
            deadline: self.deadline.map(Deadline::After),
            priority: self.priority,
            estimate: Some(estimate),
            ..Job { save_every: self.checkpoint, ..Job::lasting(self.duration) }.spec()
        }
    }
}

#[expect(clippy::float_arithmetic, reason = "seconds of a file become whole milliseconds here")]
fn parse_seconds(text: &str) -> Option<Span> {
    let seconds: f64 = text.parse().ok()?;
    let is_sane = (0.0..SECONDS_MAX).contains(&seconds);
    is_sane.then(|| Span::from_millis((seconds * 1000.0).round() as i64))
}

/// Thousandths.
#[expect(clippy::float_arithmetic, reason = "an amount of a file becomes whole thousandths here")]
pub(super) fn parse_milli(text: &str) -> Option<u32> {
    let amount: f64 = text.parse().ok()?;
    (0.0..4e6).contains(&amount).then(|| (amount * 1000.0).round() as u32)
}

fn parse_spot_policy(text: &str) -> Option<SpotPolicy> {
    match text {
        "spot" => Some(SpotPolicy::Spot),
        "on-demand" => Some(SpotPolicy::OnDemand),
        "auto" => Some(SpotPolicy::Auto),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_what_it_says_and_the_rest_has_defaults() {
        let text = "cluster, GPUS ,duration_s,submit_s,gpu,spot_policy,max_price,deadline_s\n\
                    a,2,3600,10.5,A100,spot,1.25,7200\nb,0,60,5,,,,\n";
        let workload = Workload::parse("jobs.csv", text.as_bytes()).unwrap();
        let [first, second] = &workload.jobs[..] else { panic!("{workload:?}") };
        assert_eq!((&*first.name, first.submit, first.gpus), ("job-3", Span::from_secs(5), 0));
        assert_eq!(first.cpus_milli, 1000);
        assert_eq!((&*second.name, second.submit.as_millis()), ("job-2", 10_500));
        assert_eq!((second.spot_policy, second.deadline), (SpotPolicy::Spot, Some(Span::from_secs(7200))));
        assert_eq!(second.max_price, "1.25".parse().ok());
        assert_eq!(workload.notes, ["jobs.csv: columns that mean nothing here: cluster"]);
    }

    #[test]
    fn all_that_is_wrong_is_told_with_its_line() {
        let text = "submit_s,duration_s,gpus\n1,2\n-1,2,3\n1,2,x\n1,nan,3\n";
        let error = Workload::parse("jobs.csv", text.as_bytes()).unwrap_err().to_string();
        assert_eq!(
            error,
            "jobs.csv has problems\n  line 2: 2 values for 3 columns\n  line 3: submit_s `-1` is not seconds, such as 3600 or 0.5\n  line 4: gpus `x` is not a whole number\n  line 5: duration_s `nan` is not seconds, such as 3600 or 0.5"
        );
        let error = Workload::parse("jobs.csv", "submit_s,gpus\n".as_bytes()).unwrap_err().to_string();
        assert_eq!(error, "jobs.csv line 1: there is no column `duration_s`");
    }
}
