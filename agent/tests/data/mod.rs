//! What attempts get from stores and leave there: a shared folder, and stores that are slow or silent.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Router, http::Method};
use bursar_model::{
    AttemptEnd, ExperimentId, StopReason,
    agent_api::{AttemptOrder, CheckpointStore, Data, StoreAccess, Work},
};

use crate::{
    LONG, end,
    harness::{Agent, Daemon, wait_for, work},
};

/// Counts steps from where its checkpoint says, and saves each and once more when it is told to end.
const COUNTER: &str =
    "saved=$BURSAR_CHECKPOINT_DIR/step; step=$(cat $saved 2>/dev/null || echo 0); echo from $step
save() { echo $step > $saved.tmp; mv $saved.tmp $saved; }
trap 'save; exit 0' TERM
while :; do step=$((step + 1)); echo at $step; save; sleep 0.05; done";

fn folder_url(folder: &Path) -> StoreAccess {
    StoreAccess::at(format!("file://{}", folder.display()))
}

fn saving_to(access: StoreAccess) -> Data {
    Data { checkpoints: Some(CheckpointStore { access, kept: 2 }), ..Data::default() }
}

/// The next attempt of an experiment, on a machine of its own.
fn next_attempt(daemon: &mut Daemon, experiment: ExperimentId, number: u32, work: Work) -> AttemptOrder {
    let order = daemon.order(work);
    let order = AttemptOrder { experiment, number, ..order };
    daemon.change(|book| drop(book.orders.insert(order.attempt, order.clone())));
    order
}

fn manifests(store: &Path) -> Vec<String> {
    let names = fs::read_dir(store.join("manifests")).into_iter().flatten();
    let mut names: Vec<_> = names.map(|name| name.unwrap().file_name().into_string().unwrap()).collect();
    // A file store makes files under other names first.
    names.retain(|name| name.ends_with(".json"));
    names.sort();
    names
}

#[tokio::test]
async fn what_was_stopped_goes_on_elsewhere_where_it_had_come_to() {
    let store = tempfile::tempdir().unwrap();
    let data = saving_to(folder_url(store.path()));
    let mut daemon = Daemon::start(LONG);
    let _here = daemon.agent();
    let first = daemon.order(Work { data: data.clone(), ..work(COUNTER) });
    daemon.logged(first.attempt, "at 5\n").await;
    daemon.stop_attempt_because(first.attempt, StopReason::Moved, Duration::from_secs(20));
    let report = daemon.ended(first.attempt).await;
    assert!(report.checkpoint_age_ms.is_some() && report.checkpoint_took_ms.is_some(), "{report:?}");
    let log = daemon.log(first.attempt);
    assert!(log.contains("bursar: stored the last checkpoint: 1 files"), "{log}");
    let last = log.lines().rev().find_map(|line| line.strip_prefix("at ")).unwrap().to_owned();

    let mut elsewhere = Daemon::start(LONG);
    let _there = elsewhere.agent();
    let second = next_attempt(&mut elsewhere, first.experiment, 2, Work { data, ..work(COUNTER) });
    elsewhere.logged(second.attempt, "at ").await;
    let log = elsewhere.log(second.attempt);
    assert!(log.contains("bursar: restored the checkpoint of attempt 1: 1 files"), "{log}");
    assert!(log.contains(&format!("from {last}\n")), "{last}: {log}");
}

#[tokio::test]
async fn a_checkpoint_is_stored_while_the_attempt_runs_and_counts_only_then() {
    let store = tempfile::tempdir().unwrap();
    let data = Data { checkpoint_path: Some("ckpt".to_owned()), ..saving_to(folder_url(store.path())) };
    let mut daemon = Daemon::start(LONG);
    let _agent = daemon.agent();
    let order = daemon.order(Work { data, ..work("sleep 0.1; echo 1 > ckpt/step; echo saved; sleep 600") });
    daemon.logged(order.attempt, "saved").await;
    daemon
        .until("it is said to be saved", |book| {
            let saved = book.reports.get(&order.attempt)?.checkpoint_age_ms.is_some();
            assert!(
                !saved || manifests(store.path()).len() == 1,
                "what is on its machine alone is not saved"
            );
            saved.then_some(())
        })
        .await;
}

#[tokio::test]
async fn an_agent_killed_while_it_stores_leaves_the_checkpoint_before() {
    let store = tempfile::tempdir().unwrap();
    let data = saving_to(folder_url(store.path()));
    let mut daemon = Daemon::start(LONG);
    let mut agent = daemon.agent();
    // Of random bytes, so that each part is another; and so many that hashing them takes seconds.
    let script = "c=$BURSAR_CHECKPOINT_DIR; echo small > $c/state; while [ ! -e $c/.go ]; do sleep 0.05; done
        head -c 128M /dev/urandom > $c/state.tmp; mv $c/state.tmp $c/state; sleep 600";
    let first = daemon.order(Work { data: data.clone(), ..work(script) });
    wait_for("the first checkpoint is stored", || (manifests(store.path()).len() == 1).then_some(())).await;
    fs::write(agent.attempt_folder(first.attempt).join("checkpoints/.go"), "").unwrap();
    let parts = || fs::read_dir(store.path().join("parts/00000001")).unwrap().count();
    wait_for("a part of the second is stored", || (parts() > 1).then_some(())).await;
    agent.process.kill().unwrap();
    agent.exited().await;
    assert_eq!(manifests(store.path()).len(), 1, "the second was not stored when the agent died");

    let mut elsewhere = Daemon::start(LONG);
    let _there = elsewhere.agent();
    let script = work("cat $BURSAR_CHECKPOINT_DIR/state");
    let second = next_attempt(&mut elsewhere, first.experiment, 2, Work { data, ..script });
    assert_eq!(end(elsewhere.ended(second.attempt).await), AttemptEnd::Exited { code: 0 });
    assert!(elsewhere.log(second.attempt).contains("\nsmall\n"), "{}", elsewhere.log(second.attempt));
}

