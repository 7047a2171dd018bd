//! The transitions. Each event either changes the state completely or, where it is not allowed, not at all.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use super::{Fleet, IllegalTransition, LiveSpec, RefusedScope};
use crate::{
    asha::Asha,
    budget::BudgetKey,
    charge::{Category, Charge, ChargeClass},
    event::{Event, Paid},
    experiment::{
        Attempt, AttemptEnd, AttemptState, Experiment, ExperimentState, IdleGpu, RunCharge, StopReason, Sweep,
    },
    host::Boot,
    id::{AttemptId, ExperimentId, InstanceId, NotificationId},
    instance::{Backoff, CloudInstance, Instance, InstanceEnd, InstanceState, Meter, Share},
    money::Usd,
    notification::{Notification, NotificationState},
    time::Timestamp,
};

type Applied = Result<(), IllegalTransition>;

impl Fleet {
    /// Applies one event: the only way in which the state changes (S2).
    ///
    /// # Errors
    /// When the state does not allow the event. Nothing was changed then.
    pub fn apply(&mut self, event: &Event) -> Applied {
        match event {
            Event::SpecAdded { id, spec } => {
                self.specs.entry(*id).or_insert_with(|| LiveSpec { spec: spec.clone(), users: 0 });
                self.touched.specs.insert(*id);
                Ok(())
            }
            Event::SweepQueued { sweep } => {
                if self.sweeps.contains_key(&sweep.id) {
                    return illegal(format!("{} was queued twice", sweep.id));
                }
                self.touched.sweeps.insert(sweep.id);
                self.sweeps.insert(sweep.id, sweep.clone());
                Ok(())
            }
            Event::ExperimentQueued { experiment } => self.experiment_queued(experiment),
            Event::CancelRequested { experiment } => {
                self.experiment_mut(*experiment)?.cancelled = true;
                Ok(())
            }
            Event::ExperimentEnded { experiment, at, outcome } => {
                let found = self.experiment_mut(*experiment)?;
                if found.state != ExperimentState::Queued {
                    return illegal(format!("{experiment} ends while {}", found.state_name()));
                }
                found.state = ExperimentState::Ended { at: *at, outcome: outcome.clone() };
                let sweep = found.account.sweep;
                self.touch_budget(BudgetKey::Experiment(*experiment));
                if let Some(sweep) = sweep.and_then(|id| self.sweeps.get_mut(&id)) {
                    sweep.open = sweep.open.saturating_sub(1);
                    if sweep.open == 0 {
                        sweep.ended_at = Some(*at);
                    }
                    let id = sweep.id;
                    self.touched.sweeps.insert(id);
                    self.touch_budget(BudgetKey::Sweep(id));
                }
                Ok(())
            }
            Event::BudgetSet { key, terms, by, window, counted } => {
                self.budget_mut(key).set_terms(terms.clone(), by, *window, *counted);
                Ok(())
            }
            Event::BudgetWindowBegan { key, window } => {
                let budget = self.budget_mut(key);
                if budget.window.is_none_or(|before| window.from < before.to) {
                    return illegal(format!("a window of {key} begins before the one before has ended"));
                }
                budget.begin_window(*window);
                Ok(())
            }
            Event::BudgetAlerted { key, at: _, alert } => {
                self.budget_mut(key).note_alert(*alert);
                Ok(())
            }
            Event::InstanceIntended { instance } => self.instance_intended(instance),
            Event::InstanceLaunched { cloud, at } => self.instance_launched(cloud, *at),
            Event::AgentRegistered { instance, at, token_digest, address, host } => {
                let found = self.instance_mut(*instance)?;
                if let InstanceState::Intended { at: since } | InstanceState::Booting { at: since } =
                    found.state
                {
                    let host = host.as_deref().cloned();
                    found.boot = Some(Arc::new(Boot { took: at.since(since), host }));
                }
                match found.state {
                    // The agent may be quicker than the launch's answer.
                    InstanceState::Intended { .. } | InstanceState::Booting { .. } => {
                        found.state = InstanceState::Ready { since: *at };
                        found.idle_since = Some(*at);
                        found.together = None;
                    }
                    InstanceState::Draining { .. } | InstanceState::Terminating { .. } => {}
                    InstanceState::Ready { .. } | InstanceState::Gone { .. } => {
                        return illegal(format!("{instance} registers while {}", found.state_name()));
                    }
                }
                found.token_digest = Some(token_digest.clone());
                found.address = Some(*address);
                Ok(())
            }
            Event::InstanceNoticed { instance, gone_at } => {
                self.instance_mut(*instance)?.notice = Some(*gone_at);
                Ok(())
            }
            Event::InstanceAtRisk { instance, why } => {
                self.instance_mut(*instance)?.at_risk = Some(why.clone());
                Ok(())
            }
            Event::CallFailed { instance, backoff } => {
                self.instance_mut(*instance)?.backoff = *backoff;
                Ok(())
            }
            Event::LeaseExtended { instance, until, funded_until, shares } => {
                let found = self.instance_mut(*instance)?;
                if !found.is_live() || *until < found.lease_until {
                    return illegal(format!("the lease of {instance} would shrink"));
                }
                found.lease_until = *until;
                found.funded_until = *funded_until;
                self.set_shares(*instance, shares)
            }
            Event::BillingBegan { instance, at } => {
                let found = self.instance_mut(*instance)?;
                if found.meter.from.is_some() {
                    return illegal(format!("billing of {instance} begins twice"));
                }
                found.begin_billing(*at);
                Ok(())
            }
            Event::PriceChanged { instance, at, price } => {
                self.instance_mut(*instance)?.change_price(*at, *price);
                Ok(())
            }
            Event::InstanceDraining { instance, at, why } => {
                let found = self.instance_mut(*instance)?;
                match found.state {
                    InstanceState::Booting { .. } | InstanceState::Ready { .. } => {
                        found.state = InstanceState::Draining { since: *at, why: *why };
                        Ok(())
                    }
                    InstanceState::Intended { .. }
                    | InstanceState::Draining { .. }
                    | InstanceState::Terminating { .. }
                    | InstanceState::Gone { .. } => {
                        illegal(format!("{instance} drains while {}", found.state_name()))
                    }
                }
            }
            Event::InstanceTerminating { instance, at, why } => {
                let found = self.instance_mut(*instance)?;
                match found.state {
                    // An intended instance may or may not exist: either way it has ended once the cloud says so.
                    InstanceState::Intended { .. }
                    | InstanceState::Booting { .. }
                    | InstanceState::Ready { .. }
                    | InstanceState::Draining { .. } => {
                        found.state = InstanceState::Terminating { since: *at, why: *why };
                        found.backoff = Backoff::default();
                        Ok(())
                    }
                    InstanceState::Terminating { .. } | InstanceState::Gone { .. } => {
                        illegal(format!("{instance} terminates while {}", found.state_name()))
                    }
                }
            }
            Event::InstanceGone { instance, at, end } => self.instance_gone(*instance, *at, end),
            Event::AttemptAssigned { attempt, paid } => self.attempt_assigned(attempt, paid),
            Event::AttemptStarted { attempt, at } => {
                let found = self.attempt_mut(*attempt)?;
                if found.state == AttemptState::Assigned {
                    found.state = AttemptState::Running;
                }
                found.started_at = Some(*at);
                Ok(())
            }
            Event::AttemptRecorded { attempt, ran_with } => {
                self.attempt_mut(*attempt)?.ran_with = Some(ran_with.clone());
                Ok(())
            }
            Event::AttemptCheckpointed { attempt, at, took } => {
                let found = self.attempt_mut(*attempt)?;
                found.saved(*at);
                let id = found.experiment;
                let experiment = self.experiment_mut(id)?;
                experiment.checkpoint_at = experiment.checkpoint_at.max(Some(*at));
                experiment.checkpoint_took = took.or(experiment.checkpoint_took);
                // Saved work is progress, whatever becomes of the instance.
                experiment.losses = 0;
                Ok(())
            }
            Event::MetricsReported { attempt, metrics } => {
                let id = self.attempt_mut(*attempt)?.experiment;
                let experiment = self.experiment_mut(id)?;
                experiment.metrics.extend(metrics.iter().map(|(name, value)| (name.clone(), *value)));
                Ok(())
            }
            Event::GpuIdle { attempt, since } => {
                let found = self.attempt_mut(*attempt)?;
                let told = found.idle_gpu.is_some_and(|idle| idle.told);
                found.idle_gpu = since.map(|since| IdleGpu { since, told });
                Ok(())
            }
            Event::IdleGpuAlerted { attempt, .. } => match &mut self.attempt_mut(*attempt)?.idle_gpu {
                Some(idle) => {
                    idle.told = true;
                    Ok(())
                }
                None => illegal(format!("{attempt} has no idle GPU to tell of")),
            },
            Event::RungReached { experiment, rung, score, cost } => {
                let asha = self.asha_mut(*experiment)?;
                if !asha.enter(*experiment, *rung as usize, *score, *cost) {
                    return illegal(format!("{experiment} may not run to rung {rung}, or was there before"));
                }
                Ok(())
            }
            Event::TrialPromoted { experiment, rung } => {
                if !self.asha_mut(*experiment)?.promote(*experiment, *rung as usize) {
                    return illegal(format!("{experiment} is promoted, but not paused at rung {rung}"));
                }
                Ok(())
            }
            Event::AttemptStopping { attempt, at, why, at_once } => {
                let found = self.attempt_mut(*attempt)?;
                match &found.state {
                    AttemptState::Assigned | AttemptState::Running => {}
                    // A move may turn into a final stop (somebody cancels meanwhile), never the other way round.
                    AttemptState::Stopping { why: before, .. } if before.requeues() && !why.requeues() => {}
                    AttemptState::Stopping { .. } | AttemptState::Ended { .. } => {
                        return illegal(format!("{attempt} is told to stop twice"));
                    }
                }
                found.state = AttemptState::Stopping { since: *at, why: *why, at_once: *at_once };
                Ok(())
            }
            Event::NodeLost { attempt, instance, at, end } => {
                let found = self.attempt_mut(*attempt)?;
                if found.is_ended() || found.instances().nth(1).is_none() {
                    return illegal(format!("{attempt} loses the last of its nodes and goes on"));
                }
                let Some(node) = found.node_on_mut(*instance) else {
                    return illegal(format!("{attempt} has no node on {instance} to lose"));
                };
                node.lost = Some(end.clone());
                if let AttemptState::Assigned | AttemptState::Running = found.state {
                    let why = match end {
                        AttemptEnd::InstanceLost { interrupted: true } => StopReason::Interrupted,
                        AttemptEnd::InstanceLost { interrupted: false }
                        | AttemptEnd::Exited { .. }
                        | AttemptEnd::Killed { .. }
                        | AttemptEnd::NotStarted { .. }
                        | AttemptEnd::Stopped { .. } => StopReason::NodeEnded,
                    };
                    found.state = AttemptState::Stopping { since: *at, why, at_once: false };
                }
                // The rest of what it is charged there is not of this attempt.
                let others = self.attempts_on(*instance).next().is_some();
                if !others {
                    self.instance_mut(*instance)?.idle_since = Some(*at);
                }
                Ok(())
            }
            Event::AttemptEnded { attempt, at, end, node, failed, not_before } => {
                let found = self.attempt_mut(*attempt)?;
                if found.is_ended() {
                    return illegal(format!("{attempt} ends twice"));
                }
                found.state = AttemptState::Ended { at: *at, end: end.clone(), node: *node };
                let (experiment, instances) = (found.experiment, found.instances().collect::<Vec<_>>());
                self.attempt_left(experiment, end, *failed, *not_before)?;
                for id in instances {
                    let others = self.attempts_on(id).next().is_some();
                    if !others && let Some(instance) = self.instances.get_mut(&id) {
                        instance.idle_since = Some(*at);
                        self.touched.instances.insert(id);
                    }
                }
                Ok(())
            }
            Event::Charged { charge, meter, held } => self.charged(charge, meter, held),
            Event::BillCorrected { charge } => self.bill_corrected(charge),
            Event::CapacityRefused { scope, failures, until } => {
                self.refused.insert(scope.clone(), RefusedScope { failures: *failures, until: *until });
                self.touched.refused.insert(scope.clone());
                Ok(())
            }
            Event::CapacityFound { scope } => {
                self.refused.remove(scope);
                self.touched.refused.insert(scope.clone());
                Ok(())
            }
            Event::NotificationQueued { notification } => {
                let Notification { id, .. } = **notification;
                if !notification.is_waiting() || self.outbox.contains_key(&id) {
                    return illegal(format!("{id} was queued twice"));
                }
                self.touched.outbox.insert(id);
                self.outbox.insert(id, (**notification).clone());
                Ok(())
            }
            Event::NotificationDelivered { notification, at } => {
                self.waiting_mut(*notification)?.state = NotificationState::Delivered { at: *at };
                Ok(())
            }
            Event::NotificationFailed { notification, error, backoff } => {
                let found = self.waiting_mut(*notification)?;
                found.error = Some(error.clone());
                found.backoff = *backoff;
                Ok(())
            }
            Event::NotificationDropped { notification, at, why } => {
                self.waiting_mut(*notification)?.state = NotificationState::Dropped { at: *at, why: *why };
                Ok(())
            }
            Event::ReportReached { report, until } => {
                match until {
                    Some(until) => {
                        if self.reported.get(report).is_some_and(|before| until <= before) {
                            return illegal(format!("the report {report} would cover some time twice"));
                        }
                        self.reported.insert(report.clone(), *until);
                    }
                    None => drop(self.reported.remove(report)),
                }
                self.touched.reported.insert(report.clone());
                Ok(())
            }
        }
    }

