//! What is there before a story begins: the market, the policy of the installation, its budgets.

use std::{collections::BTreeSet, sync::Arc};

use bursar_model::{
    Accelerators, BillingRules, BudgetKey, BudgetTerms, CapacityType, InstanceType, Offering, OnExhausted,
    ProjectName, ProviderName, Schedule, Scope, Span, Terms, TypeName, Usd, UsdPerHour, UserName, Zone,
};

use super::{Command, EPOCH, Play, Wrong, words::Words};
use crate::{
    cloud::Troubles,
    market::{Interruptions, SimCapacity, SimOffering, SimPrices, small_market},
    world::{Scenario, World},
};

/// As many of an offering can be had at once, where nobody says how many.
const CAPACITY: u32 = 100;

pub(super) const COMMANDS: &[Command] = &[
    Command {
        usage: "offer TYPE ZONE spot|on-demand $PRICE [at PROVIDER] [gpus N] [capacity N] \
                [interrupted-after SPAN [notice SPAN]]",
        does: "Something to rent, with a price per hour, at the provider `cloud` unless told. The first `offer` takes \
               the place of the usual market.",
        run: offer,
    },
    Command {
        usage: "policy [lease SPAN] [drain SPAN] [idle SPAN] [max-instances N] [max-price $PRICE]",
        does: "How the installation plans. What is not said is as in `bursar`'s defaults.",
        run: policy,
    },
    Command {
        usage: "billing [at PROVIDER] [unit SPAN] [minimum SPAN] [disk $PRICE] [address $PRICE] [overhead $PRICE]",
        does: "How a provider bills: whole units of time, at least the minimum; a GiB of disk and an address per hour.",
        run: billing,
    },
    Command {
        usage: "budget installation|project|user|sweep|experiment [NAME] $LIMIT|none [per hour|day|week|month] \
                [on-exhausted checkpoint-and-stop|stop|finish-running|notify-only]",
        does: "A budget of the configuration; once something has happened, somebody sets it while the daemon runs.",
        run: budget,
    },
    Command {
        usage: "quota PART gpus N",
        does: "So many accelerators may run at once in a part of the market, in all machines together.",
        run: quota,
    },
    Command {
        usage: "seed N",
        does: "Leaves lengths of time to chance by this seed. Without it each is the middle of what it may be.",
        run: seed,
    },
];

/// What was laid down so far.
#[derive(Debug)]
pub(super) struct Setup {
    scenario: Scenario,
    offers: Vec<SimOffering>,
    seed: u64,
}

impl Default for Setup {
    /// The small market at prices that stand still, and nothing is taken back of itself.
    fn default() -> Self {
        let calm = |sold| SimOffering { prices: SimPrices::Fixed, interruptions: None, ..sold };
        let market = small_market(&PROVIDER.into()).into_iter().map(calm).collect();
        let scenario = Scenario { epoch: EPOCH, is_calm: true, market, ..Scenario::default() };
        Self { scenario, offers: Vec::new(), seed: 1 }
    }
}

/// Who sells what nobody says the provider of.
const PROVIDER: &str = "cloud";

impl Setup {
    pub(super) fn world(&self) -> World {
        World::new(self.seed, Scenario { market: self.market(), ..self.scenario.clone() })
    }

    /// What is sold. Where a type is sold both ways, its on-demand price is what spot may cost at most.
    fn market(&self) -> Vec<SimOffering> {
        if self.offers.is_empty() {
            return self.scenario.market.clone();
        }
        let mut market = self.offers.clone();
        for sold in &mut market {
            let same = |other: &&SimOffering| {
                other.offering.capacity_type == CapacityType::OnDemand
                    && other.offering.provider == sold.offering.provider
                    && other.offering.instance_type.name == sold.offering.instance_type.name
            };
            sold.offering.on_demand_price =
                self.offers.iter().find(same).and_then(|other| other.offering.price);
        }
        market
    }

