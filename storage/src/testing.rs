//! Stores for tests: one in memory, and one that breaks when it is told.

use std::{
    fmt, fs,
    path::Path as FilePath,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use futures::{StreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, memory::InMemory, path::Path,
};

use crate::Place;

pub(crate) fn memory(base: &str) -> Place {
    Place::within(Arc::new(InMemory::new()), base)
}

#[expect(clippy::disallowed_methods, reason = "tests write real files")]
pub(crate) fn write(folder: &FilePath, name: &str, content: &[u8]) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// A store whose client dies after so many requests: the last one has its effect or has not, and none gets an answer
/// any more.
#[derive(Debug, Clone)]
pub(crate) struct Mortal {
    pub(crate) store: Arc<dyn ObjectStore>,
    /// How many requests are still answered.
    pub(crate) left: Arc<AtomicI64>,
    pub(crate) last_has_effect: bool,
}

enum Fate {
    Answered,
    Lost,
    Never,
}

impl Mortal {
    /// So many requests are answered by one that does not die.
    pub(crate) const FOREVER: i64 = i64::MAX;

    fn next(&self) -> Fate {
        let spent = |left: i64| Some(if left == Self::FOREVER { left } else { (left - 1).max(-1) });
        match self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, spent) {
            Ok(left) if left > 0 => Fate::Answered,
            Ok(0) if self.last_has_effect => Fate::Lost,
            _ => Fate::Never,
        }
    }
}

fn dead() -> Error {
    Error::Generic { store: "mortal", source: "the client has died".into() }
}

impl fmt::Display for Mortal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("mortal")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Mortal {
    async fn put_opts(&self, at: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        match self.next() {
            Fate::Answered => self.store.put_opts(at, payload, options).await,
            Fate::Lost => {
                self.store.put_opts(at, payload, options).await?;
                Err(dead())
            }
            Fate::Never => Err(dead()),
        }
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        match self.next() {
            Fate::Answered => self.store.get_opts(at, options).await,
            Fate::Lost | Fate::Never => Err(dead()),
        }
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        paths
            .then(move |path| {
                let this = this.clone();
                async move {
                    let path = path?;
                    match this.next() {
                        Fate::Answered => object_store::ObjectStoreExt::delete(&*this.store, &path).await?,
                        Fate::Lost => {
                            object_store::ObjectStoreExt::delete(&*this.store, &path).await?;
                            return Err(dead());
                        }
                        Fate::Never => return Err(dead()),
                    }
                    Ok(path)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.next() {
            Fate::Answered => self.store.list(prefix),
            Fate::Lost | Fate::Never => futures::stream::iter([Err(dead())]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.store.copy_opts(from, to, options).await
    }
}
