//! One daemon a store: an exclusive lock on a file beside it, held as long as the store is open.
//!
//! The lock of SQLite itself is held for the length of a transaction only. This one ends with the process, however it
//! ends, so nothing has to be cleaned up after a kill.

use std::{
    fs::{File, TryLockError},
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
};

use crate::StoreError;

/// The lock of this process on a store.
#[derive(Debug)]
pub(super) struct StoreLock {
    _file: File,
}

impl StoreLock {
    /// Takes the lock, and writes down who has it, for the message that the next one gets.
    pub(super) fn take(store: &Path) -> Result<Self, StoreError> {
        let path = lock_path(store);
        let unopenable = |error: std::io::Error| StoreError::Unopenable {
            path: store.to_owned(),
            source: Box::new(error),
        };
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(unopenable)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // Who it is only helps; that it is in use is what counts.
                let read = file.take(20).read_to_string(&mut pid);
                let pid = read.ok().and_then(|_| pid.trim().parse().ok());
                return Err(StoreError::InUse { path: store.to_owned(), pid });
            }
            Err(TryLockError::Error(error)) => return Err(unopenable(error)),
        }
        // A full disk must not keep the daemon from starting for the sake of a number: the error is dropped.
        let _ = write_pid(&mut file);
        Ok(Self { _file: file })
    }
}

fn write_pid(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn lock_path(store: &Path) -> PathBuf {
    let mut path = store.as_os_str().to_owned();
    path.push(".lock");
    path.into()
}
