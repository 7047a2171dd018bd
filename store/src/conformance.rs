//! The contract of [`Store`] as functions, one for each of its sentences: every store passes all of them.
//!
//! `open` opens the same store each time, as a daemon does at its start; what it gave before is dropped by then.

mod recount;
mod script;

use bursar_model::{
    AttemptEnd, BudgetKey, Category, Charge, ChargeClass, ChargeLine, Costs, Event, Outcome, Period, Rates,
    Span, Timestamp, TypedId, Usd,
};

pub use self::{recount::*, script::Script};
use crate::{
    ChargeFilter, Commit, Dimension, ExperimentFilter, MonthCosts, Peers, Reader, ReportQuery, Store,
    StoreError, Submission, Submitted,
};

/// Begins with what the store has.
async fn begin<S: Store>(store: &mut S) -> Script {
    Script::new(store.load().await.expect("it loads"))
}

async fn save<S: Store>(store: &mut S, script: &mut Script) {
    store.commit(&script.commit()).await.expect("it commits");
}

/// A day of work: two payers on one instance, one of them over, the instance gone.
async fn work<S: Store>(store: &mut S, script: &mut Script) {
    let sweep = script.sweep(3);
    let single = script.queue("single", 4, None);
    save(store, script).await;
    let trial =
        script.fleet.experiments.values().find(|e| e.account.sweep == Some(sweep)).expect("it has trials").id;
    let instance = script.instance(&[trial, single]);
    save(store, script).await;
    let attempts = [script.run(trial, instance), script.run(single, instance)];
    script.charge(instance, Span::from_secs(95), Category::Boot);
    save(store, script).await;
    for category in Category::ALL {
        script.charge(instance, Span::from_hours(7), category);
    }
    script.end_attempt(attempts[0], AttemptEnd::Exited { code: 0 });
    script.end(trial, Outcome::Succeeded);
    script.end_attempt(attempts[1], AttemptEnd::InstanceLost { interrupted: true });
    let end = bursar_model::InstanceEnd::Interrupted;
    script.then(Event::InstanceGone { instance, at: script.now, end });
    save(store, script).await;
}

/// Sentence 1, for the history that these numbers stand for: `load` gives what memory holds after any commit.
pub async fn what_was_committed_is_loaded<S: Store>(open: impl AsyncFn() -> S, steps: &[u64]) {
    let mut store = open().await;
    let mut script = begin(&mut store).await;
    for turn in steps.chunks(3) {
        for step in turn {
            script.step(*step);
        }
        save(&mut store, &mut script).await;
        assert!(store.load().await.expect("it loads").fleet == script.fleet, "after {turn:?} of {steps:?}");
    }
    drop(store);
    assert!(
        open().await.load().await.expect("it loads").fleet == script.fleet,
        "opened again after {steps:?}"
    );
}

/// Sentence 2, as far as a test within one process can see: another opening finds what was committed.
pub async fn a_commit_outlives_whoever_made_it<S: Store>(open: impl AsyncFn() -> S) {
    let mut store = open().await;
    let mut script = begin(&mut store).await;
    let id = script.queue("one", 0, None);
    save(&mut store, &mut script).await;
    drop(store);
    assert!(open().await.load().await.expect("it loads").fleet.experiments.contains_key(&id));
}

/// Sentence 3.
pub async fn a_refused_commit_leaves_nothing_behind<S: Store>(open: impl AsyncFn() -> S) {
    let mut store = open().await;
    let mut script = begin(&mut store).await;
    script.queue("one", 0, None);
    let submission =
        Submission { key: "k".to_owned(), digest: [1; 32], became: Submitted::Experiments(Vec::new()) };
    store
        .commit(&Commit { submissions: vec![submission.clone()], ..script.commit() })
        .await
        .expect("it commits");
    let before = script.fleet.clone();
    script.queue("two", 1, None);
    let refused = Commit { submissions: vec![submission], ..script.commit() };
    store.commit(&refused).await.expect_err("the key is taken");
    assert!(store.load().await.expect("it loads").fleet == before);
    assert_eq!(
        store.reader().counts().expect("it counts").newest_event,
        2,
        "the spec and the first experiment"
    );

    store.commit(&Commit { submissions: Vec::new(), ..refused }).await.expect("it commits without the key");
    assert!(store.load().await.expect("it loads").fleet == script.fleet);
}

