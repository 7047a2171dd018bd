//! What happens to files: whose they are, who holds them, when the disk is full, and when the daemon is killed.

#![expect(clippy::unwrap_used, reason = "the helpers are as much of the tests as the tests")]

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use bursar_model::{Event, Fleet};
use bursar_store::{
    Commit, Durability, OpenOptions, Reader, SqliteStore, Store, StoreError, conformance::Script,
};
use rusqlite::Connection;

const QUICK: OpenOptions = OpenOptions { durability: Durability::Process };

/// Experiments of this name in one commit of the child below: all of them are there, or none.
const BATCH: usize = 3;
const MARK: &str = "marked";

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bursar.db");
    (folder, path)
}

fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn batch(script: &mut Script, number: usize) -> Commit {
    for _ in 0..BATCH {
        script.queue(MARK, (number % 7) as u8, None);
    }
    script.commit()
}

/// What the journal comes to when it is told anew, and how many marks are in it.
fn retold(reader: &Reader) -> (Fleet, usize) {
    let (mut fleet, mut marks, mut after) = (Fleet::default(), 0, 0);
    // Ends with the journal: every page moves on.
    loop {
        let page = reader.events(after, 1000).unwrap();
        let Some(last) = page.last() else { break };
        after = last.seq;
        for entry in &page {
            let event: Event = serde_json::from_str(entry.event.get()).unwrap();
            if let Event::ExperimentQueued { experiment } = &event {
                marks += usize::from(&*experiment.name == MARK);
            }
            fleet.apply(&event).unwrap();
        }
    }
    let _ = fleet.take_changes();
    (fleet, marks)
}

#[test]
fn a_second_daemon_is_told_which_process_has_the_store() {
    let (_folder, path) = folder();
    let first = SqliteStore::open(&path, QUICK).unwrap();
    let error = SqliteStore::open(&path, QUICK).unwrap_err();
    assert!(
        matches!(error, StoreError::InUse { pid: Some(pid), .. } if pid == std::process::id()),
        "{error}"
    );
    drop(first);
    SqliteStore::open(&path, QUICK).unwrap();
}

