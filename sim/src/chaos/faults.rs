//! What can go wrong, and how often.

use bursar_model::{BudgetKey, IdGen, InstanceId, ProviderName, Scope, Span, Timestamp, Usd, UserName};
use bursar_providers::{
    ErrorKind,
    faulty::{Call, Fault},
};

use super::{Run, some_terms};
use crate::{
    chance::Chance,
    cloud::Troubles,
    life::{Side, UnderWay},
    market::SimOffering,
    world::{INSTALLATION, Scenario},
};

/// The kinds of things that go wrong, without their details.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FaultKind {
    Crash,
    CrashAtBoundary,
    CrashAtPoll,
    Deposed,
    ClockStepped,
    ConfigReloaded,
    DiskFull,
    CallRefused,
    CallLost,
    ReplyLost,
    CallSlow,
    ListingStale,
    ListingPartial,
    Throttled,
    ProviderDown,
    SoldOut,
    BootTrouble,
    Interrupted,
    EndedByHand,
    Stray,
    Hung,
    AgentKilled,
    CutOff,
    MessagesDoubledOrLate,
    BudgetChanged,
    Cancelled,
}

/// How often each kind comes, in parts of the sum.
const WEIGHTS: [(FaultKind, u64); 26] = [
    (FaultKind::Crash, 10),
    (FaultKind::CrashAtBoundary, 10),
    (FaultKind::CrashAtPoll, 4),
    (FaultKind::ClockStepped, 8),
    (FaultKind::ConfigReloaded, 6),
    (FaultKind::Deposed, 3),
    (FaultKind::DiskFull, 8),
    (FaultKind::CallRefused, 14),
    (FaultKind::CallLost, 8),
    (FaultKind::ReplyLost, 10),
    (FaultKind::CallSlow, 8),
    (FaultKind::ListingStale, 6),
    (FaultKind::ListingPartial, 4),
    (FaultKind::Throttled, 4),
    (FaultKind::ProviderDown, 8),
    (FaultKind::SoldOut, 10),
    (FaultKind::BootTrouble, 4),
    (FaultKind::Interrupted, 10),
    (FaultKind::EndedByHand, 4),
    (FaultKind::Stray, 2),
    (FaultKind::Hung, 4),
    (FaultKind::AgentKilled, 4),
    (FaultKind::CutOff, 10),
    (FaultKind::MessagesDoubledOrLate, 4),
    (FaultKind::BudgetChanged, 18),
    (FaultKind::Cancelled, 8),
];

impl FaultKind {
    /// One of them. A clock that steps makes the books doubtful, so that other faults would hide behind it: only worlds
    /// that are about it have it.
    pub(super) fn some(chance: &mut Chance, clock_steps: bool) -> Self {
        let weights = WEIGHTS.iter().filter(|(kind, _)| clock_steps || *kind != Self::ClockStepped);
        let mut at = chance.below(weights.clone().map(|(_, weight)| weight).sum());
        for &(kind, weight) in weights {
            if at < weight {
                return kind;
            }
            at -= weight;
        }
        Self::Crash
    }

