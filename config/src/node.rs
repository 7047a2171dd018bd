//! YAML (and so JSON) as a tree in which every key and value knows its place in the file.
//!
//! Serde alone stops at the first problem and forgets how a number was written. The tree keeps both: `0.10` stays
//! `0.10` until somebody decides that it is a price, a version or a number.

use std::collections::{BTreeMap, BTreeSet};

use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, Span};

use crate::problem::{Place, Problem};

/// How deep a document may be nested. Ours are four levels deep.
const DEPTH_MAX: usize = 32;

/// How many keys and values a document may come to with its aliases written out: a sweep of long lists fits a hundred
/// times over, and the alias bombs that grow to billions end here.
const NODES_MAX: usize = 200_000;

/// A value in a document.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) kind: Kind,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    /// A scalar without quotes: its text decides what it is.
    Plain(String),
    /// A scalar in quotes or a block: text, whatever it looks like.
    Quoted(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_place: Place,
    pub(crate) value: Node,
}

impl Node {
    /// Whether nothing stands there: `key:` alone, `~` or `null`.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Plain(text) if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// The place of every key path, for problems that were found after the tree was left behind.
    pub(crate) fn places(&self) -> BTreeMap<String, Place> {
        let mut places = BTreeMap::new();
        self.add_places("", self.place, &mut places);
        places
    }

    /// A scalar is where it stands; a list or map is where its key stands, as it may begin on another line.
    fn add_places(&self, path: &str, key_place: Place, places: &mut BTreeMap<String, Place>) {
        let place = match &self.kind {
            Kind::Plain(_) | Kind::Quoted(_) => self.place,
            Kind::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    item.add_places(&format!("{path}[{index}]"), item.place, places);
                }
                key_place
            }
            Kind::Map(entries) => {
                for entry in entries {
                    entry.value.add_places(&join(path, &entry.key), entry.key_place, places);
                }
                key_place
            }
        };
        places.insert(path.to_owned(), place);
    }
}

/// The key path of a key below another.
pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Reads the one document of a text. An empty text is an empty map. What can be read around a problem is returned
/// beside it; a text that is no YAML at all returns nothing.
pub(crate) fn parse(text: &str) -> (Option<Node>, Vec<Problem>) {
    let mut builder = Builder::default();
    for step in Parser::new_from_str(text) {
        let taken = match step {
            Ok((event, span)) => builder.take(event, place_of(&span)),
            Err(error) => {
                let mark = error.marker();
                Err(builder
                    .problem(place(mark.line(), mark.col()), format!("this is no YAML: {}", error.kind())))
            }
        };
        if let Err(fatal) = taken {
            builder.problems.push(fatal);
            return (None, builder.problems);
        }
    }
    let start = Place { line: 1, column: 1 };
    let empty = Node { place: start, kind: Kind::Map(Vec::new()) };
    let root = builder.root.filter(|root| !root.is_null()).unwrap_or(empty);
    (Some(root), builder.problems)
}

/// A list or map whose end was not seen yet.
#[derive(Debug)]
struct Open {
    node: Node,
    anchor: usize,
    /// The key that waits for its value, in a map.
    key: Option<(String, Place)>,
    keys: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Builder {
    root: Option<Node>,
    open: Vec<Open>,
    anchors: BTreeMap<usize, (Node, usize)>,
    nodes: usize,
    documents: usize,
    problems: Vec<Problem>,
}

impl Builder {
    /// Takes one step of the parser; an error ends the reading.
    fn take(&mut self, event: Event<'_>, place: Place) -> Result<(), Problem> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(tag.is_some(), place);
                let text = text.into_owned();
                let kind = if style == ScalarStyle::Plain { Kind::Plain(text) } else { Kind::Quoted(text) };
                self.add(Node { place, kind }, anchor, 1)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.refuse_tag(tag.is_some(), place);
                self.open(Kind::List(Vec::new()), anchor, place)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.refuse_tag(tag.is_some(), place);
                self.open(Kind::Map(Vec::new()), anchor, place)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Open { node, anchor, .. } = self.open.pop().expect("the parser ends what it began");
                self.add(node, anchor, 1)
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some((node, size)) => {
                    let (node, size) = (Node { place, ..node.clone() }, *size);
                    self.add(node, 0, size)
                }
                None => Err(self.problem(place, "an alias may not stand inside what it names")),
            },
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(self.problem(place, "a second document begins here; a file holds one"));
                }
                Ok(())
            }
            // Comments, and kinds of events that we did not ask for.
            Event::StreamStart | Event::StreamEnd | Event::DocumentEnd | Event::Comment(..) | _ => Ok(()),
        }
    }

    fn open(&mut self, kind: Kind, anchor: usize, place: Place) -> Result<(), Problem> {
        if self.open.len() >= DEPTH_MAX {
            return Err(self.problem(place, format!("nested deeper than {DEPTH_MAX} levels")));
        }
        let node = Node { place, kind };
        self.open.push(Open { node, anchor, key: None, keys: BTreeSet::new() });
        Ok(())
    }

    fn add(&mut self, node: Node, anchor: usize, size_added: usize) -> Result<(), Problem> {
        self.nodes += size_added;
        if self.nodes > NODES_MAX {
            let message = format!("more than {NODES_MAX} keys and values, aliases written out");
            return Err(self.problem(node.place, message));
        }
        if anchor > 0 {
            self.anchors.insert(anchor, (node.clone(), size(&node)));
        }
        let Some(Open { node: parent, key, keys, .. }) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match (&mut parent.kind, key.take()) {
            (Kind::Map(entries), Some((name, key_place))) => {
                if keys.insert(name.clone()) {
                    entries.push(Entry { key: name, key_place, value: node });
                } else {
                    let problem = self.problem(key_place, format!("`{name}` stands here a second time"));
                    self.problems.push(problem);
                }
            }
            (Kind::Map(_), None) => match node.kind {
                Kind::Plain(text) | Kind::Quoted(text) => *key = Some((text, node.place)),
                Kind::List(_) | Kind::Map(_) => {
                    return Err(self.problem(node.place, "a key must be a word, not a list or a map"));
                }
            },
            (Kind::List(items), _) => items.push(node),
            (Kind::Plain(_) | Kind::Quoted(_), _) => unreachable!("only lists and maps are opened"),
        }
        Ok(())
    }

    fn refuse_tag(&mut self, tagged: bool, place: Place) {
        if tagged {
            let problem = self.problem(place, "tags such as `!name` have no meaning here");
            self.problems.push(problem);
        }
    }

    /// A problem under the keys that are open now.
    fn problem(&self, place: Place, message: impl Into<String>) -> Problem {
        let mut path = String::new();
        for Open { node, key, .. } in &self.open {
            path = match (&node.kind, key) {
                (Kind::List(items), _) => format!("{path}[{}]", items.len()),
                (_, Some((key, _))) => join(&path, key),
                (_, None) => path,
            };
        }
        Problem { place: Some(place), ..Problem::new(path, message) }
    }
}

fn size(node: &Node) -> usize {
    match &node.kind {
        Kind::Plain(_) | Kind::Quoted(_) => 1,
        Kind::List(items) => 1 + items.iter().map(size).sum::<usize>(),
        Kind::Map(entries) => 1 + entries.iter().map(|entry| 1 + size(&entry.value)).sum::<usize>(),
    }
}

fn place_of(span: &Span) -> Place {
    place(span.start.line(), span.start.col())
}

/// The parser counts columns from 0.
fn place(line: usize, column: usize) -> Place {
    let held = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Place { line: held(line), column: held(column.saturating_add(1)) }
}
