//! The books against the bill where nothing goes wrong, so that nobody need allow for doubt.

use bursar_daemon::rules::Pricing;
use bursar_model::{BillingRules, ExperimentSpec, Span, SpotPolicy, Terms, Usd};
use bursar_sim::{Job, Scenario, World};
use bursar_store::InstanceFilter;

/// The cloud rounds each price down once, the ledger carries what is left over.
const ROUNDING: i64 = 1_000;

fn booked(world: &World) -> Usd {
    let all = world.reader().instances(&InstanceFilter::default(), None, 100).expect("the store reads").rows;
    all.iter().map(|instance| instance.meter.costs.effective).sum()
}

#[test]
fn spot_is_charged_at_each_price_for_as_long_as_it_stood() {
    let mut market = Scenario::default().market;
    for sold in &mut market {
        sold.interruptions = None;
    }
    let mut world = World::new(3, Scenario { market, ..Scenario::default() });
    let spec =
        ExperimentSpec { spot_policy: SpotPolicy::Spot, ..Job::lasting(Span::from_secs(9_000)).spec() };
    world.submit("one", spec).expect("the daemon is up");
    world.settle(Span::from_hours(6));
    assert_eq!(world.findings(), []);
    let (bill, doubt) = world.with_cloud(|cloud| cloud.whole_bill());
    assert!(doubt > Usd::from_nanos(10 * ROUNDING), "the price has moved: {doubt}");
    let off = (booked(&world) - bill).as_nanos().abs();
    assert!(off <= ROUNDING, "{bill} by the cloud, {off} nano-dollars off");
}

#[test]
fn a_machine_by_the_hour_is_held_and_charged_in_whole_hours() {
    let hourly = BillingRules { granularity: Span::from_hours(1), ..BillingRules::default() };
    let terms = Terms { billing: hourly, ..Terms::default() };
    let pricing = Pricing { terms: [("cloud".into(), terms)].into(), ..Pricing::default() };
    let mut world = World::new(1, Scenario { pricing, ..Scenario::default() });
    let spec =
        ExperimentSpec { spot_policy: SpotPolicy::OnDemand, ..Job::lasting(Span::from_secs(600)).spec() };
    world.submit("one", spec).expect("the daemon is up");
    world.settle(Span::from_hours(6));
    assert_eq!(world.findings(), []);
    assert_eq!(booked(&world), Usd::from_dollars(1));
}
