//! The daemon is killed around each call that makes or ends instances, and at any moment: nothing is launched twice, nothing
//! lives on that nobody knows, and all that is alive is taken up again or ended.

use std::{collections::BTreeSet, thread::sleep, time::Duration};

use bursar_tests::{PATIENCE, installation::text, until};
use serde_json::{Value, json};

use crate::lab::Lab;

/// Nobody boots here, and nobody waits for machines that do not come.
const POLICY: &str = "lease: 600s, drain_allowance: 30s, max_instances: 40";

fn one_region(_: &bursar_tests::AwsPeer) -> String {
    "regions: [us-east-1]".to_owned()
}

/// Where a call is when the daemon is killed.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// The order was given to the daemon a moment ago.
    Ordered,
    /// On its way to AWS, where it takes effect after the end of the daemon.
    OnItsWay,
    /// It never came to AWS.
    LostOnItsWay,
    /// It took effect, and nobody was told.
    AnswerLost,
    /// Nobody was told, and it takes effect when the next daemon has asked again.
    EffectComesLate,
    /// Answered: the daemon stores that now, or has.
    Answered,
}

const MOMENTS: [Moment; 6] = [
    Moment::Ordered,
    Moment::OnItsWay,
    Moment::LostOnItsWay,
    Moment::AnswerLost,
    Moment::EffectComesLate,
    Moment::Answered,
];

impl Moment {
    /// What the peer is told to do with the next call of this action.
    fn order(self, lab: &Lab, action: &str) {
        let fault = match self {
            Self::Ordered | Self::Answered => return,
            Self::OnItsWay => json!({ "action": action, "times": 1, "delay_ms": 400 }),
            Self::LostOnItsWay => json!({ "action": action, "times": 1, "drop": "before" }),
            Self::AnswerLost => json!({ "action": action, "times": 1, "drop": "after" }),
            Self::EffectComesLate => {
                json!({ "action": action, "times": 1, "drop": "later", "later_secs": 1 })
            }
        };
        let _ = lab.peer.order("faults", &fault);
    }

    /// Waits until the call is there.
    fn wait(self, lab: &Lab, action: &str) {
        let is_there = |call: &Value| match self {
            Self::Ordered | Self::OnItsWay => true,
            Self::LostOnItsWay | Self::AnswerLost | Self::EffectComesLate => call["status"] == 0,
            Self::Answered => call["status"] == 200,
        };
        if !matches!(self, Self::Ordered) {
            until(&format!("{action} is {self:?}"), PATIENCE, || {
                lab.peer.calls(action).iter().any(is_there).then_some(())
            });
        }
    }
}

fn submit(lab: &Lab) -> String {
    lab.installation.submit("name: doomed\nproject: lab\nresources: {cpus: 2}\nrun: sleep 600\n")
}

fn cancel(lab: &Lab, experiment: &str) {
    // What was ended before it was told so is none the worse.
    let said = lab.installation.bursar(&["cancel", experiment]);
    assert!(matches!(said.code, Some(0 | 1)), "{said:#?}");
}

/// The one instance that there is to be, as the daemon and as the peer know it.
fn until_adopted(lab: &Lab, context: &str) {
    until(&format!("the instance is adopted: {context}"), PATIENCE, || {
        let live = lab.live();
        let is_adopted = live.len() == 1 && live[0]["cloud_id"].is_string();
        (is_adopted && lab.peer.alive().len() == 1).then_some(())
    });
    lab.assert_nothing_is_twice(context);
}

#[test]
fn killed_around_a_launch_the_next_daemon_has_the_one_instance_and_can_end_it() {
    let mut lab = Lab::new(POLICY, one_region);
    lab.start();
    lab.installation.until_on_offer();
    for moment in MOMENTS {
        let context = format!("{moment:?}");
        lab.peer.clear_log();
        moment.order(&lab, "RunInstances");
        let id = submit(&lab);
        moment.wait(&lab, "RunInstances");
        lab.restart();
        until_adopted(&lab, &context);
        cancel(&lab, &id);
        lab.installation.until_empty();
        lab.assert_nothing_is_left(&context);
    }
    assert_eq!(lab.peer.instances().len(), MOMENTS.len(), "one for each experiment");
}

#[test]
fn killed_around_an_end_the_next_daemon_ends_it() {
    let mut lab = Lab::new(POLICY, one_region);
    lab.start();
    lab.installation.until_on_offer();
    for moment in MOMENTS {
        let context = format!("{moment:?}");
        let id = submit(&lab);
        until_adopted(&lab, &context);
        lab.peer.clear_log();
        moment.order(&lab, "TerminateInstances");
        cancel(&lab, &id);
        moment.wait(&lab, "TerminateInstances");
        lab.restart();
        lab.installation.until_empty();
        lab.assert_nothing_is_left(&context);
    }
}

