//! What the doctor asks of AWS, and how it was refused. Nothing is made or changed: what changes anything is tried dry, and
//! what cannot be tried dry is a real question, as small as it can be.

use std::{
    collections::BTreeMap,
    error::Error,
    sync::{Arc, Mutex, PoisonError},
};

use aws_sdk_ec2::{
    config::{Region as AwsRegion, http::HttpResponse},
    error::{ProvideErrorMetadata, SdkError},
    types::{Filter, Image, RouteTable, SecurityGroup, Subnet, Vpc},
};
use aws_sdk_sts::config::{
    ConfigBag, Intercept, RuntimeComponents, interceptors::BeforeDeserializationInterceptorContextRef,
};
use bursar_model::{CloudState, Region, Timestamp};
use chrono::DateTime;
use futures::future::join_all;

use crate::aws::{
    AwsSettings,
    clients::{self, Clients, Gate, PRICING_REGION, RegionClient},
    errors::Meaning,
    observe,
};

/// Ids that nothing has: what is tried dry on them shows whether it is allowed.
const NO_INSTANCE: &str = "i-00000000000000000";
const NO_VOLUME: &str = "vol-00000000000000000";
const NO_SPOT_REQUEST: &str = "sir-00000000";

/// A "no" of AWS, or that there was no answer: then without a code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: String,
    pub(super) message: String,
    pub(super) meaning: Option<Meaning>,
    /// No credentials were found that it could have been asked with.
    pub(super) has_no_credentials: bool,
}

/// Who asks.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) account: String,
    pub(super) arn: String,
}

/// Who asks, as each region says it, and what AWS's clock showed.
#[derive(Debug)]
pub(super) struct Identities {
    pub(super) by_region: BTreeMap<Region, Result<Identity, Refusal>>,
    pub(super) time: Option<Timestamp>,
}

/// The network of a region as far as it could be read, and what was refused.
#[derive(Debug, Default)]
pub(super) struct Network {
    pub(super) subnets: Option<Vec<Subnet>>,
    pub(super) groups: Option<Vec<SecurityGroup>>,
    pub(super) tables: Option<Vec<RouteTable>>,
    pub(super) vpcs: Option<Vec<Vpc>>,
    pub(super) refused: Vec<(&'static str, Refusal)>,
}

/// An answer, or how it was refused.
pub(super) fn told<T, E>(answer: Result<T, SdkError<E, HttpResponse>>) -> Result<T, Refusal>
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    answer.map_err(|error| {
        let meaning = clients::meaning_of(&error);
        let has_no_credentials = clients::is_about_credentials(&error);
        let (code, message) = match error.as_service_error() {
            Some(refused) => (
                refused.code().unwrap_or_default().to_owned(),
                refused.message().unwrap_or("no message").to_owned(),
            ),
            None => (String::new(), clients::chain(&error)),
        };
        Refusal { code, message, meaning, has_no_credentials }
    })
}

/// The answer to what was tried dry.
pub(super) fn dry<T, E>(answer: Result<T, SdkError<E, HttpResponse>>) -> Result<(), Refusal>
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    match told(answer) {
        Ok(_) => Ok(()),
        // What it is to be done to is looked for only where it is allowed.
        Err(refusal) if matches!(refusal.meaning, Some(Meaning::DryRunPassed | Meaning::NotFound)) => Ok(()),
        Err(refusal) => Err(refusal),
    }
}

/// The time in the last answer.
#[derive(Debug, Clone, Default)]
struct DateSeen(Arc<Mutex<Option<Timestamp>>>);

impl Intercept for DateSeen {
    fn name(&self) -> &'static str {
        "DateSeen"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let date = context.response().headers().get("date");
        if let Some(date) = date.and_then(|date| DateTime::parse_from_rfc2822(date).ok()) {
            let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            *seen = Some(Timestamp::from_millis(date.timestamp_millis()));
        }
        Ok(())
    }
}

