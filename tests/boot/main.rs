//! Machines that boot by the user data that clouds are given: real shells, the real agent, a real power-off.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "helpers of tests fail by panicking, and the world of real files and clocks is what they test in"
)]

mod cloud;
mod notices;

use std::{collections::BTreeMap, fs, process::Command, time::Duration};

use bursar_agent::NoticeSource;
use bursar_model::{
    CapacityType, InstanceId, InstanceType, Offering, ProviderName, Region, Span, Together, TypeName,
    TypedId, UsdPerHour, Zone,
};
use bursar_providers::{
    LaunchRequest,
    bootstrap::{USER_DATA_MAX, user_data},
};
use bursar_tests::{
    MetadataServer, PATIENCE, Said,
    machine::{Machine, System},
    processes, program, until,
};
use rustix::process::Signal;

use crate::cloud::{Daemon, SandboxCloud};

/// Long enough for all that a test does.
const LONG: &str = "{lease: 60s, drain_allowance: 30s, heartbeat: 500ms, observe_interval: 300ms}";

/// So short that a test can wait for its end.
const SHORT: &str =
    "{lease: 6s, drain_allowance: 30s, heartbeat: 500ms, observe_interval: 300ms, idle_duration: 1h}";

/// Where no metadata service answers.
fn silent() -> NoticeSource {
    NoticeSource::Aws { endpoint: "http://127.0.0.1:9".to_owned() }
}

/// A launch whose daemon is not there.
fn request(lease: Span) -> LaunchRequest {
    let price = Some(UsdPerHour::from_nanos(100_000_000));
    let instance_type = InstanceType {
        name: TypeName::new("sandbox"),
        accelerators: None,
        cpus_milli: 2000,
        memory_mib: 4096,
        disk_gib: 100,
    };
    LaunchRequest {
        installation: "ours".to_owned(),
        instance: InstanceId::from_u64(1),
        offering: Offering {
            provider: ProviderName::new("local"),
            region: Region::new("here"),
            zone: Zone::new("here-a"),
            instance_type: instance_type.into(),
            capacity_type: CapacityType::OnDemand,
            price,
            list_price: None,
            on_demand_price: price,
            price_since: None,
            quota: None,
            notice: None,
            terms: Default::default(),
        },
        disk_gib: 10,
        lease_until: bursar_agent::wall_clock() + lease,
        lease,
        agents: BTreeMap::from([
            ("x86_64".to_owned(), "0".repeat(64)),
            ("aarch64".to_owned(), "1".repeat(64)),
        ]),
        daemon_url: "http://127.0.0.1:9".to_owned(),
        secret: "it's one-time".to_owned(),
        labels: Default::default(),
    }
}

/// The agent of this instance, as this machine numbers it.
fn agent_of(id: &str) -> i32 {
    let agents = processes::marked(&["./agent\nsettings.json".to_owned()]);
    let settings = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/root/var/lib/bursar/settings.json"));
    let its = |pid: &i32| settings(pid).is_ok_and(|settings| settings.contains(id));
    agents.into_keys().find(its).expect("its agent runs")
}

#[test]
fn cloud_init_takes_the_user_data_and_there_is_room_in_it() {
    let text = user_data(&[request(Span::from_secs(600))], silent());
    assert!(text.len() < USER_DATA_MAX / 2, "{} bytes", text.len());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("user-data");
    fs::write(&file, text).unwrap();
    let mut check = Command::new("cloud-init");
    let checked = check.args(["schema", "--config-file"]).arg(&file).output().unwrap();
    let said = Said::of(checked).with_code(0);
    assert!(said.stdout.contains("Valid cloud-config"), "{said:?}");
}

