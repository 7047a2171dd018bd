//! What people are told: once, in order, whatever crashes and whoever does not listen.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bursar_config::{NotificationKind, Notifications, ScheduledReport, Webhook, WebhookFormat};
use bursar_model::{
    BudgetAlert, BudgetKey, BudgetTerms, ExperimentSpec, Notification, NotificationAbout, NotificationId,
    Period, Schedule, Span, SpotPolicy, Usd,
};
use bursar_sim::{Boundary, Job, Scenario, Side, World};

const MINUTE: Span = Span::from_secs(60);

/// One webhook that wants to hear everything, and a budget of five hours of the machine.
fn scenario() -> Scenario {
    let events = BTreeSet::from([
        NotificationKind::Threshold,
        NotificationKind::Exhausted,
        NotificationKind::Forecast,
        NotificationKind::Anomaly,
        NotificationKind::IdleGpu,
        NotificationKind::Report,
    ]);
    let webhook =
        Webhook { url: "http://team".to_owned(), format: WebhookFormat::Plain, secret: None, events };
    let terms = BudgetTerms { thresholds: vec![10, 20, 30], ..BudgetTerms::of(Usd::from_dollars(5)) };
    Scenario {
        budgets: vec![(BudgetKey::Installation, Some(Arc::new(terms)))],
        notifications: Notifications {
            webhooks: BTreeMap::from([("team".to_owned(), webhook)]),
            reports: Vec::new(),
        },
        ..Scenario::default()
    }
}

fn hourly(mut scenario: Scenario) -> Scenario {
    scenario.notifications.reports.push(ScheduledReport {
        name: "hourly".to_owned(),
        schedule: Schedule::parse("hour", None).expect("it is a word"),
        by: "project".to_owned(),
        to: vec!["team".to_owned()],
    });
    scenario
}

/// Two hours of work, and some time to tell of it.
fn work(world: &mut World) {
    submit(world);
    run(world, 130);
}

fn submit(world: &mut World) {
    let spec =
        ExperimentSpec { spot_policy: SpotPolicy::OnDemand, ..Job::lasting(Span::from_secs(7200)).spec() };
    // A daemon that dies is started again; the key makes the submission one.
    for _ in 0..3 {
        if world.submit("one", spec.clone()).is_some() {
            break;
        }
        world.restart();
    }
}

fn run(world: &mut World, minutes: i64) {
    for _ in 0..minutes {
        world.restart();
        world.run_for(MINUTE);
    }
}

/// What the journal says was queued, in order.
fn queued(world: &World) -> Vec<Notification> {
    let journal = world.journal().expect("the store reads");
    let events = journal.lines().filter_map(|line| line.splitn(3, ' ').nth(2));
    events
        .map(|event| serde_json::from_str::<serde_json::Value>(event).expect("events are JSON"))
        .filter(|event| event["event"] == "notification-queued")
        .map(|event| serde_json::from_value(event["notification"].clone()).expect("it has one"))
        .collect()
}

fn ids<'a>(of: impl IntoIterator<Item = &'a Notification>) -> Vec<NotificationId> {
    of.into_iter().map(|notification| notification.id).collect()
}

/// What they tell of, without the moment of a forecast and the numbers, which depend on when it is seen.
fn news(of: &[Notification]) -> Vec<String> {
    let mut news: Vec<String> = of
        .iter()
        .map(|notification| match &notification.about {
            NotificationAbout::Budget { key, alert, .. } => {
                let alert = format!("{alert:?}");
                format!("{key}: {}", alert.split(" { breach").next().unwrap_or_default())
            }
            NotificationAbout::IdleGpu { name, .. } => format!("{name}: idle GPU"),
            NotificationAbout::Report { name, .. } => format!("report {name}"),
        })
        .collect();
    news.sort();
    news
}

