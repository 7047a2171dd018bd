//! Text of others on its way to a terminal.
//!
//! Logs, names and reasons come from experiments. A terminal obeys what it is sent: it can be made to change its title,
//! to put words into the clipboard, to hide lines, to answer as if they had been typed. Colours are let through, since
//! training programs use them; every other control sequence is dropped. What goes to a file or a pipe is left as it is.

/// The longest colour sequence that is meant: `38;2;r;g;b` for two colours is 37 letters.
const COLOUR_LEN_MAX: usize = 64;

const ESCAPE: u8 = 0x1b;
const BELL: u8 = 0x07;

/// Ends whatever colour was begun.
const RESET: &[u8] = b"\x1b[0m";

/// Drops control sequences from text that comes in pieces.
#[derive(Debug)]
pub(crate) struct Filter {
    state: State,
    keeps_colours: bool,
    coloured: bool,
}

/// Inside of what the last piece ended.
#[derive(Debug)]
enum State {
    Text,
    /// After an escape.
    Escape,
    /// After an escape and letters that still select a character set and the like: one more ends it.
    Intermediate,
    /// A control sequence, with what might be a colour so far.
    Sequence(Vec<u8>),
    /// A command with a text, such as a title: until a bell, or an escape and a backslash.
    Command,
    /// The first half of a control character in UTF-8.
    Wide,
}

impl Filter {
    /// A filter that lets colours through, or nothing at all.
    pub(crate) fn new(keeps_colours: bool) -> Self {
        Self { state: State::Text, keeps_colours, coloured: false }
    }

    /// What may be shown of the next piece.
    pub(crate) fn pass(&mut self, piece: &[u8]) -> Vec<u8> {
        let mut shown = Vec::with_capacity(piece.len());
        for byte in piece {
            self.take(*byte, &mut shown);
        }
        shown
    }

    /// What belongs after the last piece: the end of its colours.
    pub(crate) fn end(self) -> &'static [u8] {
        if self.coloured { RESET } else { b"" }
    }

    fn take(&mut self, byte: u8, shown: &mut Vec<u8>) {
        let state = std::mem::replace(&mut self.state, State::Text);
        self.state = match (state, byte) {
            // An escape begins anew wherever it stands, as terminals have it; in a command its backslash is the end.
            (_, ESCAPE) => State::Escape,
            (State::Text, 0xc2) => State::Wide,
            (State::Text, b'\n' | b'\r' | b'\t' | 0x20..=0x7e | 0x80..) => {
                shown.push(byte);
                State::Text
            }
            (State::Text, _) => State::Text,
            // U+0080 to U+009F are control characters too; some of them begin sequences.
            (State::Wide, 0x9b) => State::Sequence(Vec::new()),
            (State::Wide, 0x90 | 0x98 | 0x9d..=0x9f) => State::Command,
            (State::Wide, 0x80..=0x9f) => State::Text,
            (State::Wide, _) => {
                shown.push(0xc2);
                self.take(byte, shown);
                return;
            }
            (State::Escape, b'[') => State::Sequence(Vec::new()),
            (State::Escape, b']' | b'P' | b'X' | b'^' | b'_') => State::Command,
            (State::Escape | State::Intermediate, 0x20..=0x2f) => State::Intermediate,
            (State::Escape | State::Intermediate, _) => State::Text,
            (State::Sequence(parameters), 0x40..=0x7e) => {
                self.sequence(&parameters, byte, shown);
                State::Text
            }
            (State::Sequence(mut parameters), _) => {
                // What is too long for a colour only has to be known as too long.
                if parameters.len() <= COLOUR_LEN_MAX {
                    parameters.push(byte);
                }
                State::Sequence(parameters)
            }
            (State::Command, BELL) => State::Text,
            (State::Command, _) => State::Command,
        };
    }

    fn sequence(&mut self, parameters: &[u8], end: u8, shown: &mut Vec<u8>) {
        let is_colour = end == b'm'
            && parameters.len() <= COLOUR_LEN_MAX
            && parameters.iter().all(|byte| matches!(byte, b'0'..=b'9' | b';' | b':'));
        if is_colour && self.keeps_colours {
            shown.extend_from_slice(b"\x1b[");
            shown.extend_from_slice(parameters);
            shown.push(end);
            self.coloured = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> String {
        String::from_utf8(Filter::new(true).pass(text.as_bytes())).unwrap()
    }

    #[test]
    fn text_and_colours_are_left_as_they_are() {
        for text in [
            "loss 0.5\tacc 0.9\r\n",
            "\x1b[1;32mgreen\x1b[0m",
            "\x1b[38;2;1;2;3mx\x1b[m",
            "naïve ½ §¿ 学习 🚀",
        ] {
            assert_eq!(shown(text), text);
        }
    }

    #[test]
    fn what_commands_a_terminal_is_dropped() {
        for (text, left) in [
            ("a\x1b]0;title\x07b", "ab"),
            ("a\x1b]52;c;cm0gLXJm\x1b\\b", "ab"),
            ("a\x1b[2Jb\x1b[1;1Hc\x1b[6n", "abc"),
            ("a\x1b[?1049hb", "ab"),
            ("a\x1b[>4;1mb", "ab"),
            ("a\x1bP+q544e\x1b\\b", "ab"),
            ("a\x1bcb\x1b(0c\x1b#8d", "abcd"),
            ("a\x08\x07\x00\x7fb", "ab"),
            ("a\u{9b}2Jb\u{9d}0;title\x07c\u{85}d", "abcd"),
            ("a\x1b", "a"),
        ] {
            assert_eq!(shown(text), left, "{text:?}");
        }
    }

    #[test]
    fn colours_are_dropped_where_nobody_wants_any_and_ended_where_they_were_begun() {
        let mut plain = Filter::new(false);
        assert_eq!(plain.pass(b"\x1b[31mred"), b"red");
        assert_eq!(plain.end(), b"");
        let mut coloured = Filter::new(true);
        let _ = coloured.pass(b"\x1b[31mred");
        assert_eq!(coloured.end(), RESET);
    }

    proptest! {
        #[test]
        fn where_pieces_end_makes_no_difference(
            bytes in prop::collection::vec(prop_oneof![Just(ESCAPE), Just(b'['), Just(b']'), Just(b'm'), Just(0xc2), any::<u8>()], 0..60),
            cut in 0_usize..60,
        ) {
            let (left, right) = bytes.split_at(cut.min(bytes.len()));
            let mut filter = Filter::new(true);
            let in_pieces = [filter.pass(left), filter.pass(right)].concat();
            prop_assert_eq!(in_pieces, Filter::new(true).pass(&bytes));
        }

        #[test]
        fn nothing_but_colours_begins_with_an_escape(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let shown = Filter::new(true).pass(&bytes);
            let escapes = shown.iter().filter(|byte| **byte == ESCAPE).count();
            let again = Filter::new(false).pass(&shown);
            prop_assert!(!again.contains(&ESCAPE));
            let coloured = shown.windows(2).filter(|pair| *pair == b"\x1b[").count();
            prop_assert_eq!(escapes, coloured);
        }
    }
}
