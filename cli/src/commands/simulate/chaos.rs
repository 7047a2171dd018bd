//! `bursar simulate chaos`.

use bursar_model::{InvariantId, Span};
use bursar_sim::{ChaosReport, chaos};
use serde::Serialize;
use std::collections::BTreeMap;

use super::{in_parallel, progress};
use crate::{
    args::SimulateChaos,
    exit::{FAILED, Failure, OK, Outcome, USAGE},
    output::{json, line},
};

/// What many seeds came to.
#[derive(Debug, Default, Serialize)]
struct Sum {
    /// How many were run.
    seeds: u64,
    /// Turns that daemons committed.
    turns: u64,
    /// What went wrong around them on purpose.
    faults: u64,
    faults_by_kind: BTreeMap<&'static str, u64>,
    /// How often a daemon died.
    crashes: u64,
    machines: usize,
    virtual_s: i64,
    violations: Vec<Broken>,
}

/// An invariant that did not hold.
#[derive(Debug, Serialize)]
struct Broken {
    seed: u64,
    invariant: InvariantId,
    detail: String,
}

pub(super) fn run(wanted: &SimulateChaos, as_json: bool) -> Outcome {
    let seeds: Vec<u64> = wanted.seeds.clone().collect();
    if seeds.is_empty() {
        return Err(Failure::new(USAGE, "there is no seed from A up to and without B")
            .hint("`--seeds 0..100` runs a hundred, `--seeds 17` runs one"));
    }
    let bar = progress("{bar:32} {pos}/{len} seeds  {msg}", seeds.len() as u64);
    let parts = in_parallel(&seeds, wanted.jobs, |seed| {
        let part = Sum::of(chaos(*seed));
        if !part.violations.is_empty() {
            bar.set_message(format!("seed {seed} is broken"));
        }
        bar.inc(1);
        part
    });
    bar.finish_and_clear();
    let mut sum = Sum::default();
    parts.into_iter().for_each(|part| sum.add(part));
    if as_json {
        json(&sum)?;
    } else {
        line(&format!(
            "{} seeds, {} of virtual time: {} turns, {} faults, {} crashes, {} machines",
            sum.seeds,
            Span::from_secs(sum.virtual_s),
            sum.turns,
            sum.faults,
            sum.crashes,
            sum.machines
        ))?;
        for Broken { seed, invariant, detail } in &sum.violations {
            line(&format!("seed {seed}: {invariant}: {detail}"))?;
        }
        let verdict =
            if sum.violations.is_empty() { "every invariant held" } else { "invariants did not hold" };
        line(verdict)?;
    }
    Ok(if sum.violations.is_empty() { OK } else { FAILED })
}

impl Sum {
    fn of(report: ChaosReport) -> Self {
        let ChaosReport {
            seed,
            kind: _,
            commits,
            crashes,
            faults,
            machines,
            virtual_time,
            findings,
            journal: _,
        } = report;
        let broken = findings.into_iter().map(|found| Broken {
            seed,
            invariant: found.invariant,
            detail: found.detail,
        });
        Self {
            seeds: 1,
            turns: commits,
            faults: faults.values().sum(),
            faults_by_kind: faults,
            crashes,
            machines,
            virtual_s: virtual_time.as_millis() / 1000,
            violations: broken.collect(),
        }
    }

    fn add(&mut self, part: Self) {
        let Self { seeds, turns, faults, faults_by_kind, crashes, machines, virtual_s, violations } = part;
        self.seeds += seeds;
        self.turns += turns;
        self.faults += faults;
        for (kind, count) in faults_by_kind {
            *self.faults_by_kind.entry(kind).or_default() += count;
        }
        self.crashes += crashes;
        self.machines += machines;
        self.virtual_s += virtual_s;
        self.violations.extend(violations);
    }
}
