//! The whole daemon on virtual time, against a cloud that misbehaves by seed.
//!
//! `World` runs the real reconciler, its effects and the real SQLite store on one thread whose clock is tokio's paused
//! one. Around it stand a cloud (`SimCloud`) with prices, capacity, interruptions and a bill of its own, and the agents
//! of its machines, which speak the agents' protocol to the reconciler's inbox. The daemon can be killed at any step
//! or moment; cloud and agents go on. After every commit all invariants are checked against what was committed *and*
//! against what the cloud knows; what is wrong is collected, not panicked on, so that a run tells all of it.
//!
//! What it does not run, and what is tried with real processes in `tests/e2e` instead: the HTTP API and what it checks,
//! `serve`, reading the configuration, delivery over HTTP, the real agent, a machine that loses power in the middle of a
//! write, and two daemons that run at once. A plan takes no virtual time, so the pace of planning never acts.
//!
//! The same seed gives the same journal, byte for byte: nothing here or in the daemon may ask the machine's clock, a
//! random source or a hash map's order.

mod agent;
mod books;
mod cap;
mod chance;
mod chaos;
mod clock;
mod cloud;
mod ground;
mod job;
mod life;
mod market;
mod post;
pub mod replay;
pub mod script;
mod series;
mod witness;
mod world;

pub use self::{
    chance::Chance,
    chaos::{ChaosKind, ChaosReport, chaos},
    clock::SimClock,
    cloud::{SimCloud, SimProvider, Troubles},
    job::Job,
    life::{Boundary, Side, UnderWay},
    market::{Interruptions, SimCapacity, SimOffering, SimPrices, small_market},
    post::SimPost,
    series::Series,
    world::{Checks, INSTALLATION, Scenario, World},
};
