//! The stories of `tests/scenarios`: every file is played, and its answers are what they say.

#![expect(clippy::disallowed_methods, reason = "stories are files, chosen and mended by variables")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use bursar_sim::script::{play, reference};

fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// All of them, or those with this in their name: `SCENARIO=budget cargo nextest run -p bursar-sim stories`.
fn stories() -> Vec<PathBuf> {
    let wanted = std::env::var("SCENARIO").unwrap_or_default();
    let folder = repository().join("tests/scenarios");
    let found = fs::read_dir(&folder).expect("the folder is part of the repository");
    let mut files: Vec<PathBuf> = found
        .map(|entry| entry.expect("the folder can be read").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "scenario"))
        .filter(|path| path.to_string_lossy().contains(&wanted))
        .collect();
    files.sort();
    files
}

/// Whether answers that differ are written into the files.
fn mends() -> bool {
    std::env::var_os("UPDATE_SCENARIOS").is_some()
}

/// The lines from the first that differs on, as they stand and as they should.
fn difference(stands: &str, should: &str) -> String {
    const LINES: usize = 12;
    let same = stands.lines().zip(should.lines()).take_while(|(stands, should)| stands == should).count();
    let part = |text: &str, sign| {
        let lines = text.lines().skip(same).take(LINES).map(|line| format!("  {sign} {line}\n"));
        lines.collect::<String>()
    };
    format!("line {}:\n{}{}", same + 1, part(stands, '-'), part(should, '+'))
}

#[test]
fn every_story_goes_as_it_is_told() {
    let mut wrong = Vec::new();
    let stories = stories();
    assert!(!stories.is_empty(), "no file in tests/scenarios has this in its name");
    for path in stories {
        let file = format!("tests/scenarios/{}", path.file_name().expect("it is a file").to_string_lossy());
        let text = fs::read_to_string(&path).expect("the file can be read");
        let played = play(&file, &text);
        if played.text != text && mends() {
            fs::write(&path, &played.text).expect("the file can be written");
        } else if played.text != text {
            wrong.push(format!("{file} goes otherwise from {}", difference(&text, &played.text)));
        }
        wrong.extend(played.wrong.map(|wrong| wrong.to_string()));
    }
    assert!(
        wrong.is_empty(),
        "{}\nread what is different; where it is right, UPDATE_SCENARIOS=1 writes the answers into the files",
        wrong.join("\n")
    );
}

#[test]
fn the_same_story_goes_the_same_way_twice_also_by_chance() {
    let text = "seed 7\nsubmit train duration 3h spot\nadvance 5h\nevents all\nreport by experiment\n";
    assert_eq!(play("here", text).text, play("here", text).text);
    assert_ne!(play("here", text).text, play("here", &text.replace("seed 7", "seed 8")).text);
}

#[test]
fn the_guide_lists_every_command_as_it_is_written() {
    const HEADING: &str = "## Commands\n";
    let path = repository().join("docs/scenarios.md");
    let guide = fs::read_to_string(&path).expect("the guide is there");
    let (before, listed) = guide.split_once(HEADING).expect("the guide ends with the list of commands");
    if listed != reference() && mends() {
        fs::write(&path, format!("{before}{HEADING}{}", reference())).expect("the guide can be written");
        return;
    }
    assert!(listed == reference(), "docs/scenarios.md lists {}", difference(listed, &reference()));
}
