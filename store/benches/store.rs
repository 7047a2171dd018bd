//! What the daemon waits for: commits, the start, and the questions of the API.
//!
//! `cargo bench -p bursar-store`. Commits are durable ones, on the disk of the temporary folder.

#![expect(clippy::unwrap_used, reason = "a bench that cannot go on should stop")]
#![expect(clippy::disallowed_methods, reason = "a bench is told by the environment where to leave its store")]

use std::{cell::LazyCell, hint::black_box, path::Path, time::Duration};

use bursar_model::{Category, Span, Timestamp};
use bursar_store::{
    ChargeFilter, Commit, Dimension, Durability, ExperimentFilter, OpenOptions, Reader, ReportQuery,
    SqliteStore, Store, conformance::Script,
};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

const QUICK: OpenOptions = OpenOptions { durability: Durability::Process };

fn now<T>(future: impl Future<Output = T>) -> T {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => unreachable!("SQLite answers inline"),
    }
}

fn begin(store: &mut SqliteStore) -> Script {
    Script::new(now(store.load()).unwrap())
}

fn queue(script: &mut Script, count: usize, specs: u8) -> Commit {
    for number in 0..count {
        script.queue(&format!("resnet50-{number}"), (number % usize::from(specs)) as u8, None);
    }
    script.commit()
}

/// Ten thousand queued experiments and a million charges to eight thousand payers.
fn fill(path: &Path, charges: usize) {
    let mut store = SqliteStore::open(path, QUICK).unwrap();
    let mut script = begin(&mut store);
    let commit = queue(&mut script, 10_000, 64);
    now(store.commit(&commit)).unwrap();
    let experiments: Vec<_> = script.fleet.experiments.keys().copied().collect();
    let instances: Vec<_> =
        experiments.chunks(8).take(1000).map(|payers| script.instance(&payers[..1])).collect();
    now(store.commit(&script.commit())).unwrap();
    let mut made = 0;
    while made < charges {
        for instance in &instances {
            script.charge(*instance, Span::from_secs(60), Category::ALL[made / 7 % 5]);
            made += 1;
        }
        now(store.commit(&script.commit())).unwrap();
    }
    for instance in instances {
        let end = bursar_model::InstanceEnd::Vanished;
        script.then(bursar_model::Event::InstanceGone { instance, at: script.now, end });
    }
    now(store.commit(&script.commit())).unwrap();
}

fn commits(c: &mut Criterion) {
    let mut group = c.benchmark_group("commit");
    group.measurement_time(Duration::from_secs(4));
    for (count, durability) in
        [1, 100].into_iter().flat_map(|count| [(count, Durability::Machine), (count, Durability::Process)])
    {
        let folder = tempfile::tempdir().unwrap();
        let mut store =
            SqliteStore::open(&folder.path().join("bursar.db"), OpenOptions { durability }).unwrap();
        let mut script = begin(&mut store);
        group.bench_function(format!("{count}_queued_outlives_the_{durability:?}"), |b| {
            b.iter_batched(
                || queue(&mut script, count, 1),
                |commit| now(store.commit(&commit)).unwrap(),
                BatchSize::PerIteration,
            );
        });
    }
    let folder = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(&folder.path().join("bursar.db"), OpenOptions::default()).unwrap();
    let mut script = begin(&mut store);
    let payers = [script.queue("a", 0, None), script.queue("b", 0, None)];
    let instance = script.instance(&payers);
    group.bench_function("charge_of_two_payers", |b| {
        b.iter_batched(
            || {
                script.charge(instance, Span::from_millis(10), Category::Run);
                script.commit()
            },
            |commit| now(store.commit(&commit)).unwrap(),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn starts(c: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let mut group = c.benchmark_group("start");
    group.sample_size(50);
    let mut number = 0;
    group.bench_function("empty", |b| {
        b.iter(|| {
            number += 1;
            let path = folder.path().join(number.to_string());
            let mut store = SqliteStore::open(&path, OpenOptions::default()).unwrap();
            now(store.load()).unwrap()
        });
    });
    // Made only where a bench that was asked for needs it: it takes half a minute.
    let full = LazyCell::new(|| {
        let path = folder.path().join("full");
        fill(&path, 1_000_000);
        // For figures of a whole daemon on such a store.
        if let Some(kept) = std::env::var_os("BURSAR_BENCH_KEEP") {
            std::fs::copy(&path, kept).unwrap();
        }
        path
    });
    group.bench_function("10_000_queued_1_000_000_charges", |b| {
        let path = &*full;
        b.iter(|| {
            let mut store = SqliteStore::open(path, OpenOptions::default()).unwrap();
            now(store.load()).unwrap()
        });
    });

    let reader = LazyCell::new(|| Reader::open(&full).unwrap());
    group.bench_function("newest_50_experiments", |b| {
        b.iter(|| reader.experiments(black_box(&ExperimentFilter::default()), None, 50).unwrap());
    });
    group.bench_function("newest_1000_charges", |b| {
        b.iter(|| reader.charges(black_box(&ChargeFilter::default()), None, 1000).unwrap());
    });
    let some_time = Some(Timestamp::from_millis(1));
    for (name, by, since) in [
        ("report_by_project", vec![Dimension::Project], None),
        ("report_by_experiment", vec![Dimension::Experiment], None),
        ("report_by_day", vec![Dimension::Day], None),
        ("report_by_project_within_a_day", vec![Dimension::Project], some_time),
    ] {
        let query = ReportQuery { by, since, ..Default::default() };
        group.bench_function(name, |b| b.iter(|| reader.report(black_box(&query)).unwrap()));
    }
    group.finish();
}

criterion_group!(benches, commits, starts);
criterion_main!(benches);
