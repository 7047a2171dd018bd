//! Pure accounting: what is held before a launch, what is charged afterwards, and who pays which part.
//!
//! Nothing here knows a clock, a store or a cloud. Amounts are whole nano-dollars and every split is exact: the parts
//! sum to the whole (L1), and the periods of an instance's charges meet (L2).

pub mod allocate;
pub mod anomaly;
pub mod bill;
pub mod focus;
pub mod forecast;
pub mod hold;
#[cfg(test)]
mod laws;
pub mod meter;
mod quote;
pub mod room;
pub mod shares;

pub use self::{
    allocate::allocate,
    anomaly::{Anomaly, AnomalyKind, ExpectedCost, anomaly},
    forecast::{BurnDown, Interval, Spending},
    hold::WorstCase,
    meter::{Metered, cuts, lost_work, meter},
    quote::quote,
    room::{Room, Short},
};