    /// As reports call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Crash => "daemon killed",
            Self::CrashAtBoundary => "daemon killed at a boundary",
            Self::CrashAtPoll => "daemon killed between boundaries",
            Self::ClockStepped => "clock stepped",
            Self::ConfigReloaded => "configuration reloaded",
            Self::Deposed => "another daemon takes over",
            Self::DiskFull => "disk full",
            Self::CallRefused => "call refused",
            Self::CallLost => "request lost",
            Self::ReplyLost => "applied, reply lost",
            Self::CallSlow => "call slow",
            Self::ListingStale => "stale listing",
            Self::ListingPartial => "partial listing",
            Self::Throttled => "throttling storm",
            Self::ProviderDown => "provider down",
            Self::SoldOut => "sold out",
            Self::BootTrouble => "boots fail or hang",
            Self::Interrupted => "interruption",
            Self::EndedByHand => "ended by hand",
            Self::Stray => "unknown machines",
            Self::Hung => "machine hangs",
            Self::AgentKilled => "agent killed",
            Self::CutOff => "machine cut off",
            Self::MessagesDoubledOrLate => "messages doubled or late",
            Self::BudgetChanged => "budget changed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl Run {
    /// Lets it go wrong. False where there is nothing to which it could.
    pub(super) fn inflict(&mut self, kind: FaultKind) -> bool {
        let arrives = self.chance.per_mille(500);
        self.world.set_under_way(if arrives { UnderWay::Arrives } else { UnderWay::Lost });
        match kind {
            FaultKind::Crash => {
                if !self.world.is_up() {
                    return false;
                }
                self.world.crash();
                self.died();
            }
            FaultKind::CrashAtBoundary => {
                let sides = [Side::Before, Side::During, Side::After];
                let side = self.chance.pick(&sides).copied().unwrap_or(Side::Before);
                let boundary = self.world.boundaries().len() as u64 + 1 + self.chance.below(40);
                self.world.crash_at(boundary, side);
            }
            FaultKind::CrashAtPoll => {
                let poll = self.world.polls() + 1 + self.chance.below(100);
                self.world.crash_at_poll(poll);
            }
            FaultKind::ClockStepped => self.step_clock(),
            FaultKind::ConfigReloaded => self.reload(),
            FaultKind::Deposed => self.world.depose(),
            FaultKind::DiskFull => self.world.refuse_commits(1 + self.chance.below(3) as u32),
            FaultKind::CallRefused => self.refuse_calls(),
            FaultKind::CallLost => self.script(Fault::LoseRequest),
            FaultKind::ReplyLost => self.script(Fault::LoseReply),
            FaultKind::CallSlow => {
                // Now and then for longer than listings lag: nothing bounds how long a call may take.
                let most = if self.chance.per_mille(200) { 400 } else { 20 };
                let delay = self.chance.span(Span::from_millis(1), Span::from_secs(most));
                self.script(Fault::Delay(delay));
            }
            FaultKind::ListingStale => {
                let call = if self.chance.per_mille(500) { Call::List } else { Call::Offerings };
                self.script_call(call, Fault::Stale);
            }
            FaultKind::ListingPartial => self.script_call(Call::List, Fault::Partial),
            FaultKind::Throttled => {
                let (provider, until) = (self.some_provider(), self.later(Span::from_secs(1200)));
                self.world.with_cloud(|cloud| cloud.throttle(&provider, until));
            }
            FaultKind::ProviderDown => {
                // Now and then for a day.
                let most = if self.chance.per_mille(100) { 86_400 } else { 2_400 };
                let (provider, until) = (self.some_provider(), self.later(Span::from_secs(most)));
                self.world.with_cloud(|cloud| cloud.go_down(&provider, until));
            }
            FaultKind::SoldOut => {
                let until = self.later(Span::from_secs(1800));
                let scope = self.some_scope();
                self.world.with_cloud(|cloud| cloud.sell_out(&scope, until));
            }
            FaultKind::BootTrouble => {
                let mut troubles = self.world.scenario().troubles.clone();
                troubles.boot_failures_per_mille = self.chance.below(400) as u32;
                troubles.boot_hangs_per_mille = self.chance.below(150) as u32;
                self.world.with_cloud(|cloud| cloud.set_troubles(troubles));
            }
            FaultKind::Interrupted => {
                let notice = [None, Some(Span::from_secs(30)), Some(Span::from_secs(120))];
                let notice = self.chance.pick(&notice).copied().flatten();
                let Some(instance) = self.some_machine() else { return false };
                self.world.with_cloud(|cloud| cloud.interrupt(instance, notice));
            }
            FaultKind::EndedByHand => {
                let Some(instance) = self.some_machine() else { return false };
                self.world.with_cloud(|cloud| cloud.end_by_hand(instance));
            }
            FaultKind::Stray => {
                let now = self.world.now();
                let mut ids = IdGen::new(self.chance.below(u64::MAX));
                // One with our tag, and one of somebody else in the same account.
                let (ours, foreign) = (ids.instance(now), ids.instance(now));
                self.world.with_cloud(|cloud| {
                    cloud.add_stray(ours, INSTALLATION);
                    cloud.add_stray(foreign, "somebody-else");
                });
            }
            FaultKind::Hung => {
                let Some(instance) = self.some_machine() else { return false };
                self.world.with_cloud(|cloud| cloud.hang(instance));
            }
            FaultKind::AgentKilled => {
                let Some(instance) = self.some_machine() else { return false };
                self.world.with_cloud(|cloud| cloud.kill_agent(instance));
            }
            FaultKind::CutOff => {
                let span = self.chance.span(Span::from_secs(5), Span::from_secs(1500));
                let Some(instance) = self.some_machine() else { return false };
                self.world.cut_off(instance, span);
            }
            FaultKind::MessagesDoubledOrLate => self.world.set_noise(self.chance.below(300) as u32),
            FaultKind::BudgetChanged => {
                let key = self.chance.pick(&budget_keys()).cloned().unwrap_or(BudgetKey::Installation);
                let terms =
                    self.chance.per_mille(800).then(|| some_terms(&mut self.chance, Usd::from_dollars(1)));
                return self.world.set_budget(key, terms);
            }
            FaultKind::Cancelled => {
                let Some(experiment) = self.work.some_experiment() else { return false };
                return self.world.cancel(experiment);
            }
        }
        true
    }

    /// From now on nothing new goes wrong. Somebody looks after it and lifts the budgets whose windows would begin anew
    /// for ever.
    pub(super) fn end_the_faults(&mut self) {
        self.world.set_noise(0);
        self.set_clock_right();
        let troubles = Troubles {
            boot_failures_per_mille: 0,
            boot_hangs_per_mille: 0,
            ..self.world.scenario().troubles.clone()
        };
        self.world.with_cloud(|cloud| cloud.set_troubles(troubles));
        self.world.configure(|scenario| scenario.budgets.iter_mut().for_each(|(_, terms)| *terms = None));
        for key in budget_keys() {
            // It may die once more over it, by what was set up before.
            for _ in 0..10 {
                self.world.restart();
                if self.world.set_budget(key.clone(), None) {
                    break;
                }
                let _ = self.world.run_for(Span::from_secs(60));
            }
        }
    }

