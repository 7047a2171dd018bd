//! What the daemon waits for: commits, the start, and the questions of the API.
//!
//! `cargo bench -p bursar-store`. Commits are durable ones, on the disk of the temporary folder.

#![expect(clippy::unwrap_used, reason = "a bench that cannot go on should stop")]
#![expect(clippy::disallowed_methods, reason = "a bench is told by the environment where to leave its store")]

use std::{cell::LazyCell, hint::black_box, ops::ControlFlow, path::Path, time::Duration};

use bursar_model::{Account, Category, Span};
use bursar_store::{
    ChargeFilter, Commit, Dimension, Durability, ExperimentFilter, OpenOptions, Reader, ReportFilter,
    ReportQuery, SeriesUnit, SqliteStore, Store, conformance::Script,
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

/// A month: ten thousand experiments of 64 accounts at 20 places, each for a hundred minutes that are charged one by
/// one, a quarter of the instances shared by two. The experiments stay queued, for the bench of the start.
fn fill(path: &Path, charges: usize) {
    const CHARGES_EACH: usize = 100;
    let mut store = SqliteStore::open(path, QUICK).unwrap();
    let mut script = begin(&mut store);
    let experiments = charges / CHARGES_EACH;
    let begin = script.now;
    let mut before = None;
    for number in 0..experiments {
        script.now = begin + Span::from_hours(24 * 30).times(number as i64).divided_by(experiments as i64);
        let account = Account {
            project: format!("project-{}", number % 8).as_str().into(),
            user: format!("user-{}", number / 8 % 8).as_str().into(),
            sweep: None,
        };
        let experiment = script.queue_for(&format!("resnet50-{number}"), (number % 64) as u8, account);
        let mut payers = vec![experiment];
        payers.extend(before.replace(experiment).filter(|_| number % 4 == 0));
        let instance = script.instance_at((number % 20) as u8, &payers);
        for charge in 0..CHARGES_EACH {
            let category = match charge {
                0..3 => Category::Boot,
                3..94 => Category::Run,
                94..97 => Category::Idle,
                _ => Category::Drain,
            };
            script.charge(instance, Span::from_secs(60), category);
        }
        let end = bursar_model::InstanceEnd::Vanished;
        script.then(bursar_model::Event::InstanceGone { instance, at: script.now, end });
        now(store.commit(&script.commit())).unwrap();
    }
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
    let by = |first: &[Dimension]| ReportQuery { by: first.to_vec(), ..ReportQuery::default() };
    let label = Dimension::Label("team".to_owned());
    for (name, query) in [
        ("report_by_project", by(&[Dimension::Project])),
        ("report_by_experiment", by(&[Dimension::Experiment])),
        ("report_by_day", by(&[Dimension::Day])),
        ("report_by_experiment_and_day", by(&[Dimension::Experiment, Dimension::Day])),
        ("report_by_project_and_day", by(&[Dimension::Project, Dimension::Day])),
        ("report_by_label_and_week", by(&[label, Dimension::Week])),
    ] {
        group.bench_function(name, |b| b.iter(|| reader.report(black_box(&query)).unwrap()));
    }
    let query = by(&[Dimension::Experiment, Dimension::Day]);
    group.bench_function("report_by_experiment_and_day_just_opened", |b| {
        b.iter(|| Reader::open(&full).unwrap().report(black_box(&query)).unwrap());
    });
    let noon = reader.spend_series(&ReportFilter::default(), None, None, SeriesUnit::Day).unwrap()[15].0.from
        + Span::from_hours(12);
    let query = ReportQuery { since: Some(noon), ..by(&[Dimension::Project]) };
    group.bench_function("report_by_project_since_noon_of_a_day", |b| {
        b.iter(|| reader.report(black_box(&query)).unwrap());
    });
    group.sample_size(10);
    let week = (Some(noon), Some(noon + Span::from_hours(24 * 7)));
    group.bench_function("series_of_hours_of_a_week", |b| {
        b.iter(|| reader.spend_series(&ReportFilter::default(), week.0, week.1, SeriesUnit::Hour).unwrap());
    });
    group.bench_function("walk_of_all_charges", |b| {
        b.iter(|| {
            let mut lines = 0;
            let ended = reader.walk_charges(None, None, |charge| {
                lines += charge.lines.len();
                ControlFlow::<()>::Continue(())
            });
            assert_eq!(ended.unwrap(), ControlFlow::Continue(()));
            lines
        });
    });
    group.finish();
}

criterion_group!(benches, commits, starts);
criterion_main!(benches);
