//! Where instances come from: which kind each provider is, and what a local one offers.

use std::collections::BTreeMap;

use bursar_model::{InstanceType, ProviderName, Span, Terms, TypeName, UsdPerHour, Zone};

use super::{
    accelerators::accelerators, aws::check_aws, config::INSTANCES_MAX, pricing::check_terms, quantities,
    words,
};
use crate::{
    config::{LocalProvider, LocalType, Provider, ProviderKind},
    problem::{Problem, Report},
    raw::{RawLocalType, RawProvider},
};

/// What the machine that bursar runs on costs where nobody says: of the order of a small cloud instance.
const MACHINE_ON_DEMAND: UsdPerHour = UsdPerHour::from_nanos(100_000_000);
/// A third of that, as spot prices are.
const MACHINE_SPOT: UsdPerHour = UsdPerHour::from_nanos(30_000_000);
/// Local disks are not measured out; this is what a type claims to have.
const DISK_GIB_DEFAULT: u32 = 100;
/// The notice that GCP gives, the shortest of the clouds.
const NOTICE_DEFAULT: Span = Span::from_secs(30);
/// One interruption a second; a script does for more.
const INTERRUPTIONS_PER_HOUR_MAX: f64 = 3600.0;

/// The machine that bursar runs on: what a local provider offers where nothing is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// CPUs that this process may use.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
}

/// All providers; without a word this machine.
pub(super) fn check_providers(
    report: &mut Report,
    raw: BTreeMap<String, RawProvider>,
    machine: Machine,
) -> BTreeMap<ProviderName, Provider> {
    let mut providers = BTreeMap::new();
    for (name, raw) in raw {
        let path = format!("providers.{name}");
        words::name(report, &path, &name);
        providers.insert(ProviderName::new(&name), check_provider(report, &path, raw, machine));
    }
    if providers.is_empty() {
        let local = LocalProvider { seed: 0, types: this_machine(machine), interruptions: Vec::new() };
        let provider = Provider { terms: Terms::default(), kind: ProviderKind::Local(local) };
        providers.insert(ProviderName::new("local"), provider);
    }
    providers
}

fn check_provider(report: &mut Report, path: &str, raw: RawProvider, machine: Machine) -> Provider {
    let kind_path = format!("{path}.type");
    let kinds = [("aws", Kind::Aws), ("local", Kind::Local)];
    let kind = match raw.kind.as_deref() {
        Some("gcp") => {
            report.error(Problem::new(kind_path, "Google Cloud is not available in this version"));
            None
        }
        Some(kind) => words::word(report, &kind_path, kind, &kinds),
        None => {
            report.error(Problem::new(kind_path, "is missing").hint("write `type: aws` or `type: local`"));
            None
        }
    };
    if let Some(kind) = kind {
        check_keys(report, path, &raw, kind);
    }
    match kind {
        Some(Kind::Aws) => check_aws(report, path, raw),
        Some(Kind::Local) | None => check_local(report, path, raw, machine),
    }
}

/// A kind of provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Aws,
    Local,
}

/// Says which keys are those of another kind: they would have no effect.
fn check_keys(report: &mut Report, path: &str, raw: &RawProvider, kind: Kind) {
    let given = [
        (Kind::Aws, "regions", raw.regions.is_some()),
        (Kind::Aws, "instance_types", raw.instance_types.is_some()),
        (Kind::Aws, "image", raw.image.is_some()),
        (Kind::Aws, "min_disk_size", raw.min_disk_size.is_some()),
        (Kind::Aws, "root_device", raw.root_device.is_some()),
        (Kind::Aws, "subnets", !raw.subnets.is_empty()),
        (Kind::Aws, "security_groups", !raw.security_groups.is_empty()),
        (Kind::Aws, "instance_profile", raw.instance_profile.is_some()),
        (Kind::Aws, "tags", !raw.tags.is_empty()),
        (Kind::Aws, "interruption_queue", raw.interruption_queue.is_some()),
        (Kind::Local, "seed", raw.seed.is_some()),
        (Kind::Local, "types", !raw.types.is_empty()),
        (Kind::Local, "interruptions", !raw.interruptions.is_empty()),
    ];
    for (of, key, is_given) in given {
        if is_given && of != kind {
            let other = if of == Kind::Aws { "aws" } else { "local" };
            let problem =
                Problem::new(format!("{path}.{key}"), format!("is only for a provider of type `{other}`"));
            report.error(problem.hint("leave it out"));
        }
    }
}

