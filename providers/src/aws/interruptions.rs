//! Warnings of spot interruptions as EventBridge puts them into an SQS queue, for instances whose agent does not hear them
//! from the metadata service: one that hangs, or has no way there.
//!
//! The queue is read with every listing and has to be this installation's own: what was read is taken out of it, whatever
//! it was, because a message that nobody can make sense of would otherwise come back for days and hide the others. A daemon
//! that dies between reading and telling loses a warning; then the agent's own counts, as without a queue.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aws_sdk_sqs::{
    Client,
    error::DisplayErrorContext,
    types::{DeleteMessageBatchRequestEntry, Message},
};
use bursar_model::{CloudInstance, CloudState, Region, Span, Timestamp};
use serde::Deserialize;
use tokio::time::timeout;
use tracing::{info, warn};

/// From the event to the end
/// (<https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html>).
const NOTICE: Span = Span::from_secs(120);

/// How EventBridge names the event, on the same page.
const WARNING: &str = "EC2 Spot Instance Interruption Warning";

/// As many as one call gives
/// (<https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ReceiveMessage.html>).
const MESSAGES_MAX: i32 = 10;

/// Calls for one listing: 200 warnings, and what is left comes with the next.
const ROUNDS_MAX: u32 = 20;

/// A queue that hangs must not keep the listing waiting: a warning is good for two minutes.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long a warning is kept for an instance that no listing shows yet, after its end.
const KEPT_AFTER: Span = Span::from_secs(600);

/// So many are kept: a queue with the events of a whole company must not fill the memory.
const WARNINGS_MAX: usize = 10_000;

/// What was told of instances that live, and the way to what will be.
#[derive(Debug, Default)]
pub(super) struct Interruptions {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When each is taken back, by EC2's name for it.
    told: BTreeMap<String, Timestamp>,
    /// The queue did not answer when it was asked last: said once.
    is_failing: bool,
}

/// An instance that is taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Warning {
    cloud_id: String,
    gone_at: Timestamp,
}

