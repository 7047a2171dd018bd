//! Messages into events: what happened, checked against the state.

mod agents;
mod budgets;
mod cloud;
mod instances;
mod notifications;
mod rules;
mod submit;

use std::collections::BTreeMap;

use bursar_model::{Charge, Event, Timestamp};
use bursar_policies::{PlanInput, candidates, candidates_for};
use bursar_store::Store;

use super::{Reconciler, Turn};
use crate::inbox::{CancelTarget, CandidatesOf, CorrectError, EndInstanceError, Message, SetBudgetError};

impl<S: Store> Reconciler<S> {
    /// Takes one message in. Answers that depend on the turn being durable are noted in it.
    pub(super) async fn take_in(&mut self, message: Message, now: Timestamp, turn: &mut Turn) {
        match message {
            Message::Submit { request, reply } => {
                self.submit(*request, reply, now, turn).await;
            }
            Message::Cancel { target, reply } => {
                let count = self.cancel(target, turn);
                turn.answers.push(Box::new(move |stored| {
                    // Whoever asked may have gone: nothing is lost by that.
                    let _ = reply.send(stored.map(|_| count).map_err(Clone::clone));
                }));
            }
            Message::EndInstance { instance, force, reply } => {
                let ended = self.end_instance(instance, force, now, turn);
                turn.answers.push(Box::new(move |stored| {
                    let _ = reply.send(match stored {
                        Ok(_) => ended,
                        Err(failed) => Err(EndInstanceError::NotStored(failed.clone())),
                    });
                }));
            }
            Message::SetBudget { key, terms, by, reply } => {
                let set = self.set_budget(key, terms, by, now, turn);
                turn.answers.push(Box::new(move |stored| {
                    let _ = reply.send(match stored {
                        Ok(_) => set,
                        Err(failed) => Err(SetBudgetError::NotStored(failed.clone())),
                    });
                }));
            }
            Message::Reload { rules, reply } => {
                let reloaded = self.change_rules(*rules, now, turn);
                turn.answers.push(Box::new(move |stored| {
                    let _ = reply.send(match stored {
                        Ok(_) => reloaded,
                        Err(failed) => Err(failed.clone()),
                    });
                }));
            }
            Message::CorrectByBill { charges, as_of, reply } => {
                let corrected = self.correct_by_bill(charges, as_of, turn);
                turn.answers.push(Box::new(move |stored| {
                    let _ = reply.send(match stored {
                        Ok(_) => corrected,
                        Err(failed) => Err(CorrectError::NotStored(failed.clone())),
                    });
                }));
            }
            Message::Register { request, reply } => self.register(&request, reply, now, turn),
            Message::Sync { token_digest, request, reply } => {
                self.sync(&token_digest, request, reply, now, turn)
            }
            Message::AuthorizeLog { token_digest, attempt, reply } => {
                let _ = reply.send(self.node_of(&token_digest, attempt));
            }
            Message::AuthorizeBlob { token_digest, digest, reply } => {
                let _ = reply.send(self.needs_blob(&token_digest, digest));
            }
            Message::WorkdirsInUse { reply } => {
                let _ = reply.send(self.workdirs_in_use());
            }
            Message::SecretMissing { attempt, instance, error } => {
                self.secret_missing(attempt, instance, error, now, turn);
            }
            Message::Launched { instance, result } => self.launched(instance, result, now, turn),
            Message::Terminated { instance, result } => self.terminated(instance, result, now, turn),
            Message::Listed { provider, asked_at, result } => {
                self.listed(&provider, asked_at, result, now, turn)
            }
            Message::Offered { provider, result } => self.offered(provider, result, now, turn),
            Message::Delivered { notification, result } => self.delivered(notification, result, now, turn),
            Message::Foreseen { alerts } => self.foreseen(alerts, now, turn),
            Message::Candidates { of, reply } => {
                let _ = reply.send(self.candidates(of, now));
            }
        }
    }

    fn cancel(&mut self, target: CancelTarget, turn: &mut Turn) -> usize {
        let concerned: Vec<_> = self
            .fleet
            .experiments
            .values()
            .filter(|experiment| !experiment.cancelled && !experiment.is_ended())
            .filter(|experiment| match target {
                CancelTarget::Experiment(id) => experiment.id == id,
                CancelTarget::Sweep(id) => experiment.account.sweep == Some(id),
            })
            .map(|experiment| experiment.id)
            .collect();
        for experiment in &concerned {
            self.record(Event::CancelRequested { experiment: *experiment }, turn);
        }
        concerned.len()
    }

    /// What is over changes by corrections alone, and all of them come through here: where there was none since the store
    /// was read, the charges fit what it had. So the loop need not read it again, which may take long beside a report.
    fn correct_by_bill(
        &mut self,
        charges: Vec<Charge>,
        as_of: u64,
        turn: &mut Turn,
    ) -> Result<(), CorrectError> {
        let corrected_now = turn.events.iter().any(|event| matches!(event, Event::BillCorrected { .. }));
        if corrected_now || self.snapshot.borrow().corrections != as_of {
            return Err(CorrectError::Changed);
        }
        for charge in charges {
            self.record(Event::BillCorrected { charge }, turn);
        }
        Ok(())
    }

    fn candidates(&self, of: CandidatesOf, now: Timestamp) -> Option<Vec<bursar_policies::Candidate>> {
        /// More than a person reads; the planner itself looks at all.
        const CANDIDATES_MAX: usize = 200;
        let market = self.snapshot.borrow().market.clone();
        let nothing_heard = BTreeMap::new();
        let input = PlanInput {
            now,
            fleet: &self.fleet,
            market: &market,
            heard: &nothing_heard,
            started_at: self.listening_since,
            settings: &self.rules.settings,
        };
        match of {
            CandidatesOf::Spec(spec, account) => Some(candidates(&input, &spec, &account, CANDIDATES_MAX)),
            CandidatesOf::Experiment(id) => {
                let experiment = self.fleet.experiments.get(&id).filter(|found| !found.is_ended())?;
                Some(candidates_for(&input, experiment, CANDIDATES_MAX))
            }
        }
    }
}
