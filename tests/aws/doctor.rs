//! What `bursar doctor` says of an account: nothing bad of a healthy one, and of each thing that is broken just that.

use bursar_model::{CapacityType, Region, Zone};
use bursar_providers::{Finding, Provider, aws::AwsSettings};
use serde_json::json;

use crate::account::{Account, TYPES, offering, request};

/// An address in the default network of the peer's account.
pub(crate) const URL: &str = "http://172.31.0.10:7733";

/// An image of Ubuntu.
pub(crate) const IMAGE_PARAMETER: &str =
    "/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id";

/// The key that providers of tests have.
const KEY: &str = "AKIAIOSFODNN7EXAMPLE";

impl Account {
    /// Makes an instance profile, and answers with its name.
    pub(crate) fn profile(&self, name: &str) -> String {
        let query = format!("Action=CreateInstanceProfile&Version=2010-05-08&InstanceProfileName={name}");
        let _ = self.peer.call("iam", "us-east-1", "application/x-www-form-urlencoded", None, &query);
        name.to_owned()
    }

    /// An element of what EC2 answers.
    fn ec2(&self, query: &str, element: &str) -> String {
        between(&self.peer.ec2("us-east-1", query), element)
    }

    async fn findings(&self, url: &str, change: impl FnOnce(&mut AwsSettings)) -> Vec<Finding> {
        let change = |settings: &mut AwsSettings| {
            // One region, and few launches to try: those are counted by EC2.
            settings.regions.truncate(1);
            settings.instance_types = vec!["m7i.large".to_owned()];
            change(settings);
        };
        self.provider_with("ours", change).doctor(url).await
    }
}

fn between(text: &str, element: &str) -> String {
    let (_, rest) =
        text.split_once(&format!("<{element}>")).unwrap_or_else(|| panic!("no {element} in {text}"));
    rest.split('<').next().unwrap().to_owned()
}

/// The id of an image that a public parameter names.
pub(crate) fn image_of(account: &Account, parameter: &str) -> String {
    let launch = "Action=RunInstances&MinCount=1&MaxCount=1&InstanceType=m7i.large";
    let said = account.peer.ec2("us-east-1", &format!("{launch}&ImageId=resolve:ssm:{parameter}"));
    let end = format!("Action=TerminateInstances&InstanceId.1={}", between(&said, "instanceId"));
    let _ = account.peer.ec2("us-east-1", &end);
    between(&said, "imageId")
}

fn bad(findings: &[Finding]) -> Vec<&Finding> {
    findings.iter().filter(|finding| !finding.ok).collect()
}

/// What is broken is the only thing that is, and its fix says this.
fn only(findings: &[Finding], name: &str, fix: &str) {
    let bad = bad(findings);
    assert_eq!(bad.len(), 1, "{name}: {bad:#?}");
    assert_eq!(bad[0].name, format!("aws {name}"), "{bad:#?}");
    assert!(bad[0].fix.as_ref().is_some_and(|said| said.contains(fix)), "{fix}: {bad:#?}");
}

