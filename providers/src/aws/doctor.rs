//! Whether an account is ready for launches, and what to do where it is not: for `bursar doctor`, without a daemon.
//!
//! A launch that fails costs a turn, and one whose machine cannot reach the daemon costs money until its lease ends. So
//! everything that both need is asked for or tried dry (`asked`, `tries`), all regions beside each other, and what AWS says
//! is judged apart from asking it (`judge`, `network`). Nothing is made, and nothing is changed.

mod asked;
mod judge;
mod limits;
mod network;
mod tries;

use std::{collections::BTreeSet, time::Duration};

use bursar_model::{Offering, Timestamp};
use futures::{StreamExt, stream};
use tokio::time::timeout;

use self::{asked::Identity, judge::Judged, network::Address};
use super::{
    AwsProvider,
    catalog::Catalog,
    clients::{Clients, RegionClient},
    errors::Meaning,
};
use crate::Finding;

/// Regions that are looked at beside each other.
const REGIONS_AT_ONCE: usize = 10;

/// One region answers within seconds; who waits for a doctor does not wait for one that does not.
const REGION_TIMEOUT: Duration = Duration::from_secs(45);

/// All types and prices of all regions, where none were kept.
const CATALOGUE_TIMEOUT: Duration = Duration::from_secs(90);

/// No image fits on it.
const TINY_GIB: u32 = 1;

impl AwsProvider {
    /// Looks at all that launches need. `daemon_url` is where the agents are to find the daemon.
    pub async fn doctor(&self, daemon_url: &str) -> Vec<Finding> {
        judge::merged(&self.settings.name, &self.examined(daemon_url).await)
    }

    async fn examined(&self, daemon_url: &str) -> Vec<Judged> {
        let clients = self.clients().await;
        let address = Address::of(daemon_url);
        let identities = asked::identities(clients).await;
        let (mut judged, who) = judge::credentials(&identities, self.clock.now());
        judged.extend(address.judged());
        let Some(who) = who else { return judged };
        let mut usable: Vec<&RegionClient> = Vec::new();
        for (name, at) in &clients.regions {
            let Some(said) = identities.by_region.get(name) else { continue };
            judged.push(judge::region(&self.settings.name, name, said));
            if said.is_ok() {
                usable.push(at);
            }
        }
        let (offerings, catalogue) = self.catalogue_examined(clients).await;
        let address = &address;
        let offerings = offerings.as_slice();
        let asked = usable.iter().map(|at| async move {
            let examined = Box::pin(self.region_examined(clients, at, who, offerings, address, daemon_url));
            timeout(REGION_TIMEOUT, examined).await.unwrap_or_else(|_| {
                let detail = format!("no answers within {} s", REGION_TIMEOUT.as_secs());
                vec![Judged::ill(
                    "regions",
                    Some(&at.name),
                    detail,
                    "try again, or look at this machine's network",
                )]
            })
        });
        let regions: Vec<Vec<Judged>> = stream::iter(asked).buffered(REGIONS_AT_ONCE).collect().await;
        judged.extend(regions.into_iter().flatten());
        judged.extend(limits::judged(offerings));
        judged.extend(self.services_examined(clients, who).await);
        let is_refused = judged.iter().any(|one| one.fix.is_some() && one.check.contains(':'));
        let of_usable =
            |trouble: &&String| usable.iter().any(|at| trouble.starts_with(&format!("{}:", at.name)));
        let troubles: Vec<String> = catalogue.troubles.iter().filter(of_usable).cloned().collect();
        let is_refused = is_refused || usable.is_empty();
        judged.extend(judge::catalogue(offerings.len(), catalogue.oldest, &troubles, is_refused));
        judged
    }

    /// What is on offer, asked for where it is too old, as the daemon does.
    async fn catalogue_examined(&self, clients: &Clients) -> (Vec<Offering>, CatalogueSeen) {
        let mut kept = self.catalog.lock().await;
        let catalog = kept.get_or_insert_with(|| Catalog::load(self.settings.cache_file.clone()));
        catalog.forget_failures();
        let now = self.clock.now();
        let asked = timeout(CATALOGUE_TIMEOUT, Box::pin(catalog.refresh(clients, &self.wanted, now))).await;
        let offerings = catalog.offerings(&self.settings.name, &self.settings.terms, now);
        let mut troubles = catalog.troubles();
        if asked.is_err() {
            let late = format!("not all was said within {} s", CATALOGUE_TIMEOUT.as_secs());
            troubles.extend(clients.regions.keys().map(|region| format!("{region}: {late}")));
        }
        (offerings, CatalogueSeen { oldest: catalog.oldest(), troubles })
    }

