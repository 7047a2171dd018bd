use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use axum::{Router, extract::State, http::HeaderMap, routing::post};
use bursar_config::{Machine, Notifications, ScheduledReport, Webhook, WebhookFormat, load_config};
use bursar_model::{
    Backoff, BudgetAlert, BudgetKey, Category, Event, Fleet, IdGen, Notification, NotificationAbout,
    NotificationId, NotificationState, Period, Schedule, Span, Timestamp, Usd,
};
use bursar_store::{OpenOptions, SqliteStore, Store, conformance::Script};
use serde_json::Value;
use tempfile::TempDir;

use super::{Courier, HttpCourier, Notifier, Undelivered};
use crate::{
    clock::SystemClock,
    inbox::{Message, Messages, inbox},
};

/// 2026-11-22T12:00:00Z, a Sunday.
const NOW: Timestamp = Timestamp::from_millis(1_795_348_800_000);

/// Takes everything and keeps it.
#[derive(Debug, Default)]
struct Keeping(Mutex<Vec<NotificationId>>);

#[async_trait]
impl Courier for Keeping {
    async fn deliver(&self, _: &Webhook, notification: &Notification) -> Result<(), Undelivered> {
        self.0.lock().unwrap().push(notification.id);
        Ok(())
    }
}

struct Bench {
    notifier: Notifier,
    config: Notifications,
    fleet: Fleet,
    ids: IdGen,
    courier: Arc<Keeping>,
    messages: Messages,
    _folder: TempDir,
}

