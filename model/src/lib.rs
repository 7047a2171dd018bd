//! The domain of bursar in types: ids, money, periods, states, events, and `Fleet`, the live state.
//!
//! No IO, no async, no clock, no chance. Every other crate speaks in these types; this one imports none of ours.

pub mod agent_api;
pub mod asha;
pub mod budget;
pub mod charge;
pub mod event;
pub mod experiment;
pub mod fleet;
pub mod host;
pub mod id;
pub mod instance;
pub mod invariant;
pub mod metric;
pub mod money;
pub mod name;
pub mod notification;
pub mod offering;
pub mod pricing;
pub mod provenance;
pub mod reason;
pub mod resources;
pub mod schedule;
pub mod spec;
pub mod time;
pub mod workdir;

pub use self::{
    asha::{Asha, AshaMode, AshaRules, Rung, Standing},
    budget::{Account, Budget, BudgetAlert, BudgetKey, BudgetTerms, Counted, OnExhausted, SetBy, Told},
    charge::{Category, Charge, ChargeClass, ChargeLine},
    event::{Event, Paid},
    experiment::{
        Attempt, AttemptEnd, AttemptState, CostEstimate, Experiment, ExperimentState, IdleGpu, Node, Outcome,
        Refusal, RunCharge, StopReason, Sweep,
    },
    fleet::{Change, Changes, Fleet, FleetParts, IllegalTransition, RefusedScope},
    host::{Boot, ContainerRuntime, Gpu, Host},
    id::{AttemptId, ExperimentId, IdGen, InstanceId, NotificationId, SweepId, TypedId},
    instance::{
        Backoff, CloudInstance, CloudState, DrainReason, Instance, InstanceEnd, InstanceState, Meter, Share,
        Together,
    },
    invariant::{InvariantId, Violation},
    metric::{POINTS_BYTES_MAX, Point},
    money::{Usd, UsdPerHour},
    name::{AcceleratorName, CloudId, ProjectName, ProviderName, Region, TypeName, UserName, Zone},
    notification::{DropReason, Notification, NotificationAbout, NotificationState},
    offering::{CapacityType, Offering, OfferingKey, Quota, QuotaUse, Scope},
    pricing::{
        BillingEnd, BillingRules, BillingStart, ByBasis, Costs, Discount, EarlierPrice, Price, Rates,
        Remainders, Segment, Terms,
    },
    provenance::{Dirty, RanWith, Source, seed_of},
    reason::{NoRoom, WaitingOn},
    resources::{Accelerators, Amounts, InstanceType, Resources},
    schedule::{InvalidSchedule, Schedule},
    spec::{
        CheckpointSpec, DataSpec, Deadline, Estimate, ExperimentSpec, IdleAction, ParamValue, Params,
        RegistryAuth, Retry, SecretRef, SpecId, SpotPolicy, SweepSpec, UtilizationPolicy,
    },
    time::{Clock, Period, Span, Timestamp},
    workdir::{Digest, Workdir},
};
