#![expect(clippy::disallowed_methods, reason = "the tests damage files on purpose")]

use tempfile::TempDir;

use super::*;

const SETTINGS: Settings = Settings { lr: 0.05, hidden: 2, seed: 9 };

fn checkpoint() -> Checkpoint {
    let count = SETTINGS.parameter_count();
    let weights = (0..count).map(|index| (index as f32 + 0.1) / 3.0).collect();
    let momentum = vec![-0.0, f32::MIN_POSITIVE, f32::INFINITY].into_iter().cycle().take(count).collect();
    let state = State { step: 12, rng: u64::MAX, weights, momentum };
    Checkpoint { state, epoch: 3, trained_micros: 1_234_567, best_correct: 40 }
}

fn saved() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    save(folder.path(), SETTINGS, &checkpoint()).expect("saved");
    folder
}

fn message(folder: &TempDir, settings: Settings) -> String {
    load(folder.path(), settings).expect_err("unusable").to_string()
}

#[test]
fn what_was_saved_is_loaded_bit_by_bit() {
    let loaded = load(saved().path(), SETTINGS).expect("loaded").expect("there");
    assert_eq!(loaded, checkpoint());
    assert!(loaded.state.momentum[0].is_sign_negative());
}

#[test]
fn a_folder_without_checkpoint_is_no_error() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    assert!(load(folder.path(), SETTINGS).expect("no error").is_none());
}

#[test]
fn saving_leaves_one_file_and_replaces_the_one_before() {
    let folder = saved();
    let newer = Checkpoint { epoch: 4, ..checkpoint() };
    save(folder.path(), SETTINGS, &newer).expect("saved");
    assert_eq!(load(folder.path(), SETTINGS).expect("loaded"), Some(newer));
    assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 1);
}

#[test]
fn a_file_cut_short_at_any_place_is_damaged() {
    let folder = saved();
    let path = folder.path().join(FILE_NAME);
    let bytes = std::fs::read(&path).expect("read");
    // The last byte is the line's end, which JSON does not need.
    for length in (0..bytes.len() - 1).step_by(97) {
        std::fs::write(&path, &bytes[..length]).expect("written");
        assert!(message(&folder, SETTINGS).ends_with("is damaged"), "cut at {length}");
    }
}

#[test]
fn one_changed_byte_is_damage() {
    let folder = saved();
    let path = folder.path().join(FILE_NAME);
    let text = std::fs::read_to_string(&path).expect("read");
    for (from, to) in
        [("\"step\":12", "\"step\":13"), ("\"epoch\":3", "\"epoch\":9"), ("80000000", "80000001")]
    {
        assert!(text.contains(from), "{from}");
        std::fs::write(&path, text.replacen(from, to, 1)).expect("written");
        assert!(message(&folder, SETTINGS).ends_with("is damaged"), "{from} to {to}");
    }
}

#[test]
fn a_checkpoint_of_another_trial_names_the_difference() {
    let folder = saved();
    for (settings, difference) in [
        (Settings { hidden: 3, ..SETTINGS }, "its hidden size is 2, ours is 3"),
        (Settings { lr: 0.5, ..SETTINGS }, "its learning rate is 0.05, ours is 0.5"),
        (Settings { seed: 1, ..SETTINGS }, "its seed is 9, ours is 1"),
    ] {
        let message = message(&folder, settings);
        assert!(message.ends_with(difference), "{message}");
    }
}