    fn experiment_queued(&mut self, experiment: &Experiment) -> Applied {
        let Experiment { id, spec, account, state, .. } = experiment;
        if *state != ExperimentState::Queued {
            return illegal(format!("{id} is queued while {}", experiment.state_name()));
        }
        if account.sweep.is_some_and(|sweep| !self.sweeps.contains_key(&sweep)) {
            return illegal(format!("{id} is a trial of an unknown sweep"));
        }
        let Some(live) = self.specs.get_mut(spec) else {
            return illegal(format!("{id} is queued without its spec {spec}"));
        };
        let Entry::Vacant(vacant) = self.experiments.entry(*id) else {
            return illegal(format!("{id} was queued twice"));
        };
        live.users += 1;
        vacant.insert(experiment.clone());
        self.touched.experiments.insert(*id);
        Ok(())
    }

    fn instance_intended(&mut self, instance: &Instance) -> Applied {
        let id = instance.id;
        if !matches!(instance.state, InstanceState::Intended { .. }) {
            return illegal(format!("{id} is intended while {}", instance.state_name()));
        }
        if self.instances.contains_key(&id) {
            return illegal(format!("{id} was intended twice"));
        }
        let shares = instance.shares.clone();
        // Without its shares first, so that `set_shares` sees every hold as new.
        self.instances.insert(id, Instance { shares: BTreeMap::new(), ..instance.clone() });
        self.touched.instances.insert(id);
        self.set_shares(id, &shares)
    }