/// Who asks, asked in each region: one that is not enabled for the account does not know its credentials. The region of
/// the price list is asked too, which no account is without.
pub(super) async fn identities(clients: &Clients) -> Identities {
    let seen = DateSeen::default();
    let mut regions: Vec<Region> = clients.regions.keys().cloned().collect();
    if !regions.iter().any(|region| region.as_str() == PRICING_REGION) {
        regions.push(Region::new(PRICING_REGION));
    }
    let asked = regions.into_iter().map(|region| {
        let config = clients.sts.config().to_builder();
        let config = config.region(AwsRegion::new(region.as_str().to_owned())).interceptor(seen.clone());
        let sts = aws_sdk_sts::Client::from_conf(config.build());
        async move {
            let said = told(sts.get_caller_identity().send().await);
            let identity = said.map(|said| Identity {
                account: said.account.unwrap_or_default(),
                arn: said.arn.unwrap_or_default(),
            });
            (region, identity)
        }
    });
    let by_region = join_all(asked).await.into_iter().collect();
    let time = *seen.0.lock().unwrap_or_else(PoisonError::into_inner);
    Identities { by_region, time }
}

/// What is done in a region, each with whether it is allowed.
pub(super) async fn permissions(
    clients: &Clients,
    at: &RegionClient,
    installation: &str,
    now: Timestamp,
) -> Vec<(&'static str, Result<(), Refusal>)> {
    // The end of an instance is tried on one of ours, where there is one: the policy may ask for its tags.
    let ours = observe::in_region(clients, at, installation, None, now).await.unwrap_or_default();
    let alive = ours.iter().find(|seen| !matches!(seen.cloud.state, CloudState::Gone { .. }));
    let instance = alive.map_or(NO_INSTANCE, |seen| seen.cloud.cloud_id.as_str());
    let RegionClient { ec2, quotas, .. } = at;
    let looks = async {
        at.pass(Gate::Look).await;
        vec![
            ("ec2:DescribeInstances", dry(ec2.describe_instances().dry_run(true).send().await)),
            ("ec2:DescribeInstanceTypes", dry(ec2.describe_instance_types().dry_run(true).send().await)),
            (
                "ec2:DescribeInstanceTypeOfferings",
                dry(ec2.describe_instance_type_offerings().dry_run(true).send().await),
            ),
            (
                "ec2:DescribeSpotPriceHistory",
                dry(ec2.describe_spot_price_history().dry_run(true).send().await),
            ),
            ("ec2:DescribeVolumes", dry(ec2.describe_volumes().dry_run(true).send().await)),
            (
                "ec2:DescribeSpotInstanceRequests",
                dry(ec2.describe_spot_instance_requests().dry_run(true).send().await),
            ),
        ]
    };
    let changes = async {
        at.pass(Gate::Change).await;
        let terminate = ec2.terminate_instances().instance_ids(instance).dry_run(true);
        let delete = ec2.delete_volume().volume_id(NO_VOLUME).dry_run(true);
        let cancel =
            ec2.cancel_spot_instance_requests().spot_instance_request_ids(NO_SPOT_REQUEST).dry_run(true);
        let tried = [
            ("ec2:TerminateInstances", alive.is_some(), dry(terminate.send().await)),
            ("ec2:DeleteVolume", false, dry(delete.send().await)),
            ("ec2:CancelSpotInstanceRequests", false, dry(cancel.send().await)),
        ];
        // What is allowed for our tags alone is refused for an id that has none: that says nothing of what is ours.
        let says_nothing = |is_ours: bool, said: &Result<(), Refusal>| {
            !is_ours && said.as_ref().is_err_and(|refusal| refusal.code == "UnauthorizedOperation")
        };
        let told = tried.into_iter().filter(|(_, is_ours, said)| !says_nothing(*is_ours, said));
        told.map(|(action, _, said)| (action, said)).collect()
    };
    let quotas = async {
        let asked = quotas.list_service_quotas().service_code("ec2").max_results(1);
        let defaults = quotas.list_aws_default_service_quotas().service_code("ec2").max_results(1);
        vec![
            ("servicequotas:ListServiceQuotas", dry(asked.send().await)),
            ("servicequotas:ListAWSDefaultServiceQuotas", dry(defaults.send().await)),
        ]
    };
    let (looks, changes, quotas) =
        futures::future::join3(Box::pin(looks), Box::pin(changes), Box::pin(quotas)).await;
    [looks, changes, quotas].concat()
}

