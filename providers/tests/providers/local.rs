//! The local cloud with real hosts and agents: what a machine does, and what becomes of it when its parts die.
use std::{fs, time::Duration};

use crate::support::{COMMON, LocalCloud, offering, processes_of, request, runs};
use bursar_agent::processes::Process;
use bursar_model::{CapacityType, CloudInstance, CloudState, InstanceId, Span};
use bursar_providers::{
    ErrorKind, LIST_KEEPS_ENDED, Provider,
    local::{LocalProvider, Program},
};
use rustix::process::{Pid, Signal, getsid, kill_process};

/// Far more than anything here takes: only a failure waits that long.
const PATIENCE: Duration = Duration::from_secs(30);

async fn wait_for<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let waiting = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("waited in vain until {what}"))
}

async fn listed(provider: &LocalProvider, instance: InstanceId) -> Option<CloudInstance> {
    provider.list().await.unwrap().into_iter().find(|listed| listed.instance == instance)
}

async fn gone(provider: &LocalProvider, instance: InstanceId) -> CloudInstance {
    wait_for("it is gone", async || {
        listed(provider, instance).await.filter(|listed| matches!(listed.state, CloudState::Gone { .. }))
    })
    .await
}

fn pid_of_host(cloud: &LocalCloud, instance: InstanceId) -> Option<Pid> {
    let text = fs::read_to_string(cloud.folder(instance).join("host.lock")).ok()?;
    Pid::from_raw(text.parse().ok()?)
}

#[tokio::test]
async fn a_spot_instance_gets_its_notice_and_is_then_taken_back() {
    let mut cloud = LocalCloud::new();
    cloud.settings.interruptions = vec![Span::from_millis(200)];
    cloud.settings.types[0].notice = Span::from_millis(800);
    let provider = cloud.provider("ours");
    let on_demand = request(offering(COMMON, CapacityType::OnDemand));
    let spot = request(offering(COMMON, CapacityType::Spot));
    let second_spot = request(offering(COMMON, CapacityType::Spot));
    for request in [&on_demand, &spot, &second_spot] {
        provider.launch(request).await.unwrap();
    }
    let noticed = wait_for("the notice is listed", async || {
        listed(&provider, spot.instance).await.filter(|listed| listed.notice.is_some())
    })
    .await;
    assert_eq!(noticed.state, CloudState::Running);
    let ended = gone(&provider, spot.instance).await;
    let CloudState::Gone { at, interrupted } = ended.state else { panic!("{ended:?}") };
    assert!(interrupted);
    assert!(at >= noticed.notice.unwrap());
    assert!(!runs(spot.instance));
    // The script had one entry, and on-demand instances are never taken back.
    for request in [on_demand, second_spot] {
        assert!(!cloud.folder(request.instance).join("notice.json").exists());
        assert!(matches!(listed(&provider, request.instance).await.unwrap().state, CloudState::Running));
    }
}

#[tokio::test]
async fn an_instance_boots_before_its_agent_starts() {
    let mut cloud = LocalCloud::new();
    cloud.settings.types[0].boot = Span::from_secs(3600);
    let provider = cloud.provider("ours");
    let request = request(offering(COMMON, CapacityType::OnDemand));
    assert_eq!(provider.launch(&request).await.unwrap().state, CloudState::Pending);
    wait_for("the host has started", async || pid_of_host(&cloud, request.instance)).await;
    assert!(!runs(request.instance));
    provider.terminate(request.instance, None).await.unwrap();
    gone(&provider, request.instance).await;
}

#[tokio::test]
async fn an_instance_that_hears_nothing_is_gone_at_the_end_of_its_lease() {
    let cloud = LocalCloud::new();
    let provider = cloud.provider("ours");
    let mut request = request(offering(COMMON, CapacityType::OnDemand));
    request.lease_until = bursar_agent::wall_clock() + Span::from_secs(1);
    provider.launch(&request).await.unwrap();
    let ended = gone(&provider, request.instance).await;
    let CloudState::Gone { at, interrupted: false } = ended.state else { panic!("{ended:?}") };
    assert!(at >= request.lease_until);
    assert!(at.since(request.lease_until) < Span::from_secs(2), "the agent ends itself; the host need not");
    assert!(!runs(request.instance));
}

#[tokio::test]
async fn an_agent_that_hangs_is_ended_soon_after_its_lease() {
    let cloud = LocalCloud::new();
    let provider = cloud.provider("ours");
    let mut request = request(offering(COMMON, CapacityType::OnDemand));
    request.lease_until = bursar_agent::wall_clock() + Span::from_secs(1);
    provider.launch(&request).await.unwrap();
    let agent = wait_for("the agent runs", async || agent_of(request.instance)).await;
    agent.signal(Signal::STOP);
    gone(&provider, request.instance).await;
    assert!(!runs(request.instance));
}

