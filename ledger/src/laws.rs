//! The laws of the ledger, over random lives of an instance: attempts come and go, leases are renewed, work is lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bursar_model::{
    Accelerators, Account, Amounts, Attempt, AttemptState, Backoff, BudgetKey, CapacityType, Category,
    ChargeClass, Costs, EarlierPrice, ExperimentId, IdGen, Instance, InstanceState, InstanceType, Meter,
    Node, Offering, Period, Price, Remainders, RunCharge, Span, Timestamp, Usd, UsdPerHour,
};
use proptest::prelude::*;

use crate::{Metered, Room, hold, lost_work, meter, shares};

/// What happens to an instance.
#[derive(Debug, Clone)]
enum Step {
    Assign(u32),
    End(prop::sample::Index),
    Lose(prop::sample::Index),
    Checkpoint(prop::sample::Index),
    Stop(prop::sample::Index),
    Renew,
    Price(i64),
}

fn steps() -> impl Strategy<Value = Vec<(i64, Step)>> {
    let index = any::<prop::sample::Index>;
    let step = prop_oneof![
        3 => (1_u32..4).prop_map(Step::Assign),
        2 => index().prop_map(Step::End),
        1 => index().prop_map(Step::Lose),
        1 => index().prop_map(Step::Checkpoint),
        1 => index().prop_map(Step::Stop),
        2 => Just(Step::Renew),
        1 => (0_i64..3_000_000_007).prop_map(Step::Price),
    ];
    prop::collection::vec((0_i64..400_000, step), 1..40)
}

/// An instance with its attempts, and what was ever charged for it.
struct Life {
    now: Timestamp,
    ids: IdGen,
    instance: Instance,
    attempts: Vec<Attempt>,
    charged: BTreeMap<(ExperimentId, Category), Usd>,
    through: Timestamp,
    /// What the price series comes to until now, in nano-dollar milliseconds an hour.
    exact: i128,
}

/// A window of a budget begins within the first lives of an instance.
const CUT_MILLIS: i64 = 1_800_000_700_000;
const LEASE: Span = Span::from_secs(600);
const CEILING: UsdPerHour = UsdPerHour::from_nanos(3_000_000_007);

fn account() -> Arc<Account> {
    Arc::new(Account { project: "p".into(), user: "ada".into(), sweep: None })
}

impl Life {
    fn new() -> Self {
        let now = Timestamp::from_millis(1_800_000_000_000);
        let mut ids = IdGen::new(1);
        let kind = Arc::new(InstanceType {
            name: "four".into(),
            accelerators: Some(Accelerators { name: "T4".into(), count: 4, memory_gib: None }),
            cpus_milli: 16_000,
            memory_mib: 65_536,
            disk_gib: 100,
        });
        let first = ids.experiment(now);
        let wanted = [(first, &account(), amounts(1))];
        let shares = shares::at_launch(&kind, &wanted);
        let mut instance = Instance {
            id: ids.instance(now),
            offering: Offering {
                provider: "cloud".into(),
                region: "r".into(),
                zone: "z".into(),
                instance_type: kind,
                capacity_type: CapacityType::Spot,
                price: Some(UsdPerHour::from_nanos(1_000_000_003)),
                list_price: None,
                on_demand_price: Some(CEILING),
                price_since: None,
                quota: None,
                notice: None,
                terms: Arc::default(),
            },
            state: InstanceState::Ready { since: now },
            cloud_id: None,
            disk_gib: 10,
            ceiling: CEILING,
            price: Price::plain(UsdPerHour::from_nanos(1_000_000_003)),
            earlier_prices: Vec::new(),
            lease_until: now + LEASE,
            drain_allowance: Span::ZERO,
            funded_until: None,
            shares,
            meter: Meter {
                from: Some(now),
                through: now,
                remainders: Remainders::default(),
                costs: Costs::default(),
            },
            token_digest: Some("of its agent".to_owned()),
            boot: None,
            address: None,
            idle_since: None,
            notice: None,
            at_risk: None,
            together: None,
            backoff: Backoff::default(),
        };
        instance.shares = hold::with_holds(&instance, instance.shares.clone(), LEASE);
        Self { now, ids, instance, attempts: Vec::new(), charged: BTreeMap::new(), through: now, exact: 0 }
    }

