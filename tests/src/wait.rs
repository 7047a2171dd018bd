//! Waiting for a state, never for a while.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

/// How long a state may take that comes at once on an idle machine: two tests, each with a small cloud, share two cores.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// Looks until there is something to see.
///
/// # Panics
/// When there is nothing within the time, with what was waited for.
pub fn until<T>(what: &str, within: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(began.elapsed() < within, "waited {within:?} in vain until {what}");
        sleep(LOOK_EVERY);
    }
}