    /// The part of the market that these words name in any order: a provider, a zone, a type, `spot` or `on-demand`;
    /// what is not named may be any, but it is all at one provider.
    pub(super) fn part(&self, words: &mut Words<'_>) -> Result<Scope, Wrong> {
        let capacity_type = words.one_of(CAPACITY_TYPES);
        let market = self.market();
        let has = |matches: &dyn Fn(&Offering) -> bool| market.iter().any(|sold| matches(&sold.offering));
        let (mut provider, mut zone, mut instance_type) = (None, None, None);
        for word in words.rest() {
            if has(&|sold| sold.provider.as_str() == word) {
                provider = Some(ProviderName::new(word));
            } else if has(&|sold| sold.zone.as_str() == word) {
                zone = Some(Zone::new(word));
            } else if has(&|sold| sold.instance_type.name.as_str() == word) {
                instance_type = Some(TypeName::new(word));
            } else {
                return Err(format!("`{word}` is no provider, zone or type of the market"));
            }
        }
        let of = |provider| Scope {
            provider,
            region: None,
            zone: zone.clone(),
            instance_type: instance_type.clone(),
            capacity_type,
        };
        let wanted = |name: &ProviderName| provider.as_ref().is_none_or(|provider| provider == name);
        let parts = self.providers().into_iter().filter(wanted).map(of);
        let parts: Vec<Scope> = parts.filter(|part| has(&|sold| part.covers(sold))).collect();
        match &parts[..] {
            [one] => Ok(one.clone()),
            [] => Err("nothing like this is sold".to_owned()),
            [_, _, ..] => Err("several providers sell this: say which".to_owned()),
        }
    }

    /// Who sells anything.
    pub(super) fn providers(&self) -> BTreeSet<ProviderName> {
        self.market().into_iter().map(|sold| sold.offering.provider).collect()
    }

    /// What goes wrong with machines of itself.
    pub(super) fn troubles(&mut self) -> &mut Troubles {
        &mut self.scenario.troubles
    }
}

const CAPACITY_TYPES: &[(&str, CapacityType)] =
    &[("spot", CapacityType::Spot), ("on-demand", CapacityType::OnDemand)];

fn offer(play: &mut Play, words: &mut Words<'_>) -> Result<(), Wrong> {
    let name: String = words.next("the type")?;
    let zone: String = words.next("the zone")?;
    let capacity_type = words.one_of(CAPACITY_TYPES).ok_or("say `spot` or `on-demand`")?;
    let price: UsdPerHour = words.amount()?;
    let count = words.after("gpus")?.unwrap_or(1);
    let capacity = words.after("capacity")?.unwrap_or(CAPACITY);
    let every: Option<Span> = words.after("interrupted-after")?;
    let notice = words.after("notice")?;
    let instance_type = InstanceType {
        name: TypeName::new(&name),
        accelerators: Some(Accelerators { name: "T4".into(), count, memory_gib: Some(16) }),
        cpus_milli: 8_000 * count,
        memory_mib: 32_768 * u64::from(count),
        disk_gib: 1_000,
    };
    let offering = Offering {
        provider: provider(words)?,
        region: "r".into(),
        zone: Zone::new(&zone),
        instance_type: Arc::new(instance_type),
        capacity_type,
        price: Some(price),
        list_price: None,
        on_demand_price: None,
        price_since: None,
        quota: None,
        notice: None,
        terms: Arc::default(),
    };
    let interruptions = every.map(|every| Interruptions { every, notice });
    play.setup()?.offers.push(SimOffering {
        offering,
        capacity: SimCapacity::Steady(capacity),
        prices: SimPrices::Fixed,
        interruptions,
    });
    Ok(())
}

/// The provider after `at`, or the usual one.
fn provider(words: &mut Words<'_>) -> Result<ProviderName, Wrong> {
    let named: Option<String> = words.after("at")?;
    Ok(ProviderName::new(named.as_deref().unwrap_or(PROVIDER)))
}

fn policy(play: &mut Play, words: &mut Words<'_>) -> Result<(), Wrong> {
    let settings = &mut play.setup()?.scenario.settings;
    settings.lease = words.after("lease")?.unwrap_or(settings.lease);
    settings.drain_allowance = words.after("drain")?.unwrap_or(settings.drain_allowance);
    settings.idle_duration = words.after("idle")?.unwrap_or(settings.idle_duration);
    settings.max_instances = words.after("max-instances")?.unwrap_or(settings.max_instances);
    settings.max_price = words.after("max-price")?.or(settings.max_price);
    Ok(())
}

