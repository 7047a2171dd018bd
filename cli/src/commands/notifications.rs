//! `bursar notifications`: what webhooks were told, and whether one works.

use bursar_daemon::{
    http::TestRequest,
    notify::TestAnswer,
    views::{ListWanted, NotificationView},
};

use super::{Context, list::tell_of_more};
use crate::{
    args::{Limit, Notifications, NotificationsCommand},
    exit::{FAILED, OK, Outcome},
    output::{json, line, note, table},
    source::Rows,
};

pub(super) async fn run(context: Context, wanted: Notifications) -> Outcome {
    let Notifications { command, limit } = wanted;
    match command {
        None => list(context, &limit).await,
        Some(NotificationsCommand::Test { webhook }) => test(context, webhook).await,
    }
}

async fn list(context: Context, limit: &Limit) -> Outcome {
    let source = context.source().await?;
    let Rows { rows, more } = source.notifications(ListWanted::default(), limit.limit.get()).await?;
    if context.json {
        json(&rows)?;
    } else if rows.is_empty() {
        note("no notifications; the configuration's `notifications` says who is told what");
    } else {
        let cells = rows.iter().map(cells).collect();
        table(&["id", "at", "to", "about", "state", "tries", "last error"], cells, &[5])?;
    }
    tell_of_more(more, limit);
    Ok(OK)
}

fn cells(row: &NotificationView) -> Vec<String> {
    vec![
        row.id.to_string(),
        row.at.to_string(),
        row.to.clone(),
        row.about.clone(),
        row.state.clone(),
        row.tries.to_string(),
        row.error.clone().unwrap_or_default(),
    ]
}

/// The daemon sends it: the way to the webhook, its key and its certificates are the daemon's.
async fn test(context: Context, webhook: String) -> Outcome {
    let answer: TestAnswer =
        context.client.post("/v1/notifications/test", &TestRequest { webhook }, None).await?;
    if context.json {
        json(&answer)?;
    } else {
        let TestAnswer { webhook, delivered, detail, .. } = &answer;
        line(&format!("{webhook} {} the test: {detail}", if *delivered { "took" } else { "did not take" }))?;
    }
    Ok(if answer.delivered { OK } else { FAILED })
}
