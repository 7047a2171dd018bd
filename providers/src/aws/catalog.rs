//! What EC2 sells: the four sources put together, each as old as it may be, all of it kept on disk so that a daemon that
//! starts knows it at once, and that one source which fails leaves what it said before, with its date.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
    sync::Arc,
};

use bursar_model::{
    CapacityType, InstanceType, Offering, ProviderName, Quota, QuotaUse, Region, Span, Terms, Timestamp,
    TypeName, UsdPerHour, Zone,
};
use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::{
    clients::Clients,
    quotas,
    sources::{self, SPOT_OVERLAP, SpotPrice, SpotPrices, TypeRecord},
};
use crate::ProviderError;

/// Types, zones and list prices change by the month, and are asked for daily.
const LISTS_LAST: Span = Span::from_hours(24);

/// Somebody who had a quota raised waits for nothing else.
const QUOTAS_LAST: Span = Span::from_secs(900);

/// After this time a spot price that nobody could confirm is not a price any longer.
const SPOT_LASTS: Span = Span::from_hours(6);

/// How long a source that failed is left alone.
const AFTER_FAILURE: Span = Span::from_secs(300);

/// Regions that are asked at once.
const REGIONS_AT_ONCE: usize = 10;

/// An instance is told two minutes before (<https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-interruptions.html>).
const NOTICE: Span = Span::from_secs(120);

/// All that is known, as it is kept on disk.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Catalog {
    regions: BTreeMap<Region, Listed>,
    /// Which types were asked for: what is kept of others is of no use.
    #[serde(default)]
    wanted: Vec<String>,
    #[serde(skip)]
    file: PathBuf,
}

/// What is known of a region.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Listed {
    types: Dated<Vec<TypeRecord>>,
    zones: Dated<BTreeMap<TypeName, BTreeSet<Zone>>>,
    on_demand: Dated<BTreeMap<TypeName, UsdPerHour>>,
    #[serde(with = "as_rows")]
    spot: Dated<SpotPrices>,
    /// What is applied to the account, by the code of the quota, in virtual CPUs.
    #[serde(default)]
    quotas: Dated<BTreeMap<String, u32>>,
}

/// What a source said, and when.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Dated<T> {
    said: T,
    at: Option<Timestamp>,
    /// Since when it fails, and why: nothing once it answered again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failed: Option<(Timestamp, String)>,
}

impl<T> Dated<T> {
    fn is_due(&self, lasts: Span, now: Timestamp) -> bool {
        let is_old = self.at.is_none_or(|at| now.since(at) >= lasts || at > now);
        let was_refused = self.failed.as_ref().is_some_and(|(at, _)| now.since(*at) < AFTER_FAILURE);
        is_old && !was_refused
    }

    /// Takes over an answer. What was said before stands where there is none. Answers with what to say of that.
    fn take(&mut self, answer: Result<T, ProviderError>, now: Timestamp) {
        match answer {
            Ok(said) => *self = Self { said, at: Some(now), failed: None },
            Err(error) => self.failed = Some((now, error.to_string())),
        }
    }
}

impl Catalog {
    /// What was kept in this file. One that cannot be read is as good as none: everything is asked for again.
    pub(super) fn load(file: PathBuf) -> Self {
        let kept = match read(&file) {
            Ok(text) => serde_json::from_str::<Self>(&text).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        };
        let kept = kept.unwrap_or_else(|error| {
            warn!(file = %file.display(), %error, "the catalogue that was kept cannot be read and is asked for anew");
            Self::default()
        });
        Self { file, ..kept }
    }

    /// Asks for what is too old, all regions beside each other.
    pub(super) async fn refresh(&mut self, clients: &Clients, wanted: &Wanted, now: Timestamp) {
        let regions: Vec<Region> = clients.regions.keys().cloned().collect();
        self.regions.retain(|region, _| clients.regions.contains_key(region));
        if self.wanted != wanted.patterns {
            self.wanted.clone_from(&wanted.patterns);
            self.regions.values_mut().for_each(|listed| listed.types = Dated::default());
        }
        let before = &self.regions;
        let asked = stream::iter(regions).map(|region| async move {
            let listed = before.get(&region).cloned().unwrap_or_default();
            let listed = Box::pin(listed.refreshed(clients, &region, wanted, now)).await;
            (region, listed)
        });
        let answers: Vec<(Region, Listed)> = asked.buffer_unordered(REGIONS_AT_ONCE).collect().await;
        self.regions.extend(answers);
        if let Err(error) = self.keep() {
            warn!(file = %self.file.display(), %error, "the catalogue could not be kept");
        }
    }

