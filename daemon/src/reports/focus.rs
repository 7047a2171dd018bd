//! The FOCUS export: every charge with its facts, from the store through `bursar_ledger::focus` to wherever it goes.
//!
//! It is written as it is read, so a year of charges takes no more memory than an hour of them. Who sends the invoice
//! follows from what a provider is in the configuration, because its name is anybody's choice.

use std::{collections::BTreeMap, io, ops::ControlFlow};

use bursar_config::{Config, ProviderKind};
use bursar_ledger::focus::{
    FocusAccount, FocusCharge, FocusClass, FocusCosts, FocusError, FocusInstance, FocusLine, FocusWriter,
    Vendor,
};
use bursar_model::{ProviderName, Timestamp};
use bursar_store::{Reader, StoreError, WalkedCharge, WalkedLine};

/// Why an export ended early. What was written before is not a whole export.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The charges cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A charge could not be written.
    #[error(transparent)]
    Focus(#[from] FocusError),
}

/// Who is billed, and by whom.
#[derive(Debug, Clone)]
pub struct Billing {
    account: FocusAccount,
    vendors: BTreeMap<ProviderName, Vendor>,
}

impl Billing {
    /// As the configuration has it.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let name = config.installation.clone();
        let vendor = |kind: &ProviderKind| match kind {
            ProviderKind::Aws(_) => Vendor::Aws,
            ProviderKind::Local(_) => Vendor::Local,
        };
        Self {
            account: FocusAccount { id: name.clone(), name },
            vendors: config.providers.iter().map(|(name, of)| (name.clone(), vendor(&of.kind))).collect(),
        }
    }

    /// A provider that is not configured any more still has charges.
    fn vendor(&self, provider: &ProviderName) -> Vendor {
        self.vendors.get(provider).copied().unwrap_or(Vendor::Other)
    }
}

/// Writes the charges that begin in `[since, until)`, and gives back what they were written to.
///
/// # Errors
/// When the store cannot be read or `to` refuses.
pub fn export<W: io::Write>(
    reader: &Reader,
    billing: &Billing,
    (since, until): (Option<Timestamp>, Option<Timestamp>),
    to: W,
) -> Result<W, ExportError> {
    let mut rows = FocusWriter::new(to, billing.account.clone())?;
    let walked = reader.walk_charges(since, until, |charge| match write(&mut rows, billing, charge) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error),
    })?;
    match walked {
        ControlFlow::Continue(()) => Ok(rows.finish()?),
        ControlFlow::Break(error) => Err(error.into()),
    }
}

fn write<W: io::Write>(
    rows: &mut FocusWriter<W>,
    billing: &Billing,
    charge: &WalkedCharge<'_>,
) -> Result<(), FocusError> {
    let WalkedCharge { seq, corrected_at, instance, period, rates, lines } = charge;
    let offering = &instance.offering;
    let lines: Vec<_> = lines.iter().map(line).collect();
    rows.write(&FocusCharge {
        id: *seq,
        class: corrected_at.map_or(FocusClass::Usage, |made_at| FocusClass::Correction { made_at }),
        period: *period,
        instance: FocusInstance {
            id: instance.id,
            cloud_id: instance.cloud_id.as_ref().map(bursar_model::CloudId::as_str),
            provider: offering.provider.as_str(),
            vendor: billing.vendor(&offering.provider),
            region: offering.region.as_str(),
            zone: offering.zone.as_str(),
            instance_type: &offering.instance_type,
            capacity_type: offering.capacity_type,
        },
        list_price: rates.list,
        contracted_price: rates.contracted,
        lines: &lines,
    })
}

fn line(line: &WalkedLine) -> FocusLine<'_> {
    let WalkedLine { payer, category, costs, time } = line;
    FocusLine {
        experiment: payer.id,
        experiment_name: &payer.name,
        sweep: payer.account.sweep,
        project: payer.account.project.as_str(),
        user: payer.account.user.as_str(),
        labels: &payer.labels,
        category: *category,
        costs: FocusCosts { list: costs.list, contracted: costs.contracted, effective: costs.effective },
        instance_ms: time.as_millis(),
    }
}
