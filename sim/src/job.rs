//! What experiments do in a world.

use std::collections::BTreeMap;

use bursar_model::{
    Accelerators, CheckpointSpec, DataSpec, ExperimentSpec, ParamValue, Params, Resources, Retry, Span,
    SpecId, SpotPolicy, agent_api::Work, id::split_mix,
};

/// What an experiment of a world does: time goes by, and it saves now and then. Travels in its environment, so that
/// the trials of a sweep can differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Job {
    /// From start to end without interruption.
    pub duration: Span,
    /// How often it saves.
    pub save_every: Span,
    /// What it exits with.
    pub exit_code: i32,
    /// The `loss` that it reports, beside the whole minutes that it has worked as `step`; none reports nothing.
    pub loss: Option<i32>,
}

impl Job {
    const DURATION: &str = "JOB_DURATION_MS";
    const SAVE_EVERY: &str = "JOB_SAVE_EVERY_MS";
    const EXIT_CODE: &str = "JOB_EXIT_CODE";
    const LOSS: &str = "JOB_LOSS";

    /// Succeeds after so long, saving every five minutes.
    #[must_use]
    pub const fn lasting(duration: Span) -> Self {
        Self { duration, save_every: Span::from_secs(300), exit_code: 0, loss: None }
    }

    /// A spec for it that wants one accelerator.
    #[must_use]
    pub fn spec(self) -> ExperimentSpec {
        let envs = [
            (Self::DURATION, self.duration.as_millis()),
            (Self::SAVE_EVERY, self.save_every.as_millis()),
            (Self::EXIT_CODE, i64::from(self.exit_code)),
        ];
        let loss = self.loss.map(|loss| (Self::LOSS, i64::from(loss)));
        ExperimentSpec {
            project: "p".into(),
            resources: Resources {
                accelerators: vec![Accelerators { name: "T4".into(), count: 1, memory_gib: None }],
                cpus_milli: 4_000,
                memory_mib: 8_192,
                disk_gib: 50,
            },
            image: None,
            registry_auth: None,
            seed: None,
            source: None,
            workdir: None,
            setup: None,
            run: "work".to_owned(),
            envs: envs
                .into_iter()
                .chain(loss)
                .map(|(name, value)| (name.to_owned(), value.to_string()))
                .collect(),
            secrets: BTreeMap::new(),
            spot_policy: SpotPolicy::Auto,
            max_price: None,
            deadline: None,
            budget: None,
            priority: 0,
            retry: Retry { limit: 1 },
            max_duration: None,
            utilization_policy: None,
            checkpoint: CheckpointSpec { interval: Some(self.save_every), ..CheckpointSpec::default() },
            data: DataSpec::default(),
            estimate: None,
            num_nodes: 1,
            labels: BTreeMap::new(),
        }
    }

    /// As the parameters of a trial, which win over the environment of its spec.
    pub(crate) fn params(self) -> Params {
        self.spec().envs.into_iter().map(|(name, value)| (name, ParamValue::Text(value))).collect()
    }

    /// What it reports after it has worked for so long.
    pub(crate) fn metrics(self, done: Span) -> BTreeMap<String, f64> {
        let minutes = (done.as_millis() / 60_000) as f64;
        let report = |loss| [("step".to_owned(), minutes), ("loss".to_owned(), f64::from(loss))];
        self.loss.map(report).into_iter().flatten().collect()
    }

    pub(crate) fn of(work: &Work) -> Self {
        let mut envs = work.envs.clone();
        envs.extend(work.params.clone());
        Self::of_envs(&envs)
    }

    pub(crate) fn of_envs(envs: &BTreeMap<String, String>) -> Self {
        let number = |name| envs.get(name).and_then(|text| text.parse().ok()).unwrap_or(0_i64);
        Self {
            duration: Span::from_millis(number(Self::DURATION)),
            save_every: Span::from_millis(number(Self::SAVE_EVERY)),
            exit_code: number(Self::EXIT_CODE) as i32,
            loss: envs.get(Self::LOSS).and_then(|text| text.parse().ok()),
        }
    }
}

/// Equal specs are one, different ones are not: all that the daemon asks of an id.
pub(crate) fn spec_id(spec: &ExperimentSpec) -> SpecId {
    let text = serde_json::to_string(spec).expect("a spec is plain data");
    let mix = |salt: u64| text.bytes().fold(salt, |hash, byte| split_mix(hash ^ u64::from(byte)));
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&mix(1).to_be_bytes());
    bytes[8..].copy_from_slice(&mix(2).to_be_bytes());
    SpecId::from_digest(bytes)
}
