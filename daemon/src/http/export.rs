//! Exports: answers that may be larger than memory, written as they are read.

use std::io;

use axum::{
    body::{Body, Bytes},
    extract::{Query, State},
    http::header,
    response::{IntoResponse, Response},
};
use bursar_ledger::focus::FocusError;
use futures::{Stream, stream};
use serde::Deserialize;
use tokio::sync::mpsc;
use tracing::warn;

use super::{Api, ApiError};
use crate::{
    reconciler::chain,
    reports::focus::{Billing, ExportError, export},
    views::time_range,
};

/// Bytes that are sent at once.
const CHUNK: usize = 64 * 1024;

/// Chunks that wait for a client: enough that reading and sending go on side by side. A slow client slows the reading
/// down and holds nothing in the store meanwhile.
const CHUNKS_WAITING: usize = 4;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ExportQuery {
    since: Option<String>,
    until: Option<String>,
}

pub(super) async fn focus(
    State(api): State<Api>,
    Query(query): Query<ExportQuery>,
) -> Result<Response, ApiError> {
    let range = time_range(query.since.as_deref(), query.until.as_deref(), api.clock.now())?;
    let billing = Billing::of(&api.configuration.current());
    let (sender, chunks) = mpsc::channel(CHUNKS_WAITING);
    tokio::task::spawn_blocking(move || {
        let to = io::BufWriter::with_capacity(CHUNK, Chunks { sender: sender.clone() });
        let ended = export(&api.reader, &billing, range, to).and_then(|mut rest| {
            io::Write::flush(&mut rest).map_err(|error| ExportError::Focus(FocusError::Write(error)))
        });
        if let Err(error) = ended {
            // The client went away, or is told by an answer that breaks off, since its status was sent long ago.
            if sender.blocking_send(Err(io::Error::other(error.to_string()))).is_ok() {
                warn!(error = %chain(&error), "an export broke off");
            }
        }
    });
    let headers = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"focus.csv\""),
    ];
    Ok((headers, Body::from_stream(received(chunks))).into_response())
}

fn received(chunks: mpsc::Receiver<io::Result<Bytes>>) -> impl Stream<Item = io::Result<Bytes>> {
    stream::unfold(chunks, |mut chunks| async move { chunks.recv().await.map(|chunk| (chunk, chunks)) })
}

/// Writes what is written to it into the answer.
struct Chunks {
    sender: mpsc::Sender<io::Result<Bytes>>,
}

impl io::Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.sender.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the client went away"))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
