//! What of a changed configuration a daemon can take over while it runs, and what waits for its next start.

use std::{collections::BTreeMap, fmt::Display};

use bursar_model::{ProviderName, Terms};

use crate::config::{
    AwsProvider, Config, LocalProvider, Notifications, Policy, Provider, ProviderKind, ScheduledReport,
};

/// A changed configuration, as a running daemon goes by it.
#[derive(Debug, Clone, PartialEq)]
pub struct Takeover {
    /// What counts from now on: the new configuration, with the running one's values where only a start changes them.
    pub config: Config,
    /// The keys of it that changed.
    pub changed: Vec<String>,
    /// The keys that changed in the file and count from the next start on.
    pub needs_restart: Vec<String>,
}

/// Takes over what can be: not where the store is, who we are to the clouds, or where agents find us, since all of that is
/// in use; and neither providers nor what a local one is made of, since their instances run.
#[must_use]
pub fn take_over(running: &Config, new: Config) -> Takeover {
    let Config {
        installation,
        data_dir,
        listen,
        url,
        agent_binaries,
        budget,
        projects,
        users,
        discounts,
        notifications,
        storage,
        policy,
        logs,
        providers,
    } = new;
    let (mut changed, mut needs_restart) = (Vec::new(), Vec::new());

    note(&mut needs_restart, "installation", installation != running.installation);
    note(&mut needs_restart, "data_dir", data_dir != running.data_dir);
    note(&mut needs_restart, "listen", listen != running.listen);
    note(&mut needs_restart, "url", url != running.url);
    note(&mut needs_restart, "agent_binaries", agent_binaries != running.agent_binaries);
    note(&mut changed, "budget", budget != running.budget);
    note_entries(&mut changed, "projects", &running.projects, &projects);
    note_entries(&mut changed, "users", &running.users, &users);
    note(&mut changed, "pricing.discounts", discounts != running.discounts);
    note_notifications(&mut changed, &running.notifications, &notifications);
    note(&mut changed, "storage", storage != running.storage);
    note_policy(&mut changed, &running.policy, &policy);
    note(&mut changed, "logs", logs != running.logs);
    let providers = take_over_providers(&mut changed, &mut needs_restart, &running.providers, providers);

    let Config { installation, data_dir, listen, url, agent_binaries, .. } = running.clone();
    let config = Config {
        installation,
        data_dir,
        listen,
        url,
        agent_binaries,
        budget,
        projects,
        users,
        discounts,
        notifications,
        storage,
        policy,
        logs,
        providers,
    };
    Takeover { config, changed, needs_restart }
}

fn take_over_providers(
    changed: &mut Vec<String>,
    needs_restart: &mut Vec<String>,
    running: &BTreeMap<ProviderName, Provider>,
    mut new: BTreeMap<ProviderName, Provider>,
) -> BTreeMap<ProviderName, Provider> {
    let mut providers = BTreeMap::new();
    for (name, before) in running {
        let Some(after) = new.remove(name) else {
            needs_restart.push(format!("providers.{name}"));
            providers.insert(name.clone(), before.clone());
            continue;
        };
        let at = |key: &str| format!("providers.{name}.{key}");
        let Terms { billing, disk_gib, address, overhead, disk_min_gib } = before.terms;
        note(changed, &at("billing"), after.terms.billing != billing);
        note(changed, &at("disk_price"), after.terms.disk_gib != disk_gib);
        note(changed, &at("address_price"), after.terms.address != address);
        note(changed, &at("overhead"), after.terms.overhead != overhead);
        note(changed, &at("min_disk_size"), after.terms.disk_min_gib != disk_min_gib);
        match (&before.kind, &after.kind) {
            (ProviderKind::Local(old), ProviderKind::Local(new)) => {
                let LocalProvider { seed, types, interruptions } = old;
                note(needs_restart, &at("seed"), new.seed != *seed);
                note_entries(needs_restart, &at("types"), types, &new.types);
                note(needs_restart, &at("interruptions"), new.interruptions != *interruptions);
            }
            (ProviderKind::Aws(old), ProviderKind::Aws(new)) => note_aws(needs_restart, at, old, new),
            (ProviderKind::Local(_), ProviderKind::Aws(_))
            | (ProviderKind::Aws(_), ProviderKind::Local(_)) => {
                needs_restart.push(at("type"));
            }
        }
        providers.insert(name.clone(), Provider { terms: after.terms, kind: before.kind.clone() });
    }
    needs_restart.extend(new.into_keys().map(|name| format!("providers.{name}")));
    providers
}

fn note_aws(keys: &mut Vec<String>, at: impl Fn(&str) -> String, old: &AwsProvider, new: &AwsProvider) {
    let AwsProvider {
        regions,
        instance_types,
        image,
        root_device,
        subnets,
        security_groups,
        instance_profile,
        tags,
        interruption_queue,
    } = old;
    note(keys, &at("regions"), new.regions != *regions);
    note(keys, &at("instance_types"), new.instance_types != *instance_types);
    note(keys, &at("image"), new.image != *image);
    note(keys, &at("root_device"), new.root_device != *root_device);
    note_entries(keys, &at("subnets"), subnets, &new.subnets);
    note_entries(keys, &at("security_groups"), security_groups, &new.security_groups);
    note(keys, &at("instance_profile"), new.instance_profile != *instance_profile);
    note_entries(keys, &at("tags"), tags, &new.tags);
    note(keys, &at("interruption_queue"), new.interruption_queue != *interruption_queue);
}

fn note_notifications(changed: &mut Vec<String>, before: &Notifications, after: &Notifications) {
    let Notifications { webhooks, reports } = before;
    note_entries(changed, "notifications.webhooks", webhooks, &after.webhooks);
    let by_name = |reports: &[ScheduledReport]| -> BTreeMap<String, ScheduledReport> {
        reports.iter().map(|report| (report.name.clone(), report.clone())).collect()
    };
    note_entries(changed, "notifications.reports", &by_name(reports), &by_name(&after.reports));
}

fn note_policy(changed: &mut Vec<String>, before: &Policy, after: &Policy) {
    let Policy {
        idle_duration,
        lease,
        drain_allowance,
        max_instances,
        observe_interval,
        heartbeat,
        max_price,
    } = *before;
    note(changed, "policy.idle_duration", after.idle_duration != idle_duration);
    note(changed, "policy.lease", after.lease != lease);
    note(changed, "policy.drain_allowance", after.drain_allowance != drain_allowance);
    note(changed, "policy.max_instances", after.max_instances != max_instances);
    note(changed, "policy.observe_interval", after.observe_interval != observe_interval);
    note(changed, "policy.heartbeat", after.heartbeat != heartbeat);
    note(changed, "policy.max_price", after.max_price != max_price);
}

fn note(keys: &mut Vec<String>, key: &str, differs: bool) {
    if differs {
        keys.push(key.to_owned());
    }
}

/// The names of a section under which something came, went or changed.
fn note_entries<K: Ord + Display, V: PartialEq>(
    keys: &mut Vec<String>,
    section: &str,
    before: &BTreeMap<K, V>,
    after: &BTreeMap<K, V>,
) {
    let gone = before.keys().filter(|name| !after.contains_key(name));
    let others = after.iter().filter(|(name, value)| before.get(name) != Some(value)).map(|(name, _)| name);
    keys.extend(gone.chain(others).map(|name| format!("{section}.{name}")));
}