    async fn region_examined(
        &self,
        clients: &Clients,
        at: &RegionClient,
        who: &Identity,
        offerings: &[Offering],
        address: &Address,
        daemon_url: &str,
    ) -> Vec<Judged> {
        let settings = &self.settings;
        let region = &at.name;
        let now = self.clock.now();
        let keys = format!("providers.{}", settings.name);
        let to_try = tries::to_try(offerings, settings, region);
        let disk_gib = settings.terms.disk_min_gib;
        let tried = to_try.iter().map(|one| tries::tried(at, settings, one, disk_gib, daemon_url, now));
        let (permissions, network, tried) = futures::future::join3(
            Box::pin(asked::permissions(clients, at, &settings.installation, now)),
            Box::pin(asked::network(at, settings)),
            Box::pin(futures::future::join_all(tried)),
        )
        .await;
        let mut judged = Vec::new();
        let allowed: Vec<&str> =
            permissions.iter().filter(|(_, said)| said.is_ok()).map(|(action, _)| *action).collect();
        if allowed.len() == permissions.len() {
            judged.push(judge::allowed(Some(region), &allowed));
        }
        let refused = permissions.iter().filter_map(|(action, said)| Some((*action, said.as_ref().err()?)));
        let of_network = network.refused.iter().map(|(action, refusal)| (*action, refusal));
        judged.extend(
            refused
                .chain(of_network)
                .map(|(action, refusal)| judge::refused(action, Some(region), refusal, who)),
        );
        let wanted: Vec<(&str, &str)> = asked::subnets_in(settings, region).collect();
        let groups = settings.security_groups.get(region).map(Vec::as_slice).unwrap_or_default();
        let of_network = network::judged(&keys, region, &wanted, groups, &network, address);
        let has_faulty_network = of_network.iter().any(|one| one.fix.is_some());
        judged.extend(of_network);
        let launches = tries::judged(&keys, region, &tried, who, has_faulty_network);
        let are_launched = launches.iter().all(|one| one.fix.is_none());
        match settings.image.as_deref().filter(|image| image.starts_with("ami-")) {
            Some(id) => match asked::image(at, id).await {
                Ok(found) => {
                    let root = &settings.root_device;
                    let of_image = tries::image_judged(&keys, region, id, root, disk_gib, found.as_ref());
                    // The launch says the same of the image, in other words.
                    let is_ill = of_image.iter().any(|one| one.fix.is_some());
                    judged.extend(of_image);
                    judged.extend(launches.into_iter().filter(|one| !is_ill || one.check != "image"));
                }
                Err(refusal) => {
                    judged.push(judge::refused("ec2:DescribeImages", Some(region), &refusal, who));
                    judged.extend(launches);
                }
            },
            None => {
                judged.extend(launches);
                if are_launched {
                    judged.extend(self.roots_examined(at, &to_try, daemon_url).await);
                }
            }
        }
        judged
    }

    /// Which device the images of these boot from.
    async fn roots_examined(&self, at: &RegionClient, to_try: &[&Offering], daemon_url: &str) -> Vec<Judged> {
        let settings = &self.settings;
        let mut seen = BTreeSet::new();
        let one_each = to_try.iter().filter(|one| seen.insert(settings.image_for(&one.instance_type)));
        let tiny =
            one_each.map(|one| tries::tried(at, settings, one, TINY_GIB, daemon_url, self.clock.now()));
        let tiny = futures::future::join_all(tiny).await;
        tries::root_judged(&at.name, &settings.root_device, &tiny)
    }

    /// What is of no region: the price list, and the queue of interruptions.
    async fn services_examined(&self, clients: &Clients, who: &Identity) -> Vec<Judged> {
        let mut judged = Vec::new();
        if let Err(refusal) = asked::price_list(clients).await {
            judged.push(judge::refused("pricing:GetProducts", None, &refusal, who));
        }
        let (Some(sqs), Some(url)) = (&clients.sqs, &self.settings.interruption_queue) else { return judged };
        let mut is_well = true;
        for (action, said) in asked::queue(sqs, url).await {
            let Err(refusal) = said else { continue };
            is_well = false;
            judged.push(if refusal.meaning == Some(Meaning::Auth) {
                judge::refused(action, None, &refusal, who)
            } else {
                let fix = format!(
                    "make it as docs/aws.md says, or mend providers.{}.interruption_queue: `aws sqs list-queues` shows \
                     those that there are",
                    self.settings.name
                );
                Judged::ill("interruption queue", None, format!("{url}: {}", refusal.shown()), fix)
            });
        }
        if is_well {
            judged.push(Judged::well("interruption queue", None, format!("{url} can be read")));
        }
        judged
    }
}

/// What the catalogue says of itself.
#[derive(Debug)]
struct CatalogueSeen {
    oldest: Option<Timestamp>,
    troubles: Vec<String>,
}