    /// Time passes at the price in force.
    fn wait(&mut self, millis: i64) {
        let until = self.now + Span::from_millis(millis);
        let paid = Period::new(self.now, until.min(self.instance.paid_until()));
        self.exact +=
            i128::from(self.instance.price.effective.as_nanos()) * i128::from(paid.span().as_millis());
        self.now = until;
    }

    /// Charges up to now, and looks at what must be true of every charge.
    fn charge(&mut self) {
        // What is not paid for is not used: by then the instance has ended itself.
        let until = self.now.min(self.instance.paid_until());
        let cuts = BTreeSet::from([Timestamp::from_millis(CUT_MILLIS)]);
        let Some(metered) = meter(&self.instance, self.attempts.iter(), until, &cuts) else { return };
        let before = self.instance.held();
        let mut own: BTreeMap<ExperimentId, Usd> = BTreeMap::new();
        let mut cost = Costs::default();
        for charge in metered.charges() {
            assert_eq!(charge.period.from, self.through, "periods meet (L2)");
            assert_eq!(charge.class, ChargeClass::Usage);
            assert!(
                !(charge.period.from.as_millis() < CUT_MILLIS && charge.period.to.as_millis() > CUT_MILLIS),
                "no charge lies across a cut"
            );
            self.through = charge.period.to;
            cost += charge.costs();
            let parts: BTreeSet<_> = charge.lines.iter().map(|line| (line.payer, line.category)).collect();
            assert_eq!(parts.len(), charge.lines.len(), "a payer has one line in a category");
            for line in &charge.lines {
                *self.charged.entry((line.payer, line.category)).or_default() += line.costs.effective;
                *own.entry(line.payer).or_default() += line.costs.effective;
                let attempt = self.attempts.iter_mut().find(|attempt| attempt.experiment == line.payer);
                if let Some(attempt) = attempt.filter(|_| line.category == Category::Run) {
                    attempt.nodes[0].ran(RunCharge { period: charge.period, costs: line.costs });
                }
            }
        }
        for (payer, own) in own {
            // One payer's part is paid out of that payer's own hold.
            let share = &self.instance.shares[&payer];
            assert!(own + metered.held[&payer] <= share.held, "spent + held rises by metering");
        }
        self.instance.meter = metered.meter().clone();
        self.instance.earlier_prices.clear();
        for (payer, held) in metered.held {
            self.instance.shares.get_mut(&payer).unwrap().held = held;
        }
        let cost = cost.effective;
        assert!(cost + self.instance.held() <= before);
    }

    fn set_shares(&mut self, shares: BTreeMap<ExperimentId, bursar_model::Share>) {
        let outstanding = self.instance.outstanding(self.instance.meter.through, self.instance.held_until());
        self.instance.shares = hold::with_holds(&self.instance, shares, outstanding);
    }

