//! The one edge of this crate: files, the environment and this machine.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    path::{Component, Path, PathBuf},
};

use crate::{
    check::Machine,
    config::{Config, Storage},
    load::{SpecFile, load_config, load_spec, placed},
    problem::{Checked, Problem, Problems},
};

/// The largest file that is read: a thousand times what people write. Data belongs in the working folder.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why a file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is no such file.
    #[error("there is no file {}", .0.display())]
    NotFound(PathBuf),
    /// It is too large to be meant for us.
    #[error("{} is larger than {FILE_BYTES_MAX} bytes; put data into files in the working folder", .0.display())]
    TooLarge(PathBuf),
    /// It is no text.
    #[error("{} is not UTF-8: byte {offset} is the first wrong one", .path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// Where the text ends, in bytes from 0.
        offset: usize,
    },
    /// The system does not let us.
    #[error("cannot read {}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not what it should be.
    #[error(transparent)]
    Invalid(#[from] Problems),
}

/// A configuration and where it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfigFile {
    /// The file; none where none was found and the defaults stand.
    pub file: Option<PathBuf>,
    /// What it says.
    pub config: Config,
}

/// Reads the configuration that a command should use: `--config` as given, else what `BURSAR_CONFIG` names, else
/// `./bursar.yaml`, else `bursar/bursar.yaml` below `$XDG_CONFIG_HOME` or `~/.config`, else the defaults.
///
/// # Errors
/// When a named file is not there, or the file that was found cannot be used.
pub fn read_config(given: Option<&Path>) -> Result<Checked<ConfigFile>, ReadError> {
    let environment = environment();
    let file = find_config(given, &environment);
    let text = file.as_deref().map_or(Ok(String::new()), read_text)?;
    let Checked { value: mut config, warnings } =
        load_config(&text, file.as_deref(), &environment, this_machine())?;
    // What runs elsewhere is told of places below it: experiments, in working folders of their own.
    config.data_dir = std::path::absolute(&config.data_dir)
        .map(without_ups)
        .map_err(|source| ReadError::Unreadable { path: config.data_dir.clone(), source })?;
    if let Some(problem) = config.storage.as_ref().and_then(below_a_file) {
        return Err(ReadError::Invalid(Problems(vec![placed(&text, file.as_deref(), problem)])));
    }
    Ok(Checked { value: ConfigFile { file, config }, warnings })
}

/// An absolute path without `..`, for people and for processes in other folders. What is there already is asked where it
/// is: behind a link, `..` is not the folder that stands before it.
fn without_ups(path: PathBuf) -> PathBuf {
    if !path.components().any(|part| part == Component::ParentDir) {
        return path;
    }
    let mut clean = PathBuf::new();
    for part in path.components() {
        if part == Component::ParentDir {
            clean = clean.canonicalize().unwrap_or(clean);
            clean.pop();
        } else {
            clean.push(part);
        }
    }
    clean
}

/// A shared folder that can never be one, because a part of its path is a file.
fn below_a_file(storage: &Storage) -> Option<Problem> {
    let folder = Path::new(storage.url.strip_prefix("file://")?);
    let there = folder.ancestors().find_map(|part| Some((part, part.metadata().ok()?)));
    let (file, _) = there.filter(|(_, metadata)| !metadata.is_dir())?;
    let problem =
        Problem::new("storage.url", format!("{} is a file, so nothing can be kept there", file.display()));
    Some(problem.hint("name a folder; it is made where there is none"))
}

/// Reads an experiment or a sweep; `-` is standard input.
///
/// # Errors
/// When the file cannot be used.
pub fn read_spec(path: &Path, config: Option<&Config>) -> Result<Checked<SpecFile>, ReadError> {
    let text = read_text(path)?;
    let absolute =
        std::path::absolute(path).map_err(|source| ReadError::Unreadable { path: path.into(), source })?;
    let folder = absolute.parent().unwrap_or(&absolute);
    Ok(load_spec(&text, &path.display().to_string(), folder, config)?)
}

/// Reads a whole text file of bounded size; `-` is standard input.
///
/// # Errors
/// When it is missing, too large, no UTF-8 or unreadable.
pub fn read_text(path: &Path) -> Result<String, ReadError> {
    let unreadable = |source: io::Error| {
        if source.kind() == io::ErrorKind::NotFound {
            return ReadError::NotFound(path.into());
        }
        ReadError::Unreadable { path: path.into(), source }
    };
    let source: Box<dyn Read> = if path == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(path).map_err(unreadable)?)
    };
    let mut bytes = Vec::new();
    // One byte more than is allowed tells a file that is too large from one that just fits, and pipes have no length.
    source.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(ReadError::TooLarge(path.into()));
    }
    String::from_utf8(bytes)
        .map_err(|error| ReadError::NotUtf8 { path: path.into(), offset: error.utf8_error().valid_up_to() })
}

/// Where the configuration is. A file that somebody named is returned whether it exists or not: falling back to
/// another one would hide the slip.
#[must_use]
pub fn find_config(given: Option<&Path>, environment: &BTreeMap<String, String>) -> Option<PathBuf> {
    let variable = |name: &str| environment.get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(named) = given.map(Path::to_owned).or_else(|| variable("BURSAR_CONFIG")) {
        return Some(named);
    }
    let below = |folder: PathBuf| folder.join("bursar/bursar.yaml");
    let user = variable("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
    let user = user.or_else(|| variable("HOME").map(|home| home.join(".config"))).map(below);
    [Some(PathBuf::from("bursar.yaml")), user].into_iter().flatten().find(|path| path.is_file())
}

/// The environment of this process, as far as it is text.
#[must_use]
pub fn environment() -> BTreeMap<String, String> {
    // `vars` would panic at the first variable that is no text.
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// What this machine has to offer. Where the system does not say, as little as every machine has.
#[must_use]
pub fn this_machine() -> Machine {
    let cpus = std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX));
    let memory_mib =
        read_text(Path::new("/proc/meminfo")).ok().and_then(|text| total_mib(&text)).unwrap_or(1024);
    Machine { cpus, memory_mib }
}

/// `MemTotal` of Linux's `/proc/meminfo`, which counts in KiB.
fn total_mib(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? / 1024)
}
