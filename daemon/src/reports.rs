//! Reports as people read them: bars for a terminal.

pub mod bars;
