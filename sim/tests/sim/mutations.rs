//! The mutation check (`sim/mutations/run`) takes minutes and is run by hand; what it stands on is looked at here, so that
//! it does not rot.

use std::path::{Path, PathBuf};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// The table of them.
const DOCUMENTATION: &str = "docs/reliability.md";

#[expect(clippy::disallowed_methods, reason = "what is looked at is files")]
fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Names and texts of all patches.
fn mutations() -> Vec<(String, String)> {
    let folder = PathBuf::from(ROOT).join("sim/mutations");
    let entries = std::fs::read_dir(&folder).expect("the folder is there");
    let paths = entries.map(|entry| entry.expect("it can be listed").path());
    let patches = paths.filter(|path| path.extension().is_some_and(|extension| extension == "patch"));
    let mut mutations: Vec<(String, String)> = patches
        .map(|path| {
            let name = path.file_stem().expect("a patch has a name").to_string_lossy().into_owned();
            (name, read(&path))
        })
        .collect();
    mutations.sort();
    assert!(mutations.len() >= 20, "{} mutations show little", mutations.len());
    mutations
}

/// The hunks of a unified diff: the file, and the lines that it must have.
fn hunks(patch: &str) -> Vec<(&str, String)> {
    let mut hunks = Vec::new();
    let mut file = "";
    for line in patch.lines() {
        if let Some(path) = line.strip_prefix("--- a/") {
            file = path;
        } else if line.starts_with("@@") {
            hunks.push((file, String::from("\n")));
        } else if let Some((_, old)) = hunks.last_mut().filter(|_| !line.starts_with("+++ b/"))
            && let Some(text) = line.strip_prefix([' ', '-'])
        {
            old.push_str(text);
            old.push('\n');
        }
    }
    hunks
}

#[test]
fn every_mutation_fits_the_tree_at_one_place() {
    for (name, patch) in mutations() {
        let hunks = hunks(&patch);
        assert!(!hunks.is_empty(), "{name} changes nothing");
        for (file, old) in hunks {
            let found = read(&Path::new(ROOT).join(file)).matches(&old).count();
            assert_eq!(found, 1, "{name} has to be made anew: in {file} it looks for {old}");
        }
    }
}

#[test]
fn every_mutation_says_what_it_breaks_and_what_should_see_it() {
    for (name, patch) in mutations() {
        let header: Vec<&str> = patch.lines().take_while(|line| !line.is_empty()).collect();
        for key in ["Breaks: ", "Expect: "] {
            assert!(header.iter().any(|line| line.starts_with(key)), "{name} has no line `{key}…`");
        }
    }
}

#[test]
fn the_documentation_has_every_mutation_and_no_other() {
    let documentation = read(&Path::new(ROOT).join(DOCUMENTATION));
    let is_patch = |cell: &&str| cell.starts_with(|first: char| first.is_ascii_digit());
    let told: Vec<&str> = documentation
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .filter(is_patch)
        .collect();
    let names: Vec<String> = mutations().into_iter().map(|(name, _)| name).collect();
    assert_eq!(told, names, "the table in {DOCUMENTATION}");
}