#[tokio::test]
async fn mounts_are_there_before_setup_and_outputs_are_stored_however_it_ends() {
    let (store, set) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir(set.path().join("deep")).unwrap();
    fs::write(set.path().join("deep/numbers"), "1 2 3").unwrap();
    let outputs = ["results/", "model.pt", "plots"].map(|path| (path.to_owned(), folder_url(store.path())));
    let data = Data {
        mounts: BTreeMap::from([("data".to_owned(), folder_url(set.path()))]),
        outputs: outputs.into(),
        ..Data::default()
    };
    let mut daemon = Daemon::start(LONG);
    let _agent = daemon.agent();
    let order = daemon.order(Work {
        setup: Some("mkdir results; cp data/deep/numbers results/".to_owned()),
        data: data.clone(),
        ..work("echo model > model.pt; exit 3")
    });
    assert_eq!(end(daemon.ended(order.attempt).await), AttemptEnd::Exited { code: 3 });
    let stored = store.path().join(format!("00000001-{}", order.attempt));
    assert_eq!(fs::read_to_string(stored.join("results/numbers")).unwrap(), "1 2 3");
    assert_eq!(fs::read_to_string(stored.join("model.pt")).unwrap(), "model\n");
    let log = daemon.log(order.attempt);
    assert!(log.contains("1 files, 5 bytes, 5 of them fetched\n"), "{log}");
    assert!(log.contains("bursar: stored outputs: 2 files, 11 bytes\n"), "{log}");
    assert!(log.contains("bursar: there is no `plots` among its outputs\n"), "{log}");

    let again = daemon.order(Work { data, ..work("cat data/deep/numbers") });
    daemon.ended(again.attempt).await;
    assert!(
        daemon.log(again.attempt).contains("5 bytes, 0 of them fetched\n"),
        "{}",
        daemon.log(again.attempt)
    );
}

#[tokio::test]
async fn what_cannot_be_mounted_or_restored_is_told_as_not_started() {
    let mut daemon = Daemon::start(LONG);
    let _agent = daemon.agent();
    let mounts = BTreeMap::from([("data".to_owned(), StoreAccess::at("file:///no/such/set"))]);
    let order = daemon.order(Work { data: Data { mounts, ..Data::default() }, ..work("true") });
    let end = end(daemon.ended(order.attempt).await);
    let told = |error: &str| error.starts_with("mount data: cannot find anything at file:///no/such/set");
    assert!(matches!(&end, AttemptEnd::NotStarted { error } if told(error)), "{end:?}");
}

/// A store that takes everything and shows nothing, until it falls silent.
struct FadingStore {
    silent: Arc<AtomicBool>,
    asked: Arc<AtomicBool>,
    access: StoreAccess,
}

impl FadingStore {
    async fn start() -> Self {
        let (silent, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let state = (silent.clone(), asked.clone());
        let answer = move |method: Method| {
            let (silent, asked) = state.clone();
            async move {
                if silent.load(Ordering::SeqCst) {
                    asked.store(true, Ordering::SeqCst);
                    std::future::pending::<()>().await;
                }
                let listing = "<?xml version=\"1.0\"?><ListBucketResult><Name>b</Name><KeyCount>0</KeyCount>\
                               <IsTruncated>false</IsTruncated></ListBucketResult>";
                ([("etag", "\"1\"")], if method == Method::GET { listing } else { "" })
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
        let names = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
        let access = StoreAccess {
            endpoint: Some(endpoint),
            credentials: names.map(|name| (name.to_owned(), "x".to_owned())).into(),
            ..StoreAccess::at("s3://bucket/prefix")
        };
        Self { silent, asked, access }
    }

    async fn fall_silent(&self) {
        self.silent.store(true, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_store_that_falls_silent_costs_a_stopped_attempt_its_grace_and_no_more() {
    let (store, mut daemon) = (FadingStore::start().await, Daemon::start(LONG));
    let _agent = daemon.agent();
    let order = daemon.order(Work { data: saving_to(store.access.clone()), ..work(COUNTER) });
    daemon.logged(order.attempt, "at 2").await;
    store.fall_silent().await;
    let began = Instant::now();
    daemon.stop_attempt_because(order.attempt, StopReason::Moved, Duration::from_secs(2));
    let report = daemon.ended(order.attempt).await;
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert!(store.asked.load(Ordering::SeqCst));
    assert_eq!(end(report), AttemptEnd::Stopped { why: StopReason::Moved });
    let log = daemon.log(order.attempt);
    assert!(log.contains("bursar: the time is over: its last checkpoint is not stored\n"), "{log}");
}

#[tokio::test]
async fn a_store_that_is_silent_keeps_no_agent_beyond_its_lease() {
    let (store, mut daemon) = (FadingStore::start().await, Daemon::start(Duration::from_secs(5)));
    let began = Instant::now();
    let mut agent: Agent = daemon.agent();
    store.fall_silent().await;
    let order = daemon.order(Work { data: saving_to(store.access.clone()), ..work("echo never") });
    wait_for("the store is asked", || store.asked.load(Ordering::SeqCst).then_some(())).await;
    // No lease is renewed from now on.
    daemon.stop();
    assert!(agent.exited().await.success());
    assert!(began.elapsed() < Duration::from_secs(11), "{:?}", began.elapsed());
    assert_eq!(daemon.log(order.attempt), "");
}