    fn instance_launched(&mut self, cloud: &CloudInstance, at: Timestamp) -> Applied {
        let found = self.instance_mut(cloud.instance)?;
        if found.cloud_id.as_ref().is_some_and(|known| *known != cloud.cloud_id) {
            return illegal(format!(
                "{} is {} and {} (O2)",
                found.id,
                cloud.cloud_id,
                found.cloud_id.as_ref().expect("just seen")
            ));
        }
        found.cloud_id = Some(cloud.cloud_id.clone());
        found.backoff = Backoff::default();
        if found.meter.from.is_none() {
            match found.offering.terms.billing.began(cloud) {
                // By our clock it was asked for before, and is known of now, whatever the cloud's clock shows.
                Some(began) => found.begin_billing(began.min(at).max(found.meter.through)),
                None => found.meter.through = cloud.launched_at.min(at).max(found.meter.through),
            }
        }
        if matches!(found.state, InstanceState::Intended { .. }) {
            found.state = InstanceState::Booting { at };
        }
        found.together = None;
        Ok(())
    }

    fn instance_gone(&mut self, id: InstanceId, at: Timestamp, end: &InstanceEnd) -> Applied {
        if let Some(attempt) = self.attempts_on(id).next() {
            return illegal(format!("{id} is gone before its {} has ended", attempt.id));
        }
        let found = self.instance_mut(id)?;
        if !found.is_live() {
            return illegal(format!("{id} is gone twice"));
        }
        found.state = InstanceState::Gone { at, end: end.clone() };
        let shares = found.shares.clone();
        let released =
            shares.into_iter().map(|(payer, share)| (payer, Share { held: Usd::ZERO, ..share })).collect();
        self.set_shares(id, &released)
    }

