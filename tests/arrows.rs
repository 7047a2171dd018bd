//! Who may import whom: the layers of ARCHITECTURE.md, held against what Cargo says.
//!
//! The purity of the deciding crates is what makes them testable without a clock or a cloud; here it is Cargo that
//! keeps it, not a habit.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use serde_json::Value;

/// Every crate with those of ours that it may import. The tests import everything.
const ARROWS: &[(&str, &[&str])] = &[
    ("bursar-model", &[]),
    ("bursar-ledger", &["bursar-model"]),
    ("bursar-policies", &["bursar-ledger", "bursar-model"]),
    ("bursar-config", &["bursar-model"]),
    ("bursar-store", &["bursar-model"]),
    ("bursar-storage", &["bursar-model"]),
    ("bursar-agent", &["bursar-model", "bursar-storage"]),
    // The local provider's machines start real agents.
    ("bursar-providers", &["bursar-agent", "bursar-model"]),
    (
        "bursar-daemon",
        &[
            "bursar-config",
            "bursar-ledger",
            "bursar-model",
            "bursar-policies",
            "bursar-providers",
            "bursar-storage",
            "bursar-store",
        ],
    ),
    (
        "bursar-sim",
        &[
            "bursar-config",
            "bursar-daemon",
            "bursar-ledger",
            "bursar-model",
            "bursar-policies",
            "bursar-providers",
            "bursar-store",
        ],
    ),
    // Policies, providers and store for their plain types: candidates, programs, rows. The ledger to read a bill where it
    // lies.
    (
        "bursar",
        &[
            "bursar-agent",
            "bursar-config",
            "bursar-daemon",
            "bursar-ledger",
            "bursar-model",
            "bursar-policies",
            "bursar-providers",
            "bursar-sim",
            "bursar-store",
        ],
    ),
];

/// The crates that decide and never do.
const PURE: &[&str] = &["bursar-model", "bursar-ledger", "bursar-policies", "bursar-config"];

/// What a crate that never does has no use for: runtimes, networks, databases.
const DOING: &[&str] =
    &["tokio", "async-std", "smol", "mio", "reqwest", "hyper", "axum", "rusqlite", "sqlx", "rustix", "libc"];

/// What only the store speaks to.
const SQL: &[&str] =
    &["rusqlite", "libsqlite3-sys", "sqlx", "postgres", "tokio-postgres", "diesel", "sea-orm"];

/// What only providers speak to, by the beginning of the name.
const CLOUD_SDKS: &[&str] = &["aws-", "google-cloud-", "azure_"];

/// A crate of the workspace and what it imports.
struct Package {
    name: String,
    /// What it needs to be built and run.
    dependencies: BTreeSet<String>,
    /// The same with what its tests need.
    with_tests: BTreeSet<String>,
}

fn workspace() -> Vec<Package> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path", manifest])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(!packages.is_empty());
    packages.iter().map(package).collect()
}

fn package(package: &Value) -> Package {
    let all = package["dependencies"].as_array().unwrap();
    let names = |only_built: bool| {
        all.iter()
            .filter(|dependency| !only_built || dependency["kind"] != "dev")
            .map(|dependency| dependency["name"].as_str().unwrap().to_owned())
            .collect()
    };
    Package {
        name: package["name"].as_str().unwrap().to_owned(),
        dependencies: names(true),
        with_tests: names(false),
    }
}

#[test]
fn crates_import_only_those_below_them() {
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let packages = workspace();
    let ours: BTreeSet<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    for Package { name, with_tests, .. } in packages.iter().filter(|package| package.name != "bursar-tests") {
        let allowed =
            allowed.get(name.as_str()).unwrap_or_else(|| panic!("{name} has no arrows yet: draw them here"));
        for dependency in with_tests.iter().filter(|dependency| ours.contains(dependency.as_str())) {
            assert!(allowed.contains(&dependency.as_str()), "{name} must not import {dependency}");
        }
    }
}

#[test]
fn crates_that_decide_cannot_do() {
    for Package { name, dependencies, .. } in workspace() {
        for dependency in dependencies.iter().filter(|_| PURE.contains(&name.as_str())) {
            assert!(!DOING.contains(&dependency.as_str()), "{name} must not import {dependency}");
        }
    }
}

#[test]
fn sql_is_spoken_only_in_the_store_and_cloud_sdks_only_in_providers() {
    for Package { name, dependencies, .. } in workspace() {
        for dependency in &dependencies {
            let is_sql = SQL.contains(&dependency.as_str());
            assert!(!is_sql || name == "bursar-store", "{name} must not import {dependency}");
            let is_sdk = CLOUD_SDKS.iter().any(|prefix| dependency.starts_with(prefix));
            let may = name == "bursar-providers" || name == "bursar-tests";
            assert!(!is_sdk || may, "{name} must not import {dependency}");
        }
    }
}
