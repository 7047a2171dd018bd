//! YAML and the environment into checked configuration and specs, and the JSON Schemas of both. The only reader of
//! either.
//!
//! A text becomes a tree that knows its lines (`node`), is held against the schema (`conform`) and read into raw types
//! (`raw`), which `check` turns into the types of the model. Each step goes on after a problem, so that a person sees
//! everything that is wrong at once. What comes over the wire skips the tree: JSON goes straight into `raw`.
//!
//! **Invariant:** only `read` touches files and the environment; all else is pure.

mod check;
mod config;
mod conform;
mod env;
mod load;
mod node;
mod problem;
pub mod raw;
pub mod read;
mod schema;
mod takeover;
#[cfg(test)]
mod tests;

pub use self::{
    check::{Machine, Submission, TRIALS_MAX, WorkdirSource},
    config::{
        AwsProvider, Config, LocalProvider, LocalType, LogPolicy, NotificationKind, Notifications, Policy,
        Project, Provider, ProviderKind, ScheduledReport, Storage, User, Webhook, WebhookFormat,
    },
    load::{SpecFile, load_config, load_spec},
    problem::{Checked, Place, Problem, Problems},
    raw::{RawSource, RawSpec},
    read::{ConfigFile, ReadError, read_config, read_spec},
    schema::{schema_config, schema_experiment},
    takeover::{Takeover, take_over},
};