#[tokio::test]
async fn when_the_host_is_killed_the_next_look_clears_up() {
    let cloud = LocalCloud::new();
    let provider = cloud.provider("ours");
    let request = request(offering(COMMON, CapacityType::OnDemand));
    provider.launch(&request).await.unwrap();
    wait_for("the agent runs", async || runs(request.instance).then_some(())).await;
    let host = pid_of_host(&cloud, request.instance).unwrap();
    kill_process(host, Signal::KILL).unwrap();
    let ended = gone(&provider, request.instance).await;
    assert!(matches!(ended.state, CloudState::Gone { interrupted: false, .. }));
    assert!(!runs(request.instance));
}

#[tokio::test]
async fn an_instance_ends_when_its_agent_is_killed() {
    let cloud = LocalCloud::new();
    let provider = cloud.provider("ours");
    let request = request(offering(COMMON, CapacityType::OnDemand));
    provider.launch(&request).await.unwrap();
    let agent = wait_for("the agent runs", async || agent_of(request.instance)).await;
    agent.signal(Signal::KILL);
    let ended = gone(&provider, request.instance).await;
    assert!(matches!(ended.state, CloudState::Gone { interrupted: false, .. }));
}

/// The first of an instance's processes: what its agent asks at its start, such as `docker --version`, comes after it.
fn agent_of(instance: InstanceId) -> Option<Process> {
    processes_of(instance).into_iter().next()
}

/// An agent that leaves a process without session and environment, writes its number down and works on.
fn agent_with_a_stray(cloud: &mut LocalCloud) {
    let script = "cd ${0%/*}; env -i PATH=$PATH setsid sh -c 'echo $$ >stray.new; mv stray.new stray; exec sleep 600' & \
                  exec sleep 600";
    cloud.settings.agent_program = Program::new("/bin/sh".as_ref(), &["-c", script]);
}

async fn stray_of(cloud: &LocalCloud, instance: InstanceId) -> Pid {
    let file = cloud.folder(instance).join("stray");
    let pid = wait_for("the stray runs", async || fs::read_to_string(&file).ok()).await;
    Pid::from_raw(pid.trim().parse().unwrap()).unwrap()
}

