//! Machines that hear from the cloud's metadata service that they are taken back.

use std::{process::Command, time::Duration};

use bursar_agent::NoticeSource;
use bursar_model::Span;
use bursar_tests::{MetadataServer, PATIENCE, Said, machine::System, program, until};

use crate::{
    LONG,
    cloud::{Daemon, SandboxCloud},
};

/// An experiment that saves its work when it is told to stop, and shows the notice.
const SAVES: &str =
    "trap 'cat $BURSAR_NOTICE_FILE; echo saved; exit 0' TERM; echo up; while true; do sleep 0.1; done";

fn aws(service: &MetadataServer) -> NoticeSource {
    NoticeSource::Aws { endpoint: format!("http://{}", service.address()) }
}

fn gcp(service: &MetadataServer) -> NoticeSource {
    NoticeSource::Gcp { endpoint: format!("http://{}", service.address()) }
}

/// A daemon whose machine runs that experiment.
fn running(notice: NoticeSource) -> (SandboxCloud, Daemon) {
    let cloud = SandboxCloud::new(System::Systemd, notice);
    let daemon = Daemon::start(&cloud, LONG, program::agent());
    daemon.submit(&format!("{SAVES:?}"));
    until("the experiment runs", PATIENCE, || daemon.log().contains("up\n").then_some(()));
    (cloud, daemon)
}

/// When an instance will be gone, where one was given notice: soon there is another in its place.
fn noticed(daemon: &Daemon) -> Option<String> {
    daemon.rows("instances").iter().find_map(|instance| instance["notice"].as_str().map(str::to_owned))
}

#[test]
fn clients_of_others_find_in_the_fake_what_they_know_of_both_clouds() {
    let check = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/metadata/check");
    let service = MetadataServer::start();
    let ask = || {
        let said = Command::new(check).arg(service.address().to_string()).output().unwrap();
        Said::of(said).with_code(0).json()
    };
    let before = ask();
    assert_eq!(before["instance_id"], "i-1234567890abcdef0");
    assert!(before["action"].is_null());
    assert_eq!(before["on_gce"], true);
    assert_eq!((&before["preempted"], &before["maintenance"]), (&"FALSE".into(), &"NONE".into()));
    assert_eq!(before["project"], "bursar-test");
    service.aws("spot/instance-action", r#"{"action": "terminate", "time": "2017-09-18T08:22:00Z"}"#);
    service.gcp("instance/preempted", "TRUE");
    let after = ask();
    assert_eq!((&after["action"], &after["time"]), (&"terminate".into(), &"2017-09-18T08:22:00Z".into()));
    assert_eq!(after["preempted"], "TRUE");
}

#[test]
fn a_notice_of_ec2_stops_the_work_in_time_and_the_daemon_knows_when_the_machine_goes() {
    let service = MetadataServer::start();
    let (_cloud, daemon) = running(aws(&service));
    // As after six hours, or a restart of the service.
    service.forget_tokens();
    let gone_at = bursar_agent::wall_clock() + Span::from_secs(120);
    let time = gone_at.to_string();
    service.aws("spot/instance-action", &format!(r#"{{"action": "terminate", "time": "{time}"}}"#));
    let notice = until("the daemon knows", PATIENCE, || noticed(&daemon));
    let heard = notice.parse::<bursar_model::Timestamp>().unwrap();
    assert!(heard.since(gone_at).max(gone_at.since(heard)) < Span::from_secs(5), "{notice} for {time}");
    until("the work was saved", PATIENCE, || daemon.log().contains("saved").then_some(()));
    assert!(daemon.log().contains(&time), "{}", daemon.log());
}

#[test]
fn a_recommendation_to_move_on_is_passed_on_and_stops_nothing() {
    let service = MetadataServer::start();
    let (_cloud, daemon) = running(aws(&service));
    service.aws("events/recommendations/rebalance", r#"{"noticeTime": "2020-10-27T08:22:00Z"}"#);
    let why = until("the daemon knows", PATIENCE, || {
        daemon.rows("instances").first()?["at_risk"].as_str().map(str::to_owned)
    });
    assert_eq!(why, "rebalance recommendation");
    assert!(!daemon.log().contains("saved"));
    assert_eq!(daemon.rows("instances")[0]["state"], "ready");
}

#[test]
fn a_preemption_on_compute_engine_is_heard_while_it_is_waited_for() {
    let service = MetadataServer::start();
    let (_cloud, daemon) = running(gcp(&service));
    service.gcp("instance/maintenance-event", "TERMINATE_ON_HOST_MAINTENANCE");
    until("the maintenance is known", PATIENCE, || {
        (daemon.rows("instances").first()?["at_risk"] == "host maintenance").then_some(())
    });
    service.gcp("instance/preempted", "TRUE");
    until("the work was saved", Duration::from_secs(20), || daemon.log().contains("saved").then_some(()));
    assert!(noticed(&daemon).is_some());
}

#[test]
fn a_metadata_service_that_hangs_harms_nothing() {
    let service = MetadataServer::start();
    service.hang();
    let (_cloud, daemon) = running(gcp(&service));
    until("it was asked again", PATIENCE, || (service.asked() > 1).then_some(()));
    let _ = daemon.said(&["cancel", "boots"]).with_code(0);
    until("the work has ended", PATIENCE, || {
        (daemon.rows("ls").first()?["state"] == "cancelled").then_some(())
    });
}
