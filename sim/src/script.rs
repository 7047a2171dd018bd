//! Stories as text: a scenario says line by line what happens in a world, and under the lines that ask for something
//! stands the answer, so that a file can be read as documentation and is a test of every word that it shows.
//!
//! A line is a command ([`reference`] has all of them), a comment after `#`, or, after `|`, an answer. Playing a scenario
//! gives the same text with the answers as they really are; whoever calls compares. At the end the world settles, and
//! whatever it found wrong makes the scenario wrong, so that no answer has to show that nothing leaked.
//!
//! The world of a story is calm: where chance would draw a length of time it takes the middle. So answers stay the same
//! when something in the simulation draws once more, and the numbers in them can be checked by hand.

mod events;
mod faults;
mod names;
mod setup;
mod show;
mod steps;
mod table;
mod words;

use bursar_model::{Span, Timestamp};

use self::{names::Names, setup::Setup, words::Words};
use crate::world::World;

/// Why a line is wrong, for people.
type Wrong = String;

/// When stories begin: midnight of a Monday that is the first of a month, so that windows begin where one expects.
const EPOCH: Timestamp = Timestamp::from_millis(1_780_272_000_000);

/// What is not over by then after the last line never is: the longest stories are of a few days.
const SETTLES_WITHIN: Span = Span::from_hours(48);

/// What begins a line that is an answer.
const ANSWER: &str = "|";

/// A scenario that was played.
#[derive(Debug)]
pub struct Played {
    /// The scenario with its answers as they really are. What follows a line that is wrong stays as it was.
    pub text: String,
    /// Why it is wrong whatever the answers are.
    pub wrong: Option<ScriptError>,
}

/// Why a scenario is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScriptError {
    /// A line cannot be read, or did not come about.
    #[error("{file}:{line}: {what}")]
    Line {
        /// The file.
        file: String,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
    /// The world found something wrong, or did not come to rest.
    #[error("{file}: at its end {what}")]
    End {
        /// The file.
        file: String,
        /// What was found, one a line.
        what: String,
    },
}

/// All commands, as the guide lists them.
#[must_use]
pub fn reference() -> String {
    let mut text = String::new();
    for (title, commands) in CHAPTERS {
        text += &format!("\n### {title}\n\n");
        for Command { usage, does, run: _ } in *commands {
            text += &format!("- `{usage}`  \n  {does}\n");
        }
    }
    text
}

/// Plays a scenario from its text. `file` is its name in what is said of it.
#[must_use]
pub fn play(file: &str, text: &str) -> Played {
    let mut play = Play::default();
    let mut played = String::with_capacity(text.len());
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        if line.starts_with(ANSWER) {
            continue;
        }
        played += line;
        played.push('\n');
        let written = line.split('#').next().unwrap_or_default();
        if let Err(what) = play.command(written) {
            let rest: String = lines.map(|(_, line)| format!("{line}\n")).collect();
            let wrong = ScriptError::Line { file: file.to_owned(), line: index + 1, what };
            return Played { text: played + &play.take_answer() + &rest, wrong: Some(wrong) };
        }
        played += &play.take_answer();
    }
    let wrong = play.end().err().map(|what| ScriptError::End { file: file.to_owned(), what });
    Played { text: played, wrong }
}

/// A command of the language.
#[derive(Debug)]
struct Command {
    /// How it is written: its name, and then what may follow.
    usage: &'static str,
    /// What it does.
    does: &'static str,
    run: fn(&mut Play, &mut Words<'_>) -> Result<(), Wrong>,
}

/// All commands, in the order in which a newcomer meets them. A new one is one entry in one of these.
const CHAPTERS: &[(&str, &[Command])] = &[
    ("What is there", setup::COMMANDS),
    ("What happens", steps::COMMANDS),
    ("What goes wrong", faults::COMMANDS),
    ("What is shown", show::COMMANDS),
];

fn commands() -> impl Iterator<Item = &'static Command> {
    CHAPTERS.iter().flat_map(|(_, commands)| *commands)
}

/// A scenario as it is played.
#[derive(Debug, Default)]
struct Play {
    setup: Setup,
    /// Made by the first command that needs it.
    world: Option<World>,
    names: Names,
    answer: Vec<String>,
    leaves_open: bool,
}

