//! One commit as rows. The caller has the transaction; here is what goes into it, and in which order.

use bursar_model::{
    Account, Attempt, Budget, BudgetKey, Change, Changes, Event, Experiment, ExperimentSpec, Instance,
    Notification, RefusedScope, Scope, Span, SpecId, Sweep, Timestamp,
};
use rusqlite::{
    Connection, OptionalExtension, ToSql, params,
    types::{ToSqlOutput, ValueRef},
};
use serde::Serialize;

use super::rows;
use crate::{Commit, StoreError, Submission, Submitted};

/// Writes everything of a commit, after looking whether we still lead.
pub(super) fn write(connection: &Connection, commit: &Commit) -> Result<(), StoreError> {
    let Commit { epoch, at, events, changes, submissions } = commit;
    let current = connection
        .prepare_cached("SELECT epoch FROM leader")?
        .query_row([], |row| row.get::<_, i64>(0))? as u64;
    if *epoch < current {
        return Err(StoreError::Deposed { ours: *epoch, current });
    }

    let Changes { specs, sweeps, experiments, attempts, instances, budgets, refused, outbox, reported } =
        changes;
    let mut writer = Writer { connection, account: None, text: Vec::new() };
    writer.specs(specs)?;
    writer.sweeps(sweeps)?;
    writer.experiments(experiments)?;
    writer.attempts(attempts)?;
    // Before the charges, which count at the place of their instance.
    writer.instances(instances)?;
    writer.budgets(budgets)?;
    writer.refused(refused)?;
    writer.outbox(outbox)?;
    writer.reported(reported)?;
    writer.submissions(submissions)?;
    writer.journal(*at, events, changes)?;
    Ok(())
}

pub(super) struct Writer<'c> {
    pub(super) connection: &'c Connection,
    /// The account that was asked for last: a batch has few. It must not outlive the transaction, which may roll back.
    account: Option<(Account, i64)>,
    /// Reused for every JSON text.
    text: Vec<u8>,
}

/// JSON text that was just written.
struct Json<'t>(&'t [u8]);

impl ToSql for Json<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(self.0)))
    }
}

