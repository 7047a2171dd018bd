//! The schemas are what is read: every key is there, described, and nothing else is.

use std::collections::BTreeMap;

use bursar_model::Params;
use serde_json::Value;

use crate::{raw::*, schema_config, schema_experiment};

/// Every key path of a schema with its description, list items and map values as `*`.
fn keys(schema: &Value, path: &str, found: &mut BTreeMap<String, Option<String>>) {
    for any in schema["anyOf"].as_array().into_iter().flatten() {
        keys(any, path, found);
    }
    if let Some(items) = schema.get("items") {
        keys(items, &format!("{path}.*"), found);
    }
    if let Some(others) = schema.get("additionalProperties") {
        keys(others, &format!("{path}.*"), found);
    }
    for (key, schema) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{key}");
        found.insert(path.clone(), schema["description"].as_str().map(str::to_owned));
        keys(schema, &path, found);
    }
}

/// Every key path that a raw value is written with.
fn written(value: &Value, path: &str, schema: &BTreeMap<String, Option<String>>, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let own = format!("{path}.{key}");
                let path = if schema.contains_key(&own) { own } else { format!("{path}.*") };
                if !path.ends_with('*') {
                    found.push(path.clone());
                }
                written(value, &path, schema, found);
            }
        }
        Value::Array(items) => {
            items.iter().for_each(|item| written(item, &format!("{path}.*"), schema, found))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn assert_covers(schema: &Value, raw: &Value) {
    let mut described = BTreeMap::new();
    keys(schema, "", &mut described);
    let mut found = Vec::new();
    written(raw, "", &described, &mut found);
    found.sort();
    found.dedup();
    assert_eq!(found, described.keys().cloned().collect::<Vec<_>>(), "the schema has the keys of the type");
    let bare: Vec<_> = described.iter().filter(|(_, text)| text.is_none()).map(|(path, _)| path).collect();
    assert!(bare.is_empty(), "these have no description: {bare:?}");
}

fn map<T>(value: T) -> BTreeMap<String, T> {
    BTreeMap::from([("A".to_owned(), value)])
}

fn text() -> Option<String> {
    Some("x".to_owned())
}

/// A document with every key. Built without `..`, so that a new field has to appear here.
pub(super) fn full_spec() -> RawSpec {
    let number = || Some(Written::from("1"));
    let params = || vec![Params::from([("A".to_owned(), bursar_model::ParamValue::Int(1))])];
    let space = RawSpace {
        linspace: Some(vec![0.0]),
        logspace: Some(vec![0.0]),
        uniform: Some(vec![0.0]),
        loguniform: Some(vec![0.0]),
        randint: Some(vec![0]),
        choice: Some(vec![]),
    };
    RawSpec {
        name: text(),
        project: text(),
        resources: Some(RawResources {
            accelerators: Some(OneOrMany(vec!["A100".to_owned()])),
            cpus: number(),
            memory: number(),
            disk_size: number(),
        }),
        image: text(),
        registry_auth: Some(RawRegistryAuth {
            username: text(),
            password: Some(RawSecret { env: text(), file: text() }),
        }),
        seed: Some(1),
        source: Some(RawSource { commit: text(), diff_sha256: text(), untracked: Some(1) }),
        workdir: Some(RawWorkdir::Map(RawWorkdirMap {
            git: text(),
            r#ref: text(),
            path: text(),
            token: text(),
            archive: text(),
            bytes: Some(1),
        })),
        setup: text(),
        run: text(),
        envs: map(Written::from("1")),
        secrets: map(RawSecret { env: text(), file: text() }),
        spot_policy: text(),
        max_price: number(),
        deadline: text(),
        budget: Some(LimitOr(work_budget())),
        priority: Some(1),
        retry: Some(RawRetry { limit: Some(1) }),
        max_duration: text(),
        utilization_policy: Some(RawUtilizationPolicy {
            min_gpu_utilization: Some(1),
            time_window: text(),
            action: text(),
        }),
        checkpoint: Some(RawCheckpoint {
            interval: text(),
            grace: text(),
            path: text(),
            store: text(),
            accept_loss: Some(true),
        }),
        mounts: map("x".to_owned()),
        outputs: Some(RawOutputs(map(text()))),
        estimate: Some(RawEstimate { duration: text(), on: text(), speeds: map(1.0) }),
        num_nodes: Some(1),
        labels: map(Written::from("1")),
        sweep: Some(RawSweep {
            matrix: map(RawDimension::Space(space)),
            samples: Some(1),
            seed: Some(1),
            include: params(),
            exclude: params(),
            budget: Some(LimitOr(work_budget())),
            max_parallel: Some(1),
            asha: Some(RawAsha {
                metric: text(),
                mode: text(),
                resource: text(),
                eta: Some(1),
                min: Some(1),
                max: Some(1),
            }),
        }),
    }
}

fn work_budget() -> RawWorkBudget {
    RawWorkBudget { limit: Some(Written::from("1")), thresholds: Some(vec![50]), on_exhausted: text() }
}

fn full_config() -> RawConfig {
    let number = || Some(Written::from("1"));
    let local_type = RawLocalType {
        accelerators: text(),
        cpus: number(),
        memory: number(),
        disk_size: number(),
        zones: Some(OneOrMany(vec!["a".to_owned()])),
        on_demand: number(),
        spot: number(),
        interruptions_per_hour: Some(1.0),
        notice: text(),
        boot: text(),
        max_instances: Some(1),
    };
    let budget = RawBudget {
        limit: number(),
        per: text(),
        timezone: text(),
        thresholds: Some(vec![50]),
        on_exhausted: text(),
    };
    let discount = RawDiscount {
        provider: text(),
        region: text(),
        instance_type: text(),
        capacity_type: text(),
        percent: number(),
    };
    let webhook = RawWebhook {
        url: text(),
        format: text(),
        secret: Some(RawSecret { env: text(), file: text() }),
        events: Some(OneOrMany(vec!["report".to_owned()])),
    };
    let report = RawReport {
        name: text(),
        schedule: text(),
        timezone: text(),
        by: text(),
        to: Some(OneOrMany(vec!["A".to_owned()])),
    };
    RawConfig {
        installation: text(),
        data_dir: text(),
        listen: text(),
        url: text(),
        agent_binaries: text(),
        budget: Some(LimitOr(budget.clone())),
        projects: map(Some(RawProject { budget: Some(LimitOr(budget.clone())) })),
        users: map(Some(RawUser { budget: Some(LimitOr(budget)) })),
        pricing: Some(RawPricing { discounts: vec![discount] }),
        storage: Some(RawStorage {
            url: text(),
            endpoint: text(),
            region: text(),
            credentials: map(RawSecret { env: text(), file: text() }),
            checkpoints_kept: Some(1),
        }),
        notifications: Some(RawNotifications { webhooks: map(webhook), reports: vec![report] }),
        policy: Some(RawPolicy {
            idle_duration: text(),
            lease: text(),
            drain_allowance: text(),
            max_instances: Some(1),
            observe_interval: text(),
            heartbeat: text(),
            max_price: number(),
        }),
        logs: Some(RawLogs { keep: text(), max_total: number() }),
        providers: map(RawProvider {
            kind: text(),
            billing: Some(RawBilling { granularity: text(), minimum: text(), starts: text(), ends: text() }),
            disk_price: number(),
            address_price: number(),
            overhead: number(),
            regions: Some(OneOrMany(vec!["A".to_owned()])),
            instance_types: Some(OneOrMany(vec!["A".to_owned()])),
            image: text(),
            min_disk_size: number(),
            root_device: text(),
            subnets: map("A".to_owned()),
            security_groups: map(OneOrMany(vec!["A".to_owned()])),
            instance_profile: text(),
            tags: map("A".to_owned()),
            interruption_queue: text(),
            seed: Some(1),
            types: map(local_type),
            interruptions: vec!["6s".to_owned()],
        }),
    }
}

#[test]
fn the_schema_of_specs_describes_every_key() {
    assert_covers(&schema_experiment(), &serde_json::to_value(full_spec()).unwrap());
}

#[test]
fn the_schema_of_the_configuration_describes_every_key() {
    assert_covers(&schema_config(), &serde_json::to_value(full_config()).unwrap());
}

#[test]
fn the_variables_of_the_environment_are_the_scalars_of_the_schema() {
    let names: Vec<_> = crate::env::variables(&schema_config()).into_keys().collect();
    insta::assert_snapshot!("variables", names.join("\n"));
}

#[test]
fn schemas_need_no_reference_to_be_followed() {
    for schema in [schema_config(), schema_experiment()] {
        assert!(!schema.to_string().contains("$ref"));
    }
}
