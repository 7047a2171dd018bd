//! What an experiment asks of an instance, and what an instance type has.

use serde::{Deserialize, Serialize};

use crate::name::{AcceleratorName, TypeName};

/// Accelerators of one kind: a request (one of several alternatives) or what an instance type has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Accelerators {
    /// The kind, such as `A100`.
    pub name: AcceleratorName,
    /// How many, at least one.
    pub count: u32,
    /// GiB of memory on each; `None` in a request means any, in a type unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_gib: Option<u32>,
}

/// What one experiment needs while it runs. All amounts are lower bounds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Resources {
    /// Alternatives, each of which would do; none means that no accelerator is needed.
    pub accelerators: Vec<Accelerators>,
    /// Virtual CPUs in thousandths.
    pub cpus_milli: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Disk in GiB.
    pub disk_gib: u32,
}

/// A machine that a provider rents out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InstanceType {
    /// The provider's name of it.
    pub name: TypeName,
    /// Its accelerators, if it has any.
    pub accelerators: Option<Accelerators>,
    /// Virtual CPUs in thousandths.
    pub cpus_milli: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// The largest disk that can be had with it, in GiB.
    pub disk_gib: u32,
}

/// What a part of an instance's resources comes to: one attempt's use, or what is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Amounts {
    /// Accelerators.
    pub accelerators: u32,
    /// Virtual CPUs in thousandths.
    pub cpus_milli: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
}

impl Resources {
    /// How many accelerators of this type the request would use: 0 where it needs none, `None` where no
    /// alternative matches or the type is too small even when empty.
    #[must_use]
    pub fn accelerators_on(&self, kind: &InstanceType) -> Option<u32> {
        let fits = kind.cpus_milli >= self.cpus_milli
            && kind.memory_mib >= self.memory_mib
            && kind.disk_gib >= self.disk_gib;
        if !fits {
            return None;
        }
        if self.accelerators.is_empty() {
            return Some(0);
        }
        let have = kind.accelerators.as_ref()?;
        self.accelerators.iter().find(|want| want.fit_into(have)).map(|want| want.count)
    }

    /// What the request takes of an instance of this type; `None` where it never fits.
    #[must_use]
    pub fn amounts_on(&self, kind: &InstanceType) -> Option<Amounts> {
        let accelerators = self.accelerators_on(kind)?;
        Some(Amounts { accelerators, cpus_milli: self.cpus_milli, memory_mib: self.memory_mib })
    }
}

impl Accelerators {
    /// Whether this request can be met out of what a type has.
    #[must_use]
    pub fn fit_into(&self, have: &Self) -> bool {
        self.name == have.name && self.fit_among(have.count, have.memory_gib)
    }

    /// The same where the name is known to be right: out of so many, each with so much memory.
    #[must_use]
    pub fn fit_among(&self, count: u32, memory_gib: Option<u32>) -> bool {
        self.count <= count
            && match (self.memory_gib, memory_gib) {
                (Some(want), Some(have)) => want <= have,
                // A wish for memory that the type does not state cannot be promised.
                (Some(_), None) => false,
                (None, _) => true,
            }
    }
}

impl InstanceType {
    /// All that it has.
    #[must_use]
    pub fn amounts(&self) -> Amounts {
        Amounts {
            accelerators: self.accelerators.as_ref().map_or(0, |a| a.count),
            cpus_milli: self.cpus_milli,
            memory_mib: self.memory_mib,
        }
    }

    /// The instance in units of its scarcest resource, thousandths of an accelerator or of a CPU: the weight of all.
    #[must_use]
    pub fn weight(&self) -> u32 {
        match &self.accelerators {
            Some(accelerators) => accelerators.count.saturating_mul(1000).max(1),
            None => self.cpus_milli.max(1),
        }
    }

    /// The weight of a part: by accelerators, else by CPUs. At least 1, so that nothing runs for free.
    #[must_use]
    pub fn weight_of(&self, part: Amounts) -> u32 {
        let by_cpus = || {
            let share =
                u64::from(part.cpus_milli) * u64::from(self.weight()) / u64::from(self.cpus_milli.max(1));
            share.min(u64::from(self.weight())) as u32
        };
        let weight = if part.accelerators > 0 { part.accelerators.saturating_mul(1000) } else { by_cpus() };
        weight.max(1)
    }
}

impl Amounts {
    /// Whether `part` fits into this.
    #[must_use]
    pub fn fits(&self, part: Amounts) -> bool {
        part.accelerators <= self.accelerators
            && part.cpus_milli <= self.cpus_milli
            && part.memory_mib <= self.memory_mib
    }

    /// What is left after `part`, which fits.
    #[must_use]
    pub fn minus(&self, part: Amounts) -> Amounts {
        Amounts {
            accelerators: self.accelerators.saturating_sub(part.accelerators),
            cpus_milli: self.cpus_milli.saturating_sub(part.cpus_milli),
            memory_mib: self.memory_mib.saturating_sub(part.memory_mib),
        }
    }
}
