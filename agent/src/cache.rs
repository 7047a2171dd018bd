//! What is kept on the instance because several attempts need it: archives, git repositories, and what `setup` made.
//!
//! Each thing is made once, under a **turn** that one attempt has at a time; the others wait for it. What nobody uses is
//! thrown away, the longest unused first, when all together is more than a part of the disk.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use rustix::fs::statvfs;
use tokio::{sync::OwnedMutexGuard, task::spawn_blocking};

/// The part of the disk that is kept full: a quarter leaves room for what attempts write.
const DISK_PART: u64 = 4;

/// The cache of this instance. Cheap to copy.
#[derive(Debug, Clone)]
pub(crate) struct Cache(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    bytes_max: u64,
    shelf: Mutex<Shelf>,
}

#[derive(Debug, Default)]
struct Shelf {
    things: BTreeMap<String, Thing>,
    turns: BTreeMap<String, Weak<tokio::sync::Mutex<()>>>,
    uses: u64,
}

#[derive(Debug)]
struct Thing {
    bytes: u64,
    /// The number of its last use.
    used: u64,
    /// Held by whoever uses it.
    users: Arc<()>,
}

/// Something that is there, and stays for as long as this is held.
#[derive(Debug)]
pub(crate) struct Held {
    path: PathBuf,
    _user: Arc<()>,
}

/// The right to make one thing. What was made is thrown away unless it is kept.
#[derive(Debug)]
pub(crate) struct Turn {
    cache: Cache,
    name: String,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Held {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Cache {
    /// An empty cache below this folder. What an agent before us left there is thrown away: nobody knows whether it is
    /// whole.
    ///
    /// # Errors
    /// When there can be no such folder.
    #[expect(clippy::disallowed_methods, reason = "the edge: the cache's folder is made here")]
    pub(crate) fn new(work_dir: &Path) -> io::Result<Self> {
        let root = work_dir.join("cache");
        match fs::remove_dir_all(&root) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => fs::create_dir_all(&root)?,
        }
        let disk = statvfs(&root)?;
        let bytes_max = disk.f_blocks.saturating_mul(disk.f_frsize) / DISK_PART;
        Ok(Self::with_bytes(root, bytes_max))
    }

    fn with_bytes(root: PathBuf, bytes_max: u64) -> Self {
        Self(Arc::new(Shared { root, bytes_max, shelf: Mutex::default() }))
    }

    /// Waits until nobody else makes the thing of this name: a kind and a name, such as `archive-00ff`.
    pub(crate) async fn turn(&self, name: String) -> Turn {
        let lock = {
            let mut shelf = self.shelf();
            // Those that nobody waits for any more; so there are no more than attempts.
            shelf.turns.retain(|_, turn| turn.strong_count() > 0);
            let known = shelf.turns.get(&name).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let lock = Arc::new(tokio::sync::Mutex::new(()));
                shelf.turns.insert(name.clone(), Arc::downgrade(&lock));
                lock
            })
        };
        let guard = lock.lock_owned().await;
        Turn { cache: self.clone(), name, guard: Some(guard) }
    }

    /// Whether somebody makes the thing of this name just now.
    pub(crate) fn is_being_made(&self, name: &str) -> bool {
        let turn = self.shelf().turns.get(name).and_then(Weak::upgrade);
        turn.is_some_and(|turn| turn.try_lock().is_err())
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.0.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// Where the thing lies, or is to be made: its folder is there.
    pub(crate) fn path(&self) -> PathBuf {
        self.cache.0.root.join(&self.name)
    }

    /// The thing, where it was made before.
    pub(crate) fn held(&self) -> Option<Held> {
        let mut shelf = self.cache.shelf();
        shelf.uses += 1;
        let used = shelf.uses;
        let thing = shelf.things.get_mut(&self.name)?;
        thing.used = used;
        Some(Held { path: self.path(), _user: thing.users.clone() })
    }

    /// Keeps what was made, and throws away what there is no room for any more. Slow where it is large.
    pub(crate) fn keep(self) -> Held {
        let bytes = bytes_of(&self.path());
        let (held, gone) = {
            let mut shelf = self.cache.shelf();
            shelf.uses += 1;
            let users = Arc::new(());
            let held = Held { path: self.path(), _user: users.clone() };
            let thing = Thing { bytes, used: shelf.uses, users };
            shelf.things.insert(self.name.clone(), thing);
            let mut gone = Vec::new();
            for name in too_many(&shelf.things, self.cache.0.bytes_max) {
                shelf.things.remove(&name);
                shelf.uses += 1;
                // Out of the way before the lock goes: whoever makes it anew finds its place empty.
                let aside = self.cache.0.root.join(format!("gone-{}", shelf.uses));
                move_to(&self.cache.0.root.join(name), &aside);
                gone.push(aside);
            }
            (held, gone)
        };
        gone.iter().for_each(|path| remove(path));
        held
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let (path, guard) = (self.path(), self.guard.take());
        let is_kept = self.cache.shelf().things.contains_key(&self.name);
        // At the end of the agent there is no runtime any more, and the folder goes with the instance.
        if !is_kept && let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn_blocking(move || {
                remove(&path);
                // Only then may the next one begin there.
                drop(guard);
            });
        }
    }
}

