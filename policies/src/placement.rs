//! Where queued experiments go: free places first, then new instances.

use bursar_ledger::Room;
use bursar_model::IdGen;

use crate::{Plan, PlanInput, lifecycle::Lifecycle};

pub(crate) fn plan_placement(
    input: &PlanInput<'_>,
    lifecycle: &Lifecycle<'_>,
    room: &mut Room<'_>,
    ids: &mut IdGen,
    plan: &mut Plan,
) {
    let _ = (input, lifecycle, room, ids, plan);
}
