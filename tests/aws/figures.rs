//! How long things take, with the peer's own time beside it: for `docs/performance.md`, and held against nothing.
//!
//! `cargo nextest run -p bursar-tests --features aws --test aws --run-ignored only --no-capture figures`

use std::{
    io::{Read, Write},
    net::TcpListener,
    thread,
    time::{Duration, Instant},
};

use aws_config::{BehaviorVersion, Region as AwsRegion, SdkConfig};
use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use bursar_model::{Region, Timestamp};
use bursar_providers::{Provider, aws::AwsProvider};
use bursar_tests::{PATIENCE, installation::text, until};
use serde_json::{Value, json};

use crate::{account::Account, lab::Lab};

const REGIONS: [&str; 20] = [
    "us-east-1",
    "us-east-2",
    "us-west-1",
    "us-west-2",
    "ca-central-1",
    "sa-east-1",
    "eu-west-1",
    "eu-west-2",
    "eu-west-3",
    "eu-central-1",
    "eu-north-1",
    "eu-south-1",
    "ap-south-1",
    "ap-northeast-1",
    "ap-northeast-2",
    "ap-northeast-3",
    "ap-southeast-1",
    "ap-southeast-2",
    "ap-east-1",
    "me-south-1",
];

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

/// Seconds since 1970, as the peer counts them.
fn wall() -> f64 {
    bursar_agent::wall_clock().as_millis() as f64 / 1000.0
}

/// From its arrival at the peer to its answer.
fn took_ms(call: &Value) -> f64 {
    call["took_ms"].as_f64().unwrap_or_default()
}