fn billing(play: &mut Play, words: &mut Words<'_>) -> Result<(), Wrong> {
    let provider = provider(words)?;
    let terms = play.setup()?.scenario.pricing.terms.entry(provider).or_default();
    let Terms { billing, disk_gib, address, overhead, disk_min_gib } = *terms;
    *terms = Terms {
        billing: BillingRules {
            granularity: words.after("unit")?.unwrap_or(billing.granularity),
            minimum: words.after("minimum")?.unwrap_or(billing.minimum),
            ..billing
        },
        disk_gib: words.after("disk")?.unwrap_or(disk_gib),
        address: words.after("address")?.unwrap_or(address),
        overhead: words.after("overhead")?.unwrap_or(overhead),
        disk_min_gib,
    };
    Ok(())
}

fn budget(play: &mut Play, words: &mut Words<'_>) -> Result<(), Wrong> {
    let key = match words.next::<String>("whose budget it is")?.as_str() {
        "installation" => BudgetKey::Installation,
        "project" => BudgetKey::Project(ProjectName::new(&words.next::<String>("the project")?)),
        "user" => BudgetKey::User(UserName::new(&words.next::<String>("the user")?)),
        "sweep" => {
            let name: String = words.next("the sweep")?;
            let sweep = play.names.sweep(&name).ok_or_else(|| format!("no sweep is called `{name}`"))?;
            BudgetKey::Sweep(sweep)
        }
        "experiment" => {
            BudgetKey::Experiment(play.names.experiment(&words.next::<String>("the experiment")?)?)
        }
        other => return Err(format!("`{other}` has no budget")),
    };
    let terms = if words.has("none") { None } else { Some(Arc::new(budget_terms(words)?)) };
    if play.world.is_none() {
        play.setup.scenario.budgets.push((key, terms));
    } else if !play.world().set_budget(key, terms) {
        play.say("the budget is not set");
    }
    Ok(())
}

/// A limit with what may be said of it.
fn budget_terms(words: &mut Words<'_>) -> Result<BudgetTerms, Wrong> {
    let limit: Usd = words.amount()?;
    let per: Option<String> = words.after("per")?;
    let schedule = per.map(|text| Schedule::parse(&text, None)).transpose();
    Ok(BudgetTerms {
        schedule: schedule.map_err(|error| error.to_string())?,
        on_exhausted: on_exhausted(words)?,
        ..BudgetTerms::of(limit)
    })
}

/// What becomes of work when the money is used up.
pub(super) fn on_exhausted(words: &mut Words<'_>) -> Result<OnExhausted, Wrong> {
    let Some(word) = words.after::<String>("on-exhausted")? else { return Ok(OnExhausted::default()) };
    let known = [
        ("checkpoint-and-stop", OnExhausted::CheckpointAndStop),
        ("stop", OnExhausted::Stop),
        ("finish-running", OnExhausted::FinishRunning),
        ("notify-only", OnExhausted::NotifyOnly),
    ];
    let found = known.iter().find(|(name, _)| *name == word).map(|(_, meaning)| *meaning);
    found.ok_or_else(|| format!("on-exhausted: `{word}` is unknown"))
}

fn quota(play: &mut Play, words: &mut Words<'_>) -> Result<(), Wrong> {
    let accelerators = words.needed("gpus")?;
    let part = play.setup.part(words)?;
    let quotas = &mut play.setup.troubles().quotas;
    quotas.retain(|(known, _)| *known != part);
    quotas.push((part, accelerators));
    play.trouble();
    Ok(())
}

fn seed(play: &mut Play, words: &mut Words<'_>) -> Result<(), Wrong> {
    let seed = words.next("the seed")?;
    let setup = play.setup()?;
    (setup.seed, setup.scenario.is_calm) = (seed, false);
    Ok(())
}
