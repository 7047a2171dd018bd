//! What reading and checking specs costs: the wire is on the way of every submission, files are not.

use std::{hint::black_box, path::Path};

use bursar_config::{RawSpec, load_spec};
use criterion::{Criterion, criterion_group, criterion_main};

const EXPERIMENT: &str = include_str!("../examples/experiment.yaml");
const SWEEP: &str = "run: python train.py\nsweep: {matrix: {lr: [0.1, 0.01], width: 0..500}}";

fn raw(text: &str) -> RawSpec {
    load_spec(text, "bench.yaml", Path::new("/"), None).expect("the document is right").value.raw
}

fn check(criterion: &mut Criterion) {
    let json = serde_json::to_vec(&raw(EXPERIMENT)).expect("raw specs are JSON");
    criterion.bench_function("experiment: check", |bench| {
        bench.iter_batched(|| raw(EXPERIMENT), |raw| raw.check(None), criterion::BatchSize::SmallInput);
    });
    criterion.bench_function("experiment: JSON and check", |bench| {
        bench.iter(|| RawSpec::from_json(black_box(&json)).and_then(|raw| raw.check(None)));
    });
    criterion.bench_function("experiment: YAML and check", |bench| {
        bench.iter(|| load_spec(black_box(EXPERIMENT), "bench.yaml", Path::new("/"), None));
    });
    criterion.bench_function("sweep of 1000 trials: check", |bench| {
        bench.iter_batched(|| raw(SWEEP), |raw| raw.check(None), criterion::BatchSize::SmallInput);
    });
}

criterion_group!(benches, check);
criterion_main!(benches);
