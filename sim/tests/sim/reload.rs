//! A changed configuration: a daemon that takes it over while it runs comes to what a start with it comes to.

use std::{collections::BTreeMap, sync::Arc};

use bursar_config::{Notifications, ScheduledReport, Webhook, WebhookFormat};
use bursar_model::{
    BudgetKey, BudgetTerms, Discount, ExperimentId, ExperimentSpec, Instance, InstanceId, NotificationAbout,
    Outcome, Period, Schedule, Span, SpotPolicy, Timestamp, Usd, UserName,
};
use bursar_sim::{Job, Scenario, Side, World};

const MINUTE: Span = Span::from_secs(60);

fn project() -> BudgetKey {
    BudgetKey::Project("p".into())
}

fn dollars(dollars: i64) -> Option<Arc<BudgetTerms>> {
    Some(Arc::new(BudgetTerms::of(Usd::from_dollars(dollars))))
}

/// Sends a report of each hour, or of each day, to one webhook.
fn reporting(schedule: &str) -> Notifications {
    let webhook = Webhook {
        url: "http://team".to_owned(),
        format: WebhookFormat::Plain,
        secret: None,
        events: Default::default(),
    };
    let report = ScheduledReport {
        name: "regular".to_owned(),
        schedule: Schedule::parse(schedule, None).expect("it is a word"),
        by: "project".to_owned(),
        to: vec!["team".to_owned()],
    };
    Notifications { webhooks: BTreeMap::from([("team".to_owned(), webhook)]), reports: vec![report] }
}

/// Two experiments of three hours on machines that the cloud takes back of itself never.
fn at_work(seed: u64) -> World {
    let budgets = vec![(BudgetKey::Installation, dollars(40)), (project(), dollars(20))];
    let mut world = World::new(seed, Scenario { budgets, ..Scenario::default() });
    for name in ["one", "two"] {
        submit(&mut world, name);
        world.run_for(MINUTE.times(17));
    }
    world
}

fn submit(world: &mut World, name: &str) -> ExperimentId {
    submit_lasting(world, name, Span::from_hours(3))
}

fn submit_lasting(world: &mut World, name: &str, duration: Span) -> ExperimentId {
    let job = Job::lasting(duration);
    let spec = ExperimentSpec { spot_policy: SpotPolicy::OnDemand, ..job.spec() };
    world.submit(name, spec).expect("the daemon is up")
}

/// Everything that a configuration can change at once: one limit falls below what is held, one goes, one comes, another
/// gets windows; somebody is told.
fn change(scenario: &mut Scenario) {
    let monthly = BudgetTerms {
        schedule: Some(Schedule::parse("month", None).expect("it is a word")),
        ..BudgetTerms::of(Usd::from_dollars(30))
    };
    scenario.budgets = vec![
        (BudgetKey::Installation, Some(Arc::new(monthly))),
        (project(), dollars(1)),
        (BudgetKey::User(UserName::new("someone")), dollars(25)),
    ];
    scenario.notifications = reporting("month");
    scenario.settings.max_instances = 7;
}

/// What the configuration has made of the state: of each budget what was laid down and in which window it counts, and up
/// to where each report has come.
type LaidDown = (
    BTreeMap<BudgetKey, (Option<Arc<BudgetTerms>>, Option<Arc<BudgetTerms>>, Option<Period>)>,
    BTreeMap<String, Timestamp>,
);

fn laid_down(world: &World) -> LaidDown {
    let fleet = world.fleet();
    let lasting = fleet.budgets.into_iter().filter(|(key, _)| !key.ends_with_its_work());
    let budgets = lasting.map(|(key, budget)| (key, (budget.terms, budget.configured, budget.window)));
    (budgets.collect(), fleet.reported)
}

fn events(world: &World) -> u64 {
    world.reader().counts().expect("the store reads").newest_event
}

fn live(world: &World) -> Vec<Instance> {
    world.fleet().instances.into_values().collect()
}

/// What comes of the change in the end: what is laid down, and how the experiments stand.
fn outcome(mut world: World) -> (LaidDown, Vec<String>) {
    // Until somebody was told where the new budgets lead.
    world.run_for(MINUTE.times(20));
    world.settle(Span::from_hours(24));
    assert_eq!(world.findings(), []);
    let laid_down = laid_down(&world);
    let states = world.fleet().experiments.into_values();
    (laid_down, states.map(|experiment| experiment.state_name().to_owned()).collect())
}