impl Play {
    fn command(&mut self, line: &str) -> Result<(), Wrong> {
        let mut words = Words::of(line);
        let Some(name) = words.first() else { return Ok(()) };
        let of_name = |command: &&Command| command.usage.split_whitespace().next() == Some(name);
        let command = commands().find(of_name).ok_or_else(|| {
            let known: Vec<&str> =
                commands().filter_map(|command| command.usage.split_whitespace().next()).collect();
            format!("`{name}` is no command; there are {}", known.join(", "))
        })?;
        let ran = (command.run)(self, &mut words).and_then(|()| words.end());
        let seen = if self.world.is_some() { self.look() } else { Ok(()) };
        ran.map_err(|what| format!("{what} (write: {})", command.usage)).and(seen)
    }

    /// What was laid down, as long as it can be: nothing has happened yet.
    fn setup(&mut self) -> Result<&mut Setup, Wrong> {
        if self.world.is_some() {
            return Err("this is laid down before anything happens: move it up".to_owned());
        }
        Ok(&mut self.setup)
    }

    fn world(&mut self) -> &mut World {
        let Self { setup, world, .. } = self;
        world.get_or_insert_with(|| setup.world())
    }

    /// Tells the cloud what goes wrong with machines of itself, where there is one already.
    fn trouble(&mut self) {
        let troubles = self.setup.troubles().clone();
        if let Some(world) = &self.world {
            world.with_cloud(|cloud| cloud.set_troubles(troubles));
        }
    }

    fn say(&mut self, line: impl Into<String>) {
        self.answer.push(line.into());
    }

    /// The answer as it stands below its command, in the story's own names and times.
    fn take_answer(&mut self) -> String {
        let lines = std::mem::take(&mut self.answer);
        let write =
            |line: String| format!("{ANSWER} {}", self.names.tell(&line)).trim_end().to_owned() + "\n";
        lines.into_iter().map(write).collect()
    }

    /// Learns what came into being, and keeps what happened until somebody asks.
    fn look(&mut self) -> Result<(), Wrong> {
        let reader = self.world().reader();
        self.names.read_on(&reader)
    }

    /// Everything comes to rest, and nothing was found wrong on the way.
    fn end(&mut self) -> Result<(), Wrong> {
        let leaves_open = self.leaves_open;
        let world = self.world();
        if !leaves_open {
            world.settle(SETTLES_WITHIN);
        }
        let mut wrong: Vec<String> = world.findings().iter().map(ToString::to_string).collect();
        if world.ways().iter().any(|way| !way.is_exhausted()) {
            wrong.push("a fault still waits for the call that it was to hit".to_owned());
        }
        self.look()?;
        if wrong.is_empty() {
            return Ok(());
        }
        Err(self.names.tell(&wrong.join("\n  ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> String {
        play("a.scenario", text).wrong.expect("it is wrong").to_string()
    }

    #[test]
    fn a_wrong_line_is_named_with_what_is_wrong_and_how_it_is_written() {
        assert!(
            wrong("# first\n\nsubmitt train\n")
                .starts_with("a.scenario:3: `submitt` is no command; there are offer")
        );
        assert_eq!(
            wrong("advance soon\n"),
            "a.scenario:1: how long: `soon` is not a duration such as 30s, 5m, 1h or 1d (write: advance SPAN)"
        );
        assert_eq!(
            wrong("advance 5m twice\n"),
            "a.scenario:1: nobody knows what `twice` means here (write: advance SPAN)"
        );
        assert!(
            wrong("restart\npolicy lease 5m\n")
                .contains("a.scenario:2: this is laid down before anything happens")
        );
    }

    #[test]
    fn answers_are_put_in_place_of_those_that_stand_there_and_the_rest_stays() {
        let played = play("here", "advance 90s # a while\nstatus\n| old\n\nnonsense\n| kept\n");
        let text = "advance 90s # a while\nstatus\n| 00:01:30, the daemon is up\n\nnonsense\n| kept\n";
        assert_eq!(played.text, text);
        assert!(played.wrong.is_some());
    }

    #[test]
    fn what_does_not_come_to_rest_or_never_comes_about_is_wrong_at_the_end() {
        assert!(wrong("submit huge duration 5m gpus 8\n").contains("at its end E2"));
        assert!(wrong("lose reply terminate\n").contains("a fault still waits"));
        assert!(wrong("submit a duration 5m\nexpect a succeeded\n").contains(":2: a is queued"));
        assert!(
            wrong("submit a duration 5h\nuntil a succeeded within 1h\n").contains("a is running after 1h")
        );
    }

    #[test]
    fn every_command_has_a_name_of_its_own() {
        let mut names: Vec<_> = commands().filter_map(|command| command.usage.split(' ').next()).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
