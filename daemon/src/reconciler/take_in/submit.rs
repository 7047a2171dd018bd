//! Submissions: idempotent by the client's key, all of one or nothing.

use std::sync::Arc;

use bursar_model::{
    Account, Asha, BudgetKey, Event, Experiment, ExperimentId, ExperimentSpec, ExperimentState, Params,
    Sweep, SweepId, Timestamp, UserName,
};
use bursar_store::{Store, Submission, Submitted};
use tokio::sync::oneshot;

use crate::{
    inbox::{Accepted, CommitFailed, NewExperiment, SubmitContent, SubmitError, SubmitRequest},
    reconciler::{Reconciler, Turn, chain},
};

impl<S: Store> Reconciler<S> {
    pub(super) async fn submit(
        &mut self,
        request: SubmitRequest,
        reply: oneshot::Sender<Result<Accepted, SubmitError>>,
        now: Timestamp,
        turn: &mut Turn,
    ) {
        let SubmitRequest { key, user, content } = request;
        if let Some((key, digest)) = &key {
            // A key may also repeat within this very turn, before anything of it is stored.
            let in_this_turn = turn.submissions.iter().find(|submission| submission.key == *key).cloned();
            let known = match in_this_turn {
                Some(submission) => Ok(Some(submission)),
                None => self.store.submission(key).await,
            };
            match known {
                Ok(None) => {}
                Ok(Some(known)) if known.digest == *digest => {
                    let accepted = repeated(known.became);
                    answer_when_durable(turn, reply, accepted);
                    return;
                }
                Ok(Some(_)) => {
                    let _ = reply.send(Err(SubmitError::KeyReused(key.clone())));
                    return;
                }
                Err(error) => {
                    let _ = reply.send(Err(SubmitError::NotStored(CommitFailed(chain(&error)))));
                    return;
                }
            }
        }

        let accepted = match content {
            SubmitContent::Experiments(experiments) => {
                let mut ids = Vec::with_capacity(experiments.len());
                let mut account: Option<Arc<Account>> = None;
                for new in experiments {
                    // Most batches are for one project: its experiments share one account.
                    let account = match &account {
                        Some(known) if known.project == new.spec.project => known.clone(),
                        _ => account.insert(account_of(&new.spec, &user, None)).clone(),
                    };
                    let budget = new.spec.budget.clone();
                    let id = self.queue(new, account, Params::new(), now, turn);
                    self.set_spec_budget(BudgetKey::Experiment(id), budget.as_ref(), now, turn);
                    ids.push(id);
                }
                Accepted { sweep: None, experiments: ids, repeated: false, waiting: None }
            }
            SubmitContent::Sweep(new) => {
                let id = self.ids.sweep(now);
                let trials = u32::try_from(new.trials.len()).unwrap_or(u32::MAX);
                let sweep = Sweep {
                    id,
                    name: new.name.clone(),
                    project: new.spec.project.clone(),
                    user: user.clone(),
                    queued_at: now,
                    trials,
                    open: trials,
                    running: 0,
                    max_parallel: new.max_parallel,
                    asha: new.asha.map(Asha::new),
                    ended_at: None,
                };
                self.record(Event::SweepQueued { sweep }, turn);
                self.set_spec_budget(BudgetKey::Sweep(id), new.budget.as_ref(), now, turn);
                let account = account_of(&new.spec, &user, Some(id));
                let mut ids = Vec::with_capacity(new.trials.len());
                for (index, params) in new.trials.into_iter().enumerate() {
                    let name: Arc<str> = format!("{}-{}", new.name, index + 1).into();
                    let (spec_id, spec, expected) = (new.spec_id, new.spec.clone(), new.expected);
                    let trial = NewExperiment { name, spec_id, spec, expected };
                    let trial = self.queue(trial, account.clone(), params, now, turn);
                    self.set_spec_budget(BudgetKey::Experiment(trial), new.spec.budget.as_ref(), now, turn);
                    ids.push(trial);
                }
                Accepted { sweep: Some(id), experiments: ids, repeated: false, waiting: None }
            }
        };
        if let Some((key, digest)) = key {
            let became = match accepted.sweep {
                Some(sweep) => Submitted::Sweep(sweep),
                None => Submitted::Experiments(accepted.experiments.clone()),
            };
            turn.submissions.push(Submission { key, digest, became });
        }
        answer_when_durable(turn, reply, accepted);
    }

    fn queue(
        &mut self,
        new: NewExperiment,
        account: Arc<Account>,
        params: Params,
        now: Timestamp,
        turn: &mut Turn,
    ) -> ExperimentId {
        let NewExperiment { name, spec_id, spec, expected } = new;
        if !self.fleet.specs.contains_key(&spec_id) {
            self.record(Event::SpecAdded { id: spec_id, spec }, turn);
        }
        let id = self.ids.experiment(now);
        let experiment = Experiment {
            id,
            name,
            account,
            spec: spec_id,
            params,
            queued_at: now,
            state: ExperimentState::Queued,
            attempts: 0,
            failures: 0,
            losses: 0,
            not_before: None,
            checkpoint_at: None,
            checkpoint_took: None,
            metrics: Default::default(),
            cancelled: false,
            expected,
        };
        self.record(Event::ExperimentQueued { experiment }, turn);
        id
    }
}

fn account_of(spec: &ExperimentSpec, user: &UserName, sweep: Option<SweepId>) -> Arc<Account> {
    Arc::new(Account { project: spec.project.clone(), user: user.clone(), sweep })
}

fn repeated(became: Submitted) -> Accepted {
    let (sweep, experiments): (Option<SweepId>, _) = match became {
        Submitted::Experiments(experiments) => (None, experiments),
        Submitted::Sweep(sweep) => (Some(sweep), Vec::new()),
    };
    Accepted { sweep, experiments, repeated: true, waiting: None }
}

fn answer_when_durable(
    turn: &mut Turn,
    reply: oneshot::Sender<Result<Accepted, SubmitError>>,
    mut accepted: Accepted,
) {
    turn.answers.push(Box::new(move |stored| {
        let answer = match stored {
            Ok(snapshot) => {
                accepted.waiting =
                    accepted.experiments.first().and_then(|first| snapshot.waiting.get(first)).cloned();
                Ok(accepted)
            }
            Err(failed) => Err(SubmitError::NotStored(failed.clone())),
        };
        // Whoever asked may have gone: the submission stands, and its key finds it.
        let _ = reply.send(answer);
    }));
}