/// Sentence 4.
pub async fn a_commit_of_an_older_epoch_is_refused<S: Store>(open: impl AsyncFn() -> S) {
    let first = open().await.load().await.expect("it loads").epoch;
    let mut store = open().await;
    let mut script = begin(&mut store).await;
    assert!(script.epoch > first, "each opening has a higher epoch");
    script.queue("one", 0, None);
    let commit = script.commit();
    let stale = Commit { epoch: first, ..commit };
    let error = store.commit(&stale).await.expect_err("its epoch is over");
    assert!(
        matches!(error, StoreError::Deposed { ours, current } if ours == first && current == script.epoch)
    );
    assert!(store.load().await.expect("it loads").fleet.experiments.is_empty());
}

/// Sentence 5.
pub async fn the_highest_id_is_not_below_any_id<S: Store>(open: impl AsyncFn() -> S) {
    let mut store = open().await;
    let mut script = begin(&mut store).await;
    work(&mut store, &mut script).await;
    let notification = script.notify();
    save(&mut store, &mut script).await;
    let reader = store.reader();
    let experiments = reader.experiments(&ExperimentFilter::default(), None, 100).expect("it reads").rows;
    let instances = reader.instances(&Default::default(), None, 100).expect("it reads").rows;
    let attempts =
        experiments.iter().flat_map(|row| reader.attempts_of(row.experiment.id).expect("it reads"));
    let sweeps = experiments.iter().filter_map(|row| row.experiment.account.sweep);
    let ids = experiments
        .iter()
        .map(|row| row.experiment.id.as_u64())
        .chain(attempts.map(|attempt| attempt.id.as_u64()))
        .chain(sweeps.map(|sweep| sweep.as_u64()))
        .chain(instances.iter().map(|i| i.id.as_u64()))
        .chain([notification.as_u64()]);
    let highest = store.load().await.expect("it loads").highest_id;
    assert!(ids.max().expect("there was work") <= highest);
}

/// Sentence 15.
pub async fn the_newest_commit_is_told_with_its_time<S: Store>(open: impl AsyncFn() -> S) {
    let mut store = open().await;
    let loaded = store.load().await.expect("it loads");
    assert_eq!(loaded.newest_commit, None);
    let mut script = Script::new(loaded);
    for name in ["one", "two"] {
        script.queue(name, 0, None);
        let commit = script.commit();
        store.commit(&commit).await.expect("it commits");
        assert_eq!(store.load().await.expect("it loads").newest_commit, Some(commit.at), "{name}");
    }
    let newest = store.load().await.expect("it loads").newest_commit;
    drop(store);
    assert_eq!(open().await.load().await.expect("it loads").newest_commit, newest);
}

/// Sentence 6.
pub async fn a_submission_is_found_by_its_key<S: Store>(open: impl AsyncFn() -> S) {
    let mut store = open().await;
    let mut script = begin(&mut store).await;
    let ids = vec![script.queue("one", 0, None), script.queue("two", 0, None)];
    let sweep = script.sweep(1);
    let submissions = vec![
        Submission { key: "both".to_owned(), digest: [7; 32], became: Submitted::Experiments(ids) },
        Submission { key: "sweep é".to_owned(), digest: [8; 32], became: Submitted::Sweep(sweep) },
    ];
    let commit = Commit { submissions, ..script.commit() };
    store.commit(&commit).await.expect("it commits");
    for submission in &commit.submissions {
        assert_eq!(store.submission(&submission.key).await.expect("it reads").as_ref(), Some(submission));
    }
    assert_eq!(store.submission("bot").await.expect("it reads"), None);
}