#[test]
fn a_machine_boots_runs_an_experiment_and_powers_itself_off_when_its_daemon_is_gone() {
    for system in [System::Bare, System::Systemd] {
        let cloud = SandboxCloud::new(system, silent());
        let mut daemon = Daemon::start(&cloud, SHORT, program::agent());
        daemon.submit("echo $((6 * 7)) from $(cat /proc/1/comm)");
        until("the experiment has succeeded", PATIENCE, || {
            let states = daemon.rows("ls");
            (states.first()?["state"] == "succeeded").then_some(())
        });
        let said = daemon.said(&["logs", "boots"]).with_code(0);
        assert_eq!(said.stdout, "42 from bwrap\n");
        let instances = daemon.rows("instances");
        let boot = &instances[0]["boot"];
        assert_eq!(boot["host"]["arch"], std::env::consts::ARCH, "{instances:?}");
        assert!(boot["took"].is_string(), "{boot}");
        let calls = cloud.first(|record| Some(record.machine.calls())).unwrap();
        let started: Vec<&String> = calls.iter().filter(|call| call.starts_with("systemd-run")).collect();
        assert!(started[0].ends_with("sh watch-lease") && started[1].ends_with("sh run-agent"), "{calls:?}");
        assert_eq!(calls.len(), 2, "{calls:?}");
        daemon.stop();
        // The lease, what the system may take to end in good order, and a slow machine.
        cloud.first(|record| Some(record.machine.off(Duration::from_secs(6 + 5) + PATIENCE)));
        let calls = cloud.first(|record| Some(record.machine.calls())).unwrap();
        assert_eq!(calls[2], "systemctl --no-block poweroff", "{calls:?}");
    }
}

#[test]
fn the_timer_ends_a_machine_whose_daemon_never_answers() {
    for system in [System::Bare, System::Systemd] {
        let lease = Span::from_secs(3);
        let mut machine = Machine::boot(&user_data(&[request(lease)], silent()), system);
        until("the system is told to power off", PATIENCE, || {
            machine.calls().iter().any(|call| call.starts_with("systemctl")).then_some(())
        });
        let calls = machine.calls();
        assert!(calls[0].ends_with("sh watch-lease"), "armed first: {calls:?}");
        assert!(!machine.disk().join("agent").exists());
        if matches!(system, System::Systemd) {
            machine.off(PATIENCE);
        }
    }
}

#[test]
fn a_machine_whose_agent_hangs_ends_with_the_lease_that_it_renewed_last() {
    let cloud = SandboxCloud::new(System::Systemd, silent());
    let daemon = Daemon::start(&cloud, SHORT, program::agent());
    daemon.submit("sleep 600");
    let timer = || cloud.first(|record| fs::read_to_string(record.machine.disk().join("timer")).ok());
    let armed = until("the timer is armed", PATIENCE, timer);
    let moved = |timer: String| {
        (timer.trim().parse::<u64>().ok()? > armed.trim().parse::<u64>().ok()? + 6).then_some(())
    };
    // Longer than a lease and what comes on top: without the renewals the machine would be off.
    until("the timer was moved on", PATIENCE, || timer().and_then(moved));
    assert_eq!(cloud.first(|record| Some(record.machine.is_on())), Some(true));
    let id = daemon.rows("instances")[0]["id"].as_str().unwrap().to_owned();
    processes::signal(agent_of(&id), Signal::STOP);
    cloud.first(|record| Some(record.machine.off(PATIENCE)));
    let calls = cloud.first(|record| Some(record.machine.calls())).unwrap();
    assert!(calls.last().unwrap().starts_with("systemctl"), "{calls:?}");
}

#[test]
fn agents_are_served_under_the_digest_that_the_user_data_names() {
    let cloud = SandboxCloud::new(System::Bare, silent());
    let daemon = Daemon::start(&cloud, LONG, program::agent());
    let file = daemon.folder.path().join("fetched");
    let curl = |arch: &str, args: &[&str]| {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--dump-header", "-", "--output"]).arg(&file).args(args);
        Said::of(curl.arg(format!("{}/v1/agent/binary/{arch}", daemon.url())).output().unwrap()).stdout
    };
    let headers = curl(std::env::consts::ARCH, &[]);
    let digest = Said::of(Command::new("sha256sum").arg(&file).output().unwrap()).with_code(0).stdout;
    let etag = format!("\"{}\"", digest.split_whitespace().next().unwrap());
    assert!(headers.contains(&format!("etag: {etag}\r\n")), "{headers}");
    assert!(
        headers.contains(&format!("content-length: {}\r\n", file.metadata().unwrap().len())),
        "{headers}"
    );
    let again = curl(std::env::consts::ARCH, &["--header", &format!("If-None-Match: {etag}")]);
    assert!(again.starts_with("HTTP/1.1 304"), "{again}");
    assert!(curl("riscv64", &[]).starts_with("HTTP/1.1 404"));
}