/// The network that instances of a region would be in: the subnets of the configuration or else the default ones, with
/// what is around them.
pub(super) async fn network(at: &RegionClient, settings: &AwsSettings) -> Network {
    let ec2 = &at.ec2;
    let mut network = Network::default();
    let ids: Vec<&str> = subnets_in(settings, &at.name).map(|(_, id)| id).collect();
    let by = if ids.is_empty() { one_of("default-for-az", &["true"]) } else { one_of("subnet-id", &ids) };
    at.pass(Gate::Look).await;
    let subnets = told(ec2.describe_subnets().filters(by).send().await);
    let subnets = network.take("ec2:DescribeSubnets", subnets.map(|said| said.subnets.unwrap_or_default()));
    let vpcs: Vec<&str> = subnets.iter().flatten().filter_map(Subnet::vpc_id).collect();
    let groups = settings.security_groups.get(&at.name).map(Vec::as_slice).unwrap_or_default();
    let named: Vec<&str> = groups.iter().map(String::as_str).collect();
    let by = if named.is_empty() {
        vec![one_of("group-name", &["default"]), one_of("vpc-id", &vpcs)]
    } else {
        vec![one_of("group-id", &named)]
    };
    if !named.is_empty() || !vpcs.is_empty() {
        let said = told(ec2.describe_security_groups().set_filters(Some(by)).send().await);
        let said = said.map(|said| said.security_groups.unwrap_or_default());
        network.groups = network.take("ec2:DescribeSecurityGroups", said);
    }
    if !vpcs.is_empty() {
        let said = told(ec2.describe_route_tables().filters(one_of("vpc-id", &vpcs)).send().await);
        let said = said.map(|said| said.route_tables.unwrap_or_default());
        network.tables = network.take("ec2:DescribeRouteTables", said);
        let said = told(ec2.describe_vpcs().filters(one_of("vpc-id", &vpcs)).send().await);
        network.vpcs = network.take("ec2:DescribeVpcs", said.map(|said| said.vpcs.unwrap_or_default()));
    }
    Network { subnets, ..network }
}

impl Network {
    fn take<T>(&mut self, action: &'static str, said: Result<T, Refusal>) -> Option<T> {
        said.map_err(|refusal| self.refused.push((action, refusal))).ok()
    }
}

/// The subnets of the configuration that are in zones of this region.
pub(super) fn subnets_in<'a>(
    settings: &'a AwsSettings,
    region: &'a Region,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    let is_in = |zone: &str| {
        let rest = zone.strip_prefix(region.as_str());
        rest.is_some_and(|rest| !rest.starts_with(|letter: char| letter.is_ascii_digit()))
    };
    let all = settings.subnets.iter().map(|(zone, subnet)| (zone.as_str(), subnet.as_str()));
    all.filter(move |(zone, _)| is_in(zone))
}

/// An image by its id.
pub(super) async fn image(at: &RegionClient, id: &str) -> Result<Option<Image>, Refusal> {
    let said = told(at.ec2.describe_images().filters(one_of("image-id", &[id])).send().await)?;
    Ok(said.images.unwrap_or_default().into_iter().next())
}

/// A price of the list.
pub(super) async fn price_list(clients: &Clients) -> Result<(), Refusal> {
    let asked = clients.pricing.get_products().service_code("AmazonEC2").format_version("aws_v1");
    told(asked.max_results(1).send().await).map(|_| ())
}

/// Whether the queue may be read and messages be deleted. What is read is there again at once, and what is deleted never was.
pub(super) async fn queue(sqs: &aws_sdk_sqs::Client, url: &str) -> Vec<(&'static str, Result<(), Refusal>)> {
    let read = sqs.receive_message().queue_url(url).max_number_of_messages(1).visibility_timeout(0);
    let read = told(read.wait_time_seconds(0).send().await).map(|_| ());
    if read.is_err() {
        return vec![("sqs:ReceiveMessage", read)];
    }
    let delete = told(sqs.delete_message().queue_url(url).receipt_handle("none").send().await);
    let delete = match delete {
        Err(refusal) if refusal.meaning == Some(Meaning::Auth) => Err(refusal),
        _ => Ok(()),
    };
    vec![("sqs:ReceiveMessage", read), ("sqs:DeleteMessage", delete)]
}

fn one_of(name: &str, values: &[&str]) -> Filter {
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    Filter::builder().name(name).set_values(Some(values)).build()
}
