//! `bursar simulate`: the whole daemon on virtual time.

mod chaos;
mod fleet;
mod page;
mod show;

use std::{
    io::{self, IsTerminal},
    num::NonZeroUsize,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    args::{Global, SimulateCommand},
    exit::Outcome,
};

/// Runs what was typed.
pub(super) fn run(global: &Global, command: SimulateCommand) -> Outcome {
    match command {
        SimulateCommand::Fleet(wanted) => fleet::run(global, &wanted),
        SimulateCommand::Chaos(wanted) => chaos::run(&wanted, global.json),
    }
}

/// Does every task, so many at once, each on a thread of its own: a world is one thread, and worlds share nothing.
/// The results stand in the order of the tasks.
fn in_parallel<T: Sync, R: Send>(
    tasks: &[T],
    at_once: Option<NonZeroUsize>,
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let processors = || thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let threads = at_once.map_or_else(processors, NonZeroUsize::get).min(tasks.len());
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, R)>> = Mutex::new(Vec::with_capacity(tasks.len()));
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                // Ends: each round takes one task.
                while let Some((index, task)) = Some(next.fetch_add(1, Ordering::Relaxed))
                    .and_then(|index| Some((index, tasks.get(index)?)))
                {
                    let result = work(task);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((index, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

/// A bar on a terminal; nothing elsewhere.
fn progress(template: &str, length: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(template);
    ProgressBar::new(length).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