impl Bench {
    fn new(reports: Vec<ScheduledReport>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("bursar.db"), OpenOptions::default()).unwrap();
        let (sender, messages) = inbox();
        let courier = Arc::new(Keeping::default());
        let config = Notifications { reports, ..Notifications::default() };
        let notifier = Notifier::new(courier.clone(), store.reader(), sender);
        let (fleet, ids) = (Fleet::default(), IdGen::new(1));
        Self { notifier, config, fleet, ids, courier, messages, _folder: folder }
    }

    fn deliver(&mut self, now: Timestamp) -> Option<Timestamp> {
        self.notifier.deliver(&self.config, &self.fleet, now)
    }

    /// Queues one for a webhook, which is there from then on.
    fn queue(&mut self, to: &str) -> NotificationId {
        let webhook = Webhook {
            url: format!("http://{to}"),
            format: WebhookFormat::Plain,
            secret: None,
            events: BTreeSet::new(),
        };
        self.config.webhooks.insert(to.to_owned(), webhook);
        let id = self.ids.notification(NOW);
        let about = NotificationAbout::Budget {
            key: BudgetKey::Installation,
            name: None,
            alert: BudgetAlert::Exhausted,
            limit: None,
            spent: Usd::ZERO,
            held: Usd::ZERO,
            window: None,
        };
        let (to, state) = (to.to_owned(), NotificationState::Waiting);
        let notification =
            Notification { id, at: NOW, to, about, state, backoff: Backoff::default(), error: None };
        self.fleet.apply(&Event::NotificationQueued { notification: Box::new(notification) }).unwrap();
        id
    }

    /// What comes back next.
    async fn answered(&mut self) -> NotificationId {
        match self.messages.recv().await {
            Some(Message::Delivered { notification, result: Ok(()) }) => notification,
            other => panic!("{other:?}"),
        }
    }

    fn taken(&self) -> Vec<NotificationId> {
        self.courier.0.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn a_webhook_hears_one_at_a_time_and_at_most_four_hear_at_once() {
    let mut bench = Bench::new(Vec::new());
    let first: Vec<_> = (0..6).map(|n| bench.queue(&format!("hook-{n}"))).collect();
    let second = bench.queue("hook-0");
    assert_eq!(bench.deliver(NOW), None);
    assert_eq!(bench.deliver(NOW), None, "nothing twice");
    let mut answered = BTreeSet::new();
    for _ in 0..4 {
        answered.insert(bench.answered().await);
    }
    assert_eq!(answered, first[..4].iter().copied().collect());
    for id in answered {
        bench.notifier.delivery_done(id, true);
        bench.fleet.apply(&Event::NotificationDelivered { notification: id, at: NOW }).unwrap();
    }
    let _ = bench.fleet.take_changes();
    bench.deliver(NOW);
    let mut answered = BTreeSet::new();
    for _ in 0..3 {
        answered.insert(bench.answered().await);
    }
    assert_eq!(answered, BTreeSet::from([first[4], first[5], second]));
}

#[tokio::test]
async fn what_a_webhook_took_is_not_sent_again_though_the_store_did_not_take_it() {
    let mut bench = Bench::new(Vec::new());
    let id = bench.queue("team");
    bench.deliver(NOW);
    assert_eq!(bench.answered().await, id);
    bench.notifier.delivery_done(id, true);
    // The commit failed: the state is as it was, and demands the delivery again.
    bench.deliver(NOW);
    assert_eq!(bench.answered().await, id);
    assert_eq!(bench.taken(), [id]);
}

#[tokio::test]
async fn a_webhook_that_failed_is_left_alone_until_its_time_and_those_behind_wait() {
    let mut bench = Bench::new(Vec::new());
    let head = bench.queue("team");
    bench.queue("team");
    let again_at = NOW + Span::from_secs(8);
    let backoff = Backoff { failures: 4, not_before: Some(again_at) };
    let failed = Event::NotificationFailed { notification: head, error: "down".to_owned(), backoff };
    bench.fleet.apply(&failed).unwrap();
    assert_eq!(bench.deliver(NOW), Some(again_at));
    assert_eq!(bench.deliver(again_at), None);
    assert_eq!(bench.answered().await, head);
    assert_eq!(bench.taken(), [head]);
}

#[test]
fn a_report_covers_all_time_since_the_last_however_often_it_was_missed() {
    let report = ScheduledReport {
        name: "weekly".to_owned(),
        schedule: Schedule::parse("0 8 * * mon", None).unwrap(),
        by: "project".to_owned(),
        to: vec!["team".to_owned()],
    };
    let mut bench = Bench::new(vec![report]);
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    let due = |bench: &mut Bench, now: Timestamp| -> Vec<_> {
        let due = bench.notifier.reports_due(&bench.config, &bench.fleet, now);
        due.into_iter().map(|(_, period)| (period.from, period.to)).collect()
    };
    assert_eq!(due(&mut bench, NOW), [], "it has no beginning yet");
    let until = |text: &str| Event::ReportReached { report: "weekly".to_owned(), until: Some(at(text)) };
    bench.fleet.apply(&until("2026-11-16T08:00:00Z")).unwrap();
    assert_eq!(due(&mut bench, at("2026-11-23T07:59:59.999Z")), []);
    let week = (at("2026-11-16T08:00:00Z"), at("2026-11-23T08:00:00Z"));
    assert_eq!(due(&mut bench, at("2026-11-23T08:00:00Z")), [week]);
    let month = (at("2026-11-16T08:00:00Z"), at("2026-12-14T08:00:00Z"));
    assert_eq!(due(&mut bench, at("2026-12-20T08:00:00Z")), [month]);
    let next = bench.notifier.start_due(&bench.config, &bench.fleet, NOW);
    assert_eq!(next, Some(week.1).min(Some(NOW + super::LOOK_EVERY)));
    assert!(bench.fleet.apply(&until("2026-11-16T08:00:00Z")).is_err(), "no time is covered twice");
}

#[test]
fn a_report_whose_schedule_changed_fires_by_the_new_one_from_where_it_had_come_to() {
    let report = |schedule: &str| ScheduledReport {
        name: "regular".to_owned(),
        schedule: Schedule::parse(schedule, None).unwrap(),
        by: "project".to_owned(),
        to: vec!["team".to_owned()],
    };
    let mut bench = Bench::new(vec![report("day")]);
    let reached = NOW - Span::from_hours(2);
    let until = Event::ReportReached { report: "regular".to_owned(), until: Some(reached) };
    bench.fleet.apply(&until).unwrap();
    assert_eq!(bench.notifier.reports_due(&bench.config, &bench.fleet, NOW), []);
    bench.config.reports = vec![report("hour")];
    let due = bench.notifier.reports_due(&bench.config, &bench.fleet, NOW);
    assert_eq!(due.iter().map(|(_, period)| *period).collect::<Vec<_>>(), [Period::new(reached, NOW)]);
}

#[tokio::test]
async fn a_report_is_made_of_the_charges_of_its_period_as_it_is_sent() {
    let (bodies, mut received) = tokio::sync::mpsc::channel::<(HeaderMap, Value)>(8);
    let take = |State(bodies): State<tokio::sync::mpsc::Sender<(HeaderMap, Value)>>,
                headers: HeaderMap,
                axum::Json(body): axum::Json<Value>| async move {
        bodies.send((headers, body)).await.unwrap();
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/hook", post(take)).with_state(bodies);
    tokio::spawn(axum::serve(listener, router).into_future());

    let folder = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(&folder.path().join("bursar.db"), OpenOptions::default()).unwrap();
    let mut script = Script::new(store.load().await.unwrap());
    let experiment = script.queue("resnet", 1, None);
    store.commit(&script.commit()).await.unwrap();
    let instance = script.instance(&[experiment]);
    store.commit(&script.commit()).await.unwrap();
    let began = script.fleet.instances[&instance].meter.through;
    // Half an hour of each counts; the half hour before and the one after do not.
    for category in [Category::Boot, Category::Run, Category::Run, Category::Idle] {
        script.charge(instance, Span::from_secs(1800), category);
    }
    store.commit(&script.commit()).await.unwrap();
    let cost = script.fleet.budgets[&BudgetKey::Installation].spent;

    let yaml = format!("notifications: {{webhooks: {{team: {{url: \"http://{address}/hook\"}}}}}}");
    let machine = Machine { cpus: 2, memory_mib: 1024 };
    let env = BTreeMap::from([("HOME".into(), "/nowhere".into())]);
    let config = load_config(&yaml, None, &env, machine).unwrap().value;
    let courier = HttpCourier::new(&config, store.reader(), Arc::new(SystemClock)).unwrap();
    let period = Period::new(began + Span::from_secs(1800), began + Span::from_secs(5400));
    let id = IdGen::new(1).notification(NOW);
    let (name, by) = ("weekly".to_owned(), "experiment".to_owned());
    let notification = Notification {
        id,
        at: NOW,
        to: "team".to_owned(),
        about: NotificationAbout::Report { name, by, period },
        state: NotificationState::Waiting,
        backoff: Backoff::default(),
        error: None,
    };
    courier.deliver(&config.notifications.webhooks["team"], &notification).await.unwrap();
    let (headers, body) = received.recv().await.unwrap();
    assert_eq!(headers["bursar-delivery"], id.to_string());
    assert_eq!(body["kind"], "report");
    let reported: Usd = body["data"]["cost"].as_str().unwrap().parse().unwrap();
    assert_eq!(reported, Usd::from_nanos(cost.as_nanos() / 2));
    let text = body["text"].as_str().unwrap();
    assert!(text.contains("\nresnet  "), "people read names, not ids: {text}");
}
