//! From text to checked values: parse, lay the environment over it, hold it against the schema, check, and tell every
//! problem its place. Pure; `read` fetches the texts.

use std::{collections::BTreeMap, path::Path};

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    check::{Machine, Submission, Surroundings, WorkdirSource, check_config, take_source},
    config::Config,
    conform::conform,
    env,
    node::{self, Node},
    problem::{Checked, PROBLEMS_MAX, Place, Problem, Problems, Report},
    raw::RawSpec,
    schema::{schema_config, schema_experiment},
};

/// A spec that was read from a file: to be sent on, and checked as far as can be told here.
#[derive(Debug, Clone, PartialEq)]
pub struct SpecFile {
    /// What to send to the daemon, but for the `workdir` that `source` is to become.
    pub raw: RawSpec,
    /// What has to become of its `workdir` before it travels.
    pub source: Option<WorkdirSource>,
    /// What it means.
    pub submission: Submission,
    /// The file, for people.
    file: String,
    places: BTreeMap<String, Place>,
}

impl SpecFile {
    /// Something about a key that shows only where more is known than the text, with its place in the file.
    #[must_use]
    pub fn problem(&self, key_path: &str, message: impl Into<String>) -> Problem {
        Problem {
            source: Some(self.file.clone()),
            place: self.places.get(key_path).copied(),
            ..Problem::new(key_path, message)
        }
    }
}

/// Reads the daemon's configuration with the environment laid over it. `file` names the text in problems, and
/// relative paths count from its folder; without a file the text is empty.
///
/// # Errors
/// Returns all problems at once, in the order of their lines.
pub fn load_config(
    text: &str,
    file: Option<&Path>,
    environment: &BTreeMap<String, String>,
    machine: Machine,
) -> Result<Checked<Config>, Problems> {
    let schema = schema_config();
    let variables = env::variables(&schema);
    let mut document = Document::parse(text, file.map(|file| file.display().to_string()))?;
    document.overlay = env::lay_over(&mut document.root, &schema, &variables, environment);
    let raw = document.read(&schema);
    let mut report = Report { errors: Vec::new(), warnings: env::unknown(&variables, environment) };
    let around = Surroundings { folder: file.and_then(Path::parent), env: environment, machine };
    let config = check_config(&mut report, raw, around);
    document.finish(report.finish(config))
}

/// Reads an experiment or a sweep. `file` names the text in problems; a `workdir` that is a path counts from `folder`.
///
/// # Errors
/// Returns all problems at once, in the order of their lines.
pub fn load_spec(
    text: &str,
    file: &str,
    folder: &Path,
    config: Option<&Config>,
) -> Result<Checked<SpecFile>, Problems> {
    let mut document = Document::parse(text, Some(file.to_owned()))?;
    let mut raw: RawSpec = document.read(&schema_experiment());
    let mut report = Report::default();
    let source = take_source(&mut report, &mut raw.workdir, &raw.secrets, folder);
    document.problems.append(&mut report.errors);
    let checked = raw.clone().check(config);
    let places = document.root.places();
    let Checked { value: submission, warnings } = document.finish(checked)?;
    let value = SpecFile { raw, source, submission, file: file.to_owned(), places };
    Ok(Checked { value, warnings })
}

/// A problem of a configuration that shows only where more is known than its text, with its place there.
pub(crate) fn placed(text: &str, file: Option<&Path>, problem: Problem) -> Problem {
    let file = file.map(|file| file.display().to_string());
    let place = Document::parse(text, file.clone())
        .ok()
        .and_then(|document| document.root.places().get(&problem.key_path).copied());
    Problem { source: file, place, ..problem }
}

impl RawSpec {
    /// Reads what came over the wire. The fast way is plain serde; what that refuses is read again as a file is, to say
    /// everything that is wrong with it and where, instead of the first thing.
    ///
    /// # Errors
    /// Returns all problems of form at once; what the values mean is for `check`.
    pub fn from_json(json: &[u8]) -> Result<Self, Problems> {
        if let Ok(raw) = serde_json::from_slice(json) {
            return Ok(raw);
        }
        let text = std::str::from_utf8(json).map_err(|error| {
            Problems(vec![Problem::new(
                "",
                format!("not UTF-8: byte {} is the first wrong one", error.valid_up_to()),
            )])
        })?;
        let mut document = Document::parse(text, None)?;
        let raw = document.read(&schema_experiment());
        document.finish(Report::default().finish(raw)).map(|checked| checked.value)
    }
}

/// A document on its way through: its tree and what was wrong with its form.
pub(crate) struct Document {
    root: Node,
    source: Option<String>,
    /// Key paths that the environment set, each with its variable.
    overlay: BTreeMap<String, String>,
    pub(crate) problems: Vec<Problem>,
}

impl Document {
    pub(crate) fn parse(text: &str, source: Option<String>) -> Result<Self, Problems> {
        let (root, problems) = node::parse(text);
        let document = |root| Self { root, source, overlay: BTreeMap::new(), problems };
        match root {
            Some(root) => Ok(document(root)),
            None => {
                let document = document(node::parse("").0.expect("an empty text is an empty map"));
                Err(Problems(document.placed(Vec::new())))
            }
        }
    }

    /// The raw value, as far as the document conforms.
    pub(crate) fn read<T: DeserializeOwned + Default>(&mut self, schema: &Value) -> T {
        let (value, problems) = conform(&self.root, schema);
        self.problems.extend(problems);
        serde_json::from_value(value).unwrap_or_else(|error| {
            // Only where the schema and the type disagree, which a test rules out for every key.
            self.problems.push(Problem::new("", error.to_string()));
            T::default()
        })
    }

    /// Puts the problems of form and of meaning together, each with its place.
    fn finish<T>(self, checked: Result<Checked<T>, Problems>) -> Result<Checked<T>, Problems> {
        match checked {
            Ok(Checked { value, warnings }) if self.problems.is_empty() => {
                Ok(Checked { value, warnings: self.placed(warnings) })
            }
            Ok(_) => Err(Problems(self.placed(Vec::new()))),
            Err(Problems(found)) => {
                let news: Vec<_> =
                    found.into_iter().filter(|problem| !self.follows(&problem.key_path)).collect();
                Err(Problems(self.placed(news)))
            }
        }
    }

    /// Whether a problem of meaning only follows from a wrong form: of the same value, one above or one inside it.
    fn follows(&self, path: &str) -> bool {
        let inside = |outer: &str, inner: &str| {
            inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        self.problems.iter().any(|form| {
            !form.key_path.is_empty() && (inside(&form.key_path, path) || inside(path, &form.key_path))
        })
    }

    /// Adds the problems of form and tells each problem its place: its own key's, else that of the nearest key above.
    fn placed(self, problems: Vec<Problem>) -> Vec<Problem> {
        let Self { root, source, overlay, problems: form } = self;
        let mut all: Vec<_> = form.into_iter().chain(problems).collect();
        if all.is_empty() {
            return all;
        }
        let places = root.places();
        for problem in all.iter_mut().filter(|problem| problem.source.is_none()) {
            if let Some(variable) = overlay.get(&problem.key_path) {
                (problem.source, problem.place) = (Some(variable.clone()), None);
                continue;
            }
            let mut path = problem.key_path.as_str();
            while problem.place.is_none() && source.is_some() {
                problem.place = places.get(path).copied();
                path = path.rfind(['.', '[']).map_or("", |end| &path[..end]);
            }
            problem.source.clone_from(&source);
        }
        all.sort_by_key(|problem| problem.place);
        all.truncate(PROBLEMS_MAX);
        all
    }
}