    fn attempt_assigned(&mut self, attempt: &Attempt, paid: &BTreeMap<InstanceId, Paid>) -> Applied {
        let Attempt { id, experiment, .. } = attempt;
        if attempt.state != AttemptState::Assigned || self.attempts.contains_key(id) {
            return illegal(format!("{id} was assigned twice"));
        }
        // A payment for each node and no other, so that each node has an instance of its own.
        let is_paid = attempt.instances().all(|instance| paid.contains_key(&instance));
        if attempt.nodes.is_empty() || !is_paid || paid.len() != attempt.nodes.len() {
            return illegal(format!("{id} is assigned, and not each node has an instance that is paid for"));
        }
        for instance in paid.keys() {
            match self.instances.get(instance) {
                Some(found) if matches!(found.state, InstanceState::Ready { .. }) => {
                    if !self.free_on(found).fits(attempt.amounts) {
                        return illegal(format!("{id} does not fit onto {instance}"));
                    }
                }
                Some(found) => {
                    let state = found.state_name();
                    return illegal(format!("{id} is assigned to {instance}, which is {state}"));
                }
                None => return illegal(format!("{id} is assigned to {instance}, which is unknown")),
            }
        }
        let found = self.experiment_mut(*experiment)?;
        if found.state != ExperimentState::Queued {
            return illegal(format!("{experiment} gets {id} while {} (E1)", found.state_name()));
        }
        found.state = ExperimentState::Running { attempt: *id };
        found.attempts += 1;
        found.not_before = None;
        if let Some(sweep) = found.account.sweep.and_then(|id| self.sweeps.get_mut(&id)) {
            sweep.running += 1;
            let id = sweep.id;
            self.touched.sweeps.insert(id);
        }
        self.attempts.insert(*id, attempt.clone());
        self.touched.attempts.insert(*id);
        for (instance, Paid { shares, funded_until }) in paid {
            let found = self.instance_mut(*instance)?;
            found.idle_since = None;
            found.funded_until = *funded_until;
            self.set_shares(*instance, shares)?;
        }
        Ok(())
    }