/// Sentence 7.
pub async fn what_is_over_is_not_loaded_but_found<S: Store>(open: impl AsyncFn() -> S) {
    let mut store = open().await;
    let mut script = begin(&mut store).await;
    work(&mut store, &mut script).await;
    let loaded = store.load().await.expect("it loads").fleet;
    assert!(loaded.instances.is_empty() && loaded.attempts.is_empty());
    assert_eq!(loaded.experiments.len(), 3);

    let reader = store.reader();
    let succeeded = ExperimentFilter { state: Some("succeeded".to_owned()), ..Default::default() };
    let over = reader.experiments(&succeeded, None, 10).expect("it reads").rows;
    assert_eq!(over.len(), 1);
    let attempts = reader.attempts_of(over[0].experiment.id).expect("it reads");
    assert_eq!(attempts.len(), 1);
    let instance = reader.instance(attempts[0].nodes[0].instance).expect("it reads").expect("it is kept");
    assert!(!instance.is_live());
    assert!(over[0].spent > Usd::ZERO);
    for peers in [
        Peers::Project("vision".into()),
        Peers::Sweep(over[0].experiment.account.sweep.expect("the trial is over")),
    ] {
        assert_eq!(reader.costs_of_peers(&peers, 10).expect("it reads"), [over[0].spent], "{peers:?}");
    }

    let [first, second] = [script.notify(), script.notify()];
    script.then(Event::NotificationDelivered { notification: first, at: script.now });
    save(&mut store, &mut script).await;
    let waiting = store.load().await.expect("it loads").fleet.outbox;
    assert_eq!(waiting.into_keys().collect::<Vec<_>>(), [second]);
    let told = reader.notifications(None, 10).expect("it reads").rows;
    let told: Vec<_> = told.iter().map(|notification| (notification.id, notification.is_waiting())).collect();
    assert_eq!(told, [(second, true), (first, false)]);
}

/// Sentence 8.
pub async fn the_journal_has_each_event_once_in_order<S: Store>(open: impl AsyncFn() -> S) {
    let mut store = open().await;
    let mut script = begin(&mut store).await;
    let mut told = Vec::new();
    for step in 0..40 {
        script.step(step * 977);
        let commit = script.commit();
        store.commit(&commit).await.expect("it commits");
        told.extend(commit.events.into_iter().map(|event| (commit.at, event)));
    }
    let reader = store.reader();
    let (mut kept, mut after) = (Vec::<(Timestamp, Event)>::new(), 0);
    loop {
        let page = reader.events(after, 7).expect("it reads");
        let Some(last) = page.last() else { break };
        assert!(page.iter().all(|entry| entry.seq > after) && page.is_sorted_by_key(|entry| entry.seq));
        after = last.seq;
        let parsed =
            page.iter().map(|entry| (entry.at, serde_json::from_str(entry.event.get()).expect("it parses")));
        kept.extend(parsed);
    }
    assert_eq!(kept, told);
}

/// Sentence 9.
pub async fn reports_equal_the_sum_of_the_charges<S: Store>(open: impl AsyncFn() -> S) {
    let mut store = open().await;
    let mut script = begin(&mut store).await;
    work(&mut store, &mut script).await;
    let reader = store.reader();
    let charges = reader.charges(&ChargeFilter::default(), None, 100).expect("it reads").rows;
    assert_eq!(charges.len(), 6);
    let costs: Costs = charges.iter().map(|row| row.charge.costs()).sum();
    let time: i64 = charges.iter().map(|row| row.charge.period.span().as_millis()).sum();

    let within_a_day = Timestamp::from_millis(1);
    for since in [None, Some(within_a_day)] {
        for first in Dimension::PLAIN {
            for second in Dimension::PLAIN {
                let query =
                    ReportQuery { by: vec![first.clone(), second.clone()], since, ..Default::default() };
                let rows = reader.report(&query).expect("it reads");
                assert_eq!(rows.iter().map(|row| row.costs).sum::<Costs>(), costs, "by {first} and {second}");
                assert_eq!(rows.iter().map(|row| row.time.as_millis()).sum::<i64>(), time);
                assert_eq!(
                    rows.iter().flat_map(|row| row.by_category.costs()).map(|(_, cost)| cost).sum::<Usd>(),
                    costs.effective
                );
            }
        }
    }
    let total = reader.report(&ReportQuery::default()).expect("it reads");
    assert!(total.len() == 1 && total[0].by_category.costs().count() == Category::ALL.len());
    let integrity = reader.integrity().expect("it reads");
    assert!(integrity.is_sound(), "{integrity:?}");
}