    fn step(&mut self, step: Step) {
        let pick = |index: prop::sample::Index, count: usize| (count > 0).then(|| index.index(count));
        match step {
            Step::Assign(accelerators) => {
                let used: u32 = self.attempts.iter().map(|attempt| attempt.amounts.accelerators).sum();
                if used + accelerators > 4 {
                    return;
                }
                let experiment = self.ids.experiment(self.now);
                let part = amounts(accelerators);
                let live = self.attempts.iter();
                let shares = shares::at_assignment(&self.instance, live, experiment, &account(), part);
                self.set_shares(shares);
                self.attempts.push(Attempt {
                    id: self.ids.attempt(self.now),
                    experiment,
                    number: 1,
                    nodes: vec![Node::new(self.instance.id, Vec::new())],
                    amounts: part,
                    assigned_at: self.now,
                    state: AttemptState::Running,
                    started_at: Some(self.now),
                    checkpoint_at: None,
                    ran_with: None,
                    idle_gpu: None,
                });
            }
            Step::End(index) => drop(pick(index, self.attempts.len()).map(|at| self.attempts.remove(at))),
            Step::Lose(index) => {
                let Some(at) = pick(index, self.attempts.len()) else { return };
                let correction = lost_work(&self.instance, &self.attempts[at]);
                for charge in correction.iter().flat_map(Metered::charges) {
                    assert_eq!(charge.costs(), Costs::default(), "what is lost was paid already");
                    for line in &charge.lines {
                        *self.charged.entry((line.payer, line.category)).or_default() += line.costs.effective;
                    }
                }
                self.attempts.remove(at);
            }
            Step::Checkpoint(index) => {
                let Some(at) = pick(index, self.attempts.len()) else { return };
                self.attempts[at].checkpoint_at = Some(self.now);
            }
            Step::Stop(index) => {
                let Some(at) = pick(index, self.attempts.len()) else { return };
                let why = bursar_model::StopReason::Moved;
                self.attempts[at].state = AttemptState::Stopping { since: self.now, why, at_once: false };
            }
            Step::Renew => {
                if self.now < self.instance.paid_until() {
                    let shares =
                        shares::at_renewal(&self.instance, self.attempts.iter(), |_| Some(account()));
                    self.instance.lease_until = self.now + LEASE;
                    self.set_shares(shares);
                }
            }
            Step::Price(nanos) => {
                let (until, price) = (self.now, self.instance.price);
                if until > self.instance.meter.through {
                    self.instance.earlier_prices.push(EarlierPrice { until, price });
                }
                self.instance.price = Price::plain(UsdPerHour::from_nanos(nanos));
            }
        }
    }
}

fn amounts(accelerators: u32) -> Amounts {
    Amounts { accelerators, cpus_milli: 1_000, memory_mib: 1_024 }
}

proptest! {
    #[test]
    fn parts_sum_to_the_cost_periods_meet_and_metering_never_raises_spent_and_held(steps in steps()) {
        let mut life = Life::new();
        for (wait, step) in steps {
            life.wait(wait);
            // A price may change without a charge: the next one tells the prices apart.
            if !matches!(step, Step::Price(_)) {
                life.charge();
            }
            life.step(step);
            let charged: Usd = life.charged.values().copied().sum();
            prop_assert_eq!(charged, life.instance.meter.costs.effective, "L1");
            if life.through == life.now {
                prop_assert_eq!(i128::from(charged.as_nanos()), life.exact / 3_600_000, "the price series");
            }
            prop_assert_eq!(life.through, life.instance.meter.through);
            let weights: u32 = life.instance.shares.values().map(|share| share.weight).sum();
            prop_assert_eq!(weights, 4_000, "every part has one payer");
            let outstanding = life.instance.outstanding(life.through, life.instance.held_until());
            let whole = life.instance.ceiling.cost_rounded_up(outstanding);
            prop_assert!(life.instance.held() >= whole, "what is paid for is held");
            for ((payer, category), amount) in &life.charged {
                prop_assert!(*amount >= Usd::ZERO, "{payer} is paid {amount} for {category}");
            }
        }
    }
}

#[test]
fn each_part_goes_to_its_category() {
    let mut life = Life::new();
    let first = *life.instance.shares.keys().next().unwrap();
    life.step(Step::Assign(1));
    life.step(Step::Assign(2));
    let (one, two) = (life.attempts[0].experiment, life.attempts[1].experiment);
    life.attempts[1].state = AttemptState::Stopping {
        since: life.now,
        why: bursar_model::StopReason::Interrupted,
        at_once: false,
    };
    life.instance.price = Price::plain(UsdPerHour::from_nanos(3_600_000));
    life.now = life.now + Span::from_secs(100);
    life.charge();
    let expected = [
        ((first, Category::Idle), Usd::from_nanos(25_000)),
        ((one, Category::Run), Usd::from_nanos(25_000)),
        ((two, Category::Drain), Usd::from_nanos(50_000)),
    ];
    assert_eq!(life.charged, expected.into());
}