    fn keep(&self) -> io::Result<()> {
        let text = serde_json::to_string(self).map_err(io::Error::other)?;
        write(&self.file, &text)
    }

    /// What can be rented by all that is known.
    pub(super) fn offerings(
        &self,
        provider: &ProviderName,
        terms: &Arc<Terms>,
        now: Timestamp,
    ) -> Vec<Offering> {
        let mut offerings = Vec::new();
        for (region, listed) in &self.regions {
            for record in &listed.types.said {
                let kind = Arc::new(record.instance_type.clone());
                let on_demand = listed.on_demand.said.get(&kind.name).copied();
                for zone in listed.zones.said.get(&kind.name).into_iter().flatten() {
                    let offer = |capacity_type: CapacityType, price, price_since| Offering {
                        provider: provider.clone(),
                        region: region.clone(),
                        zone: zone.clone(),
                        instance_type: kind.clone(),
                        capacity_type,
                        price: Some(price),
                        list_price: None,
                        on_demand_price: on_demand,
                        price_since,
                        quota: listed.quota_of(region, &kind, capacity_type),
                        notice: (capacity_type == CapacityType::Spot).then_some(NOTICE),
                        terms: terms.clone(),
                    };
                    if let Some(price) = on_demand.filter(|_| record.on_demand) {
                        offerings.push(offer(CapacityType::OnDemand, price, None));
                    }
                    let spot = listed.spot_price(&kind.name, zone, now).filter(|_| record.spot);
                    if let Some(SpotPrice { price, since }) = spot {
                        offerings.push(offer(CapacityType::Spot, price, Some(since)));
                    }
                }
            }
        }
        offerings
    }

    /// Has what failed asked for again at once: whoever looks for what is wrong may have mended it since.
    pub(super) fn forget_failures(&mut self) {
        for Listed { types, zones, on_demand, spot, quotas } in self.regions.values_mut() {
            (types.failed, zones.failed, on_demand.failed) = (None, None, None);
            (spot.failed, quotas.failed) = (None, None);
        }
    }

    /// How old the oldest word of any source is: nothing where one of them never said anything.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        let dates =
            self.regions.values().flat_map(|of| [of.types.at, of.zones.at, of.on_demand.at, of.spot.at]);
        dates.min().flatten()
    }

    /// What cannot be relied on, for people: a source that fails, with how old its last word is.
    pub(super) fn troubles(&self) -> Vec<String> {
        let mut troubles = Vec::new();
        for (region, listed) in &self.regions {
            let sources = [
                ("instance types", &listed.types.failed, listed.types.at),
                ("zones", &listed.zones.failed, listed.zones.at),
                ("on-demand prices", &listed.on_demand.failed, listed.on_demand.at),
                ("spot prices", &listed.spot.failed, listed.spot.at),
                ("quotas", &listed.quotas.failed, listed.quotas.at),
            ];
            for (what, failed, at) in sources {
                let Some((_, error)) = failed else { continue };
                let since =
                    at.map_or_else(|| "none are known".to_owned(), |at| format!("those of {at} stand"));
                troubles.push(format!("{region}: {what} could not be read, {since}: {error}"));
            }
        }
        troubles
    }
}

/// Which instance types are wanted.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// Names with `*` for any letters.
    pub(super) patterns: Vec<String>,
}

impl Wanted {
    fn has(&self, name: &str) -> bool {
        self.patterns.iter().any(|pattern| matches(pattern, name))
    }
}

