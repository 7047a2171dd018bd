//! How many rows a second an export has. Figures are in docs/performance.md.

#[path = "../tests/focus/sample.rs"]
mod sample;

use std::{hint::black_box, io};

use bursar_ledger::focus::FocusWriter;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn export(criterion: &mut Criterion) {
    let charges: Vec<sample::Sample> = sample::charges(10_000).collect();
    let rows: usize = charges.iter().map(|charge| charge.with(|charge| charge.lines.len())).sum();
    let mut group = criterion.benchmark_group("focus");
    group.throughput(Throughput::Elements(rows as u64));
    group.bench_function("rows", |bencher| {
        bencher.iter(|| {
            let mut export = FocusWriter::new(io::sink(), sample::account()).expect("a sink takes all");
            for charge in &charges {
                charge.with(|charge| export.write(black_box(charge))).expect("a sink takes all");
            }
            export.finish().expect("a sink takes all")
        });
    });
    group.finish();
}

criterion_group!(benches, export);
criterion_main!(benches);