fn post(lab: &Lab, name: &str) {
    let spec = format!(
        "{{\"specs\": [{{\"name\": \"{name}\", \"project\": \"lab\", \"run\": \"sleep 600\", \"resources\": {{\"cpus\": 2}}}}]}}"
    );
    let answer = lab.installation.http("POST", "/v1/experiments", spec.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
}

#[test]
#[ignore = "figures, not a test"]
fn from_submit_to_launch() {
    let mut lab = Lab::new("lease: 600s, max_instances: 300", |_| "regions: [us-east-1]".to_owned());
    lab.start();
    lab.installation.until_on_offer();
    let mut over = Vec::new();
    for index in 0..20_usize {
        // EC2 lets us ask for two a second: what is measured is no waiting for that.
        thread::sleep(Duration::from_millis(700));
        let began = wall();
        post(&lab, &format!("one-{index}"));
        let call = until("it is launched", PATIENCE, || lab.peer.calls("RunInstances").get(index).cloned());
        over.push((call["wall"].as_f64().unwrap() - began) * 1000.0);
    }
    let peer = median(lab.peer.calls("RunInstances").iter().map(took_ms).collect());
    println!(
        "submitted until RunInstances arrived: p50 {:.1} ms; the peer answers in {peer:.1} ms",
        median(over)
    );

    lab.peer.clear_log();
    thread::sleep(Duration::from_secs(3));
    let began = wall();
    let _ = lab.installation.sweep(
        "name: hundred\nproject: lab\nresources: {cpus: 2}\nrun: sleep 600\nsweep: {matrix: {x: 0..100}}\n",
    );
    until("all are launched", PATIENCE, || (lab.peer.alive().len() == 120).then_some(()));
    let calls = lab.peer.calls("RunInstances");
    let last = calls.iter().map(|call| call["wall"].as_f64().unwrap()).fold(0.0, f64::max);
    println!("100 at once: {} calls, the last arrived after {:.2} s", calls.len(), last - began);
}

#[test]
#[ignore = "figures, not a test"]
fn from_kill_to_adopted() {
    let (mut ready, mut adopted) = (Vec::new(), Vec::new());
    let regions = REGIONS[..10].join(", ");
    let mut lab = Lab::new("lease: 600s, max_instances: 300", |_| format!("regions: [{regions}]"));
    lab.start();
    lab.installation.until_on_offer();
    for round in 0..5_usize {
        lab.peer.clear_log();
        let lost = json!({ "action": "RunInstances", "times": 1, "drop": "after" });
        let _ = lab.peer.order("faults", &lost);
        post(&lab, &format!("lost-{round}"));
        until("an answer is lost", PATIENCE, || {
            lab.peer.calls("RunInstances").iter().any(|call| call["status"] == 0).then_some(())
        });
        lab.installation.kill();
        lab.peer.clear_log();
        let began = wall();
        lab.start();
        let log = lab.installation.log();
        let line = log.lines().rev().find(|line| line.contains("INFO ready address")).unwrap();
        let at: Timestamp = line.split(' ').next().unwrap().parse().unwrap();
        ready.push(at.as_millis() as f64 - began * 1000.0);
        until("all are adopted", PATIENCE, || {
            lab.live().iter().all(|instance| instance["cloud_id"].is_string()).then_some(())
        });
        let ended = |call: &Value| call["wall"].as_f64().unwrap() * 1000.0 + took_ms(call);
        let mut listed: std::collections::BTreeMap<String, f64> = Default::default();
        for call in lab.peer.calls("DescribeInstances") {
            listed.entry(text(&call["region"]).to_owned()).or_insert_with(|| ended(&call));
        }
        let asked = lab.peer.calls("RunInstances").iter().map(ended).fold(0.0, f64::max);
        let last = listed.values().copied().fold(asked, f64::max);
        adopted.push(last - began * 1000.0);
    }
    println!(
        "ready after kill -9: p50 {:.0} ms; ten regions listed and all launches settled: p50 {:.0} ms",
        median(ready),
        median(adopted)
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "figures, not a test"]
async fn the_catalogue_of_twenty_regions() {
    let account = Account::open();
    let regions = |settings: &mut bursar_providers::aws::AwsSettings| {
        settings.regions = REGIONS.iter().map(|name| Region::new(name)).collect();
    };
    let began = Instant::now();
    let offered = account.provider_with("ours", regions).offerings().await.unwrap();
    let first = began.elapsed();
    let calls = account.peer.log().len();
    let began = Instant::now();
    account.provider_with("ours", regions).offerings().await.unwrap();
    let (later, again) = (account.peer.log().len() - calls, began.elapsed());
    println!(
        "20 regions, {} offerings: {first:?} with {calls} calls; from disk {again:?} with {later}",
        offered.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "figures, not a test"]
async fn a_thousand_instances_are_listed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let answer = a_thousand();
    let size = answer.len();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, answer) = (stream.unwrap(), answer.clone());
            thread::spawn(move || {
                let mut buffer = [0; 65_536];
                while stream.read(&mut buffer).is_ok_and(|count| count > 0) {
                    stream.write_all(answer.as_bytes()).unwrap();
                }
            });
        }
    });
    let account = Account::open();
    let keys = Credentials::from_keys("AKIAIOSFODNN7EXAMPLE", "not a secret", None);
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .endpoint_url(endpoint)
        .region(AwsRegion::new("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(keys))
        .build();
    let mut settings = account.settings("ours");
    settings.regions.truncate(1);
    let provider = AwsProvider::with_config(settings, account.clock.clone(), config);
    assert_eq!(provider.list().await.unwrap().len(), 1000);
    let mut took = Vec::new();
    for _ in 0..20 {
        let began = Instant::now();
        provider.list().await.unwrap();
        took.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    println!("1,000 instances ({size} bytes) listed, HTTP and all: p50 {:.1} ms", median(took));
}

/// An answer of DescribeInstances, with as much of each instance as EC2 tells.
fn a_thousand() -> String {
    let items: String = (1..=1000_u64)
        .map(|index| {
            let id = <bursar_model::InstanceId as bursar_model::TypedId>::from_u64(index);
            format!(
                "<item><reservationId>r-{index:017x}</reservationId><ownerId>123456789012</ownerId><groupSet/><instancesSet><item>\
                 <instanceId>i-{index:017x}</instanceId><imageId>ami-0123456789abcdef0</imageId>\
                 <instanceState><code>16</code><name>running</name></instanceState><privateDnsName>ip-10-0-0-1.ec2.internal</privateDnsName>\
                 <dnsName/><reason/><amiLaunchIndex>0</amiLaunchIndex><productCodes/><instanceType>g6.xlarge</instanceType>\
                 <launchTime>2026-11-22T17:02:03.000Z</launchTime><placement><availabilityZone>us-east-1a</availabilityZone><groupName/>\
                 <tenancy>default</tenancy></placement><monitoring><state>disabled</state></monitoring><subnetId>subnet-0123456789abcdef0</subnetId>\
                 <vpcId>vpc-0123456789abcdef0</vpcId><privateIpAddress>10.0.0.1</privateIpAddress><sourceDestCheck>true</sourceDestCheck>\
                 <groupSet><item><groupId>sg-0123456789abcdef0</groupId><groupName>default</groupName></item></groupSet>\
                 <architecture>x86_64</architecture><rootDeviceType>ebs</rootDeviceType><rootDeviceName>/dev/sda1</rootDeviceName>\
                 <blockDeviceMapping><item><deviceName>/dev/sda1</deviceName><ebs><volumeId>vol-{index:017x}</volumeId><status>attached</status>\
                 <attachTime>2026-11-22T17:02:04.000Z</attachTime><deleteOnTermination>true</deleteOnTermination></ebs></item></blockDeviceMapping>\
                 <instanceLifecycle>spot</instanceLifecycle><spotInstanceRequestId>sir-12345678</spotInstanceRequestId>\
                 <virtualizationType>hvm</virtualizationType><clientToken>bursar-{index:048x}</clientToken><tagSet>\
                 <item><key>Name</key><value>bursar</value></item><item><key>bursar:installation</key><value>ours</value></item>\
                 <item><key>bursar:instance</key><value>{id}</value></item><item><key>bursar:project</key><value>vision</value></item>\
                 <item><key>bursar:lease-until</key><value>2026-11-22T18:02:03Z</value></item></tagSet><hypervisor>xen</hypervisor>\
                 <networkInterfaceSet/><ebsOptimized>false</ebsOptimized><cpuOptions><coreCount>2</coreCount><threadsPerCore>2</threadsPerCore></cpuOptions>\
                 <metadataOptions><state>applied</state><httpTokens>required</httpTokens><httpPutResponseHopLimit>1</httpPutResponseHopLimit>\
                 <httpEndpoint>enabled</httpEndpoint></metadataOptions></item></instancesSet></item>"
            )
        })
        .collect();
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><DescribeInstancesResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">\
         <requestId>x</requestId><reservationSet>{items}</reservationSet></DescribeInstancesResponse>"
    );
    format!("HTTP/1.1 200 OK\r\ncontent-type: text/xml\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}