fn check_local(report: &mut Report, path: &str, raw: RawProvider, machine: Machine) -> Provider {
    let RawProvider { billing, disk_price, address_price, overhead, seed, types, interruptions, .. } = raw;
    let (disk, address) = (disk_price.as_ref(), address_price.as_ref());
    let terms = check_terms(report, path, Terms::default(), billing, disk, address, overhead.as_ref());
    let checked: BTreeMap<_, _> = types
        .into_iter()
        .map(|(name, raw)| {
            (TypeName::new(&name), check_type(report, &format!("{path}.types.{name}"), &name, raw))
        })
        .collect();
    let interruptions = interruptions.iter().enumerate();
    let kind = ProviderKind::Local(LocalProvider {
        seed: seed.unwrap_or_default().cast_unsigned(),
        types: if checked.is_empty() { this_machine(machine) } else { checked },
        interruptions: interruptions
            .filter_map(|(index, text)| words::span(report, &format!("{path}.interruptions[{index}]"), text))
            .collect(),
    });
    Provider { terms, kind }
}

fn check_type(report: &mut Report, path: &str, name: &str, raw: RawLocalType) -> LocalType {
    let RawLocalType {
        accelerators: has,
        cpus,
        memory,
        disk_size,
        zones,
        on_demand,
        spot,
        interruptions_per_hour,
        notice,
        boot,
        max_instances,
    } = raw;
    let at = |key: &str| format!("{path}.{key}");
    words::name(report, path, name);
    let zones = zones.map_or_else(|| vec!["local-a".to_owned()], |zones| zones.0);
    for zone in &zones {
        words::name(report, &at("zones"), zone);
    }
    if zones.is_empty() {
        report.error(Problem::new(at("zones"), "names no zone"));
    }
    if on_demand.is_none() && spot.is_none() {
        let problem = Problem::new(path, "has no price, so nothing could ever be rented");
        report.error(problem.hint("give `on_demand`, `spot` or both, in USD an hour"));
    }
    let on_demand = on_demand.and_then(|price| words::price(report, &at("on_demand"), &price));
    let spot = spot.and_then(|price| words::price(report, &at("spot"), &price));
    if let (Some(on_demand), Some(spot)) = (on_demand, spot)
        && spot > on_demand
    {
        report.warn(Problem::new(at("spot"), "costs more than on demand"));
    }
    let rate = interruptions_per_hour.unwrap_or_default();
    if !(0.0..=INTERRUPTIONS_PER_HOUR_MAX).contains(&rate) {
        let message = format!("`{rate}` is not between 0 and {INTERRUPTIONS_PER_HOUR_MAX}");
        report.error(Problem::new(at("interruptions_per_hour"), message));
    }
    LocalType {
        instance_type: InstanceType {
            name: TypeName::new(name),
            accelerators: has.and_then(|text| accelerators(report, &at("accelerators"), &text)),
            cpus_milli: cpus
                .and_then(|cpus| quantities::cpus_milli(report, &at("cpus"), &cpus))
                .unwrap_or(1000),
            memory_mib: memory
                .and_then(|memory| quantities::memory_mib(report, &at("memory"), &memory))
                .unwrap_or(1024),
            disk_gib: disk_size
                .and_then(|disk| quantities::disk_gib(report, &at("disk_size"), &disk))
                .unwrap_or(DISK_GIB_DEFAULT),
        },
        zones: zones.iter().map(|zone| Zone::new(zone)).collect(),
        on_demand,
        spot,
        interruptions_per_hour: rate,
        notice: notice.and_then(|text| words::span(report, &at("notice"), &text)).unwrap_or(NOTICE_DEFAULT),
        boot: boot.and_then(|text| words::span(report, &at("boot"), &text)).unwrap_or(Span::ZERO),
        max_instances: max_instances
            .and_then(|n| words::count(report, &at("max_instances"), n, 0, INSTANCES_MAX)),
    }
}

/// One type that is this machine, once: a second instance would share what the first has.
fn this_machine(machine: Machine) -> BTreeMap<TypeName, LocalType> {
    let name = TypeName::new("this-machine");
    let instance_type = InstanceType {
        name: name.clone(),
        accelerators: None,
        cpus_milli: machine.cpus.saturating_mul(1000),
        memory_mib: machine.memory_mib,
        disk_gib: DISK_GIB_DEFAULT,
    };
    let offer = LocalType {
        instance_type,
        zones: vec![Zone::new("local-a")],
        on_demand: Some(MACHINE_ON_DEMAND),
        spot: Some(MACHINE_SPOT),
        interruptions_per_hour: 0.0,
        notice: NOTICE_DEFAULT,
        boot: Span::ZERO,
        max_instances: Some(1),
    };
    BTreeMap::from([(name, offer)])
}