#[test]
fn whatever_commit_the_daemon_dies_at_everything_is_told_and_told_once() {
    let mut calm = World::new(3, scenario());
    submit(&mut calm);
    // The commits that queue something, cross it off, or lie beside one that does.
    let mut commits = BTreeSet::new();
    for _ in 0..130 * 12 {
        let (before, waited) = (calm.commits(), calm.post().taken().len());
        calm.run_for(Span::from_secs(5));
        if calm.post().taken().len() > waited || !calm.fleet().outbox.is_empty() {
            commits.extend(before..=calm.commits() + 1);
        }
    }
    assert_eq!(calm.findings(), []);
    let expected = news(&queued(&calm));
    assert_eq!(
        expected,
        [
            "the installation's budget: Forecast",
            "the installation's budget: Threshold { percent: 10 }",
            "the installation's budget: Threshold { percent: 20 }",
            "the installation's budget: Threshold { percent: 30 }",
        ]
    );
    assert_eq!(ids(&calm.post().taken()), ids(&queued(&calm)));

    assert!((8..60).contains(&commits.len()), "{commits:?}");
    let boundaries: Vec<u64> = (1..)
        .zip(calm.boundaries())
        .filter(|(_, boundary)| *boundary == Boundary::Commit)
        .map(|(number, _)| number)
        .collect();
    let sides = [Side::Before, Side::After];
    for (commit, side) in commits.iter().flat_map(|commit| sides.map(|side| (*commit, side))) {
        let mut world = World::new(3, scenario());
        world.crash_at(boundaries[commit as usize - 1], side);
        work(&mut world);
        assert_eq!(world.findings(), [], "{side:?} commit {commit}");
        let queued = queued(&world);
        assert_eq!(news(&queued), expected, "{side:?} commit {commit}");
        let mut taken = ids(&world.post().taken());
        taken.dedup();
        assert_eq!(taken, ids(&queued), "{side:?} commit {commit}");
    }
}

#[test]
fn a_webhook_that_fails_hears_everything_in_order_in_the_end() {
    let mut world = World::new(5, hourly(scenario()));
    world.post().fail(700);
    work(&mut world);
    run(&mut world, 350);
    let queued = queued(&world);
    assert!(queued.len() >= 10, "{queued:?}");
    world.post().fail(0);
    run(&mut world, 15);
    assert_eq!(world.findings(), []);
    let taken = world.post().taken();
    let mut first = ids(&taken);
    first.dedup();
    assert_eq!(first, ids(&queued), "each in its turn");
    assert!(taken.len() > queued.len(), "where the answer was lost it came again, with the same id");
}

#[test]
fn a_daemon_that_was_down_sends_one_report_of_all_the_time() {
    let mut world = World::new(7, hourly(scenario()));
    run(&mut world, 90);
    let down = Span::from_secs(5 * 3600);
    world.crash();
    world.run_for(down);
    run(&mut world, 70);
    assert_eq!(world.findings(), []);
    let periods: Vec<Period> = world
        .post()
        .taken()
        .iter()
        .filter_map(|notification| match notification.about {
            NotificationAbout::Report { period, .. } => Some(period),
            NotificationAbout::Budget { .. } | NotificationAbout::IdleGpu { .. } => None,
        })
        .collect();
    let hours: Vec<i64> = periods.iter().map(|period| period.span().as_millis() / 3_600_000).collect();
    // An hour before, then all the hours of the night in one, then an hour again.
    assert_eq!(hours.iter().filter(|hours| **hours > 1).count(), 1, "{periods:?}");
    assert!(hours.contains(&5) || hours.contains(&6), "{periods:?}");
    assert!(periods.windows(2).all(|pair| pair[0].to == pair[1].from), "{periods:?}");
}

#[test]
fn an_experiment_that_costs_far_more_than_its_peers_is_told_of_once_over_a_crash() {
    let mut world = World::new(13, scenario());
    let lasting = |minutes| ExperimentSpec {
        spot_policy: SpotPolicy::OnDemand,
        ..Job::lasting(MINUTE.times(minutes)).spec()
    };
    for peer in 0..9 {
        world.submit(&format!("short-{peer}"), lasting(6)).expect("the daemon is up");
    }
    run(&mut world, 60);
    let experiment = world.submit("long", lasting(180)).expect("the daemon is up");
    let anomalies = |world: &World| -> Vec<_> {
        let told = world.post().taken();
        let is_anomaly = |about: &NotificationAbout| {
            matches!(about, NotificationAbout::Budget { alert: BudgetAlert::Anomaly { .. }, .. })
        };
        told.into_iter().filter(|notification| is_anomaly(&notification.about)).collect()
    };
    run(&mut world, 60);
    // A peer has cost about ten cents, boot and all: a dollar more than usual is not spent within the hour.
    assert_eq!(anomalies(&world), []);
    run(&mut world, 40);
    let told = anomalies(&world);
    let [only] = &told[..] else { panic!("{told:?}") };
    let NotificationAbout::Budget { key, name, .. } = &only.about else { panic!("{only:?}") };
    assert_eq!((key, name.as_deref()), (&BudgetKey::Experiment(experiment), Some("long")));
    world.crash();
    run(&mut world, 120);
    assert_eq!(anomalies(&world), told);
    assert_eq!(world.findings(), []);
}

#[test]
fn the_same_seed_tells_the_same_story() {
    let journal = || {
        let mut world = World::new(11, hourly(scenario()));
        world.post().fail(300);
        work(&mut world);
        world.journal().unwrap()
    };
    assert_eq!(journal(), journal());
}