fn is_running(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

#[tokio::test]
async fn a_process_without_session_and_environment_ends_with_its_instance() {
    let mut cloud = LocalCloud::new();
    agent_with_a_stray(&mut cloud);
    let provider = cloud.provider("ours");
    let request = request(offering(COMMON, CapacityType::OnDemand));
    provider.launch(&request).await.unwrap();
    let stray = stray_of(&cloud, request.instance).await;
    provider.terminate(request.instance, None).await.unwrap();
    gone(&provider, request.instance).await;
    assert!(!is_running(stray));
}

#[tokio::test]
async fn a_process_without_session_and_environment_ends_when_its_agent_is_killed() {
    let mut cloud = LocalCloud::new();
    agent_with_a_stray(&mut cloud);
    let provider = cloud.provider("ours");
    let request = request(offering(COMMON, CapacityType::OnDemand));
    provider.launch(&request).await.unwrap();
    let stray = stray_of(&cloud, request.instance).await;
    processes_of(request.instance).pop().unwrap().signal(Signal::KILL);
    gone(&provider, request.instance).await;
    assert!(!is_running(stray));
}

#[tokio::test]
async fn a_machine_whose_host_died_unseen_ended_when_the_host_did() {
    let cloud = LocalCloud::new();
    let provider = cloud.provider("ours");
    let request = request(offering(COMMON, CapacityType::OnDemand));
    provider.launch(&request).await.unwrap();
    wait_for("the agent runs", async || runs(request.instance).then_some(())).await;
    let before = bursar_agent::wall_clock();
    kill_process(pid_of_host(&cloud, request.instance).unwrap(), Signal::KILL).unwrap();
    cloud.clock.advance(Span::from_secs(3000));
    let ended = gone(&provider, request.instance).await;
    let CloudState::Gone { at, .. } = ended.state else { panic!("{ended:?}") };
    assert!(at.since(before) < Span::from_secs(3) && at >= ended.launched_at, "{at} {before}");
}

#[tokio::test]
async fn a_machine_whose_host_was_never_started_costs_no_more_than_its_lease() {
    let cloud = LocalCloud::new();
    let request = request(offering(COMMON, CapacityType::OnDemand));
    let mut crashed = cloud.settings.clone();
    crashed.host_program.path = "/no/such/program".into();
    let crashed = LocalProvider::new(crashed, std::sync::Arc::<crate::support::TestClock>::default());
    crashed.launch(&request).await.unwrap_err();
    cloud.clock.advance(Span::from_secs(2000));
    let ended = gone(&cloud.provider("ours"), request.instance).await;
    let CloudState::Gone { at, .. } = ended.state else { panic!("{ended:?}") };
    assert_eq!(at, request.lease_until + Span::from_secs(2));
}

#[tokio::test]
async fn a_stopped_host_can_be_terminated() {
    let cloud = LocalCloud::new();
    let provider = cloud.provider("ours");
    let request = request(offering(COMMON, CapacityType::OnDemand));
    provider.launch(&request).await.unwrap();
    wait_for("the agent runs", async || runs(request.instance).then_some(())).await;
    kill_process(pid_of_host(&cloud, request.instance).unwrap(), Signal::STOP).unwrap();
    provider.terminate(request.instance, None).await.unwrap();
    gone(&provider, request.instance).await;
    assert!(!runs(request.instance));
}

#[tokio::test]
async fn a_host_that_hears_nothing_is_killed_after_a_grace() {
    let mut cloud = LocalCloud::new();
    let deaf = "trap '' TERM; exec 9<>$0/host.lock; flock 9; printf $$ >$0/host.lock; while sleep 0.1 9<&-; do :; done";
    cloud.settings.host_program = Program::new("/bin/sh".as_ref(), &["-c", deaf]);
    let provider = cloud.provider("ours");
    let request = request(offering(COMMON, CapacityType::OnDemand));
    provider.launch(&request).await.unwrap();
    let host = wait_for("the host has started", async || pid_of_host(&cloud, request.instance)).await;
    provider.terminate(request.instance, None).await.unwrap();
    assert_eq!(listed(&provider, request.instance).await.unwrap().state, CloudState::Stopping);
    assert!(is_running(host));
    cloud.clock.advance(Span::from_secs(10));
    gone(&provider, request.instance).await;
    assert!(!is_running(host));
}

#[tokio::test]
async fn an_instance_whose_record_cannot_be_read_is_ended_and_hides_no_other() {
    let cloud = LocalCloud::new();
    let provider = cloud.provider("ours");
    let broken = request(offering(COMMON, CapacityType::OnDemand));
    let other = request(offering(COMMON, CapacityType::OnDemand));
    provider.launch(&broken).await.unwrap();
    wait_for("the agent runs", async || runs(broken.instance).then_some(())).await;
    fs::write(cloud.folder(broken.instance).join("machine.json"), "").unwrap();
    fs::write(cloud.settings.root.join("instances/notes.txt"), "").unwrap();
    provider.launch(&other).await.unwrap();
    assert!(listed(&provider, other.instance).await.is_some());
    wait_for("the broken one is put aside", async || {
        provider.list().await.unwrap();
        (!cloud.folder(broken.instance).exists()).then_some(())
    })
    .await;
    assert!(!runs(broken.instance));
    assert!(cloud.settings.root.join("unreadable").join(broken.instance.to_string()).exists());
    let error = provider.launch(&broken).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid, "{error:?}");
    assert!(!runs(broken.instance));
}

#[tokio::test]
async fn an_end_or_a_notice_that_cannot_be_read_hides_no_instance() {
    let cloud = LocalCloud::new();
    let provider = cloud.provider("ours");
    let request = request(offering(COMMON, CapacityType::OnDemand));
    provider.launch(&request).await.unwrap();
    provider.terminate(request.instance, None).await.unwrap();
    gone(&provider, request.instance).await;
    for file in ["ended.json", "notice.json"] {
        fs::write(cloud.folder(request.instance).join(file), "").unwrap();
    }
    assert!(matches!(gone(&provider, request.instance).await.state, CloudState::Gone { .. }));
}

#[tokio::test]
async fn the_script_of_interruptions_goes_on_after_the_records_were_buried() {
    let mut cloud = LocalCloud::new();
    cloud.settings.interruptions = vec![Span::from_secs(3600)];
    let provider = cloud.provider("ours");
    let first = request(offering(COMMON, CapacityType::Spot));
    let second = request(offering(COMMON, CapacityType::Spot));
    let interruption = |instance: InstanceId| {
        let machine = fs::read_to_string(cloud.folder(instance).join("machine.json")).unwrap();
        serde_json::from_str::<serde_json::Value>(&machine).unwrap()["interrupt_after"].clone()
    };
    provider.launch(&first).await.unwrap();
    assert_eq!(interruption(first.instance), "1h");
    provider.terminate(first.instance, None).await.unwrap();
    gone(&provider, first.instance).await;
    cloud.clock.advance(LIST_KEEPS_ENDED + Span::from_secs(60));
    provider.list().await.unwrap();
    assert!(!cloud.folder(first.instance).exists());
    provider.launch(&second).await.unwrap();
    assert!(interruption(second.instance).is_null());
}