#[test]
fn a_reload_comes_to_what_a_restart_with_the_same_file_comes_to() {
    for seed in 0..3 {
        let mut reloaded = at_work(seed);
        assert!(reloaded.reload(change));
        let mut restarted = at_work(seed);
        restarted.crash();
        restarted.configure(change);
        restarted.restart();
        assert_eq!(laid_down(&reloaded), laid_down(&restarted), "seed {seed}");
        for world in [&mut reloaded, &mut restarted] {
            world.run_for(MINUTE.times(10));
        }
        assert_eq!(
            live(&reloaded).len(),
            live(&restarted).len(),
            "seed {seed}: what works within the limits"
        );
        let (by_reload, by_restart) = (outcome(reloaded), outcome(restarted));
        assert_eq!(by_reload.1, by_restart.1, "seed {seed}");
        assert_eq!(by_reload.1, ["queued", "queued"], "seed {seed}: a dollar is less than was spent");
        assert_eq!(by_reload.0.0, by_restart.0.0, "seed {seed}");
    }
}

#[test]
fn a_daemon_that_dies_over_a_reload_starts_with_all_of_the_new_file() {
    let undisturbed = {
        let mut world = at_work(1);
        assert!(world.reload(change));
        laid_down(&world)
    };
    for side in [Side::Before, Side::After] {
        let mut world = at_work(1);
        world.crash_at(world.boundaries().len() as u64 + 1, side);
        assert!(!world.reload(change), "{side:?}: it dies over it");
        world.restart();
        assert_eq!(laid_down(&world), undisturbed, "{side:?}");
        assert_eq!(outcome(world).1, ["queued", "queued"], "{side:?}");
    }
}

#[test]
fn a_reload_that_cannot_be_stored_changes_nothing_and_the_next_one_works() {
    let mut world = at_work(1);
    let before = laid_down(&world);
    world.refuse_commits(1);
    assert!(!world.reload(change));
    assert_eq!(laid_down(&world), before);
    world.run_for(MINUTE.times(5));
    assert_eq!(laid_down(&world), before, "nor does anything of it count later");
    assert_eq!(live(&world).len(), 2);
    // Told once more, as somebody would who was answered that it failed.
    assert!(world.reload(change));
    assert_ne!(laid_down(&world), before);
    assert_eq!(outcome(world).1, ["queued", "queued"]);
}

#[test]
fn a_reload_of_what_counts_already_makes_no_event_at_any_moment() {
    for seed in 0..2 {
        let mut world = at_work(seed);
        assert!(world.reload(change));
        assert!(world.reload(|scenario| scenario.budgets[1].1 = dollars(20)));
        for step in 0..40 {
            world.run_for(Span::from_millis(1 + 37_003 * (step % 7)));
            let before = events(&world);
            assert!(world.reload(|_| ()));
            assert_eq!(events(&world), before, "seed {seed}, step {step}");
        }
        assert_eq!(world.findings(), []);
    }
}

#[test]
fn a_limit_that_falls_lands_work_and_one_that_rises_lets_it_go_on() {
    let mut world = at_work(1);
    let [first, second] = {
        let fleet = world.fleet();
        let mut ids = fleet.experiments.into_keys();
        [ids.next().expect("two were submitted"), ids.next().expect("two were submitted")]
    };
    assert_eq!(live(&world).len(), 2);
    assert!(world.reload(|scenario| scenario.budgets[1].1 = dollars(1)));
    world.run_for(MINUTE.times(8));
    let [budget] = [&world.fleet().budgets[&project()]];
    assert!(budget.spent + budget.held <= Usd::from_dollars(1), "{budget:?}");
    assert!(world.reload(|scenario| scenario.budgets[1].1 = dollars(30)));
    world.settle(Span::from_hours(24));
    assert_eq!(world.findings(), []);
    for experiment in [first, second] {
        assert_eq!(world.outcome(experiment), Some(Outcome::Succeeded));
        assert_eq!(world.finished(experiment), 1);
    }
}