#[test]
fn a_clock_that_is_behind_makes_no_lease_longer() {
    let lease = Span::from_secs(2);
    let far =
        LaunchRequest { lease_until: bursar_agent::wall_clock() + Span::from_hours(1000), ..request(lease) };
    Machine::boot(&user_data(&[far], silent()), System::Systemd).off(PATIENCE);
}

/// Fourteen, as many as one call may make.
fn together() -> Vec<LaunchRequest> {
    let one = |number: u64| LaunchRequest {
        instance: InstanceId::from_u64(number),
        secret: format!("secret of {number}"),
        ..request(Span::from_secs(600))
    };
    (1..=Together::MAX as u64).map(one).collect()
}

#[test]
fn of_several_machines_of_one_call_each_is_the_one_that_its_launch_index_says() {
    let service = MetadataServer::start();
    let notice = NoticeSource::Aws { endpoint: format!("http://{}", service.address()) };
    let requests = together();
    let text = user_data(&requests, notice);
    assert!(text.len() < USER_DATA_MAX / 2, "{} bytes", text.len());
    for index in [0, 5, 13] {
        service.aws("ami-launch-index", &index.to_string());
        let machine = Machine::boot(&text, System::Systemd);
        let of = |name: &str| {
            until("it has its settings", PATIENCE, || fs::read_to_string(machine.disk().join(name)).ok())
        };
        assert_eq!(of("secret"), requests[index].secret);
        let settings: serde_json::Value = serde_json::from_str(&of("settings.json")).unwrap();
        assert_eq!(settings["instance"], requests[index].instance.to_string());
    }
    // One that cannot be any of them ends.
    service.aws("ami-launch-index", "14");
    Machine::boot(&text, System::Systemd).off(PATIENCE);
}

#[test]
fn a_machine_that_boots_a_second_time_ends_at_once() {
    let text = user_data(&[request(Span::from_secs(600))], silent());
    let rebooted =
        text.replacen("umask 077", "mkdir -p /var/lib/bursar; : >/var/lib/bursar/booted; umask 077", 1);
    assert_ne!(text, rebooted);
    let mut machine = Machine::boot(&rebooted, System::Systemd);
    machine.off(PATIENCE);
    assert!(machine.calls().iter().all(|call| !call.ends_with("run-agent")), "{:?}", machine.calls());
}

#[test]
fn another_program_than_the_one_that_was_promised_is_never_run() {
    let cloud = SandboxCloud::new(System::Systemd, silent());
    let daemon = Daemon::start(&cloud, LONG, program::agent());
    let other = LaunchRequest { daemon_url: daemon.url(), ..request(Span::from_secs(5)) };
    let mut machine = Machine::boot(&user_data(&[other], silent()), System::Systemd);
    until("it was fetched", PATIENCE, || machine.disk().join("agent.new").exists().then_some(()));
    machine.off(PATIENCE);
    assert!(!machine.disk().join("agent").exists());
    assert!(machine.story().contains("no agent yet"), "{}", machine.story());
}

#[test]
fn the_secret_is_in_no_list_of_processes_and_in_no_file_that_others_can_read() {
    use std::os::unix::fs::PermissionsExt;
    let cloud = SandboxCloud::new(System::Bare, silent());
    let daemon = Daemon::start(&cloud, LONG, program::agent());
    daemon.submit("sleep 600");
    let secret = until("it boots", PATIENCE, || cloud.first(|record| Some(record.secret.clone())));
    let mut seen = 0;
    until("the agent has registered", PATIENCE, || {
        for process in fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
            let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            seen += usize::from(line.contains("boot.sh") || line.contains("run-agent"));
            assert!(!line.contains(&secret), "{line}");
        }
        (daemon.rows("instances").first()?["state"] == "ready").then_some(())
    });
    assert!(seen > 0, "the processes of the machine are not to be seen from here");
    let disk = cloud.first(|record| Some(record.machine.disk())).unwrap();
    assert_eq!(fs::metadata(&disk).unwrap().permissions().mode() & 0o777, 0o700);
    for name in ["secret", "settings.json"] {
        assert_eq!(fs::metadata(disk.join(name)).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
    }
    let calls = cloud.first(|record| Some(record.machine.calls().concat())).unwrap();
    assert!(!calls.contains(&secret));
    let user_data = cloud.first(|record| Some(record.user_data.clone())).unwrap();
    assert_eq!(user_data.matches(&secret).count(), 1);
}
