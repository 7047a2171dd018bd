//! A registry on loopback that has one image, for those who know the password.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Router,
    extract::{Path as UrlPath, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use sha2::{Digest, Sha256};

use super::*;

/// `me:hunter-two`.
const CREDENTIALS: &str = "Basic bWU6aHVudGVyLXR3bw==";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

struct Registry {
    address: String,
    /// Of the image.
    digest: String,
    conf: tempfile::NamedTempFile,
}

/// What is kept, by digest; the image by its tag too.
type Blobs = Arc<BTreeMap<String, Vec<u8>>>;

impl Registry {
    async fn start() -> Self {
        let root = image_root();
        let packed = Command::new("tar").arg("-C").arg(root.path()).args(["-c", "."]).output().unwrap();
        let layer = packed.stdout;
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let config = serde_json::json!({
            "architecture": architecture, "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
        });
        let config = config.to_string().into_bytes();
        let part = |kind: &str, bytes: &[u8]| {
            let kind = format!("application/vnd.oci.image.{kind}");
            serde_json::json!({"mediaType": kind, "digest": digest(bytes), "size": bytes.len()})
        };
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": part("config.v1+json", &config), "layers": [part("layer.v1.tar", &layer)],
        });
        let manifest = manifest.to_string().into_bytes();
        let of_image = digest(&manifest);
        let mut blobs = BTreeMap::from([("1".to_owned(), manifest.clone())]);
        blobs.extend([layer, config, manifest].map(|bytes| (digest(&bytes), bytes)));
        let routes = Router::new()
            .route("/v2/", get(async |headers: HeaderMap| allowed(&headers).map(|()| "{}")))
            .route("/v2/team/image/{kind}/{name}", get(blob))
            .with_state(Arc::new(blobs));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        let conf = tempfile::NamedTempFile::new().unwrap();
        let text = format!("[[registry]]\nlocation = \"{address}\"\ninsecure = true\n");
        fs::write(conf.path(), text).unwrap();
        Self { address, digest: of_image, conf }
    }

    fn work(&self, image: &str, password: &str) -> Work {
        let mut work = contained("echo ran");
        let container = work.container.as_mut().unwrap();
        container.image = format!("{}/team/image{image}", self.address);
        container.registry = Some(RegistryLogin { username: "me".to_owned(), password: password.to_owned() });
        work
    }
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn allowed(headers: &HeaderMap) -> Result<(), Response> {
    match headers.get(header::AUTHORIZATION).is_some_and(|given| given == CREDENTIALS) {
        true => Ok(()),
        false => {
            let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"test\"")];
            Err((StatusCode::UNAUTHORIZED, challenge, "").into_response())
        }
    }
}

async fn blob(
    State(blobs): State<Blobs>,
    UrlPath((kind, name)): UrlPath<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Response> {
    allowed(&headers)?;
    let found = blobs.get(&name).ok_or_else(|| StatusCode::NOT_FOUND.into_response())?;
    let kind = if kind == "manifests" { MANIFEST } else { "application/octet-stream" };
    Ok(([(header::CONTENT_TYPE, kind)], found.clone()).into_response())
}

#[tokio::test]
async fn an_image_is_pulled_with_credentials_that_nothing_keeps_and_its_progress_is_logged() {
    let registry = Registry::start().await;
    let mut daemon = Daemon::start(LONG);
    let agent = daemon.agent_with(|command| {
        command.env("CONTAINERS_CONF", conf()).env("CONTAINERS_REGISTRIES_CONF", registry.conf.path());
    });
    let refused = daemon.order(registry.work(":1", "wrong")).attempt;
    let AttemptEnd::NotStarted { error } = end(daemon.ended(refused).await) else { panic!("it was started") };
    assert!(error.contains("cannot pull") && error.contains("unauthorized"), "{error}");

    let by_tag = daemon.order(registry.work(":1", "hunter-two")).attempt;
    let told = daemon.until("it is told", |book| book.reports.get(&by_tag)?.ran_with.clone()).await;
    let image = format!("{}/team/image@{}", registry.address, registry.digest);
    assert_eq!(told.image.as_ref(), Some(&image));
    assert_eq!(end(daemon.ended(by_tag).await), AttemptEnd::Exited { code: 0 });
    let log = daemon.log(by_tag);
    assert!(log.contains("Copying blob") && log.ends_with("ran\n"), "{log}");
    let folder = agent.attempt_folder(by_tag);
    let kept =
        Command::new("grep").args(["-rlE", "hunter-two|bWU6aHVudGVyLXR3bw"]).arg(folder).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&kept.stdout), "");

    ask(&["image", "rm", "--force", &image]);
    let by_digest = daemon.order(registry.work(&format!("@{}", registry.digest), "hunter-two")).attempt;
    assert_eq!(end(daemon.ended(by_digest).await), AttemptEnd::Exited { code: 0 });
    ask(&["image", "rm", "--force", &image]);
}