#[test]
fn killed_while_a_launch_is_cancelled_nothing_of_it_stays() {
    let mut lab = Lab::new(POLICY, one_region);
    lab.start();
    lab.installation.until_on_offer();
    // What never came to AWS may come yet, for all that anybody can tell: the daemon waits for it for eleven minutes.
    let comes = |moment: &Moment| !matches!(moment, Moment::Ordered | Moment::LostOnItsWay);
    for moment in MOMENTS.into_iter().filter(comes) {
        let context = format!("{moment:?}");
        lab.peer.clear_log();
        moment.order(&lab, "RunInstances");
        let id = submit(&lab);
        moment.wait(&lab, "RunInstances");
        cancel(&lab, &id);
        lab.restart();
        lab.installation.until_empty();
        until(&format!("nothing is left: {context}"), PATIENCE, || lab.peer.alive().is_empty().then_some(()));
        lab.assert_nothing_is_left(&context);
    }
}

/// Moments that look random and can be had again: xorshift, as the standard library has no generator.
struct Moments(u64);

impl Moments {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % most
    }
}

/// A launch that was cancelled before anybody knew whether it came to AWS: kept for as long as it may come yet.
fn is_doubtful(instance: &Value) -> bool {
    instance["state"] == "terminating" && instance["cloud_id"].is_null()
}

/// Kills the daemon so often, at moments and between faults that the seed says, while work comes and is cancelled.
fn storm(kills: u32, seed: u64) {
    let mut moments = Moments(seed);
    let mut lab = Lab::new(POLICY, |_| "regions: [us-east-1, us-west-2]".to_owned());
    lab.start();
    lab.installation.until_on_offer();
    let mut submitted: Vec<String> = Vec::new();
    for _ in 0..kills {
        let action = ["RunInstances", "TerminateInstances"][moments.below(2) as usize];
        let fault = match moments.below(5) {
            0 => json!({ "action": action, "times": 1, "drop": "before" }),
            1 => json!({ "action": action, "times": 1, "drop": "after" }),
            2 => json!({ "action": action, "times": 1, "delay_ms": 20 + moments.below(200) }),
            3 => json!({ "action": action, "times": 1, "drop": "later", "later_secs": 1 }),
            _ => json!({ "action": action, "times": 1, "code": "InternalError", "after_effect": true }),
        };
        let _ = lab.peer.order("faults", &fault);
        let trials = 2 + moments.below(3);
        submitted.push(lab.installation.sweep(&format!(
            "name: storm\nproject: lab\nresources: {{cpus: 2}}\nrun: sleep 600\nsweep: {{matrix: {{x: 0..{trials}}}}}\n"
        )));
        if submitted.len() > 2 {
            let which = moments.below(submitted.len() as u64) as usize;
            cancel(&lab, &submitted.swap_remove(which));
        }
        // A third within the first moments of a daemon, when it loads, looks and asks again; the others at any time.
        let most = if moments.below(3) == 0 { 30 } else { 300 };
        sleep(Duration::from_millis(moments.below(most)));
        lab.restart();
    }
    let context = format!("BURSAR_TEST_SEED={seed}");
    until(&format!("all that lives is adopted or ended: {context}"), 4 * PATIENCE, || {
        let live = lab.live();
        let known: BTreeSet<&str> =
            live.iter().filter_map(|instance| instance["cloud_id"].as_str()).collect();
        let is_known = lab.peer.alive().iter().all(|instance| known.contains(text(&instance["id"])));
        let is_settled = |instance: &Value| instance["cloud_id"].is_string() || is_doubtful(instance);
        (is_known && live.iter().all(is_settled)).then_some(())
    });
    lab.assert_nothing_is_twice(&context);
    for sweep in &submitted {
        cancel(&lab, sweep);
    }
    let doubtful = until(&format!("every instance is gone: {context}"), 4 * PATIENCE, || {
        let live = lab.live();
        live.iter().all(is_doubtful).then_some(live.len())
    });
    until(&format!("nothing is left: {context}"), PATIENCE, || lab.peer.alive().is_empty().then_some(()));
    lab.assert_nothing_is_twice(&context);
    if doubtful == 0 {
        lab.assert_nothing_is_left(&context);
    }
    let launched = lab.peer.instances().len();
    println!(
        "{kills} kills, {launched} launched, none twice, none left; {doubtful} launches never came to AWS"
    );
    assert!(launched > kills as usize / 4, "{context}: only {launched} launches");
}

fn seed() -> u64 {
    let given = std::env::var("BURSAR_TEST_SEED").ok();
    given.map_or(0x6275_7273_6172, |seed| seed.parse().expect("BURSAR_TEST_SEED is a number"))
}

#[test]
fn killed_at_two_dozen_moments_nothing_is_launched_twice_and_nothing_is_left() {
    storm(24, seed());
}

#[test]
#[ignore = "minutes: tests/run --long"]
fn killed_at_a_thousand_moments_nothing_is_launched_twice_and_nothing_is_left() {
    for part in 0..10 {
        storm(100, seed() + part);
    }
}