impl Interruptions {
    /// Reads what is in the queue. Nothing depends on it, so that a failure is a line in the log.
    pub(super) async fn poll(&self, sqs: &Client, queue: &str, now: Timestamp) {
        let polled = timeout(PATIENCE, self.drain(sqs, queue, now)).await;
        let failed = match polled {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error),
            Err(_) => Some(format!("no answer within {} s", PATIENCE.as_secs())),
        };
        let was_failing = std::mem::replace(&mut self.state().is_failing, failed.is_some());
        match failed {
            Some(error) if !was_failing => warn!(queue, error, "the queue of interruptions cannot be read"),
            None if was_failing => info!(queue, "the queue of interruptions can be read again"),
            Some(_) | None => {}
        }
    }

    /// Adds to what is listed what was told of it, and forgets what is over.
    pub(super) fn tell(&self, listed: &mut [CloudInstance], now: Timestamp) {
        let mut state = self.state();
        state.told.retain(|_, gone_at| now.since(*gone_at) < KEPT_AFTER);
        for cloud in listed {
            if matches!(cloud.state, CloudState::Gone { .. }) {
                state.told.remove(cloud.cloud_id.as_str());
            } else if let Some(gone_at) = state.told.get(cloud.cloud_id.as_str()) {
                cloud.notice = Some(*gone_at);
            }
        }
    }

    async fn drain(&self, sqs: &Client, queue: &str, now: Timestamp) -> Result<(), String> {
        for _ in 0..ROUNDS_MAX {
            let asked = sqs.receive_message().queue_url(queue).max_number_of_messages(MESSAGES_MAX);
            let answer = asked.wait_time_seconds(0).send().await;
            let messages =
                answer.map_err(|error| DisplayErrorContext(error).to_string())?.messages.unwrap_or_default();
            if messages.is_empty() {
                break;
            }
            for message in &messages {
                self.take(message.body().unwrap_or_default(), now);
            }
            take_out(sqs, queue, &messages).await?;
        }
        Ok(())
    }

    fn take(&self, body: &str, now: Timestamp) {
        match read(body, now) {
            Ok(Some(Warning { cloud_id, gone_at })) => {
                let mut state = self.state();
                if state.told.len() >= WARNINGS_MAX {
                    state.told.pop_first();
                }
                // Told again, the first time is the one that stays.
                state.told.entry(cloud_id).or_insert(gone_at);
            }
            Ok(None) => {
                info!(body = shortened(body), "an event that is no interruption is taken out of the queue")
            }
            Err(error) => {
                warn!(%error, body = shortened(body), "a message that is no event is taken out of the queue");
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is a single step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The region in the URL of a queue: signatures name it, and it need not be one in which instances are.
pub(super) fn region_of(queue: &str) -> Option<Region> {
    let host = queue.split_once("://")?.1.split('/').next()?;
    let rest = host.strip_prefix("sqs.")?;
    Some(Region::new(rest.split_once(".amazonaws.com")?.0))
}

async fn take_out(sqs: &Client, queue: &str, messages: &[Message]) -> Result<(), String> {
    let entries = messages.iter().enumerate().filter_map(|(index, message)| {
        let entry = DeleteMessageBatchRequestEntry::builder().id(index.to_string());
        entry.receipt_handle(message.receipt_handle()?).build().ok()
    });
    let call = sqs.delete_message_batch().queue_url(queue).set_entries(Some(entries.collect()));
    let answer = call.send().await.map_err(|error| DisplayErrorContext(error).to_string())?;
    // What stays in is read once more, which changes nothing.
    answer.failed.first().map_or(Ok(()), |failed| {
        Err(format!("{} messages could not be deleted: {}", answer.failed.len(), failed.code))
    })
}

/// What an event says; nothing where it is another event. Its time counts where it is not ahead of ours.
fn read(body: &str, now: Timestamp) -> Result<Option<Warning>, serde_json::Error> {
    let Event { detail_type, time, detail } = serde_json::from_str(body)?;
    let Some(cloud_id) = detail.instance_id.filter(|_| detail_type == WARNING) else { return Ok(None) };
    let told_at = time.parse::<Timestamp>().unwrap_or(now).min(now);
    Ok(Some(Warning { cloud_id, gone_at: told_at + NOTICE }))
}

/// An event of EventBridge, as far as it is looked at.
#[derive(Debug, Deserialize)]
struct Event {
    #[serde(rename = "detail-type")]
    detail_type: String,
    time: String,
    detail: Detail,
}

#[derive(Debug, Deserialize)]
struct Detail {
    #[serde(rename = "instance-id")]
    instance_id: Option<String>,
}

fn shortened(text: &str) -> &str {
    let end = text.char_indices().nth(200).map_or(text.len(), |(end, _)| end);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn event(kind: &str, time: &str) -> String {
        format!(
            "{{\"version\": \"0\", \"detail-type\": \"{kind}\", \"source\": \"aws.ec2\", \"time\": \"{time}\", \
             \"detail\": {{\"instance-id\": \"i-0123\", \"instance-action\": \"terminate\"}}}}"
        )
    }

    #[test]
    fn an_instance_is_gone_two_minutes_after_the_event_and_no_later() {
        let told = |time: &str| read(&event(WARNING, time), NOW).unwrap().unwrap().gone_at;
        assert_eq!(told("2027-01-15T07:59:30Z"), NOW - Span::from_secs(30) + NOTICE);
        // The cloud's clock is ahead, or nobody can read it.
        assert_eq!(told("2027-01-15T09:00:00Z"), NOW + NOTICE);
        assert_eq!(told("soon"), NOW + NOTICE);
    }

    #[test]
    fn other_events_and_other_texts_are_no_warnings() {
        let other = event("EC2 Instance State-change Notification", "2027-01-15T08:00:00Z");
        assert_eq!(read(&other, NOW).unwrap(), None);
        for text in ["", "hello", "[]", "{\"detail-type\": 3}"] {
            assert!(read(text, NOW).is_err(), "{text}");
        }
    }

    #[test]
    fn the_region_of_a_queue_stands_in_its_url() {
        let region = |url| region_of(url).map(|region| region.to_string());
        assert_eq!(
            region("https://sqs.eu-west-1.amazonaws.com/123456789012/x").as_deref(),
            Some("eu-west-1")
        );
        assert_eq!(region("https://sqs.cn-north-1.amazonaws.com.cn/1/x").as_deref(), Some("cn-north-1"));
        assert_eq!(region("http://127.0.0.1:3000/123456789012/x"), None);
    }
}