fn begin(account: &Account) {
    let _ = account.peer.order("reset", &json!({}));
    let _ = account.peer.order("types", &json!({ "types": TYPES }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_account_has_good_findings_only() {
    let account = Account::open();
    let queue = account.peer.queue_of_events("bursar-interruptions");
    let provider = account.provider_with("ours", |settings| settings.interruption_queue = Some(queue));
    let findings = provider.doctor(URL).await;
    assert!(bad(&findings).is_empty(), "{:#?}", bad(&findings));
    let lines: Vec<String> = findings.iter().map(|of| format!("{}: {}", of.name, of.detail)).collect();
    let all = lines.join("\n");
    for said in [
        "aws credentials: account 123456789012 as arn:aws:sts::123456789012:user/moto",
        "aws clock: ",
        "aws regions: us-east-1, us-west-2: enabled",
        "aws permissions: us-east-1, us-west-2: all 11 that were tried",
        "aws launches: us-east-1, us-west-2: would be allowed, as spot and on demand",
        "boots from /dev/sda1 and needs 75 GiB",
        "aws interruption queue: http",
        "aws subnets: us-east-1",
        "aws security groups: us-east-1, us-west-2: the default group lets instances out to port 7733",
        "in the same network",
        "aws catalogue: ",
    ] {
        assert!(all.contains(said), "{said} in:\n{all}");
    }
    // Nothing was made or ended.
    assert!(account.peer.instances().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_permission_that_is_missing_is_found_and_nothing_else() {
    let account = Account::open();
    let queue = account.peer.queue_of_events("bursar-interruptions");
    let profile = account.profile("bursar-instances");
    // What is allowed for our tags alone can be told where something of ours is.
    let ours = request(&account, offering("g6.xlarge", CapacityType::OnDemand));
    account.provider("ours").launch(&ours).await.unwrap();
    for action in [
        "ec2:RunInstances",
        "ec2:CreateTags",
        "ec2:TerminateInstances",
        "ec2:DescribeInstances",
        "ec2:DescribeInstanceTypes",
        "ec2:DescribeInstanceTypeOfferings",
        "ec2:DescribeSpotPriceHistory",
        "ec2:DescribeSubnets",
        "ec2:DescribeSecurityGroups",
        "ec2:DescribeRouteTables",
        "iam:PassRole",
        "ssm:GetParameters",
        "pricing:GetProducts",
        "servicequotas:ListServiceQuotas",
        "servicequotas:ListAWSDefaultServiceQuotas",
        "sqs:ReceiveMessage",
        "sqs:DeleteMessage",
    ] {
        let _ = account.peer.order("deny", &json!({ "actions": [action] }));
        let findings = account.findings(URL, |settings| {
            settings.interruption_queue = Some(queue.clone());
            settings.instance_profile = Some(profile.clone());
        });
        only(&findings.await, action, "aws iam put-user-policy --user-name moto");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_credentials_clock_and_regions_is_found_and_nothing_else() {
    let account = Account::open();
    for (state, fix) in [("expired", "aws sso login"), ("invalid", "aws iam list-access-keys")] {
        let _ = account.peer.order("access", &json!({ "keys": { KEY: state } }));
        only(&account.findings(URL, |_| {}).await, "credentials", fix);
    }
    for skew_secs in [3600, -120] {
        begin(&account);
        let _ = account.peer.order("clock", &json!({ "skew_secs": skew_secs }));
        only(&account.findings(URL, |_| {}).await, "clock", "timedatectl");
    }
    begin(&account);
    let _ = account.peer.order("access", &json!({ "disabled_regions": ["us-west-2"] }));
    let both = |settings: &mut AwsSettings| {
        settings.regions = ["us-east-1", "us-west-2"].map(Region::new).into();
    };
    let findings = account.findings(URL, both).await;
    only(&findings, "regions", "aws account enable-region --region-name us-west-2");
    // As the first and only region it is asked with.
    let findings = account.findings(URL, |settings| settings.regions = vec![Region::new("us-west-2")]).await;
    only(&findings, "regions", "aws account enable-region --region-name us-west-2");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_image_and_profile_is_found_and_nothing_else() {
    let account = Account::open();
    let ubuntu = image_of(&account, IMAGE_PARAMETER);
    let findings = account.findings(URL, |settings| {
        settings.image = Some("ami-0123456789abcdef0".to_owned());
    });
    only(&findings.await, "image", "aws ec2 describe-images --region us-east-1");
    let findings = account.findings(URL, |settings| {
        settings.image = Some("resolve:ssm:/aws/service/nothing".to_owned());
    });
    only(&findings.await, "image", "providers.aws.image");
    let findings = account.findings(URL, |settings| {
        settings.image = Some(ubuntu.clone());
        settings.root_device = "/dev/xvda".to_owned();
    });
    only(&findings.await, "image", "set providers.aws.root_device to /dev/sda1");
    let small = |settings: &mut AwsSettings| {
        let terms = std::sync::Arc::make_mut(&mut settings.terms);
        terms.disk_min_gib = 4;
    };
    let findings = account.findings(URL, |settings| {
        small(settings);
        settings.image = Some(ubuntu);
    });
    only(&findings.await, "image", "set providers.aws.min_disk_size to 8GB");
    only(&account.findings(URL, small).await, "image", "set providers.aws.min_disk_size to 8GB");
    let findings = account.findings(URL, |settings| {
        settings.instance_profile = Some("nobody".to_owned());
    });
    only(&findings.await, "instance profile", "aws iam list-instance-profiles");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_the_network_is_found_and_nothing_else() {
    let account = Account::open();
    let in_zone = "Action=DescribeSubnets&Filter.1.Name=availability-zone&Filter.1.Value.1=us-east-1a";
    let subnet = account.ec2(in_zone, "subnetId");
    let named = |zone: &str, id: &str| {
        let entry = (Zone::new(zone), id.to_owned());
        move |settings: &mut AwsSettings| {
            settings.subnets = [entry].into();
        }
    };
    assert!(bad(&account.findings(URL, named("us-east-1a", &subnet)).await).is_empty());
    let findings = account.findings(URL, named("us-east-1b", &subnet)).await;
    only(&findings, "subnets", &format!("write `us-east-1a: {subnet}`"));
    let findings = account.findings(URL, named("us-east-1a", "subnet-00000000")).await;
    only(&findings, "subnets", "aws ec2 describe-subnets --region us-east-1");

    let with_group = |id: &str| {
        let groups = [(Region::new("us-east-1"), vec![id.to_owned()])];
        move |settings: &mut AwsSettings| {
            settings.security_groups = groups.into();
        }
    };
    let findings = account.findings(URL, with_group("sg-00000000")).await;
    only(&findings, "security groups", "aws ec2 describe-security-groups --region us-east-1");
    let vpc = account.ec2(in_zone, "vpcId");
    let make = format!("Action=CreateSecurityGroup&GroupName=closed&GroupDescription=closed&VpcId={vpc}");
    let group = account.ec2(&make, "groupId");
    assert!(bad(&account.findings(URL, with_group(&group)).await).is_empty());
    let rule = "IpPermissions.1.IpProtocol=-1&IpPermissions.1.IpRanges.1.CidrIp=0.0.0.0/0";
    let _ =
        account.peer.ec2("us-east-1", &format!("Action=RevokeSecurityGroupEgress&GroupId={group}&{rule}"));
    let findings = account.findings(URL, with_group(&group)).await;
    only(
        &findings,
        "security groups",
        &format!("--group-id {group} --protocol tcp --port 7733 --cidr 172.31.0.10/32"),
    );

    let findings = account.findings("http://127.0.0.1:7733", |_| {}).await;
    only(&findings, "daemon's url", "`url` in the configuration");
    let findings = account.findings("http://10.0.0.5:7733", |_| {}).await;
    only(&findings, "daemon's url", "VPN");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_is_a_fault_where_nothing_is_left_and_its_request_is_told() {
    let account = Account::open();
    // What was read of quotas today is not asked for again: so each has a catalogue of its own.
    let with_gpus = |catalog: &str| {
        let cache_file = account.folder.path().join(catalog);
        move |settings: &mut AwsSettings| {
            settings.instance_types = ["m7i.*", "g6.*"].map(str::to_owned).into();
            settings.cache_file = cache_file;
        }
    };
    let set = |code: &str| {
        let _ = account.peer.order("quotas", &json!({ "quotas": [{ "code": code, "vcpus": 0 }] }));
    };
    set("L-DB2E81BA");
    let findings = account.findings(URL, with_gpus("first.json")).await;
    assert!(bad(&findings).is_empty(), "as spot they can be had: {:#?}", bad(&findings));
    assert!(
        findings.iter().any(|of| of.name == "aws quotas" && of.detail.contains("--quota-code L-DB2E81BA"))
    );
    set("L-3819A6DF");
    let findings = account.findings(URL, with_gpus("second.json")).await;
    let bad = bad(&findings);
    assert_eq!(bad.len(), 2, "{bad:#?}");
    let request = "aws service-quotas request-service-quota-increase --region us-east-1 --service-code ec2";
    assert!(bad.iter().all(|of| of.fix.as_ref().is_some_and(|fix| fix.contains(request))), "{bad:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_missing_and_a_source_that_fails_are_found_and_nothing_else() {
    let account = Account::open();
    let there = account.peer.queue_of_events("bursar-interruptions");
    let missing = there.replace("bursar-interruptions", "bursar-none");
    let findings = account.findings(URL, |settings| settings.interruption_queue = Some(missing)).await;
    only(&findings, "interruption queue", "aws sqs list-queues");
    let fault = json!({ "action": "DescribeSpotPriceHistory", "match": { "MaxResults": 1000 },
        "code": "InternalError", "message": "of the moment" });
    let _ = account.peer.order("faults", &fault);
    let findings = account.findings(URL, |_| {}).await;
    only(&findings, "catalogue", "try again");
    assert!(bad(&findings)[0].detail.contains("us-east-1: spot prices could not be read"));
}