impl Listed {
    async fn refreshed(
        mut self,
        clients: &Clients,
        region: &Region,
        wanted: &Wanted,
        now: Timestamp,
    ) -> Self {
        let Some(at) = clients.regions.get(region) else { return self };
        let (types, zones, on_demand, quotas) = futures::join!(
            when(
                self.types.is_due(LISTS_LAST, now),
                sources::instance_types(clients, at, |name| wanted.has(name))
            ),
            when(self.zones.is_due(LISTS_LAST, now), sources::zones(clients, at)),
            when(self.on_demand.is_due(LISTS_LAST, now), sources::on_demand_prices(clients, region)),
            when(self.quotas.is_due(QUOTAS_LAST, now), quotas::limits(clients, at)),
        );
        if let Some(answer) = types {
            self.types.take(answer, now);
        }
        if let Some(answer) = zones {
            self.zones.take(answer, now);
        }
        if let Some(answer) = on_demand {
            self.on_demand.take(answer, now);
        }
        if let Some(answer) = quotas {
            self.quotas.take(answer, now);
        }
        let spot: Vec<TypeName> = self
            .types
            .said
            .iter()
            .filter(|record| record.spot)
            .map(|record| record.instance_type.name.clone())
            .collect();
        if !spot.is_empty() {
            let mut prices = self.spot.said.clone();
            // What is in force at the start is in the answer too.
            let since = self.spot.at.map_or(now, |at| at.min(now) - SPOT_OVERLAP);
            let answer = sources::spot_prices(clients, at, &spot, since, &mut prices).await;
            self.spot.take(answer.map(|()| prices), now);
        }
        self
    }

    /// What an instance takes of the quota that it counts in, where that is known.
    fn quota_of(
        &self,
        region: &Region,
        kind: &InstanceType,
        capacity_type: CapacityType,
    ) -> Option<QuotaUse> {
        let known = quotas::quota_of(kind.name.as_str(), capacity_type)?;
        let quota = Quota {
            name: format!("{region}/{}", known.code).into(),
            title: known.title.into(),
            limit: *self.quotas.said.get(known.code)?,
        };
        Some(QuotaUse { quota: Arc::new(quota), units: kind.cpus_milli / 1000 })
    }

    fn spot_price(&self, kind: &TypeName, zone: &Zone, now: Timestamp) -> Option<SpotPrice> {
        let is_fresh = self.spot.at.is_some_and(|at| now.since(at) < SPOT_LASTS);
        self.spot.said.get(&(kind.clone(), zone.clone())).copied().filter(|_| is_fresh)
    }
}

async fn when<T>(due: bool, ask: impl Future<Output = T>) -> Option<T> {
    if due { Some(ask.await) } else { None }
}

/// Whether a name is of a pattern in which `*` stands for any letters.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|tail| {
            (0..=tail.len()).filter(|at| tail.is_char_boundary(*at)).any(|at| matches(rest, &tail[at..]))
        }),
    }
}

/// JSON has no maps by pairs.
mod as_rows {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Dated, SpotPrice, SpotPrices, TypeName, Zone};

    type Row = (TypeName, Zone, SpotPrice);

    pub(super) fn serialize<S: Serializer>(spot: &Dated<SpotPrices>, to: S) -> Result<S::Ok, S::Error> {
        let rows: Vec<Row> =
            spot.said.iter().map(|((kind, zone), price)| (kind.clone(), zone.clone(), *price)).collect();
        Dated { said: rows, at: spot.at, failed: spot.failed.clone() }.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Dated<SpotPrices>, D::Error> {
        let Dated { said, at, failed } = Dated::<Vec<Row>>::deserialize(from)?;
        let said = said.into_iter().map(|(kind, zone, price)| ((kind, zone), price)).collect();
        Ok(Dated { said, at, failed })
    }
}

#[expect(clippy::disallowed_methods, reason = "the catalogue is kept in this file and nowhere else")]
fn read(file: &std::path::Path) -> io::Result<String> {
    std::fs::read_to_string(file)
}

/// Whole or not at all: a daemon may be killed at any time.
#[expect(clippy::disallowed_methods, reason = "the catalogue is kept in this file and nowhere else")]
fn write(file: &std::path::Path, text: &str) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let new = file.with_extension("new");
    std::fs::write(&new, text)?;
    std::fs::rename(&new, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_letters() {
        for (pattern, name, expected) in [
            ("g6.*", "g6.xlarge", true),
            ("g6.*", "g6e.xlarge", false),
            ("*", "anything", true),
            ("p*.48xlarge", "p5en.48xlarge", true),
            ("p5.48xlarge", "p5.48xlarge", true),
            ("p5.48xlarge", "p5.4xlarge", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
