//! SQLite keeps the contract of the store.

#![expect(clippy::unwrap_used, reason = "the helper is as much of the tests as the tests")]

use bursar_store::{Durability, OpenOptions, SqliteStore, conformance};
use proptest::prelude::*;

const QUICK: OpenOptions = OpenOptions { durability: Durability::Process };

fn in_folder(folder: &tempfile::TempDir) -> impl AsyncFn() -> SqliteStore {
    let path = folder.path().join("bursar.db");
    async move || SqliteStore::open(&path, QUICK).unwrap()
}

macro_rules! keeps {
    ($($sentence:ident)*) => {$(
        #[tokio::test]
        async fn $sentence() {
            let folder = tempfile::tempdir().unwrap();
            conformance::$sentence(in_folder(&folder)).await;
        }
    )*};
}

keeps! {
    a_commit_outlives_whoever_made_it
    a_refused_commit_leaves_nothing_behind
    a_commit_of_an_older_epoch_is_refused
    the_highest_id_is_not_below_any_id
    the_newest_commit_is_told_with_its_time
    a_submission_is_found_by_its_key
    what_is_over_is_not_loaded_but_found
    the_journal_has_each_event_once_in_order
    reports_equal_the_sum_of_the_charges
    a_reader_sees_a_commit_as_soon_as_it_was_answered
    what_an_instance_was_charged_is_the_sum_of_its_charges
    a_walk_gives_every_charge_once_with_its_facts
    what_was_paid_for_failed_attempts_is_the_run_of_their_time
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn reports_equal_a_recount_after_any_commit(steps in prop::collection::vec(any::<u64>(), 30..200)) {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(conformance::reports_equal_a_recount_after_any_commit(in_folder(&folder), &steps));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_was_committed_is_loaded(steps in prop::collection::vec(any::<u64>(), 1..120)) {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(conformance::what_was_committed_is_loaded(in_folder(&folder), &steps));
    }
}
