//! `bursar doctor`: is everything well, and if not, what to do.

use bursar_config::{ConfigFile, read_config};
use bursar_daemon::{http::Health, serve::store_path};
use bursar_store::{Integrity, Reader};

use crate::{
    args::Global,
    client::Client,
    exit::{FAILED, OK, Outcome},
    output::{json, line},
};

#[derive(Debug, serde::Serialize)]
struct Finding {
    check: &'static str,
    ok: bool,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

pub(super) async fn run(global: &Global) -> Outcome {
    let mut findings = Vec::new();
    let mut found = |check, ok, detail: String, fix: Option<&str>| {
        findings.push(Finding { check, ok, detail, fix: fix.filter(|_| !ok).map(str::to_owned) });
    };
    match read_config(global.config.as_deref()) {
        Err(error) => {
            found(
                "configuration",
                false,
                error.to_string(),
                Some("mend the file; `bursar config check` shows all problems"),
            );
        }
        Ok(checked) => {
            let ConfigFile { file, config } = checked.value;
            let named =
                file.map_or_else(|| "none found, defaults".to_owned(), |file| file.display().to_string());
            found("configuration", true, named, None);
            let url = global.url.clone().unwrap_or_else(|| format!("http://{}", config.listen));
            let health = Client::new(&url)?.get::<Health>("/v1/health").await;
            match &health {
                Ok(health) => {
                    let Health { version, queued, running, live_instances, offerings, .. } = health;
                    let detail = format!(
                        "version {version} at {url}: {queued} queued, {running} running, {live_instances} instances"
                    );
                    found("daemon", true, detail, None);
                    found(
                        "offerings",
                        *offerings > 0,
                        format!("{offerings} on offer"),
                        Some("no provider offers anything: look at the daemon's log"),
                    );
                    found(
                        "store takes writes",
                        health.failed_commits == 0,
                        format!("{} failed turns since the start", health.failed_commits),
                        Some("free space on the disk of data_dir, and look at the daemon's log"),
                    );
                    found(
                        "no orphans (O1)",
                        health.orphans == 0,
                        format!("{} ended since the start", health.orphans),
                        Some(
                            "instances with our tag that nobody knew were ended: is there a second installation of this name?",
                        ),
                    );
                }
                Err(failure) => {
                    found("daemon", false, failure.message.clone(), Some("start it with `bursar serve`"))
                }
            }
            let path = store_path(&config);
            if global.url.is_none() && path.is_file() {
                match Reader::open(&path).and_then(|reader| Ok((reader.integrity()?, reader.violations()?))) {
                    Ok((integrity, violations)) => {
                        let Integrity { file, wrong_sums, dangling } = &integrity;
                        let detail = if integrity.is_sound() {
                            format!("{} is sound, its sums equal a recount", path.display())
                        } else {
                            format!("{file:?}, {wrong_sums} wrong sums, {dangling} dangling rows")
                        };
                        found(
                            "store",
                            integrity.is_sound(),
                            detail,
                            Some("stop the daemon and restore the newest backup"),
                        );
                        let detail: Vec<String> = violations.iter().map(ToString::to_string).collect();
                        found(
                            "invariants",
                            violations.is_empty(),
                            if detail.is_empty() { "all hold".to_owned() } else { detail.join("; ") },
                            Some("this is a fault of bursar: please report it with this output"),
                        );
                    }
                    Err(error) => found("store", false, error.to_string(), Some("restore the newest backup")),
                }
            }
        }
    }
    let all_well = findings.iter().all(|finding| finding.ok);
    if global.json {
        json(&serde_json::json!({ "ok": all_well, "findings": findings }))?;
    } else {
        for Finding { check, ok, detail, fix } in &findings {
            line(&format!("{} {check:<20} {detail}", if *ok { "ok  " } else { "FAIL" }))?;
            if let Some(fix) = fix {
                line(&format!("     fix: {fix}"))?;
            }
        }
    }
    Ok(if all_well { OK } else { FAILED })
}
