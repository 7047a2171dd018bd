//! The conformance suite finds whoever breaks the contract of the store: each liar keeps all of it but one thing, and must
//! fail the sentence that says so.

#![expect(clippy::unwrap_used, reason = "the helpers are as much of the tests as the tests")]

use std::{
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
};

use bursar_store::{
    Commit, Durability, Loaded, OpenOptions, Reader, SqliteStore, Store, StoreError, Submission, conformance,
};
use rusqlite::Connection;

/// What a store does that the contract forbids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    None,
    LoadsLess,
    AnswersWithoutStoring,
    KeepsSomeOfARefusal,
    TakesOlderEpochs,
    ForgetsHighestIds,
    ForgetsKeys,
    GivesKeysTwice,
    /// Something is wrong with the tables after each commit.
    Damages(&'static str),
}

struct Liar {
    lie: Lie,
    path: PathBuf,
    inner: SqliteStore,
    epoch: u64,
    commits: u32,
}

impl Liar {
    fn open(path: &Path, lie: Lie) -> Self {
        let options = OpenOptions { durability: Durability::Process };
        let inner = SqliteStore::open(path, options).unwrap();
        Self { lie, path: path.to_owned(), inner, epoch: 0, commits: 0 }
    }
}

/// The same turn with other submissions and another epoch.
fn altered(commit: &Commit, epoch: u64, submissions: Vec<Submission>) -> Commit {
    let Commit { epoch: _, at, events, changes, submissions: _ } = commit;
    Commit { epoch, at: *at, events: events.clone(), changes: changes.clone(), submissions }
}

impl Store for Liar {
    async fn load(&mut self) -> Result<Loaded, StoreError> {
        let mut loaded = self.inner.load().await?;
        self.epoch = loaded.epoch;
        match self.lie {
            Lie::LoadsLess => drop(loaded.fleet.experiments.pop_first()),
            Lie::ForgetsHighestIds => loaded.highest_id = 0,
            Lie::None
            | Lie::AnswersWithoutStoring
            | Lie::KeepsSomeOfARefusal
            | Lie::TakesOlderEpochs
            | Lie::ForgetsKeys
            | Lie::GivesKeysTwice
            | Lie::Damages(_) => {}
        }
        Ok(loaded)
    }

    async fn commit(&mut self, commit: &Commit) -> Result<(), StoreError> {
        self.commits += 1;
        match self.lie {
            Lie::AnswersWithoutStoring => Ok(()),
            Lie::TakesOlderEpochs => {
                self.inner.commit(&altered(commit, self.epoch, commit.submissions.clone())).await
            }
            Lie::KeepsSomeOfARefusal | Lie::GivesKeysTwice => {
                let Err(refused) = self.inner.commit(commit).await else { return Ok(()) };
                self.inner.commit(&altered(commit, commit.epoch, Vec::new())).await?;
                if self.lie == Lie::GivesKeysTwice { Ok(()) } else { Err(refused) }
            }
            Lie::Damages(how) => {
                self.inner.commit(commit).await?;
                Connection::open(&self.path).unwrap().execute_batch(how).unwrap();
                Ok(())
            }
            Lie::None | Lie::LoadsLess | Lie::ForgetsHighestIds | Lie::ForgetsKeys => {
                self.inner.commit(commit).await
            }
        }
    }

    async fn submission(&mut self, key: &str) -> Result<Option<Submission>, StoreError> {
        if self.lie == Lie::ForgetsKeys {
            return Ok(None);
        }
        self.inner.submission(key).await
    }

    fn reader(&self) -> Reader {
        self.inner.reader()
    }
}

/// Whether a liar fails a sentence.
fn fails<F: Future<Output = ()>>(lie: Lie, sentence: impl FnOnce(PathBuf, Lie) -> F) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let tried = AssertUnwindSafe(|| runtime.block_on(sentence(folder.path().join("bursar.db"), lie)));
    std::panic::catch_unwind(tried).is_err()
}

macro_rules! finds {
    ($($sentence:ident $(($more:expr))?: $($lie:expr),+;)*) => {$(
        #[test]
        fn $sentence() {
            let fails = |lie| {
                fails(lie, async |path: PathBuf, lie: Lie| {
                    let open = async || Liar::open(&path, lie);
                    conformance::$sentence(open $(, $more)?).await;
                })
            };
            assert!(!fails(Lie::None));
            for lie in [$($lie),+] {
                assert!(fails(lie), "{lie:?} is not found");
            }
        }
    )*};
}

const STEPS: [u64; 24] = [
    0, 977, 1954, 2931, 3908, 4885, 5862, 6839, 7816, 8793, 9770, 10747, 11724, 12701, 13678, 14655, 15632,
    16609, 17586, 18563, 19540, 20517, 21494, 22471,
];

finds! {
    what_was_committed_is_loaded(&STEPS): Lie::LoadsLess, Lie::AnswersWithoutStoring;
    a_commit_outlives_whoever_made_it: Lie::LoadsLess, Lie::AnswersWithoutStoring;
    a_refused_commit_leaves_nothing_behind: Lie::KeepsSomeOfARefusal, Lie::GivesKeysTwice;
    a_commit_of_an_older_epoch_is_refused: Lie::TakesOlderEpochs;
    the_highest_id_is_not_below_any_id: Lie::ForgetsHighestIds;
    a_submission_is_found_by_its_key: Lie::ForgetsKeys, Lie::Damages("UPDATE submissions SET digest = zeroblob(32)");
    what_is_over_is_not_loaded_but_found:
        Lie::Damages("UPDATE attempts SET live = 1"), Lie::Damages("DELETE FROM attempts WHERE NOT live");
    the_journal_has_each_event_once_in_order:
        Lie::Damages("DELETE FROM journal WHERE seq = 3"),
        Lie::Damages("UPDATE journal SET seq = -seq WHERE seq = (SELECT max(seq) FROM journal)");
    reports_equal_the_sum_of_the_charges:
        Lie::Damages("UPDATE sums SET effective = effective + 1"),
        Lie::Damages("DELETE FROM charge_lines WHERE charge = (SELECT min(seq) FROM charges)");
    a_reader_sees_a_commit_as_soon_as_it_was_answered: Lie::AnswersWithoutStoring;
    what_an_instance_was_charged_is_the_sum_of_its_charges:
        Lie::Damages("UPDATE charge_lines SET contracted = contracted + 1 WHERE charge = (SELECT min(seq) FROM charges)");
    a_walk_gives_every_charge_once_with_its_facts: Lie::Damages("DELETE FROM charge_lines WHERE charge = (SELECT min(seq) FROM charges)");
    what_was_paid_for_failed_attempts_is_the_run_of_their_time:
        Lie::Damages("UPDATE charge_lines SET effective = effective + 1");
    reports_equal_a_recount_after_any_commit(&STEPS): Lie::Damages("UPDATE charge_lines SET effective = effective + 1");
}