#[test]
fn what_a_person_set_stands_until_the_file_says_something_new_about_it() {
    let mut world = at_work(1);
    let limit = |world: &World| world.fleet().budgets[&project()].limit();
    assert!(world.set_budget(project(), dollars(7)));
    assert!(world.reload(|scenario| scenario.budgets[0].1 = dollars(35)));
    assert_eq!(limit(&world), Some(Usd::from_dollars(7)), "of the project it says what it said");
    assert!(world.reload(|scenario| scenario.budgets[1].1 = dollars(12)));
    assert_eq!(limit(&world), Some(Usd::from_dollars(12)));
    // A line that is lost takes no cap away from what works under it.
    assert!(world.reload(|scenario| scenario.budgets.truncate(1)));
    assert_eq!(limit(&world), Some(Usd::from_dollars(12)));
    assert_eq!(world.findings(), []);
}

#[test]
fn a_shorter_heartbeat_gives_up_no_agent_that_had_not_heard_of_it() {
    for heard_ago in [0, 2, 4] {
        let mut scenario = Scenario { heartbeat: Span::from_secs(50), ..Scenario::default() };
        scenario.settings.quiet_after = Span::from_secs(150);
        let mut world = World::new(1, scenario);
        let experiment = submit_lasting(&mut world, "one", MINUTE.times(15));
        world.run_for(MINUTE.times(10) + Span::from_secs(11).times(heard_ago));
        assert!(world.reload(|scenario| {
            scenario.heartbeat = Span::from_secs(2);
            scenario.settings.quiet_after = Span::from_secs(6);
            scenario.settings.silence_timeout = Span::from_secs(10);
        }));
        world.settle(Span::from_hours(24));
        assert_eq!(world.findings(), []);
        assert_eq!(world.outcome(experiment), Some(Outcome::Succeeded));
        assert_eq!(world.reader().attempts_of(experiment).expect("the store reads").len(), 1);
    }
}

#[test]
fn a_new_discount_counts_for_what_is_launched_from_then_on() {
    let mut world = World::new(1, Scenario::default());
    let price_of = |world: &World, id: InstanceId| world.fleet().instances[&id].price.effective;
    submit(&mut world, "one");
    world.run_for(MINUTE.times(10));
    let first = live(&world)[0].id;
    let agreed = price_of(&world, first);
    assert!(world.reload(|scenario| {
        let everywhere = Discount {
            provider: None,
            region: None,
            instance_type: None,
            capacity_type: None,
            millionths: 400_000,
        };
        scenario.pricing.discounts = vec![everywhere];
    }));
    submit(&mut world, "two");
    world.run_for(MINUTE.times(10));
    let [_, second] = &live(&world)[..] else { panic!("{:?}", live(&world)) };
    assert_eq!(price_of(&world, first), agreed);
    assert_eq!(second.price.effective.as_nanos(), agreed.as_nanos() / 10 * 6);
}

#[test]
fn reports_go_on_over_reloads_and_a_changed_schedule_counts_from_where_they_had_come_to() {
    let scenario = Scenario { notifications: reporting("hour"), ..Scenario::default() };
    let mut world = World::new(1, scenario);
    let run = |world: &mut World, minutes: i64| {
        for _ in 0..minutes {
            world.run_for(MINUTE);
            assert!(world.reload(|_| ()));
        }
    };
    run(&mut world, 150);
    assert!(world.reload(|scenario| scenario.notifications = reporting("*/20 * * * *")));
    run(&mut world, 100);
    let told = world.post().taken();
    let periods: Vec<Period> = told
        .iter()
        .filter_map(|notification| match notification.about {
            NotificationAbout::Report { period, .. } => Some(period),
            NotificationAbout::Budget { .. } | NotificationAbout::IdleGpu { .. } => None,
        })
        .collect();
    assert!(periods.windows(2).all(|pair| pair[0].to == pair[1].from), "none twice, no gap: {periods:?}");
    let minutes: Vec<i64> = periods.iter().map(|period| period.span().as_millis() / 60_000).collect();
    assert!(minutes.starts_with(&[60, 60]) && minutes.ends_with(&[20, 20, 20]), "{minutes:?}");
    // A webhook that the file no longer names hears nothing more.
    assert!(world.reload(|scenario| scenario.notifications = Notifications::default()));
    run(&mut world, 70);
    assert_eq!(world.post().taken().len(), told.len());
    assert_eq!(world.findings(), []);
}
