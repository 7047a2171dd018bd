//! What a story calls things and moments: experiments by their names, instances `i1`, `i2` in the order in which they
//! were intended, attempts `train#2`, and moments by the time that has gone by since the story began.

use std::collections::BTreeMap;

use bursar_model::{Event, ExperimentId, InstanceId, Span, SweepId, Timestamp, Usd};
use bursar_store::Reader;

use super::{EPOCH, Wrong};

/// What machines are called that nobody here asked for: with our tag, and with that of another installation.
pub(super) const STRAYS: [&str; 2] = ["stray", "foreign"];

/// Events that are read at once.
const PAGE: u32 = 1000;

/// Pages that are read after one command: a story of days writes a fraction of them.
const PAGES_MAX: usize = 1000;

/// The letters and digits after the prefix of an id.
const ID_DIGITS: usize = 13;

/// A moment as the rest of bursar writes it, such as `2026-06-01T00:42:00.000Z`.
const MOMENT_LEN: usize = 24;

/// All names of a story, as its journal brings them.
#[derive(Debug, Default)]
pub(super) struct Names {
    read_to: u64,
    short: BTreeMap<String, String>,
    experiments: BTreeMap<String, ExperimentId>,
    sweeps: BTreeMap<String, SweepId>,
    instances: BTreeMap<String, InstanceId>,
    news: Vec<(Timestamp, Event)>,
}

impl Names {
    /// Reads what the journal has had since the last time.
    pub(super) fn read_on(&mut self, journal: &Reader) -> Result<(), Wrong> {
        for _ in 0..PAGES_MAX {
            let page = journal.events(self.read_to, PAGE).map_err(|error| error.to_string())?;
            let Some(last) = page.last() else { return Ok(()) };
            self.read_to = last.seq;
            for entry in &page {
                let event = serde_json::from_str(entry.event.get()).map_err(|error| error.to_string())?;
                self.learn(&event);
                self.news.push((entry.at, event));
            }
        }
        Err("more happens at once than a story has room for".to_owned())
    }

    /// What happened since the last time that it was asked for.
    pub(super) fn take_news(&mut self) -> Vec<(Timestamp, Event)> {
        std::mem::take(&mut self.news)
    }

    /// A machine that the journal does not know.
    pub(super) fn call_instance(&mut self, id: InstanceId, name: &str) {
        self.short.insert(id.to_string(), name.to_owned());
        self.instances.insert(name.to_owned(), id);
    }

    pub(super) fn experiment(&self, name: &str) -> Result<ExperimentId, Wrong> {
        self.experiments.get(name).copied().ok_or_else(|| format!("no experiment is called `{name}`"))
    }

    pub(super) fn sweep(&self, name: &str) -> Option<SweepId> {
        self.sweeps.get(name).copied()
    }

    pub(super) fn instance(&self, name: &str) -> Option<InstanceId> {
        self.instances.get(name).copied()
    }

    /// A text in the story's own names and times.
    pub(super) fn tell(&self, text: &str) -> String {
        let mut told = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(next) = rest.chars().next() {
            let found = id_at(rest)
                .and_then(|id| Some((id.len(), self.short.get(id)?.clone())))
                .or_else(|| moment_at(rest).map(|at| (MOMENT_LEN, clock(at))));
            let (taken, word) = found.unwrap_or_else(|| (next.len_utf8(), next.to_string()));
            told += &word;
            rest = &rest[taken..];
        }
        told
    }

    fn learn(&mut self, event: &Event) {
        // Only what comes into being has a name to learn.
        if let Event::SweepQueued { sweep } = event {
            self.short.insert(sweep.id.to_string(), sweep.name.to_string());
            self.sweeps.insert(sweep.name.to_string(), sweep.id);
        } else if let Event::ExperimentQueued { experiment } = event {
            self.short.insert(experiment.id.to_string(), experiment.name.to_string());
            self.experiments.insert(experiment.name.to_string(), experiment.id);
        } else if let Event::InstanceIntended { instance } = event {
            let intended = self.instances.keys().filter(|name| is_instance_name(name)).count();
            self.call_instance(instance.id, &format!("i{}", intended + 1));
        } else if let Event::AttemptAssigned { attempt, .. } = event {
            let of = self.tell(&attempt.experiment.to_string());
            self.short.insert(attempt.id.to_string(), format!("{of}#{}", attempt.number));
        }
    }
}

/// Whether a word is the name of an instance, which no experiment may have.
pub(super) fn is_instance_name(word: &str) -> bool {
    word.strip_prefix('i').is_some_and(|number| number.parse::<u32>().is_ok())
}

/// A moment as the time since the story began: `00:42:07`, and days where there are any: `1d 02:00:00`.
pub(super) fn clock(at: Timestamp) -> String {
    let seconds = at.since(EPOCH).as_millis() / 1000;
    let (days, seconds) = (seconds / 86_400, seconds % 86_400);
    let days = if days > 0 { format!("{days}d ") } else { String::new() };
    format!("{days}{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// A length of time without its fraction of a second.
pub(super) fn whole_seconds(span: Span) -> Span {
    Span::from_secs(span.as_millis() / 1000)
}

/// An amount to the nano-dollar.
pub(super) fn dollars(amount: Usd) -> String {
    match amount.to_string().strip_prefix('-') {
        Some(positive) => format!("-${positive}"),
        None => format!("${amount}"),
    }
}

fn id_at(text: &str) -> Option<&str> {
    let len = ["exp_", "ins_", "att_", "swp_"].iter().find(|prefix| text.starts_with(**prefix))?.len();
    text.get(..len + ID_DIGITS)
}

fn moment_at(text: &str) -> Option<Timestamp> {
    let written = text.get(..MOMENT_LEN)?;
    (written.ends_with('Z') && written.as_bytes().get(10) == Some(&b'T')).then(|| written.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_moments_become_the_storys_own() {
        let id = bursar_model::IdGen::new(1).instance(EPOCH);
        let mut names = Names::default();
        names.call_instance(id, "i1");
        let at = EPOCH + Span::from_hours(26) + Span::from_millis(61_500);
        assert_eq!(
            names.tell(&format!("{id} is on its way; next try at {at}")),
            "i1 is on its way; next try at 1d 02:01:01"
        );
        assert_eq!(names.tell("ins_unknown stays, as does 2026"), "ins_unknown stays, as does 2026");
    }
}
