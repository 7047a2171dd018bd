//! A provider to which things happen: a script of faults in front of another provider. Nothing is left to chance, so
//! that a test says what it tests.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bursar_model::{CloudId, CloudInstance, InstanceId, Offering, ProviderName, Span};

use crate::{EffectMay, ErrorKind, LaunchRequest, Provider, ProviderError};

/// Which call a fault waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// `offerings`.
    Offerings,
    /// `launch`.
    Launch,
    /// `list`.
    List,
    /// `terminate`.
    Terminate,
}

/// What goes wrong with a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It is refused and has no effect.
    Refuse(ErrorKind),
    /// It never arrives, and nobody can tell.
    LoseRequest,
    /// It takes effect, and its reply is lost.
    LoseReply,
    /// It takes so long.
    Delay(Span),
    /// It answers as it last did, though things have changed since. Only `List` and `Offerings`; otherwise, or without
    /// an earlier answer, nothing is wrong.
    Stale,
    /// It shows every second instance only. Only `List`; otherwise nothing is wrong.
    Partial,
}

/// A provider with faults in front.
#[derive(Debug)]
pub struct FaultyProvider {
    inner: Arc<dyn Provider>,
    script: Mutex<Script>,
}

#[derive(Debug, Default)]
struct Script {
    faults: VecDeque<(Call, Fault)>,
    last_list: Option<Vec<CloudInstance>>,
    last_offerings: Option<Vec<Offering>>,
}

impl FaultyProvider {
    /// Without faults yet.
    #[must_use]
    pub fn new(inner: Arc<dyn Provider>) -> Self {
        Self { inner, script: Mutex::default() }
    }

    /// The next call of this kind that no earlier fault waits for goes wrong like this.
    pub fn inject(&self, call: Call, fault: Fault) {
        self.script().faults.push_back((call, fault));
    }

    /// Whether all faults have happened.
    pub fn is_exhausted(&self) -> bool {
        self.script().faults.is_empty()
    }

    /// What happens to this call before it reaches the provider, and the fault that is left for its reply.
    async fn meet(&self, call: Call) -> Result<Option<Fault>, ProviderError> {
        let fault = {
            let mut script = self.script();
            let next = script.faults.iter().position(|(waits_for, _)| *waits_for == call);
            next.and_then(|index| script.faults.remove(index)).map(|(_, fault)| fault)
        };
        match fault {
            Some(Fault::Refuse(kind)) => {
                Err(self.error(kind, EffectMay::No, "refused by the script of faults"))
            }
            Some(Fault::LoseRequest) => Err(self.lost()),
            Some(Fault::Delay(span)) => {
                tokio::time::sleep(span.to_std()).await;
                Ok(None)
            }
            Some(Fault::LoseReply | Fault::Stale | Fault::Partial) | None => Ok(fault),
        }
    }

    fn lost(&self) -> ProviderError {
        self.error(ErrorKind::Unavailable, EffectMay::Maybe, "no reply, by the script of faults")
    }

    fn error(&self, kind: ErrorKind, effect: EffectMay, message: &str) -> ProviderError {
        ProviderError {
            provider: self.inner.name().clone(),
            kind,
            effect,
            message: message.to_owned(),
            source: None,
        }
    }

    /// What was decided under the lock stands, whatever happened to a test afterwards.
    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The reply, unless it is lost, or an old one in its place.
    fn reply<T: Clone>(
        &self,
        fault: Option<Fault>,
        result: Result<T, ProviderError>,
        last: fn(&mut Script) -> &mut Option<T>,
    ) -> Result<T, ProviderError> {
        if fault == Some(Fault::LoseReply) {
            return Err(self.lost());
        }
        let mut script = self.script();
        let last = last(&mut script);
        match last {
            Some(stale) if fault == Some(Fault::Stale) => Ok(stale.clone()),
            Some(_) | None => {
                let fresh = result?;
                *last = Some(fresh.clone());
                Ok(fresh)
            }
        }
    }
}

#[async_trait::async_trait]
impl Provider for FaultyProvider {
    fn name(&self) -> &ProviderName {
        self.inner.name()
    }

    async fn offerings(&self) -> Result<Vec<Offering>, ProviderError> {
        let fault = self.meet(Call::Offerings).await?;
        self.reply(fault, self.inner.offerings().await, |script| &mut script.last_offerings)
    }

    async fn launch(&self, request: &LaunchRequest) -> Result<CloudInstance, ProviderError> {
        let fault = self.meet(Call::Launch).await?;
        let result = self.inner.launch(request).await;
        if fault == Some(Fault::LoseReply) { Err(self.lost()) } else { result }
    }

    fn launches_at_once(&self) -> usize {
        self.inner.launches_at_once()
    }

    async fn launch_together(
        &self,
        requests: &[LaunchRequest],
        whole: bool,
    ) -> Vec<Result<CloudInstance, ProviderError>> {
        let for_all = |error: ProviderError| {
            let each =
                requests.iter().map(|_| Err(self.error(error.kind.clone(), error.effect, &error.message)));
            each.collect()
        };
        match self.meet(Call::Launch).await {
            Err(error) => for_all(error),
            Ok(fault) => {
                let results = self.inner.launch_together(requests, whole).await;
                if fault == Some(Fault::LoseReply) { for_all(self.lost()) } else { results }
            }
        }
    }

    async fn list(&self) -> Result<Vec<CloudInstance>, ProviderError> {
        let fault = self.meet(Call::List).await?;
        let is_partial = fault == Some(Fault::Partial);
        let listed = self.reply(fault, self.inner.list().await, |script| &mut script.last_list)?;
        Ok(if is_partial { listed.into_iter().step_by(2).collect() } else { listed })
    }

    async fn terminate(&self, instance: InstanceId, cloud_id: Option<&CloudId>) -> Result<(), ProviderError> {
        let fault = self.meet(Call::Terminate).await?;
        let result = self.inner.terminate(instance, cloud_id).await;
        if fault == Some(Fault::LoseReply) { Err(self.lost()) } else { result }
    }
}
