//! What people write about money: budgets, prices, and who is told.

use bursar_model::{
    BillingEnd, BillingRules, BillingStart, BudgetTerms, CapacityType, OnExhausted, Period, SecretRef,
    SweepSpec, Terms, Timestamp, UsdPerHour,
};
use proptest::prelude::*;

use super::*;

fn budget(yaml: &str) -> BudgetTerms {
    let config = config_of(&format!("budget: {yaml}")).unwrap_or_else(|e| panic!("{e}"));
    config.value.budget.unwrap().as_ref().clone()
}

fn window(terms: &BudgetTerms, at: &str) -> Period {
    terms.schedule.as_ref().unwrap().window_at(at.parse().unwrap())
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn warnings_of(config: &str) -> Vec<String> {
    config_of(config).unwrap_or_else(|e| panic!("{e}")).warnings.iter().map(ToString::to_string).collect()
}

fn sweep(text: &str) -> (SweepSpec, Vec<Problem>) {
    let checked = spec_of(text).unwrap_or_else(|e| panic!("{e}"));
    match checked.value.submission {
        Submission::Sweep { spec, .. } => (spec, checked.warnings),
        Submission::Experiment { .. } => panic!("this is a sweep"),
    }
}

fn terms(provider: &str) -> Terms {
    let config = config_of(&format!("providers: {{here: {{type: local, {provider}}}}}"));
    config.unwrap_or_else(|e| panic!("{e}")).value.providers["here"].terms
}

fn env_budget(file: &str, variables: &[(&str, &str)]) -> Result<Checked<Config>, Problems> {
    let home = [("HOME", "/home/me")];
    load_config(file, Some(Path::new("b.yaml")), &env(&[variables, &home].concat()), MACHINE)
}

#[test]
fn a_number_is_a_budget_with_the_documented_defaults() {
    let short = budget("1000");
    assert_eq!(short, BudgetTerms::of(Usd::from_dollars(1000)));
    assert_eq!(budget("{limit: 1000}"), short);
    assert_eq!(budget("{limit: 1000, per: total, on_exhausted: checkpoint-and-stop}"), short);
    assert_eq!((short.thresholds, short.schedule), (vec![50, 80, 100], None));
}

#[test]
fn projects_and_users_have_budgets_as_the_installation_has() {
    let text =
        "projects: {vision: {budget: 5}}\nusers: {ada@example.org: {budget: {limit: 7, per: month}}, bob: }";
    let config = config_of(text).unwrap().value;
    assert_eq!(config.projects["vision"].budget.as_ref().unwrap().limit, Some(Usd::from_dollars(5)));
    assert_eq!(config.users["ada@example.org"].budget.as_deref(), Some(&budget("{limit: 7, per: month}")));
    assert_eq!(config.users["bob"].budget, None);
    assert_eq!(config.budget, None);
}

#[test]
fn a_month_in_berlin_begins_at_midnight_in_berlin() {
    let terms = budget("{limit: 1, per: month, timezone: Europe/Berlin}");
    let march = Period::new(at("2026-02-28T23:00:00Z"), at("2026-03-31T22:00:00Z"));
    assert_eq!(window(&terms, "2026-03-15T12:00:00Z"), march, "clocks go forward in between");
}

#[test]
fn a_weekday_of_a_cron_expression_counts_as_in_a_crontab() {
    let monday = Period::new(at("2026-11-23T08:00:00Z"), at("2026-11-30T08:00:00Z"));
    for per in ["0 8 * * 1", "0 8 * * mon"] {
        let terms = budget(&format!("{{limit: 1, per: {per}}}"));
        assert_eq!(window(&terms, "2026-11-25T00:00:00Z"), monday, "{per}");
    }
}

#[test]
fn thresholds_rise_and_stand_once() {
    assert_eq!(budget("{limit: 1, thresholds: [90, 10, 90]}").thresholds, [10, 90]);
    assert!(budget("{limit: 1, thresholds: []}").thresholds.is_empty());
    let beyond = budget("{limit: 1, thresholds: [1000, 150], on_exhausted: notify-only}");
    assert_eq!((beyond.thresholds, beyond.on_exhausted), (vec![150, 1000], OnExhausted::NotifyOnly));
}

#[test]
fn an_experiment_tells_nobody_unless_it_is_asked_to_and_a_sweep_does() {
    let spec = experiment("run: x\nbudget: {limit: 3, on_exhausted: stop}").budget.unwrap();
    assert_eq!((spec.thresholds.as_slice(), spec.on_exhausted), (&[][..], OnExhausted::Stop));
    assert_eq!(experiment("run: x\nbudget: {limit: 3, thresholds: [80]}").budget.unwrap().thresholds, [80]);
    let (sweep, _) = sweep("run: x\nbudget: 2.50\nsweep: {matrix: {a: 0..2}, budget: 5}");
    assert_eq!(sweep.experiment.budget.unwrap().limit, Some(Usd::from_nanos(2_500_000_000)));
    assert_eq!(sweep.budget.as_deref(), Some(&BudgetTerms::of(Usd::from_dollars(5))));
}

#[test]
fn work_that_is_to_be_finished_says_how_long_it_takes() {
    let text = "run: x\nbudget: {limit: 3, on_exhausted: finish-running}\n\
                sweep: {matrix: {a: 0..2}, budget: {limit: 5, on_exhausted: finish-running}}\n";
    let (_, warnings) = sweep(text);
    let paths: Vec<_> = warnings.iter().map(|warning| warning.key_path.as_str()).collect();
    assert_eq!(paths, ["budget.on_exhausted", "sweep.budget.on_exhausted"]);
    let (_, warnings) = sweep(&format!("{text}estimate: {{duration: 1h}}"));
    assert_eq!(warnings, []);
}

#[test]
fn work_has_no_periods_over_the_wire_either() {
    let json = br#"{"run": "x", "budget": {"limit": 3, "per": "month"}}"#;
    let problems = RawSpec::from_json(json).unwrap_err().to_string();
    assert!(problems.starts_with("budget.per: the budget of an experiment or a sweep has no periods"));
}

#[test]
fn what_has_no_effect_is_said() {
    let warnings = warnings_of(
        "budget: {limit: 1, timezone: Europe/Berlin, thresholds: [150]}\n\
         projects: {vision: {budget: {per: month}}}\n\
         pricing: {discounts: [{provider: locl, percent: 5}]}\n",
    );
    insta::assert_snapshot!("without_effect", warnings.join("\n"));
}

#[test]
fn the_environment_sets_keys_beside_a_budget_that_is_a_number() {
    let with = |file: &str, variables: &[(&str, &str)]| {
        env_budget(file, variables).unwrap_or_else(|e| panic!("{e}")).value.budget.unwrap()
    };
    let monthly = budget("{limit: 7, per: month}");
    assert_eq!(*with("budget: 7", &[("BURSAR_BUDGET_PER", "month")]), monthly);
    assert_eq!(*with("budget: {limit: 500, per: month}", &[("BURSAR_BUDGET", "7")]), monthly);
    assert_eq!(*with("", &[("BURSAR_BUDGET", "7"), ("BURSAR_BUDGET_PER", "month")]), monthly);
    assert_eq!(*with("budget: 500", &[("BURSAR_BUDGET_LIMIT", "7")]), budget("7"));
    let problems = env_budget("budget: 500", &[("BURSAR_BUDGET", "much")]).unwrap_err().to_string();
    assert!(problems.starts_with("BURSAR_BUDGET: budget.limit: `much` is not an amount"), "{problems}");
}

#[test]
fn a_discount_is_exact_and_names_what_it_is_on() {
    let config = config_of(
        "pricing:\n  discounts:\n\
         \x20   - {provider: local, region: us-east-1, instance_type: \"p4d.*\", capacity_type: on-demand, percent: 12.5}\n\
         \x20   - {percent: 0.0001}\n",
    )
    .unwrap();
    assert_eq!(config.warnings, []);
    let [first, second] = config.value.discounts.try_into().unwrap();
    assert_eq!((first.millionths, first.capacity_type), (125_000, Some(CapacityType::OnDemand)));
    assert_eq!(first.instance_type.unwrap().as_str(), "p4d.*");
    assert_eq!((first.provider.unwrap().as_str(), first.region.unwrap().as_str()), ("local", "us-east-1"));
    assert_eq!(second, bursar_model::Discount { millionths: 1, ..Default::default() });
}

#[test]
fn a_provider_that_says_nothing_bills_each_millisecond_and_nothing_else() {
    assert_eq!(terms("seed: 1"), Terms::default());
    assert_eq!(terms("billing: {}"), Terms::default());
    let config = config_of("").unwrap().value;
    assert_eq!(config.providers["local"].terms, Terms::default());
}

#[test]
fn billing_is_as_it_was_written_and_prices_are_by_the_hour() {
    let terms = terms(
        "billing: {granularity: 1s, minimum: 60s, starts: running, ends: stopping}, \
         disk_price: 0.08, address_price: 0.005, overhead: 0",
    );
    assert_eq!(terms.billing, BillingRules::PER_SECOND);
    // 0.08 / 730 is 0.000109589041…, rounded up.
    assert_eq!(terms.disk_gib, UsdPerHour::from_nanos(109_590));
    assert_eq!((terms.address, terms.overhead), (UsdPerHour::from_nanos(5_000_000), UsdPerHour::ZERO));
    let partly = self::terms("billing: {minimum: 24h}").billing;
    assert_eq!((partly.minimum, partly.granularity), (Span::from_hours(24), Span::from_millis(1)));
    assert_eq!((partly.starts, partly.ends), (BillingStart::Launch, BillingEnd::Gone));
}

const NOTIFICATIONS: &str = "notifications:\n  webhooks:\n\
    \x20   team: {url: https://hooks.example.org/hunter2, format: slack, secret: {env: KEY}, events: [anomaly, report, anomaly]}\n\
    \x20   all: {url: http://localhost:9000}\n\
    \x20 reports:\n\
    \x20   - {schedule: 0 8 * * mon, timezone: Europe/Berlin, to: [team, all, team]}\n\
    \x20   - {name: daily, schedule: day, by: user, to: all}\n";

#[test]
fn a_webhook_gets_every_event_unless_it_says_which() {
    use NotificationKind::*;
    let webhooks = config_of(NOTIFICATIONS).unwrap().value.notifications.webhooks;
    assert_eq!(webhooks["team"].events, [Anomaly, Report].into());
    assert_eq!(webhooks["all"].events, [Threshold, Exhausted, Forecast, Anomaly, IdleGpu, Report].into());
    assert_eq!(webhooks["team"].secret, Some(SecretRef::Env("KEY".to_owned())));
    assert_eq!(
        (webhooks["team"].format, webhooks["all"].format),
        (WebhookFormat::Slack, WebhookFormat::Plain)
    );
}

#[test]
fn a_report_is_by_project_and_sent_once_to_each_webhook() {
    let reports = config_of(NOTIFICATIONS).unwrap().value.notifications.reports;
    let [weekly, daily] = reports.try_into().unwrap();
    assert_eq!((weekly.name.as_str(), weekly.by.as_str()), ("report-1", "project"));
    assert_eq!(weekly.to, ["team", "all"]);
    let next = weekly.schedule.next_after(at("2026-11-22T12:00:00Z"));
    assert_eq!(next, Some(at("2026-11-23T07:00:00Z")), "8 in Berlin");
    assert_eq!((daily.name.as_str(), daily.by.as_str(), daily.to), ("daily", "user", vec!["all".to_owned()]));
}

#[test]
fn neither_problems_nor_debug_output_repeat_a_secret() {
    let config = config_of(NOTIFICATIONS).unwrap().value;
    assert!(!format!("{config:?}").contains("hunter2"));
    for webhook in [
        "{url: ftp://hunter2, format: slak}",
        "{url: {hunter2: x}}",
        "{url: https://x, secret: hunter2}",
        "{url: https://x, secret: {env: hunter2=}}",
        "{url: https://x, secret: {file: hunter2}}",
    ] {
        let problems = config_of(&format!("notifications: {{webhooks: {{a: {webhook}}}}}")).unwrap_err();
        assert!(!problems.to_string().contains("hunter2"), "{problems}");
    }
}

proptest! {
    #[test]
    fn every_discount_reads_back(millionths in 1_u32..1_000_000) {
        let percent = format!("{}.{:04}", millionths / 10_000, millionths % 10_000);
        let config = config_of(&format!("pricing: {{discounts: [{{percent: {percent}}}]}}")).unwrap();
        prop_assert_eq!(config.value.discounts[0].millionths, millionths);
    }
}
