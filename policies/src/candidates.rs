//! The table behind `bursar plan` and `bursar explain`: every offering that could be meant, and why it is chosen or not.

use std::{collections::BTreeSet, fmt, sync::Arc};

use bursar_ledger::{Room, Short};
use bursar_model::{
    Account, BudgetKey, BudgetTerms, Experiment, ExperimentId, ExperimentSpec, InstanceType, Offering,
    OfferingKey, OnExhausted, Quota, Span, Timestamp, TypedId, Usd, UsdPerHour,
};
use serde::{Deserialize, Serialize};

use crate::{
    PlanInput,
    choice::{Choice, Means, View, Wish, too_small},
    lifecycle::keep_for_renewals,
    market::{Firmness, known_price},
};

/// One offering, as seen by an experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Which offering.
    pub offering: OfferingKey,
    /// What it has.
    pub instance_type: InstanceType,
    /// Its price now, where it is known.
    pub price: Option<UsdPerHour>,
    /// Its speed, relative to the estimate's reference.
    pub speed: f64,
    /// How long the experiment is expected to run on it: its estimate, or an hour where it gives none.
    pub expected_hours: f64,
    /// What the experiment is expected to cost on it, alone, with all its nodes.
    pub expected_cost: Option<Usd>,
    /// What a launch of all nodes has to hold in every budget above.
    pub hold: Option<Usd>,
    /// Chosen, or why not.
    pub verdict: Verdict,
}

/// What the planner says of an offering.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum Verdict {
    /// A launch would be this.
    Chosen,
    /// It would do, and is expected to cost more.
    Dearer {
        /// So much more than the chosen one.
        by: Usd,
    },
    /// Its price is above a ceiling.
    AboveCeiling {
        /// The ceiling.
        ceiling: UsdPerHour,
    },
    /// The provider refused it lately.
    Refused {
        /// It is not asked for until then.
        until: Timestamp,
    },
    /// A quota of the account is used up.
    OverQuota {
        /// Which.
        quota: Arc<Quota>,
        /// What our instances take of it.
        used: u32,
        /// What a launch would take besides.
        needed: u32,
    },
    /// A budget has no room for its hold.
    NoRoom {
        /// The budget.
        budget: BudgetKey,
    },
    /// It is listed without a price.
    UnknownPrice,
    /// `spot_policy` or the deadline rules it out.
    WrongCapacityType,
    /// The cloud takes it back sooner after its notice than its work can be saved.
    NoticeTooShort {
        /// How long the notice is.
        notice: Span,
        /// How long saving takes, by the spec or by what was measured.
        needed: Span,
    },
    /// The machine is too small.
    TooSmall {
        /// What it does not have, for people.
        missing: String,
    },
}

impl Candidate {
    /// Whether a launch would be this one.
    #[must_use]
    pub fn is_chosen(&self) -> bool {
        self.verdict == Verdict::Chosen
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chosen => f.write_str("chosen"),
            Self::Dearer { by } => write!(f, "{} dearer", by.rounded()),
            Self::AboveCeiling { ceiling } => write!(f, "above the ceiling of {}", ceiling.rounded()),
            Self::Refused { until } => write!(f, "refused lately, asked again at {until}"),
            Self::OverQuota { quota, used, needed } => {
                write!(
                    f,
                    "{} ({}): {used} of {} in use, {needed} more needed",
                    quota.title, quota.name, quota.limit
                )
            }
            Self::NoRoom { budget } => write!(f, "{budget} has no room for its hold"),
            Self::UnknownPrice => f.write_str("its price is unknown"),
            Self::WrongCapacityType => f.write_str("ruled out by spot_policy or the deadline"),
            Self::NoticeTooShort { notice, needed } => write!(
                f,
                "a notice of {notice} is too short to save in, which takes {needed} (checkpoint.accept_loss allows it)"
            ),
            Self::TooSmall { missing } => write!(f, "too small: {missing}"),
        }
    }
}

/// All offerings for an experiment of this spec, queued now by this account: the chosen one first, then those that
/// would do by cost, then the others, at most `limit` in all. The choice is the planner's for one experiment alone.
#[must_use]
pub fn candidates(
    input: &PlanInput<'_>,
    spec: &ExperimentSpec,
    account: &Account,
    limit: usize,
) -> Vec<Candidate> {
    // Not an id of any experiment: only the budgets above the experiment count, and its own, which is untouched.
    let nobody = ExperimentId::from_u64(0);
    candidates_of(input, spec, account, nobody, spec.budget.as_deref(), limit)
}

/// The same for an experiment that is queued already.
#[must_use]
pub fn candidates_for(input: &PlanInput<'_>, experiment: &Experiment, limit: usize) -> Vec<Candidate> {
    let spec = input.fleet.spec(experiment);
    candidates_of(input, spec, &experiment.account, experiment.id, None, limit)
}