#[test]
fn a_store_from_a_newer_version_is_refused_and_left_alone() {
    let (_folder, path) = folder();
    drop(SqliteStore::open(&path, QUICK).unwrap());
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    for error in [SqliteStore::open(&path, QUICK).unwrap_err(), Reader::open(&path).unwrap_err()] {
        assert!(matches!(error, StoreError::Newer { found: 99, .. }), "{error}");
        assert!(error.to_string().contains("upgrade bursar"), "{error}");
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the test makes files that are not ours")]
fn a_file_that_is_not_ours_is_refused_and_left_alone() {
    let (_folder, path) = folder();
    std::fs::write(&path, "dear diary, ".repeat(500)).unwrap();
    assert!(matches!(SqliteStore::open(&path, QUICK), Err(StoreError::Foreign { .. })));
    assert!(matches!(Reader::open(&path), Err(StoreError::Foreign { .. })));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "dear diary, ".repeat(500));

    std::fs::remove_file(&path).unwrap();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE songs (title TEXT)").unwrap();
    let before = std::fs::read(&path).unwrap();
    assert!(matches!(SqliteStore::open(&path, QUICK), Err(StoreError::Foreign { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn a_folder_that_is_not_there_is_an_error_that_names_the_store() {
    let (folder, _) = folder();
    let error = SqliteStore::open(&folder.path().join("no/bursar.db"), QUICK).unwrap_err();
    assert!(
        matches!(error, StoreError::Unopenable { .. }) && error.to_string().contains("no/bursar.db"),
        "{error}"
    );
}

#[tokio::test]
async fn reading_offline_finds_everything_and_creates_no_file() {
    let (folder, path) = folder();
    assert!(matches!(Reader::open(&path), Err(StoreError::Missing { .. })));
    assert!(names_in(folder.path()).is_empty());

    let mut store = SqliteStore::open(&path, QUICK).unwrap();
    let mut script = Script::new(store.load().await.unwrap());
    store.commit(&batch(&mut script, 0)).await.unwrap();
    assert_eq!(
        Reader::open(&path).unwrap().counts().unwrap().queued,
        BATCH as u64,
        "beside a running daemon"
    );
    drop(store);
    assert_eq!(Reader::open(&path).unwrap().counts().unwrap().queued, BATCH as u64, "after it");
    assert_eq!(names_in(folder.path()), ["bursar.db", "bursar.db.lock"]);
}

#[tokio::test]
async fn a_full_disk_refuses_commits_until_there_is_room() {
    let (_folder, path) = folder();
    let mut store = SqliteStore::open(&path, QUICK).unwrap();
    let mut script = Script::new(store.load().await.unwrap());
    store.limit_size(Some(400_000)).unwrap();
    let mut before = script.fleet.clone();
    let mut number = 0;
    let refused = loop {
        let commit = batch(&mut script, number);
        match store.commit(&commit).await {
            Ok(()) => before = script.fleet.clone(),
            Err(error) => {
                assert!(matches!(error, StoreError::Full), "{error}");
                break commit;
            }
        }
        number += 1;
        assert!(number < 10_000, "some commit has to be the first that does not fit");
    };
    assert!(matches!(store.commit(&refused).await, Err(StoreError::Full)), "still full");
    assert!(store.load().await.unwrap().fleet == before);

    store.limit_size(None).unwrap();
    store.commit(&refused).await.unwrap();
    assert!(store.load().await.unwrap().fleet == script.fleet);
    assert!(store.reader().integrity().unwrap().is_sound());
}

/// The path of the store that the child writes: its test has no other way to be told.
const CHILD_STORE: &str = "BURSAR_TEST_CHILD_STORE";

#[test]
#[ignore = "this is the child that the next test kills"]
#[expect(clippy::disallowed_methods, reason = "the child is told its store by the environment")]
#[expect(clippy::print_stdout, reason = "the child acknowledges on stdout")]
fn child_commits_until_it_is_killed() {
    let path = std::env::var(CHILD_STORE).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut store = SqliteStore::open(Path::new(&path), OpenOptions::default()).unwrap();
        let mut script = Script::new(store.load().await.unwrap());
        // The parent kills long before.
        for number in 0..1_000_000 {
            // All that a daemon may record, at random.
            for step in 0..4 {
                script.step((number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(step * 16));
            }
            store.commit(&batch(&mut script, number)).await.unwrap();
            println!("acknowledged");
        }
    });
}

#[tokio::test]
async fn whatever_was_acknowledged_before_a_kill_is_there_and_nothing_is_half() {
    let (_folder, path) = folder();
    let mut acknowledged = 0;
    for round in 0..12_usize {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_commits_until_it_is_killed", "--ignored", "--nocapture"])
            .env(CHILD_STORE, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut told = 0;
        // The child goes on while the kill is on its way: it hits any moment of the commits that follow.
        while told <= round * 37 % 101 {
            told += usize::from(lines.next().unwrap().unwrap() == "acknowledged");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        acknowledged += told + lines.map_while(Result::ok).filter(|line| line == "acknowledged").count();

        let mut store = SqliteStore::open(&path, QUICK).unwrap();
        let (told, marks) = retold(&store.reader());
        assert!(store.load().await.unwrap().fleet == told, "the journal and the tables differ");
        assert!(marks.is_multiple_of(BATCH), "half a commit: {marks} marks");
        let commits = marks / BATCH;
        assert!(commits >= acknowledged, "{acknowledged} were acknowledged, {commits} are there");
        // The commit that was in the middle may be there or not.
        assert!(commits <= acknowledged + 1, "{acknowledged} were acknowledged, {commits} are there");
        assert!(store.reader().integrity().unwrap().is_sound());
        acknowledged = commits;
    }
}
