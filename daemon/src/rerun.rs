//! Running an experiment once more: the spec that repeats it, and in what the repetition can differ all the same.

use std::collections::{BTreeMap, BTreeSet};

use bursar_model::{Deadline, ExperimentSpec, RanWith, Timestamp, seed_of};

use crate::views::{AttemptView, ExperimentDetail};

/// What a rerun is made of.
#[derive(Debug)]
pub struct Again {
    /// The spec: an experiment of its own, with the image and the seed of before.
    pub spec: ExperimentSpec,
    /// What differs, or may differ, from before: for people, one sentence each.
    pub differs: Vec<String>,
}

/// What repeats an experiment with these variables changed. `offered` are the keys of all offerings, as attempts name
/// theirs.
#[must_use]
pub fn again(
    before: &ExperimentDetail,
    envs: BTreeMap<String, String>,
    offered: &BTreeSet<String>,
    now: Timestamp,
) -> Again {
    let mut spec = ExperimentSpec::clone(&before.spec);
    let mut differs = Vec::new();
    let params = before.experiment.params.iter();
    spec.envs.extend(params.map(|(name, value)| (name.clone(), value.to_string())));
    spec.seed = Some(spec.seed.unwrap_or_else(|| seed_of(before.experiment.id)));
    let recorded =
        before.attempts.iter().rev().find_map(|attempt| Some((attempt, attempt.ran_with.as_ref()?)));

    if let Some(image) = spec.image.take() {
        let (image, difference) = pinned(image, recorded.map(|(_, ran_with)| ran_with));
        spec.image = Some(image);
        differs.extend(difference);
    }
    for (name, value) in envs {
        spec.secrets.remove(&name);
        differs.push(match spec.envs.insert(name.clone(), value.clone()) {
            Some(old) => format!("{name} is `{value}`, it was `{old}`"),
            None => format!("{name} is `{value}`, it was not set"),
        });
    }
    if !spec.secrets.is_empty() {
        let names: Vec<&str> = spec.secrets.keys().map(String::as_str).collect();
        differs.push(format!("secrets are looked up again and may have changed: {}", names.join(", ")));
    }
    if let Some(Deadline::At(at)) = spec.deadline
        && at <= now
    {
        spec.deadline = None;
        differs.push(format!("it has no deadline: {at} is over"));
    }
    if let Some(sweep) = before.experiment.sweep {
        differs.push(format!("it is an experiment of its own, which the budget of {sweep} does not count"));
    }
    match recorded {
        Some((attempt, ran_with)) => differs.extend(surroundings(attempt, ran_with, offered)),
        None => differs.push("no attempt of it has told what it ran with".to_owned()),
    }
    Again { spec, differs }
}

/// The image by the digest that it had, so that it is the same whatever its tag means by now.
fn pinned(image: String, recorded: Option<&RanWith>) -> (String, Option<String>) {
    if image.contains('@') {
        return (image, None);
    }
    match recorded.and_then(|ran_with| ran_with.image.as_ref()) {
        Some(digest) if digest.contains('@') => {
            let said =
                format!("{image} is taken as {digest}, which it was then, though it may mean another now");
            (digest.clone(), Some(said))
        }
        Some(id) => {
            let said = format!("{image} was {id}, which no registry gave a digest: it may be another now");
            (image, Some(said))
        }
        None => {
            let said = format!("{image} may be another now: no attempt has told its digest");
            (image, Some(said))
        }
    }
}

/// What is not in the spec: the machine and what runs on it.
fn surroundings(attempt: &AttemptView, ran_with: &RanWith, offered: &BTreeSet<String>) -> Vec<String> {
    let RanWith { bursar, runtime, image: _, system, driver } = ran_with;
    let driver = driver.as_ref().map(|driver| format!(", NVIDIA driver {driver}")).unwrap_or_default();
    let mut differs = vec![format!(
        "the machine may differ from attempt {}'s: {runtime}, {system}{driver}",
        attempt.number
    )];
    let version = env!("CARGO_PKG_VERSION");
    if bursar != version {
        differs.push(format!("bursar is {version}, it was {bursar}"));
    }
    let offering = attempt.nodes.first().and_then(|node| node.offering.as_ref());
    if let Some(offering) = offering.filter(|offering| !offered.contains(*offering)) {
        differs.push(format!("{offering}, on which it ran, is not on offer: it will run on something else"));
    }
    differs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran_with(image: Option<&str>) -> RanWith {
        RanWith {
            bursar: env!("CARGO_PKG_VERSION").to_owned(),
            runtime: "podman 4.3.1".to_owned(),
            image: image.map(str::to_owned),
            system: "Linux 6.1 x86_64".to_owned(),
            driver: None,
        }
    }

    #[test]
    fn a_tag_is_taken_as_what_it_was_and_a_digest_stays_what_it_is() {
        let digest = format!("repo/image@sha256:{}", "a".repeat(64));
        let pin = |image: &str, recorded: Option<&str>| pinned(image.to_owned(), Some(&ran_with(recorded)));
        let (image, said) = pin("repo/image:latest", Some(&digest));
        assert_eq!(image, digest);
        assert!(said.unwrap().contains("repo/image:latest is taken as repo/image@sha256:"));
        assert_eq!(pin(&digest, Some("repo/image@sha256:other")), (digest.clone(), None));
        let (image, said) = pin("made-here:1", Some("sha256:abc"));
        assert_eq!(image, "made-here:1");
        assert!(said.unwrap().contains("may be another now"));
        assert!(pinned("image".to_owned(), None).1.unwrap().contains("no attempt"));
    }
}
