//! Replays of workloads on markets.

use std::{collections::BTreeMap, path::Path};

use bursar_config::{Config, load_config};
use bursar_model::{Span, Usd};
use bursar_sim::replay::{Market, Policy, Replay, Replayed, Sources, Wanted, Workload};
use tempfile::TempDir;

/// Coarse enough to be quick, fine enough that nothing depends on it.
const PACE: Span = Span::from_secs(600);

fn config(text: &str) -> Config {
    let machine = bursar_config::read::this_machine();
    let text = format!("data_dir: /nowhere\n{text}");
    load_config(&text, None, &BTreeMap::new(), machine).expect("it is a configuration").value
}

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().expect("there is room");
    for (name, text) in files {
        write(&folder.path().join(name), text);
    }
    folder
}

#[expect(clippy::disallowed_methods, reason = "the files of a market are made here")]
fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("there is room");
}

const OFFERINGS: &str =
    "provider,region,zone,instance_type,gpu,gpus,cpus,memory_gib,capacity_type,price_usd_per_hour,capacity
lab,r,r-a,g1,T4,1,8,32,on-demand,1.00,
lab,r,r-a,g1,T4,1,8,32,spot,0.40,
";

fn replay(files: &[(&str, &str)], jobs: &str) -> Replay {
    let folder = folder(files);
    let sources = Sources::read(folder.path()).expect("it is there");
    let mut workload = Workload::parse("jobs.csv", jobs.as_bytes()).expect("they are jobs");
    let market = Market::from_sources(&sources, &Wanted::default(), &mut workload);
    Replay::new(workload, market, 1, PACE)
}

fn play(replay: &Replay, policy: Policy<'_>) -> Replayed {
    let replayed = replay.play(policy, |_| {}).expect("the store reads");
    assert_eq!(replayed.violations, []);
    replayed
}

#[test]
fn a_fallen_count_takes_the_youngest_machine_back_and_the_work_goes_on_from_its_checkpoint() {
    // Two machines for half an hour, then one, and after three hours none.
    let availability = "time,provider,region,zone,instance_type,capacity_type,count
2026-01-01T00:00:00Z,lab,r,r-a,g1,spot,2
2026-01-01T00:30:00Z,lab,r,r-a,g1,spot,1
2026-01-01T03:00:00Z,lab,r,r-a,g1,spot,0
";
    let jobs = "name,submit_s,duration_s,gpus,spot_policy,checkpoint_s
old,0,7200,1,auto,300
young,60,7200,1,auto,300
";
    let replay = replay(&[("offerings.csv", OFFERINGS), ("availability.csv", availability)], jobs);
    let config = config("");
    let Replayed { figures, .. } = play(&replay, Policy::Of(&config));
    assert_eq!((figures.jobs_finished, figures.interruptions), (2, 1));
    // The young one was given an on-demand machine for the rest.
    assert!(figures.cost_on_demand_usd > "1.4".parse().unwrap(), "{figures:?}");
    assert!(figures.cost_spot_usd > "0.9".parse().unwrap(), "{figures:?}");
    assert_eq!(figures.cost_usd, figures.cost_spot_usd + figures.cost_on_demand_usd);
    // The third is launched while the second still shuts down.
    assert_eq!(figures.fleet_peak, 3);
    // It was told half a minute ahead and saved.
    assert!(figures.gpu_hours_lost < 0.01, "{figures:?}");
    let alone = play(&replay, Policy::OnDemandAlone(&config)).figures;
    assert_eq!((alone.jobs_finished, alone.interruptions, alone.cost_spot_usd), (2, 0, Usd::ZERO));
    assert!(alone.cost_usd > figures.cost_usd);
}

#[test]
fn machines_are_paid_until_they_end_and_not_for_the_pace() {
    let replay = replay(&[("offerings.csv", OFFERINGS)], "submit_s,duration_s,gpus\n0,3600,1\n");
    let config = config("policy: {idle_duration: 5m}");
    let Replayed { figures, .. } = play(&replay, Policy::OnDemandAlone(&config));
    // An hour of work and five minutes of rest, with boot and shutdown, at a dollar an hour.
    let (least, most): (Usd, Usd) = ("1.083".parse().unwrap(), "1.12".parse().unwrap());
    assert!(figures.cost_usd > least && figures.cost_usd < most, "{figures:?}");
}

#[test]
fn the_same_replay_comes_to_the_same() {
    let jobs = "submit_s,duration_s,gpus\n0,5000,1\n100,9000,1\n4000,2500,1\n";
    let workload = Workload::parse("jobs.csv", jobs.as_bytes()).unwrap();
    let market = Market::generated(7, &Wanted::default(), &workload);
    let replay = Replay::new(workload, market, 7, PACE);
    let config = config("");
    let [first, second] = [(); 2].map(|()| play(&replay, Policy::Of(&config)));
    assert_eq!((first.figures, first.curves, first.costs), (second.figures, second.curves, second.costs));
}

#[test]
fn a_budget_is_kept_and_deadlines_that_pass_are_counted() {
    let jobs = "submit_s,duration_s,gpus,deadline_s\n0,7200,1,10800\n0,7200,1,10800\n0,7200,1,3600\n";
    let replay = replay(&[("offerings.csv", OFFERINGS)], jobs);
    let config = config("budget: 3\npolicy: {max_instances: 1}");
    let Replayed { figures, .. } = play(&replay, Policy::Of(&config));
    assert!(figures.cost_usd <= Usd::from_dollars(3), "{figures:?}");
    assert_eq!((figures.deadlines, figures.deadlines_missed), (3, 2));
}

#[test]
fn what_no_machine_can_run_is_left_out_and_said() {
    let replay = replay(
        &[("offerings.csv", OFFERINGS)],
        "submit_s,duration_s,gpus,gpu\n0,60,1,t4\n0,60,8,t4\n0,60,1,H100\n",
    );
    assert_eq!(replay.workload().jobs.len(), 1);
    assert_eq!(
        replay.workload().notes,
        [
            "1 jobs are left out, because no machine on the market has what they want: 1 H100",
            "1 jobs are left out, because no machine on the market has what they want: 8 T4"
        ]
    );
}
