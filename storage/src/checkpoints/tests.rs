//! Checkpoints over a store in memory: what is restored, whoever dies when, and whoever writes though it should be dead.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use bursar_model::TypedId;
use object_store::{ObjectStore, memory::InMemory};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::testing::{Mortal, memory, write};

/// The files of a folder by name.
type Files = BTreeMap<String, Vec<u8>>;

async fn shelf(place: &Place, attempt: u32) -> Shelf {
    Shelf::claim(place.clone(), attempt, AttemptId::from_u64(attempt.into()), 2).await.unwrap()
}

fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        write(folder.path(), name, content);
    }
    folder
}

#[expect(clippy::disallowed_methods, reason = "tests look at real files")]
fn content(folder: &Path) -> Files {
    let found = scan(folder, Which::All).unwrap().into_iter();
    found.map(|file| (file.path.clone(), fs::read(folder.join(file.path)).unwrap())).collect()
}

async fn restored(shelf: &mut Shelf) -> (Option<Files>, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let mut passed_over = Vec::new();
    let restored = shelf.restore(&folder.path().join("c"), |why| passed_over.push(why)).await.unwrap();
    (restored.map(|_| content(&folder.path().join("c"))), passed_over)
}

async fn names(place: &Place, below: &str) -> Vec<String> {
    let mut names: Vec<_> = place
        .list(below, 1000)
        .await
        .unwrap()
        .into_iter()
        .map(|object| object.location.to_string())
        .collect();
    names.sort();
    names
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the test looks at real files")]
async fn a_checkpoint_comes_back_as_it_was_with_times_modes_and_links() {
    let place = memory("checkpoints");
    let source = folder(&[
        ("step-1/model", &[1; 150]),
        ("step-1/optimizer", b"o"),
        ("empty", b""),
        ("half.tmp", b"x"),
    ]);
    std::os::unix::fs::symlink("step-1", source.path().join("latest")).unwrap();
    files::finish(source.path().join("empty"), 0o640, 1_700_000_000_123).await.unwrap();
    let saved = shelf(&place, 1).await.save(source.path(), None).await.unwrap().unwrap();
    assert_eq!(saved, Saved { files: 4, bytes: 151, sent_bytes: 151, modified_ms: saved.modified_ms });

    let target = tempfile::tempdir().unwrap();
    write(target.path(), "c/step-1/old", b"of the working folder");
    let restored =
        shelf(&place, 2).await.restore(&target.path().join("c"), |why| panic!("{why}")).await.unwrap();
    assert_eq!(restored, Some(Restored { attempt: 1, files: 4, bytes: 151 }));
    let (before, after) = (
        scan(source.path(), Which::Complete).unwrap(),
        scan(&target.path().join("c"), Which::Complete).unwrap(),
    );
    let looks = |found: &[Found]| -> Vec<_> {
        let shown =
            found.iter().map(|file| (file.path.clone(), file.mode, file.link.clone(), file.stamp.size));
        shown.collect()
    };
    assert_eq!(looks(&before), looks(&after));
    assert_eq!(after[0].modified_ms(), 1_700_000_000_123);
    assert_eq!(fs::read(target.path().join("c/latest/model")).unwrap(), [1; 150]);
}

#[tokio::test]
async fn only_what_changed_is_sent_and_only_what_is_needed_is_kept() {
    let place = memory("checkpoints");
    let source = folder(&[("data", &[1; 640]), ("step", b"1")]);
    let mut shelf = shelf(&place, 1).await;
    assert_eq!(shelf.save(source.path(), None).await.unwrap().unwrap().sent_bytes, 641);
    assert_eq!(shelf.save(source.path(), None).await.unwrap(), None, "nothing is new");
    for step in ["2", "3", "4"] {
        write(source.path(), "step", step.as_bytes());
        assert_eq!(shelf.save(source.path(), None).await.unwrap().unwrap().sent_bytes, 1);
        shelf.clear().await.unwrap();
    }
    assert_eq!(names(&place, "manifests").await.len(), 2);
    // One of 64 times 1, and one for each step of the two that are kept.
    assert_eq!(names(&place, "parts").await.len(), 3);
    // What the next attempt finds it need not send, nor save anew.
    let mut next = self::shelf(&place, 2).await;
    let target = tempfile::tempdir().unwrap();
    next.restore(&target.path().join("c"), |why| panic!("{why}")).await.unwrap();
    assert_eq!(next.save(&target.path().join("c"), None).await.unwrap(), None);
    write(target.path(), "c/step", b"5");
    assert_eq!(next.save(&target.path().join("c"), None).await.unwrap().unwrap().sent_bytes, 1);
}

#[tokio::test]
async fn a_checkpoint_whose_part_is_gone_or_other_is_passed_over() {
    for gone in [true, false] {
        let place = memory("checkpoints");
        let source = folder(&[("step", b"1")]);
        let mut first = shelf(&place, 1).await;
        first.save(source.path(), None).await.unwrap();
        write(source.path(), "step", b"2");
        first.save(source.path(), None).await.unwrap();
        let part = format!("parts/00000001/{}", files::digest(b"2"));
        if gone {
            place.delete(&part).await.unwrap();
        } else {
            place.put(&part, b"3".to_vec()).await.unwrap();
        }
        place.put("manifests/00000001-00000003.json", b"{".to_vec()).await.unwrap();
        let mut second = shelf(&place, 2).await;
        let (files, passed_over) = restored(&mut second).await;
        assert_eq!(files, Some(content(folder(&[("step", b"1")]).path())));
        assert_eq!(passed_over.len(), 1, "{passed_over:?}");
        assert!(passed_over[0].contains("is damaged"), "{passed_over:?}");
        // What is not trusted is sent again, so that the next checkpoint is whole.
        second.save(source.path(), None).await.unwrap();
        assert_eq!(restored(&mut shelf(&place, 3).await).await, (Some(content(source.path())), Vec::new()));
    }
}

#[tokio::test]
async fn what_changed_a_moment_ago_is_left_until_it_has_settled() {
    let source = folder(&[("step", b"1")]);
    let mut shelf = shelf(&memory("checkpoints"), 1).await;
    let changed = scan(source.path(), Which::Complete).unwrap()[0].changed_ms();
    assert_eq!(shelf.save(source.path(), Some(changed - 1)).await.unwrap(), None);
    assert!(shelf.save(source.path(), Some(changed)).await.unwrap().is_some());
}

#[tokio::test]
async fn an_attempt_whose_successor_has_begun_stores_and_removes_nothing() {
    let place = memory("checkpoints");
    let source = folder(&[("step", b"1")]);
    let mut stale = shelf(&place, 1).await;
    stale.save(source.path(), None).await.unwrap();
    let _next = shelf(&place, 2).await;
    write(source.path(), "step", b"2");
    assert!(matches!(stale.save(source.path(), None).await, Err(StorageError::Fenced(2))));
    assert!(matches!(stale.clear().await, Err(StorageError::Fenced(2))));
    assert_eq!(names(&place, "manifests").await.len(), 1);
    let late = Shelf::claim(place, 1, AttemptId::from_u64(1), 2).await;
    assert!(matches!(late, Err(StorageError::Fenced(2))));
}

/// What one attempt does: saves these steps, dies after so many requests, and whether the last one had its effect.
#[derive(Debug, Clone)]
struct Life {
    steps: u8,
    requests: i64,
    last_has_effect: bool,
    /// It is given up for lost and lives on: it saves once more after its successor has begun.
    lives_on: bool,
}

fn lives() -> impl Strategy<Value = Vec<Life>> {
    let life = (1_u8..4, 0_i64..40, any::<bool>(), any::<bool>()).prop_map(
        |(steps, requests, last_has_effect, lives_on)| Life { steps, requests, last_has_effect, lives_on },
    );
    prop::collection::vec(life, 1..6)
}

/// Two files of which one grows and one is rewritten, so that parts are shared between checkpoints.
fn save_step(folder: &Path, step: u8) {
    write(folder, "history", &vec![9; usize::from(step) * 40]);
    write(folder, "step", &[step]);
}

fn step_of(files: &Files) -> u8 {
    let step = files["step"][0];
    assert_eq!(files["history"], vec![9; usize::from(step) * 40], "a checkpoint is of one moment");
    step
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whoever dies at whichever request: the next attempt finds the last checkpoint that was said to be stored, or one
    /// that was being stored after it; and never loses what a successor of a stale attempt has stored.
    #[test]
    fn the_newest_stored_checkpoint_survives_every_death(lives in lives()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
            let mut stored_step = 0;
            let mut step = 0;
            let mut ghost: Option<(Shelf, TempDir)> = None;
            for (number, life) in (1_u32..).zip(lives) {
                let left = Arc::new(AtomicI64::new(Mortal::FOREVER));
                let store = Mortal { store: memory.clone(), left: left.clone(), last_has_effect: life.last_has_effect };
                let mut shelf = shelf(&Place::within(Arc::new(store), "c"), number).await;
                let (files, passed_over) = restored(&mut shelf).await;
                let found = files.as_ref().map_or(0, step_of);
                assert!((stored_step..=step).contains(&found), "stored {stored_step}, tried {step}, found {found}");
                assert!(passed_over.is_empty(), "{passed_over:?}");
                stored_step = found;
                if let Some((mut stale, folder)) = ghost.take() {
                    save_step(folder.path(), 200);
                    assert!(stale.save(folder.path(), None).await.is_err());
                    // One that has saved nothing clears nothing, whoever lives.
                    assert!(!stale.clear().await.is_ok_and(|cleared| cleared != Cleared::default()));
                }
                let folder = tempfile::tempdir().unwrap();
                left.store(life.requests, Ordering::SeqCst);
                for _ in 0..life.steps {
                    step += 1;
                    save_step(folder.path(), step);
                    if shelf.save(folder.path(), None).await.is_ok() {
                        stored_step = step;
                    }
                    let _ = shelf.clear().await;
                }
                if life.lives_on {
                    left.store(Mortal::FOREVER, Ordering::SeqCst);
                    ghost = Some((shelf, folder));
                }
            }
        });
    }
}
