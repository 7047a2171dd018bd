//! Runs chaos seeds one after the other and stops at the first that breaks an invariant: what the mutation check asks
//! (`sim/mutations/run`).
//!
//! `first_violation FROM..TO` prints `seed TAB invariant TAB detail` and exits with 1 where there is one.

use std::{ops::Range, process::ExitCode};

use bursar_sim::chaos;

#[expect(clippy::print_stdout, reason = "its one line is what it is run for")]
fn main() -> ExitCode {
    let Some(seeds) = std::env::args().nth(1).as_deref().and_then(range) else {
        eprintln!("usage: first_violation FROM..TO");
        return ExitCode::from(2);
    };
    for seed in seeds {
        if let Some(first) = chaos(seed).findings.first() {
            println!("{seed}\t{}\t{}", first.invariant, first.detail);
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn range(text: &str) -> Option<Range<u64>> {
    let (from, to) = text.split_once("..")?;
    Some(from.parse().ok()?..to.parse().ok()?)
}