/// Runs slow work aside; that it panicked is told like any other failure.
pub(crate) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    spawn_blocking(work).await.unwrap_or_else(|error| Err(error.to_string()))
}

/// What has to go so that the rest fits: what nobody uses, the longest unused first.
fn too_many(things: &BTreeMap<String, Thing>, bytes_max: u64) -> Vec<String> {
    let mut bytes: u64 = things.values().map(|thing| thing.bytes).sum();
    let is_free = |(_, thing): &(&String, &Thing)| Arc::strong_count(&thing.users) == 1;
    let mut free: Vec<_> = things.iter().filter(is_free).collect();
    free.sort_by_key(|(_, thing)| thing.used);
    let mut gone = Vec::new();
    for (name, thing) in free {
        if bytes <= bytes_max {
            break;
        }
        bytes -= thing.bytes;
        gone.push(name.clone());
    }
    gone
}

/// What a file, or all in a folder, takes. What cannot be read counts as nothing.
fn bytes_of(path: &Path) -> u64 {
    let mut bytes = 0;
    let mut left = vec![path.to_owned()];
    // Ends with the tree: links are not followed.
    while let Some(path) = left.pop() {
        let Ok(metadata) = path.symlink_metadata() else { continue };
        bytes += metadata.len();
        if metadata.is_dir() {
            left.extend(fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
    }
    bytes
}

#[expect(clippy::disallowed_methods, reason = "the edge: what is in the cache is removed here")]
fn move_to(path: &Path, aside: &Path) {
    if let Err(error) = fs::rename(path, aside) {
        tracing::warn!(path = %path.display(), %error, "what is no longer needed cannot be moved");
    }
}

#[expect(clippy::disallowed_methods, reason = "the edge: what is in the cache is removed here")]
fn remove(path: &Path) {
    let removed = match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => return,
    };
    if let Err(error) = removed {
        tracing::warn!(path = %path.display(), %error, "what is no longer needed cannot be removed");
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests look at real files")]
mod tests {
    use super::*;

    async fn made(cache: &Cache, name: &str, bytes: usize) -> Held {
        let turn = cache.turn(name.to_owned()).await;
        fs::write(turn.path(), vec![0; bytes]).unwrap();
        turn.keep()
    }

    async fn is_there(cache: &Cache, name: &str) -> bool {
        cache.turn(name.to_owned()).await.held().is_some()
    }

    #[tokio::test]
    async fn what_was_used_longest_ago_goes_first_and_what_is_in_use_never() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::with_bytes(folder.path().to_owned(), 250);
        let in_use = made(&cache, "a", 100).await;
        drop(made(&cache, "b", 100).await);
        drop(made(&cache, "c", 50).await);
        assert!(is_there(&cache, "b").await, "250 bytes fit");
        drop(made(&cache, "d", 20).await);
        // `b` was looked at after `c`.
        assert!(!is_there(&cache, "c").await);
        assert!(!folder.path().join("c").exists());
        drop(made(&cache, "e", 100).await);
        assert!(!is_there(&cache, "b").await);
        assert!(is_there(&cache, "a").await);
        drop(in_use);
    }

    #[tokio::test]
    async fn what_is_not_kept_is_gone_before_the_next_one_begins() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::with_bytes(folder.path().to_owned(), 1000);
        let turn = cache.turn("a".to_owned()).await;
        fs::write(turn.path(), "half").unwrap();
        assert!(cache.is_being_made("a"));
        drop(turn);
        let turn = cache.turn("a".to_owned()).await;
        assert!(!turn.path().exists());
        assert!(turn.held().is_none());
    }
}