#[test]
fn what_ran_until_it_was_told_to_stop_is_no_drain() {
    let mut life = Life::new();
    life.step(Step::Assign(1));
    let one = life.attempts[0].experiment;
    life.instance.price = Price::plain(UsdPerHour::from_nanos(3_600_000));
    let since = life.now + Span::from_secs(60);
    life.attempts[0].state =
        AttemptState::Stopping { since, why: bursar_model::StopReason::Cancelled, at_once: false };
    life.now = life.now + Span::from_secs(100);
    life.charge();
    let of = |category| life.charged.get(&(one, category)).copied().unwrap_or_default();
    assert_eq!(of(Category::Run).as_nanos() * 40, of(Category::Drain).as_nanos() * 60, "{:?}", life.charged);
    assert!(of(Category::Run) > Usd::ZERO);
}

#[test]
fn work_that_stops_on_an_instance_that_drains_is_one_part_with_what_it_leaves_unused() {
    let mut life = Life::new();
    let first = *life.instance.shares.keys().next().unwrap();
    life.step(Step::Assign(1));
    let one = life.attempts[0].experiment;
    let unused = life.instance.shares.remove(&first).unwrap();
    let share = life.instance.shares.get_mut(&one).unwrap();
    share.weight += unused.weight;
    share.held += unused.held;
    let (since, why) = (life.now, bursar_model::StopReason::Interrupted);
    life.attempts[0].state = AttemptState::Stopping { since, why, at_once: false };
    life.instance.state =
        bursar_model::InstanceState::Draining { since, why: bursar_model::DrainReason::Interrupted };
    life.now = life.now + Span::from_secs(100);
    life.charge();
    assert!(life.charged.keys().eq([&(one, Category::Drain)]), "{:?}", life.charged);
}

#[test]
fn only_work_since_the_last_checkpoint_is_lost() {
    let mut life = Life::new();
    life.step(Step::Assign(3));
    life.instance.price = Price::plain(UsdPerHour::from_nanos(4_800_000));
    life.now = life.now + Span::from_secs(60);
    life.attempts[0].checkpoint_at = Some(life.now);
    life.now = life.now + Span::from_secs(30);
    life.charge();
    let correction = lost_work(&life.instance, &life.attempts[0]).unwrap();
    let lost = Usd::from_nanos(30_000);
    let lines = correction.charges().flat_map(|charge| &charge.lines);
    let lines: Vec<_> = lines.map(|line| (line.category, line.costs.effective)).collect();
    assert_eq!(lines, [(Category::Run, -lost), (Category::Lost, lost)]);
}

#[test]
fn at_a_renewal_those_who_run_pay_for_what_nobody_uses() {
    let mut life = Life::new();
    life.step(Step::Assign(1));
    life.step(Step::Assign(2));
    let weights = |life: &Life| life.instance.shares.values().map(|share| share.weight).collect::<Vec<_>>();
    assert_eq!(weights(&life), [1_000, 1_000, 2_000]);
    life.step(Step::Renew);
    assert_eq!(weights(&life), [1_333, 2_667]);
}

#[test]
fn a_part_that_changes_hands_in_a_budget_needs_no_room_in_it() {
    let mut life = Life::new();
    let held = life.instance.held();
    let limited =
        bursar_model::Budget { held, ..bursar_model::Budget::limited(held + Usd::from_nanos(2_000)) };
    let budgets = BTreeMap::from([(BudgetKey::Project("p".into()), limited)]);
    let mut room = Room::new(&budgets);
    let before = life.instance.shares.clone();
    life.step(Step::Assign(2));
    assert_eq!(room.exchange(&before, &life.instance.shares), Ok(()));
}
