//! The checkpoint: one small JSON file that is either the whole of an old state or the whole of a new one.
//!
//! Numbers that must survive exactly are integers or the bits of floats in hexadecimal, never decimal floats:
//! a weight that comes back one bit off makes a resumed run differ from an uninterrupted one. A checksum tells
//! a damaged file from a good one, and the settings tell another trial's file from ours.

use std::error::Error;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::trainer::{Settings, State};

/// The name inside `BURSAR_CHECKPOINT_DIR`.
pub(super) const FILE_NAME: &str = "checkpoint.json";

/// What an attempt leaves for the next one.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Checkpoint {
    pub(super) state: State,
    /// For people who look into the file; it follows from `state.step`.
    pub(super) epoch: u64,
    /// Training time over all attempts.
    pub(super) trained_micros: u64,
    /// Answers right, of all held-out images, at the best time so far.
    pub(super) best_correct: u32,
}

/// Why a checkpoint that is there cannot be used. The caller reports it and starts anew.
#[derive(Debug, thiserror::Error)]
pub(super) enum CheckpointError {
    #[error("checkpoint {} cannot be read", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("checkpoint {} is damaged", path.display())]
    Damaged { path: PathBuf, source: Box<dyn Error + Send + Sync> },
    #[error("checkpoint {} is of another trial: its {field} is {found}, ours is {wanted}", path.display())]
    OtherTrial { path: PathBuf, field: &'static str, found: String, wanted: String },
}

/// Writes the checkpoint so that a crash at any moment leaves either the old file or the new one: written
/// beside its place, forced to disk, then renamed over it.
#[expect(clippy::disallowed_methods, reason = "the trainer is a user's program; checkpoints are its files")]
pub(super) fn save(folder: &Path, settings: Settings, checkpoint: &Checkpoint) -> io::Result<()> {
    let temporary = folder.join(format!("{FILE_NAME}.tmp"));
    let mut file = std::fs::File::create(&temporary)?;
    file.write_all(encode(settings, checkpoint).as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&temporary, folder.join(FILE_NAME))?;
    // Without this a power cut may undo the rename, and an older checkpoint comes back.
    std::fs::File::open(folder)?.sync_all()
}

/// The checkpoint in `folder`, `None` where there is none yet.
#[expect(clippy::disallowed_methods, reason = "the trainer is a user's program; checkpoints are its files")]
pub(super) fn load(folder: &Path, settings: Settings) -> Result<Option<Checkpoint>, CheckpointError> {
    let path = folder.join(FILE_NAME);
    match std::fs::read(&path) {
        Ok(bytes) => decode(&path, &bytes, settings).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(CheckpointError::Unreadable { path, source }),
    }
}

/// Rises when a saved state would mean something else than before, e.g. after a change of the task.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    /// FNV-1a of `body` as serialized.
    checksum: String,
    body: Body,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    format: u32,
    /// As text, because it is compared and not computed with.
    lr: String,
    hidden: usize,
    seed: u64,
    epoch: u64,
    step: u64,
    trained_micros: u64,
    best_correct: u32,
    rng: u64,
    weights: String,
    momentum: String,
}

#[derive(Debug, thiserror::Error)]
enum Damage {
    #[error("its checksum is {found}, that of its content is {wanted}")]
    Checksum { found: String, wanted: String },
    #[error("its {0} are not the hexadecimal bits of floats")]
    Floats(&'static str),
    #[error("it holds {found} {what}, the model has {wanted}")]
    Count { what: &'static str, found: usize, wanted: usize },
}

fn encode(settings: Settings, checkpoint: &Checkpoint) -> String {
    let Settings { lr, hidden, seed } = settings;
    let Checkpoint { state, epoch, trained_micros, best_correct } = checkpoint;
    let State { step, rng, weights, momentum } = state;
    let body = Body {
        format: FORMAT,
        lr: lr.to_string(),
        hidden,
        seed,
        epoch: *epoch,
        step: *step,
        trained_micros: *trained_micros,
        best_correct: *best_correct,
        rng: *rng,
        weights: to_hex(weights),
        momentum: to_hex(momentum),
    };
    let checksum = checksum(&json(&body));
    json(&Envelope { checksum, body }) + "\n"
}

fn decode(path: &Path, bytes: &[u8], settings: Settings) -> Result<Checkpoint, CheckpointError> {
    let damaged = |source| CheckpointError::Damaged { path: path.to_owned(), source };
    let Envelope { checksum: found, body } =
        serde_json::from_slice(bytes).map_err(|error| damaged(Box::new(error)))?;
    let wanted = checksum(&json(&body));
    if found != wanted {
        return Err(damaged(Box::new(Damage::Checksum { found, wanted })));
    }
    let Body { format, lr, hidden, seed, epoch, step, trained_micros, best_correct, rng, weights, momentum } =
        body;
    for (field, found, wanted) in [
        ("format", format.to_string(), FORMAT.to_string()),
        ("hidden size", hidden.to_string(), settings.hidden.to_string()),
        ("learning rate", lr, settings.lr.to_string()),
        ("seed", seed.to_string(), settings.seed.to_string()),
    ] {
        if found != wanted {
            return Err(CheckpointError::OtherTrial { path: path.to_owned(), field, found, wanted });
        }
    }
    let floats = |what, text: &str| {
        let floats = from_hex(text).ok_or(Damage::Floats(what))?;
        let (found, wanted) = (floats.len(), settings.parameter_count());
        if found == wanted { Ok(floats) } else { Err(Damage::Count { what, found, wanted }) }
    };
    let weights = floats("weights", &weights).map_err(|damage| damaged(Box::new(damage)))?;
    let momentum = floats("momentum", &momentum).map_err(|damage| damaged(Box::new(damage)))?;
    Ok(Checkpoint { state: State { step, rng, weights, momentum }, epoch, trained_micros, best_correct })
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("text and integers always serialize")
}

/// FNV-1a, 64 bits: finds torn and flipped bytes; nobody attacks a demo's checkpoint.
fn checksum(text: &str) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in text.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    format!("{hash:016x}")
}

fn to_hex(floats: &[f32]) -> String {
    const SYMBOLS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(floats.len() * 8);
    for float in floats {
        let bits = float.to_bits();
        text.extend((0..8).rev().map(|place| char::from(SYMBOLS[(bits >> (4 * place) & 0xf) as usize])));
    }
    text
}

fn from_hex(text: &str) -> Option<Vec<f32>> {
    let (words, rest) = text.as_bytes().as_chunks::<8>();
    let float = |word: &[u8; 8]| {
        let bits = word.iter().try_fold(0, |bits, byte| Some(bits << 4 | char::from(*byte).to_digit(16)?))?;
        Some(f32::from_bits(bits))
    };
    if rest.is_empty() { words.iter().map(float).collect() } else { None }
}

#[cfg(test)]
mod tests;