    pub(super) fn later(&mut self, most: Span) -> Timestamp {
        self.world.now() + self.chance.span(Span::from_secs(1), most)
    }

    /// By seconds mostly, now and then by more than a lease; back as often as ahead.
    fn step_clock(&mut self) {
        let most = if self.chance.per_mille(200) { 3_600 } else { 120 };
        let by = self.chance.span(Span::from_millis(1), Span::from_secs(most));
        if self.chance.per_mille(500) {
            self.world.set_clock_ahead(by);
            self.clock_ahead += by.as_millis();
        } else {
            self.world.set_clock_back(by);
            self.clock_ahead -= by.as_millis();
        }
    }

    fn set_clock_right(&mut self) {
        let by = Span::from_millis(self.clock_ahead.abs());
        if self.clock_ahead > 0 {
            self.world.set_clock_back(by);
        } else {
            self.world.set_clock_ahead(by);
        }
        self.clock_ahead = 0;
    }

    /// Somebody edits the configuration, and the daemon takes it over at once or at its next start.
    fn reload(&mut self) {
        let lease = self.chance.span(Span::from_secs(300), Span::from_secs(1200));
        let idle_duration = self.chance.span(Span::from_secs(30), Span::from_secs(900));
        let heartbeat = self.chance.span(Span::from_secs(10), Span::from_secs(60));
        let max_instances = 2 + self.chance.below(20) as u32;
        let cap = self.chance.per_mille(300).then(|| some_terms(&mut self.chance, Usd::from_dollars(2)));
        let edit = |scenario: &mut Scenario| {
            let settings = &mut scenario.settings;
            settings.lease = lease;
            settings.silence_timeout = lease;
            settings.idle_duration = idle_duration;
            settings.max_instances = max_instances;
            settings.quiet_after = heartbeat.times(3);
            scenario.heartbeat = heartbeat;
            if let Some(project) = scenario.budgets.iter_mut().find(|(key, _)| is_project(key)) {
                project.1 = cap;
            }
        };
        if self.chance.per_mille(700) {
            // False where it is down or dies: its next life goes by it.
            let _ = self.world.reload(edit);
        } else {
            self.world.configure(edit);
        }
    }

    /// Some calls are refused, with each error that a provider may answer.
    fn refuse_calls(&mut self) {
        let call = self.some_call();
        let mut kinds = vec![
            ErrorKind::Throttled { retry_after: None },
            ErrorKind::Throttled { retry_after: Some(Span::from_secs(10)) },
            ErrorKind::Unavailable,
            ErrorKind::Auth,
        ];
        if call == Call::Launch {
            let scope = self.some_scope();
            kinds.extend([
                ErrorKind::InsufficientCapacity(scope.clone()),
                ErrorKind::Quota(scope),
                ErrorKind::Invalid,
            ]);
        }
        for _ in 0..=self.chance.below(4) {
            let kind = self.chance.pick(&kinds).cloned().unwrap_or(ErrorKind::Unavailable);
            self.script_call(call, Fault::Refuse(kind));
        }
    }

    fn script(&mut self, fault: Fault) {
        let call = self.some_call();
        self.script_call(call, fault);
    }

    fn script_call(&mut self, call: Call, fault: Fault) {
        if let Some(way) = self.chance.pick(self.world.ways()) {
            way.inject(call, fault);
        }
    }

    fn some_call(&mut self) -> Call {
        let calls = [Call::Launch, Call::Launch, Call::Terminate, Call::List, Call::Offerings];
        self.chance.pick(&calls).copied().unwrap_or(Call::Launch)
    }

    fn some_machine(&mut self) -> Option<InstanceId> {
        let running = self.world.with_cloud(|cloud| cloud.running());
        self.chance.pick(&running).copied()
    }

    fn some_provider(&mut self) -> ProviderName {
        self.some_offering().offering.provider.clone()
    }

    /// An offering, all of its zone, or all of its type.
    fn some_scope(&mut self) -> Scope {
        let one = Scope::of(&self.some_offering().offering.key());
        match self.chance.below(4) {
            0 => Scope { instance_type: None, capacity_type: None, ..one },
            1 => Scope { zone: None, capacity_type: None, ..one },
            _ => one,
        }
    }

    fn some_offering(&mut self) -> &SimOffering {
        let market = &self.world.scenario().market;
        self.chance.pick(market).expect("a market is not empty")
    }
}

fn is_project(key: &BudgetKey) -> bool {
    matches!(key, BudgetKey::Project(_))
}

fn budget_keys() -> [BudgetKey; 3] {
    [BudgetKey::Installation, BudgetKey::Project("p".into()), BudgetKey::User(UserName::new("someone"))]
}