    fn attempt_left(
        &mut self,
        id: ExperimentId,
        end: &AttemptEnd,
        failed: bool,
        not_before: Option<Timestamp>,
    ) -> Applied {
        let experiment = self.experiment_mut(id)?;
        match end {
            AttemptEnd::InstanceLost { interrupted: false } => experiment.losses += 1,
            // Says nothing about who is to blame for the losses before.
            AttemptEnd::InstanceLost { interrupted: true } | AttemptEnd::Stopped { .. } => {}
            AttemptEnd::Exited { .. } | AttemptEnd::Killed { .. } | AttemptEnd::NotStarted { .. } => {
                experiment.losses = 0;
            }
        }
        experiment.state = ExperimentState::Queued;
        experiment.not_before = not_before;
        if failed {
            experiment.failures += 1;
        }
        if let Some(sweep) = experiment.account.sweep.and_then(|id| self.sweeps.get_mut(&id)) {
            sweep.running = sweep.running.saturating_sub(1);
            let id = sweep.id;
            self.touched.sweeps.insert(id);
        }
        Ok(())
    }

    fn charged(&mut self, charge: &Charge, meter: &Meter, held: &BTreeMap<ExperimentId, Usd>) -> Applied {
        let id = charge.instance;
        let found = self.instances.get(&id).ok_or_else(|| unknown(&id))?;
        let gapless = match charge.class {
            ChargeClass::Usage => {
                charge.period.from == found.meter.through && charge.period.to == meter.through
            }
            ChargeClass::Correction => meter.through == found.meter.through,
        };
        if !gapless {
            return illegal(format!("a charge of {id} overlaps or leaves a gap (L2)"));
        }
        if found.meter.costs + charge.costs() != meter.costs {
            return illegal(format!("the charges of {id} do not add up (L1)"));
        }
        let mut shares = found.shares.clone();
        for (payer, amount) in held {
            let Some(share) = shares.get_mut(payer) else {
                return illegal(format!("{payer} has no share of {id}"));
            };
            share.held = *amount;
        }
        for line in &charge.lines {
            for key in line.account.budgets(line.payer) {
                if !self.budgets.contains_key(&key) {
                    return illegal(format!("{key} is charged without ever having held"));
                }
            }
        }
        for line in &charge.lines {
            for key in line.account.budgets(line.payer) {
                self.budget_mut(&key).spend(line.costs.effective, charge.period.from);
            }
        }
        if charge.class == ChargeClass::Usage {
            for line in charge.lines.iter().filter(|line| line.category == Category::Run) {
                let ran = RunCharge { period: charge.period, costs: line.costs };
                if let Some(ExperimentState::Running { attempt }) =
                    self.experiments.get(&line.payer).map(|experiment| &experiment.state)
                {
                    let attempt = *attempt;
                    if let Some(node) = self.attempt_mut(attempt)?.node_on_mut(id) {
                        node.ran(ran);
                    }
                }
            }
        }
        let found = self.instance_mut(id)?;
        found.meter = meter.clone();
        found.earlier_prices.retain(|earlier| earlier.until > meter.through);
        self.set_shares(id, &shares)
    }