fn candidates_of(
    input: &PlanInput<'_>,
    spec: &ExperimentSpec,
    account: &Account,
    experiment: ExperimentId,
    own_terms: Option<&BudgetTerms>,
    limit: usize,
) -> Vec<Candidate> {
    let own_budget = own_terms.and_then(BudgetTerms::cap).unwrap_or(Usd::MAX);
    let own_finishes = own_terms.is_some_and(|terms| terms.on_exhausted == OnExhausted::FinishRunning);
    let known = input.fleet.experiments.get(&experiment);
    let queued_at = known.map_or(input.now, |known| known.queued_at);
    let took = known.and_then(|known| known.checkpoint_took);
    let in_a_hurry = crate::choice::is_in_a_hurry(spec, queued_at, input.now);
    let wish = Wish::new(spec, input.settings, in_a_hurry, took);
    let view = View::new(input);
    let mut room = Room::new(&input.fleet.budgets);
    keep_for_renewals(input, &BTreeSet::new(), &mut room);
    let finishes = own_finishes || room.finishes(account, experiment);
    let means = Means {
        left: room.left(account, experiment).min(own_budget),
        lease: input.settings.lease,
        work: spec.estimate.as_ref().filter(|_| finishes).map(|estimate| estimate.duration),
        beyond_work: crate::funding::beyond_work(input, spec),
    };
    let chosen = view.choose(&wish, 1, means);
    let no_room = |hold: Usd| match room.short(account, experiment, hold) {
        Some(Short { key, .. }) => Some(key),
        None => (hold > own_budget).then_some(BudgetKey::Experiment(experiment)),
    };

    let subject = Subject { view: &view, spec, wish: &wish, means, chosen };
    let mut ranked: Vec<(Rank, Candidate)> = (0_u32..)
        .zip(input.market.offerings())
        .filter(|(_, offering)| subject.could_be_meant(offering))
        .map(|(index, offering)| subject.candidate(index, offering, &no_room))
        .collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().take(limit).map(|(_, candidate)| candidate).collect()
}

/// By what the verdict says, chosen first; then as the planner ranks.
type Rank = (u8, Option<Usd>, Option<UsdPerHour>, u32);

struct Subject<'s> {
    view: &'s View<'s>,
    spec: &'s ExperimentSpec,
    wish: &'s Wish<'s>,
    means: Means,
    chosen: Option<Choice>,
}

impl Subject<'_> {
    /// Machines with other accelerators than any that is asked for are no candidates.
    fn could_be_meant(&self, offering: &Offering) -> bool {
        let wanted = &self.wish.resources.accelerators;
        let has = offering.instance_type.accelerators.as_ref();
        wanted.is_empty() || has.is_some_and(|has| wanted.iter().any(|want| want.name == has.name))
    }

    fn candidate(
        &self,
        index: u32,
        offering: &Offering,
        no_room: &dyn Fn(Usd) -> Option<BudgetKey>,
    ) -> (Rank, Candidate) {
        let kind = &offering.instance_type;
        let price = known_price(offering);
        let speed = self.wish.speed(kind);
        let (expected_hours, expected_cost) = expectation(self.spec, speed, price);
        let amounts = self.wish.resources.amounts_on(kind);
        let choice = amounts.and_then(|amounts| self.view.choice_of(self.wish, index, amounts, 1));
        let hold = choice.map(|choice| self.view.hold(&choice, 1, self.means));
        let is_chosen = self.chosen.is_some_and(|chosen| chosen.offering == index);

        let verdict = if is_chosen {
            Verdict::Chosen
        } else if amounts.is_none() {
            Verdict::TooSmall { missing: too_small(self.wish.resources, kind).join(" and ") }
        } else if !self.wish.accepts(Firmness::of(offering.capacity_type)) {
            Verdict::WrongCapacityType
        } else if let (Some(notice), Some(needed), false) =
            (offering.notice, self.wish.notice, self.wish.can_save_on(offering))
        {
            Verdict::NoticeTooShort { notice, needed }
        } else if price.is_none() {
            Verdict::UnknownPrice
        } else if let (None, Some(ceiling)) = (hold, self.wish.ceiling) {
            Verdict::AboveCeiling { ceiling }
        } else if let Some(until) = self.view.refused_until(offering) {
            Verdict::Refused { until }
        } else if let Some((quota, used, needed)) = self.view.quota_lacking(offering, self.wish.nodes) {
            Verdict::OverQuota { quota, used, needed }
        } else if let Some(budget) = hold.and_then(no_room) {
            Verdict::NoRoom { budget }
        } else {
            let least = self.chosen.and_then(|chosen| {
                let best = self.view.market.offering(chosen.offering);
                expectation(self.spec, self.wish.speed(&best.instance_type), Some(chosen.price)).1
            });
            Verdict::Dearer {
                by: expected_cost.unwrap_or_default().saturating_sub(least.unwrap_or_default()),
            }
        };
        let rank = (verdict.rank(), expected_cost, price, index);
        let candidate = Candidate {
            offering: offering.key(),
            instance_type: InstanceType::clone(kind),
            price,
            speed,
            expected_hours,
            expected_cost,
            hold,
            verdict,
        };
        (rank, candidate)
    }
}

impl Verdict {
    fn rank(&self) -> u8 {
        match self {
            Self::Chosen => 0,
            Self::Dearer { .. } => 1,
            Self::NoRoom { .. } => 2,
            Self::Refused { .. } | Self::OverQuota { .. } => 3,
            Self::AboveCeiling { .. } => 4,
            Self::WrongCapacityType => 5,
            Self::NoticeTooShort { .. } => 6,
            Self::UnknownPrice => 7,
            Self::TooSmall { .. } => 8,
        }
    }
}

/// How long an experiment is expected to run at a speed, and what that comes to on all its nodes.
#[expect(clippy::float_arithmetic, reason = "an expectation for people; no charge or hold is made of it")]
fn expectation(spec: &ExperimentSpec, speed: f64, price: Option<UsdPerHour>) -> (f64, Option<Usd>) {
    const HOUR_MS: f64 = 3_600_000.0;
    let hours = spec.estimate.as_ref().map_or(1.0, |e| e.duration.as_millis() as f64 / HOUR_MS) / speed;
    let nodes = f64::from(spec.num_nodes);
    let cost = price.map(|price| Usd::from_nanos((price.as_nanos() as f64 * hours * nodes).round() as i64));
    (hours, cost)
}