impl Writer<'_> {
    fn specs(&mut self, specs: &[(SpecId, std::sync::Arc<ExperimentSpec>)]) -> Result<(), StoreError> {
        for (id, spec) in specs {
            let mut statement = self
                .connection
                .prepare_cached("INSERT INTO specs (id, body) VALUES (?1, ?2) ON CONFLICT (id) DO NOTHING")?;
            statement.execute(params![id.to_bytes(), json(&mut self.text, spec)])?;
        }
        Ok(())
    }

    fn sweeps(&mut self, sweeps: &[Change<Sweep>]) -> Result<(), StoreError> {
        for Change { live, row: sweep } in sweeps {
            let mut statement = self.connection.prepare_cached(
                "INSERT INTO sweeps (id, live, name, project, body) VALUES (?1, ?2, ?3, ?4, ?5) \
                 ON CONFLICT (id) DO UPDATE SET live = ?2, body = ?5",
            )?;
            let body = json(&mut self.text, sweep);
            statement.execute(params![
                rows::number(sweep.id),
                live,
                sweep.name,
                sweep.project.as_str(),
                body
            ])?;
        }
        Ok(())
    }

    fn experiments(&mut self, experiments: &[Change<Experiment>]) -> Result<(), StoreError> {
        if experiments.is_empty() {
            return Ok(());
        }
        // What never changes after the first time is not among what is updated, nor are its indexes then.
        let mut statement = self.connection.prepare_cached(
            "INSERT INTO experiments (id, live, state, name, account, spec, params, queued_at, detail, attempts, \
                 failures, not_before, checkpoint_at, metrics, cancelled, losses, expected, checkpoint_took) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18) \
             ON CONFLICT (id) DO UPDATE SET live = ?2, state = ?3, detail = ?9, attempts = ?10, failures = ?11, \
                 not_before = ?12, checkpoint_at = ?13, metrics = ?14, cancelled = ?15, losses = ?16, \
                 checkpoint_took = ?18",
        )?;
        for Change { live, row } in experiments {
            let Experiment {
                id,
                name,
                account,
                spec,
                params,
                queued_at,
                state,
                attempts,
                failures,
                losses,
                not_before,
                checkpoint_at,
                checkpoint_took,
                metrics,
                cancelled,
                expected,
            } = row;
            let account = self.account(account)?;
            let params = (!params.is_empty()).then(|| rows::to_json(params));
            let metrics = (!metrics.is_empty()).then(|| rows::to_json(metrics));
            let detail = rows::state_detail(state).map(rows::to_json);
            statement.execute(params![
                rows::number(*id),
                live,
                row.state_name(),
                name,
                account,
                spec.to_bytes(),
                params,
                queued_at.as_millis(),
                detail,
                attempts,
                failures,
                not_before.map(Timestamp::as_millis),
                checkpoint_at.map(Timestamp::as_millis),
                metrics,
                cancelled,
                losses,
                expected.as_ref().map(rows::to_json),
                checkpoint_took.map(Span::as_millis),
            ])?;
        }
        Ok(())
    }

    fn attempts(&mut self, attempts: &[Change<Attempt>]) -> Result<(), StoreError> {
        for Change { live, row: attempt } in attempts {
            let mut statement = self.connection.prepare_cached(
                "INSERT INTO attempts (id, live, experiment, body) VALUES (?1, ?2, ?3, ?4) \
                 ON CONFLICT (id) DO UPDATE SET live = ?2, body = ?4",
            )?;
            let body = json(&mut self.text, attempt);
            statement.execute(params![
                rows::number(attempt.id),
                live,
                rows::number(attempt.experiment),
                body
            ])?;
        }
        Ok(())
    }

    fn instances(&mut self, instances: &[Change<Instance>]) -> Result<(), StoreError> {
        for Change { live, row: instance } in instances {
            let mut update =
                self.connection.prepare_cached("UPDATE instances SET live = ?2, body = ?3 WHERE id = ?1")?;
            let id = rows::number(instance.id);
            let body = json(&mut self.text, instance);
            if update.execute(params![id, live, body])? == 0 {
                let place = self.place(instance)?;
                let mut insert = self.connection.prepare_cached(
                    "INSERT INTO instances (id, live, place, body) VALUES (?1, ?2, ?3, ?4)",
                )?;
                insert.execute(params![id, live, place, Json(&self.text)])?;
            }
        }
        Ok(())
    }

    fn budgets(&mut self, budgets: &[Change<(BudgetKey, Budget)>]) -> Result<(), StoreError> {
        for Change { live, row: (key, budget) } in budgets {
            let mut statement = self.connection.prepare_cached(
                "INSERT INTO budgets (kind, key, live, spent, held, rest) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
                 ON CONFLICT (kind, key) DO UPDATE SET live = ?3, spent = ?4, held = ?5, rest = ?6",
            )?;
            let (kind, key) = rows::budget_key(key);
            let rest = rows::budget_rest(budget).map(|rest| rows::to_json(&rest));
            statement.execute(params![
                kind,
                key,
                live,
                budget.spent.as_nanos(),
                budget.held.as_nanos(),
                rest
            ])?;
        }
        Ok(())
    }

    fn refused(&mut self, refused: &[(Scope, Option<RefusedScope>)]) -> Result<(), StoreError> {
        for (scope, memory) in refused {
            let scope = json(&mut self.text, scope);
            match memory {
                Some(RefusedScope { failures, until }) => self
                    .connection
                    .prepare_cached(
                        "INSERT INTO refused (scope, failures, until) VALUES (?1, ?2, ?3) \
                         ON CONFLICT (scope) DO UPDATE SET failures = ?2, until = ?3",
                    )?
                    .execute(params![scope, failures, until.as_millis()])?,
                None => self
                    .connection
                    .prepare_cached("DELETE FROM refused WHERE scope = ?1")?
                    .execute([scope])?,
            };
        }
        Ok(())
    }

    fn outbox(&mut self, outbox: &[Change<Notification>]) -> Result<(), StoreError> {
        for Change { live, row: notification } in outbox {
            let mut statement = self.connection.prepare_cached(
                "INSERT INTO notifications (id, live, body) VALUES (?1, ?2, ?3) \
                 ON CONFLICT (id) DO UPDATE SET live = ?2, body = ?3",
            )?;
            let body = json(&mut self.text, notification);
            statement.execute(params![rows::number(notification.id), live, body])?;
        }
        Ok(())
    }

    fn reported(&mut self, reported: &[(String, Option<Timestamp>)]) -> Result<(), StoreError> {
        for (report, until) in reported {
            match until {
                Some(until) => self
                    .connection
                    .prepare_cached(
                        "INSERT INTO reported (report, until) VALUES (?1, ?2) \
                         ON CONFLICT (report) DO UPDATE SET until = ?2",
                    )?
                    .execute(params![report, until.as_millis()])?,
                None => self
                    .connection
                    .prepare_cached("DELETE FROM reported WHERE report = ?1")?
                    .execute([report])?,
            };
        }
        Ok(())
    }

    fn submissions(&mut self, submissions: &[Submission]) -> Result<(), StoreError> {
        for Submission { key, digest, became } in submissions {
            let (sweep, experiments) = match became {
                Submitted::Sweep(id) => (Some(rows::number(*id)), None),
                Submitted::Experiments(ids) => (None, Some(rows::pack_ids(ids))),
            };
            // No upsert: a key that comes twice fails the commit, so that nothing is ever accepted twice.
            let mut statement = self.connection.prepare_cached(
                "INSERT INTO submissions (key, digest, sweep, experiments) VALUES (?1, ?2, ?3, ?4)",
            )?;
            statement.execute(params![key, digest, sweep, experiments])?;
        }
        Ok(())
    }

    fn journal(&mut self, at: Timestamp, events: &[Event], changes: &Changes) -> Result<(), StoreError> {
        let mut statement =
            self.connection.prepare_cached("INSERT INTO journal (at, event) VALUES (?1, ?2)")?;
        for event in events {
            statement.execute(params![at.as_millis(), json(&mut self.text, event)])?;
            let seq = self.connection.last_insert_rowid();
            if let Event::Charged { charge, meter: _, held: _ } = event {
                super::charges::write(self, seq, charge)?;
            }
            if let Event::BillCorrected { charge } = event {
                super::charges::write_correction(self, seq, charge, changes)?;
            }
        }
        Ok(())
    }

    /// The number of an account, given anew where it is the first time.
    pub(super) fn account(&mut self, account: &Account) -> rusqlite::Result<i64> {
        if let Some((known, number)) = &self.account
            && known == account
        {
            return Ok(*number);
        }
        let Account { project, user, sweep } = account;
        let key = params![project.as_str(), user.as_str(), sweep.map(rows::number)];
        let found = self
            .connection
            .prepare_cached("SELECT id FROM accounts WHERE project = ?1 AND user = ?2 AND sweep IS ?3")?
            .query_row(key, |row| row.get(0))
            .optional()?;
        let number = match found {
            Some(number) => number,
            None => self
                .connection
                .prepare_cached("INSERT INTO accounts (project, user, sweep) VALUES (?1, ?2, ?3)")?
                .insert(key)?,
        };
        self.account = Some((account.clone(), number));
        Ok(number)
    }

    /// The number of the place of an instance, given anew where it is the first time.
    fn place(&self, instance: &Instance) -> rusqlite::Result<i64> {
        let offering = &instance.offering;
        let capacity_type = offering.capacity_type.to_string();
        let key = params![
            offering.provider.as_str(),
            offering.region.as_str(),
            offering.instance_type.name.as_str(),
            capacity_type
        ];
        let found = self
            .connection
            .prepare_cached(
                "SELECT id FROM places WHERE provider = ?1 AND region = ?2 AND instance_type = ?3 AND capacity_type = ?4",
            )?
            .query_row(key, |row| row.get(0))
            .optional()?;
        match found {
            Some(number) => Ok(number),
            None => self
                .connection
                .prepare_cached(
                    "INSERT INTO places (provider, region, instance_type, capacity_type) VALUES (?1, ?2, ?3, ?4)",
                )?
                .insert(key),
        }
    }
}

/// Serializes into the reused text.
fn json<'t, T: Serialize>(text: &'t mut Vec<u8>, value: &T) -> Json<'t> {
    text.clear();
    serde_json::to_writer(&mut *text, value).expect("the model's types have text keys and a Vec takes all");
    Json(text)
}
