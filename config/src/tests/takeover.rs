//! What a running daemon takes over of a changed configuration.

use super::*;

const BEFORE: &str = "
installation: lab
listen: 127.0.0.1:7000
budget: 100
projects: {vision: {budget: 5}, speech: }
policy: {lease: 10m}
notifications: {webhooks: {team: {url: 'https://a.example/'}}, reports: [{name: weekly, schedule: week, to: team}]}
providers:
  here: {type: local, overhead: 0.01, types: {small: {on_demand: 1}, large: {on_demand: 2}}}
  there: {type: local, types: {small: {on_demand: 1}}}
";

fn config(text: &str) -> Config {
    config_of(text).unwrap_or_else(|e| panic!("{e}")).value
}

/// What changes where this text stands for that one.
fn changed(from: &str, to: &str) -> Takeover {
    assert!(BEFORE.contains(from), "{from}");
    take_over(&config(BEFORE), config(&BEFORE.replace(from, to)))
}

#[test]
fn what_did_not_change_is_taken_over_as_it_is() {
    let Takeover { config: taken, changed, needs_restart } = take_over(&config(BEFORE), config(BEFORE));
    assert_eq!(taken, config(BEFORE));
    assert!(changed.is_empty() && needs_restart.is_empty(), "{changed:?} {needs_restart:?}");
}

#[test]
fn budgets_policy_prices_and_notifications_count_at_once_each_under_its_key() {
    for (from, to, keys) in [
        ("budget: 100", "budget: 90", &["budget"][..]),
        ("vision: {budget: 5}", "vision: {budget: 6}", &["projects.vision"]),
        ("speech: }", "audio: }", &["projects.speech", "projects.audio"]),
        ("policy:", "users: {ada: {budget: 3}}\npolicy:", &["users.ada"]),
        ("policy: {lease: 10m}", "policy: {lease: 20m, max_price: 3}", &["policy.lease", "policy.max_price"]),
        ("policy:", "pricing: {discounts: [{percent: 10}]}\npolicy:", &["pricing.discounts"]),
        ("a.example", "b.example", &["notifications.webhooks.team"]),
        ("schedule: week", "schedule: day", &["notifications.reports.weekly"]),
        (
            "overhead: 0.01",
            "address_price: 0.01",
            &["providers.here.address_price", "providers.here.overhead"],
        ),
    ] {
        let taken = changed(from, to);
        assert_eq!(taken.changed, keys);
        assert_eq!(taken.needs_restart, [""; 0], "{to}");
        assert_eq!(taken.config, config(&BEFORE.replace(from, to)), "{to}");
    }
}

#[test]
fn what_is_in_use_stays_as_it_is_until_the_next_start() {
    for (from, to, keys) in [
        ("installation: lab", "installation: bal", &["installation"][..]),
        ("listen: 127.0.0.1:7000", "listen: 127.0.0.1:7001", &["listen"]),
        ("installation: lab", "installation: lab\ndata_dir: /elsewhere", &["data_dir"]),
        ("  there:", "  where:", &["providers.there", "providers.where"]),
        ("large: {on_demand: 2}", "large: {on_demand: 3}", &["providers.here.types.large"]),
        (", large: {on_demand: 2}", "", &["providers.here.types.large"]),
        ("local, overhead", "local, seed: 4, overhead", &["providers.here.seed"]),
        ("local, overhead", "local, interruptions: [5s], overhead", &["providers.here.interruptions"]),
    ] {
        let taken = changed(from, to);
        assert_eq!(taken.needs_restart, keys);
        assert_eq!(taken.changed, [""; 0], "{to}");
        assert_eq!(taken.config, config(BEFORE), "{to}");
    }
}

#[test]
fn what_needs_a_restart_keeps_the_rest_from_nothing_and_is_told_of_again() {
    let new = BEFORE.replace("budget: 100", "budget: 90").replace(":7000", ":7001");
    let first = take_over(&config(BEFORE), config(&new));
    assert_eq!((first.changed, first.needs_restart), (vec!["budget".to_owned()], vec!["listen".to_owned()]));
    let second = take_over(&first.config, config(&new));
    assert_eq!((second.changed, second.needs_restart), (vec![], vec!["listen".to_owned()]));
}
