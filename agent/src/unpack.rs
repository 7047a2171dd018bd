//! Unpacking an archive so that whatever it holds, nothing is touched outside of the folder that it is unpacked into.
//!
//! Files and folders come first, by paths that only lead down, into a folder that nobody else writes to: so no step of a
//! path is ever a link. Links come last, when every folder that one lies in is there, and only where they lead inside.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::{OpenOptionsExt, symlink},
    path::{Path, PathBuf},
};

use bursar_model::workdir::{ENTRIES_MAX, UNPACKED_BYTES_MAX, is_inside, leads_inside};
use tar::Archive;

/// Unpacks a tar file into an empty folder.
///
/// # Errors
/// Why not, for people. Something may lie in the folder then.
pub(crate) fn unpack(archive: impl Read, into: &Path) -> Result<(), String> {
    let broken = |error: io::Error| format!("the archive of the workdir cannot be read: {error}");
    let mut links: Vec<(PathBuf, PathBuf)> = Vec::new();
    let mut bytes = 0_u64;
    for (count, entry) in Archive::new(archive).entries().map_err(broken)?.enumerate() {
        let mut entry = entry.map_err(broken)?;
        if count >= ENTRIES_MAX {
            return Err(format!("the workdir holds more than {ENTRIES_MAX} files and folders"));
        }
        // What git says of a whole archive.
        if entry.header().entry_type().is_pax_global_extensions() {
            continue;
        }
        let path = entry.path().map_err(broken)?.into_owned();
        if !is_inside(&path) {
            return Err(format!("the workdir holds {}, which is no path inside of it", path.display()));
        }
        let target = into.join(&path);
        let kind = entry.header().entry_type();
        if kind.is_dir() {
            folder(&target)?;
        } else if kind.is_file() {
            bytes = bytes.saturating_add(entry.size());
            if bytes > UNPACKED_BYTES_MAX {
                return Err(format!("the workdir holds more than {UNPACKED_BYTES_MAX} bytes"));
            }
            parent(&target)?;
            let is_program = entry.header().mode().map_err(broken)? & 0o111 != 0;
            let mode = if is_program { 0o755 } else { 0o644 };
            let file = File::options().write(true).create_new(true).mode(mode).open(&target);
            let mut file = file.map_err(|error| cannot(&target, &error))?;
            io::copy(&mut entry, &mut file).map_err(|error| cannot(&target, &error))?;
        } else if kind.is_symlink() {
            let to = entry.link_name().map_err(broken)?.unwrap_or_default().into_owned();
            if !leads_inside(&path, &to) {
                let (path, to) = (path.display(), to.display());
                return Err(format!("the workdir holds the link {path}, which leads out of it: {to}"));
            }
            links.push((target, to));
        } else {
            return Err(format!("the workdir holds {}, which is no file", path.display()));
        }
    }
    for (link, _) in &links {
        parent(link)?;
    }
    for (link, to) in links {
        symlink(to, &link).map_err(|error| cannot(&link, &error))?;
    }
    Ok(())
}

fn parent(path: &Path) -> Result<(), String> {
    path.parent().map_or(Ok(()), folder)
}

#[expect(clippy::disallowed_methods, reason = "the edge: a working folder is made here")]
fn folder(path: &Path) -> Result<(), String> {
    fs::create_dir_all(path).map_err(|error| cannot(path, &error))
}

fn cannot(path: &Path, error: &io::Error) -> String {
    format!("cannot unpack {}: {error}", path.display())
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests look at real files")]
mod tests {
    use tar::{Builder, EntryType, Header};

    use super::*;

    /// An archive as nobody would write it who means well: names go in as they are.
    fn archive(entries: &[(EntryType, &str, &str)]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (kind, name, content) in entries {
            let mut header = Header::new_gnu();
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o4777);
            let body = if kind.is_symlink() || kind.is_hard_link() {
                header.as_old_mut().linkname[..content.len()].copy_from_slice(content.as_bytes());
                ""
            } else {
                content
            };
            header.set_size(body.len() as u64);
            header.set_cksum();
            builder.append(&header, body.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn files_folders_and_links_come_out_as_they_went_in() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let bytes = archive(&[
            (EntryType::Symlink, "link", "a/b/file"),
            (EntryType::Regular, "a/b/file", "text"),
            (EntryType::Directory, "empty", ""),
            (EntryType::Symlink, "a/b/up", "../../empty"),
        ]);
        unpack(bytes.as_slice(), folder.path()).unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("link")).unwrap(), "text");
        assert!(folder.path().join("a/b/up").is_dir());
        let mode = fs::metadata(folder.path().join("link")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o755, "no set-user-id bit");
    }

    #[test]
    fn nothing_outside_is_touched_whatever_the_archive_says() {
        use EntryType::{Block, Char, Directory, Fifo, Link, Regular, Symlink};
        let hostile: [&[(EntryType, &str, &str)]; 13] = [
            &[(Regular, "../evil", "x")],
            &[(Regular, "/tmp/evil-bursar", "x")],
            &[(Regular, "a/../../evil", "x")],
            &[(Directory, "../evil", "")],
            &[(Symlink, "out", "/etc")],
            &[(Symlink, "out", "../secret")],
            // A link, and a file through it.
            &[(Symlink, "out", ".."), (Regular, "out/evil", "x")],
            // The folder itself under another name, from where `..` would be outside.
            &[(Symlink, "a", "."), (Symlink, "a/c", "..")],
            &[(Symlink, "m", "a/b/../../../x")],
            &[(Link, "hard", "/etc/passwd")],
            &[(Fifo, "pipe", "")],
            &[(Char, "device", "")],
            &[(Block, "device", "")],
        ];
        for entries in hostile {
            let around = tempfile::tempdir().unwrap();
            fs::write(around.path().join("secret"), "").unwrap();
            let into = around.path().join("into");
            fs::create_dir(&into).unwrap();
            let result = unpack(archive(entries).as_slice(), &into);
            assert!(result.is_err(), "{entries:?}");
            let beside: Vec<_> =
                fs::read_dir(around.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
            assert_eq!(beside.len(), 2, "{entries:?}: {beside:?}");
            assert!(!Path::new("/tmp/evil-bursar").exists());
        }
    }

    #[test]
    fn a_name_that_comes_twice_is_refused_rather_than_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let twice = archive(&[(EntryType::Regular, "f", "1"), (EntryType::Regular, "f", "2")]);
        assert!(unpack(twice.as_slice(), folder.path()).unwrap_err().starts_with("cannot unpack"));
    }

    #[test]
    fn what_is_no_archive_is_told_as_such() {
        let folder = tempfile::tempdir().unwrap();
        let error = unpack([7_u8; 2000].as_slice(), folder.path()).unwrap_err();
        assert!(error.starts_with("the archive of the workdir cannot be read: "), "{error}");
    }
}