    /// Budgets that are over are not here any more: the store adds to those.
    fn bill_corrected(&mut self, charge: &Charge) -> Applied {
        if charge.class != ChargeClass::Correction {
            return illegal(format!("a bill charges {} anew", charge.instance));
        }
        if let Some(found) = self.instances.get_mut(&charge.instance) {
            found.meter.costs += charge.costs();
            self.touched.instances.insert(charge.instance);
        }
        for line in &charge.lines {
            for key in line.account.budgets(line.payer) {
                if self.budgets.contains_key(&key) {
                    let budget = self.budget_mut(&key);
                    budget.spend(line.costs.effective, charge.period.from);
                    budget.land();
                }
            }
        }
        Ok(())
    }

    /// Replaces the shares of an instance and moves the difference of what is held into the budgets above.
    fn set_shares(&mut self, id: InstanceId, shares: &BTreeMap<ExperimentId, Share>) -> Applied {
        let before = std::mem::replace(&mut self.instance_mut(id)?.shares, shares.clone());
        for (payer, share) in before {
            for key in share.account.budgets(payer) {
                self.budget_mut(&key).held -= share.held;
            }
        }
        for (payer, share) in shares {
            for key in share.account.budgets(*payer) {
                self.budget_mut(&key).held += share.held;
            }
        }
        Ok(())
    }

    fn budget_mut(&mut self, key: &BudgetKey) -> &mut crate::budget::Budget {
        self.touched.budgets.insert(key.clone());
        self.budgets.entry(key.clone()).or_default()
    }

    fn touch_budget(&mut self, key: BudgetKey) {
        self.touched.budgets.insert(key);
    }

    fn waiting_mut(&mut self, id: NotificationId) -> Result<&mut Notification, IllegalTransition> {
        self.touched.outbox.insert(id);
        match self.outbox.get_mut(&id) {
            Some(found) if found.is_waiting() => Ok(found),
            Some(_) => illegal(format!("{id} is over twice")),
            None => Err(unknown(&id)),
        }
    }

    fn experiment_mut(&mut self, id: ExperimentId) -> Result<&mut Experiment, IllegalTransition> {
        self.touched.experiments.insert(id);
        self.experiments.get_mut(&id).ok_or_else(|| unknown(&id))
    }

    /// The halving of the sweep that a live experiment is a trial of.
    fn asha_mut(&mut self, trial: ExperimentId) -> Result<&mut Asha, IllegalTransition> {
        let found = self.experiments.get(&trial).filter(|found| !found.is_ended());
        let sweep = found.and_then(|found| found.account.sweep);
        let sweep = sweep.and_then(|id| self.sweeps.get_mut(&id));
        let Some(Sweep { id, asha: Some(asha), .. }) = sweep else {
            return illegal(format!("{trial} is no live trial of a sweep with asha"));
        };
        self.touched.sweeps.insert(*id);
        Ok(asha)
    }

    fn attempt_mut(&mut self, id: AttemptId) -> Result<&mut Attempt, IllegalTransition> {
        self.touched.attempts.insert(id);
        self.attempts.get_mut(&id).ok_or_else(|| unknown(&id))
    }

    fn instance_mut(&mut self, id: InstanceId) -> Result<&mut Instance, IllegalTransition> {
        self.touched.instances.insert(id);
        self.instances.get_mut(&id).ok_or_else(|| unknown(&id))
    }
}

fn illegal<T>(what: String) -> Result<T, IllegalTransition> {
    Err(IllegalTransition(what))
}

fn unknown(id: &dyn std::fmt::Display) -> IllegalTransition {
    IllegalTransition(format!("{id} is unknown"))
}
