//! A column of bars beside the numbers of a terminal's table.
//!
//! Bars are no colour, so `NO_COLOR` leaves them alone; and a file or a pipe shows blocks as well as a terminal does.
//! Only a terminal that says that it can nothing (`TERM=dumb`) gets ASCII.

use bursar_model::Usd;

/// What bars are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BarStyle {
    /// Unicode blocks in eighths of a cell.
    Blocks,
    /// Number signs.
    Ascii,
}

impl BarStyle {
    /// The style for this value of the variable `TERM`.
    #[must_use]
    pub fn for_term(term: Option<&str>) -> Self {
        if term == Some("dumb") { Self::Ascii } else { Self::Blocks }
    }
}

/// One bar for each amount; the largest is `cells` long. Whatever is above zero shows, however little; what is not
/// has none.
#[must_use]
pub fn bars(amounts: &[Usd], cells: u16, style: BarStyle) -> Vec<String> {
    let largest = amounts.iter().copied().max().unwrap_or_default();
    amounts.iter().map(|amount| bar(*amount, largest, cells, style)).collect()
}

fn bar(amount: Usd, largest: Usd, cells: u16, style: BarStyle) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    if amount <= Usd::ZERO || cells == 0 {
        return String::new();
    }
    let steps_a_cell = match style {
        BarStyle::Blocks => EIGHTHS.len() as i128,
        BarStyle::Ascii => 1,
    };
    let (amount, largest) = (i128::from(amount.as_nanos()), i128::from(largest.as_nanos()));
    let steps = (2 * amount * i128::from(cells) * steps_a_cell + largest) / (2 * largest);
    let steps = steps.max(1);
    let (whole, rest) = ((steps / steps_a_cell) as usize, (steps % steps_a_cell) as usize);
    match style {
        BarStyle::Blocks => format!("{}{}", "█".repeat(whole), EIGHTHS[rest]),
        BarStyle::Ascii => "#".repeat(whole),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn dollars(amounts: &[i64]) -> Vec<Usd> {
        amounts.iter().map(|dollars| Usd::from_dollars(*dollars)).collect()
    }

    #[test]
    fn bars_are_scaled_to_the_largest_row() {
        let amounts = dollars(&[800, 700, 410, 1, 0, -5]);
        insta::assert_snapshot!(bars(&amounts, 8, BarStyle::Blocks).join("\n"), @r"
        ████████
        ███████
        ████▏
        ▏
        ");
        insta::assert_snapshot!(bars(&amounts, 8, BarStyle::Ascii).join("\n"), @r"
        ########
        #######
        ####
        #
        ");
    }

    #[test]
    fn only_a_dumb_terminal_gets_ascii() {
        assert_eq!(BarStyle::for_term(Some("dumb")), BarStyle::Ascii);
        assert_eq!(BarStyle::for_term(Some("xterm-256color")), BarStyle::Blocks);
        assert_eq!(BarStyle::for_term(None), BarStyle::Blocks);
    }

    proptest! {
        #[test]
        fn more_money_is_never_a_shorter_bar(mut amounts in prop::collection::vec(any::<i64>(), 1..20), cells in 0_u16..60) {
            amounts.sort_unstable();
            let amounts: Vec<Usd> = amounts.into_iter().map(Usd::from_nanos).collect();
            let style = BarStyle::Blocks;
            // A block that is fuller has the smaller code point, so lengths are compared in eighths.
            let eighths = |bar: &String| -> u32 { bar.chars().map(|c| 0x2590 - u32::from(c)).sum() };
            let lengths: Vec<u32> = bars(&amounts, cells, style).iter().map(eighths).collect();
            prop_assert!(lengths.is_sorted());
            prop_assert!(lengths.iter().all(|length| *length <= 8 * u32::from(cells)));
        }
    }
}