#[tokio::test]
async fn an_instance_whose_host_was_never_started_is_started_by_the_next_look() {
    let cloud = LocalCloud::new();
    let request = request(offering(COMMON, CapacityType::OnDemand));
    let mut crashed = cloud.settings.clone();
    crashed.host_program.path = "/no/such/program".into();
    let crashed = LocalProvider::new(crashed, std::sync::Arc::<crate::support::TestClock>::default());
    let error = crashed.launch(&request).await.unwrap_err();
    assert_eq!(error.effect, bursar_providers::EffectMay::Maybe);
    assert!(!runs(request.instance));
    let provider = cloud.provider("ours");
    assert!(listed(&provider, request.instance).await.is_some());
    wait_for("the agent runs", async || runs(request.instance).then_some(())).await;
}

#[tokio::test]
async fn an_instance_is_no_part_of_the_daemons_session() {
    let cloud = LocalCloud::new();
    let provider = cloud.provider("ours");
    let request = request(offering(COMMON, CapacityType::OnDemand));
    provider.launch(&request).await.unwrap();
    let host = wait_for("the host has started", async || pid_of_host(&cloud, request.instance)).await;
    assert_eq!(getsid(Some(host)).unwrap(), host);
}

#[tokio::test]
async fn a_full_type_is_refused_until_one_of_its_instances_ends() {
    let mut cloud = LocalCloud::new();
    cloud.settings.types[0].max_instances = Some(1);
    let provider = cloud.provider("ours");
    let first = request(offering(COMMON, CapacityType::Spot));
    let second = request(offering(COMMON, CapacityType::OnDemand));
    provider.launch(&first).await.unwrap();
    let error = provider.launch(&second).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::InsufficientCapacity(_)), "{error:?}");
    provider.launch(&first).await.unwrap();
    provider.terminate(first.instance, None).await.unwrap();
    gone(&provider, first.instance).await;
    provider.launch(&second).await.unwrap();
}

#[tokio::test]
async fn another_installations_instance_of_the_same_id_is_not_taken_for_ours() {
    let cloud = LocalCloud::new();
    let mut request = request(offering(COMMON, CapacityType::OnDemand));
    request.installation = "theirs".to_owned();
    cloud.provider("theirs").launch(&request).await.unwrap();
    request.installation = "ours".to_owned();
    let error = cloud.provider("ours").launch(&request).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid);
}

#[tokio::test]
async fn what_is_not_on_offer_is_invalid() {
    let cloud = LocalCloud::new();
    let provider = cloud.provider("ours");
    let error = provider.launch(&request(offering("unheard-of", CapacityType::Spot))).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid);
    assert_eq!(error.effect, bursar_providers::EffectMay::No);
}

#[tokio::test]
async fn long_after_its_end_an_instance_is_no_longer_listed_and_never_launched_again() {
    let cloud = LocalCloud::new();
    let provider = cloud.provider("ours");
    let request = request(offering(COMMON, CapacityType::OnDemand));
    let launched = provider.launch(&request).await.unwrap();
    provider.terminate(request.instance, None).await.unwrap();
    gone(&provider, request.instance).await;
    cloud.clock.advance(LIST_KEEPS_ENDED.saturating_sub(Span::from_secs(60)));
    assert!(listed(&provider, request.instance).await.is_some());
    cloud.clock.advance(Span::from_secs(120));
    provider.list().await.unwrap();
    assert!(listed(&provider, request.instance).await.is_none());
    assert!(!cloud.folder(request.instance).exists());
    let again = provider.launch(&request).await.unwrap();
    assert_eq!(again.launched_at, launched.launched_at);
    assert!(matches!(again.state, CloudState::Gone { .. }));
    assert!(!runs(request.instance));
}

#[tokio::test]
async fn the_secret_is_readable_by_its_owner_only_and_stands_in_no_command_line() {
    use std::os::unix::fs::PermissionsExt;
    let cloud = LocalCloud::new();
    let provider = cloud.provider("ours");
    let request = request(offering(COMMON, CapacityType::OnDemand));
    provider.launch(&request).await.unwrap();
    let folder = cloud.folder(request.instance);
    assert_eq!(fs::metadata(folder.join("secret")).unwrap().permissions().mode() & 0o777, 0o600);
    for file in ["agent.json", "machine.json"] {
        assert!(!fs::read_to_string(folder.join(file)).unwrap().contains(&request.secret));
    }
}