/// Sentence 10.
pub async fn a_reader_sees_a_commit_as_soon_as_it_was_answered<S: Store>(open: impl AsyncFn() -> S) {
    let mut store = open().await;
    let mut script = begin(&mut store).await;
    let reader = store.reader();
    for number in 1..=5 {
        let id = script.queue("again", 0, None);
        save(&mut store, &mut script).await;
        assert_eq!(reader.counts().expect("it counts").queued, number);
        assert_eq!(
            reader.experiment(id).expect("it reads").expect("it is there").experiment,
            script.fleet.experiments[&id]
        );
        assert_eq!(reader.resolve("again").expect("it reads").first(), Some(&id));
    }
}

/// Sentence 11.
pub async fn what_an_instance_was_charged_is_the_sum_of_its_charges<S: Store>(open: impl AsyncFn() -> S) {
    let mut store = open().await;
    let mut script = begin(&mut store).await;
    work(&mut store, &mut script).await;
    let payer = script.queue("next", 1, None);
    let second = script.instance(&[payer]);
    script.charge(second, Span::from_hours(1), Category::Run);
    save(&mut store, &mut script).await;
    let reader = store.reader();
    let all = |reader: &Reader| reader.instance_costs(None, 10).expect("it reads").rows;
    let before = all(&reader);
    assert_eq!(before.iter().map(|costs| costs.gone).collect::<Vec<_>>(), [true, false]);

    // The first is long over: what the bill says of it is mended in two months.
    let first = before[0].instance;
    let charges = || {
        let of_first = ChargeFilter { instance: Some(first), ..Default::default() };
        let page = store.reader().charges(&of_first, None, 100).expect("it reads");
        page.rows.into_iter().map(|row| row.charge).collect::<Vec<_>>()
    };
    let metered: Usd = charges().iter().map(|charge| charge.costs().contracted).sum();
    let lived = before[0].metered.expect("it was charged");
    let line = charges()[0].lines[0].clone();
    let budget = |key: BudgetKey| reader.budget(&key).expect("it reads").expect("it is there").spent;
    let spent = [BudgetKey::Experiment(line.payer), BudgetKey::Installation].map(budget);
    for (at, nanos) in [(lived.from, 5_000), (lived.from + Span::from_hours(24 * 40), -200)] {
        let costs = Costs {
            effective: Usd::from_nanos(nanos),
            contracted: Usd::from_nanos(nanos),
            ..Costs::default()
        };
        let charge = Charge {
            instance: first,
            period: Period::new(at, at + Span::from_hours(1)),
            class: ChargeClass::Correction,
            rates: Rates::default(),
            lines: vec![ChargeLine { costs, ..line.clone() }],
        };
        script.then(Event::BillCorrected { charge });
        save(&mut store, &mut script).await;
    }
    let after = all(&reader);
    assert_eq!(after[0].metered, Some(lived), "a correction is no time");
    let sum = |of: fn(&MonthCosts) -> Usd| after[0].months.values().map(of).sum::<Usd>();
    assert_eq!((sum(|month| month.usage), sum(|month| month.correction)), (metered, Usd::from_nanos(4_800)));
    assert_eq!(after[0].months.len(), before[0].months.len() + 1);
    assert!(after[0].months.keys().all(|month| month.to_string().contains("-01T00:00:00")), "{after:?}");
    assert_eq!(after[1], before[1]);
    let meter = reader.instance(first).expect("it reads").expect("it is kept").meter;
    assert_eq!(meter.costs.contracted, metered + Usd::from_nanos(4_800), "L1 holds of what is over");
    let corrected = [BudgetKey::Experiment(line.payer), BudgetKey::Installation].map(budget);
    assert_eq!(corrected, spent.map(|spent| spent + Usd::from_nanos(4_800)));
    assert!(reader.integrity().expect("it reads").is_sound());

    let mut pages = Vec::new();
    let mut next = None;
    // Ends with the list: every page moves on.
    loop {
        let page = reader.instance_costs(next, 1).expect("it reads");
        pages.extend(page.rows);
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    assert_eq!(pages, after);
}
