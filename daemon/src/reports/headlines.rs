//! The three numbers that a report begins with, in the words that they always have.

use bursar_model::Usd;

use super::{
    Totals,
    figures::{money, percent},
};

/// A number with what it is and what it means.
#[derive(Debug)]
pub(super) struct Headline {
    /// What it is.
    pub(super) label: &'static str,
    /// The number.
    pub(super) amount: String,
    /// What it is a part of.
    pub(super) note: String,
}

/// Spent, saved and wasted.
pub(super) fn headlines(totals: &Totals) -> [Headline; 3] {
    let (spent, saved, wasted) = (totals.spent.total(), totals.saved(), totals.spent.wasted());
    let (label, difference) =
        if saved < Usd::ZERO { ("Above on-demand", -saved) } else { ("Saved against on-demand", saved) };
    let of_on_demand = if totals.on_demand == Usd::ZERO {
        "no work was kept yet".to_owned()
    } else {
        let part = percent(difference, totals.on_demand);
        format!("{part} of {} at on-demand prices", money(totals.on_demand))
    };
    let of_spent = if spent == Usd::ZERO {
        "nothing was spent yet".to_owned()
    } else {
        format!("{} of what was spent", percent(wasted, spent))
    };
    let at_list = format!("effective cost; list price {}", money(totals.list));
    [
        Headline { label: "Spent", amount: money(spent), note: at_list },
        Headline { label, amount: money(difference), note: of_on_demand },
        Headline { label: "Wasted", amount: money(wasted), note: of_spent },
    ]
}
