//! Packing a folder so that equal folders make equal archives: entries in order, without owners and times.
//!
//! What `.gitignore` and `.bursarignore` name stays behind, and `.git` always. Of `.gitignore` those count that are in the
//! tree, and above it up to the root of the repository that it is part of; what a person ignores for all repositories does
//! not, or the same folder would be different on two machines.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufWriter, Read, Seek, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use bursar_model::{
    Digest,
    workdir::{DEPTH_MAX, ENTRIES_MAX, PACKED_BYTES_MAX, UNPACKED_BYTES_MAX, leads_inside},
};
use flate2::{Compression, write::GzEncoder};
use ignore::WalkBuilder;
use indicatif::{HumanBytes, ProgressBar};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use crate::exit::{FAILED, Failure, NOT_FOUND, USAGE};

/// How many of the largest folders are named where a folder is too large.
const NAMED_MAX: usize = 5;

/// A folder that was packed.
#[derive(Debug)]
pub(super) struct Packed {
    /// What was packed.
    pub(super) folder: PathBuf,
    /// The archive, to be read from its beginning. It has no name and goes with this.
    pub(super) file: File,
    pub(super) digest: Digest,
    pub(super) bytes: u64,
    pub(super) files: u64,
    /// What the files hold together.
    pub(super) unpacked: u64,
    /// Links that lead out of the folder, with where to. They stay behind.
    pub(super) outside: Vec<(PathBuf, PathBuf)>,
}

/// What is to be packed, in order.
#[derive(Debug, Default)]
struct Tree {
    entries: BTreeMap<PathBuf, Entry>,
    outside: Vec<(PathBuf, PathBuf)>,
}

#[derive(Debug)]
enum Entry {
    Folder,
    File { bytes: u64, is_program: bool },
    Link { to: PathBuf },
}

/// Packs a folder.
pub(super) fn pack(folder: &Path, bar: Option<&ProgressBar>) -> Result<Packed, Failure> {
    pack_within(folder, bar, PACKED_BYTES_MAX)
}

fn pack_within(folder: &Path, bar: Option<&ProgressBar>, bytes_max: u64) -> Result<Packed, Failure> {
    match folder.metadata() {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => return Err(Failure::new(USAGE, format!("workdir: {} is no folder", folder.display()))),
        Err(error) => return Err(unreadable(folder, &error)),
    }
    let Tree { entries, outside } = look_through(folder)?;
    let sizes = entries.iter().map(|(path, entry)| (path.as_path(), entry.bytes()));
    let unpacked = sizes.clone().map(|(_, bytes)| bytes).sum();
    let too_large = |what: String| too_large(folder, &what, sizes.clone());
    if unpacked > UNPACKED_BYTES_MAX {
        return Err(too_large(format!("it holds more than {}", HumanBytes(UNPACKED_BYTES_MAX))));
    }
    let counted = Counted { file: tempfile::tempfile()?, hash: Sha256::new(), bytes: 0, bytes_max };
    // Quick rather than small: the network to the daemon is near, and code is small.
    let mut builder = Builder::new(BufWriter::new(GzEncoder::new(counted, Compression::fast())));
    let mut files = 0;
    for (path, entry) in &entries {
        if let Err(error) = append(&mut builder, folder, path, entry) {
            // The bound is the only reason of ours for a writer to fail so.
            if error.kind() == io::ErrorKind::FileTooLarge {
                return Err(too_large(format!("it is larger than {} when packed", HumanBytes(bytes_max))));
            }
            return Err(unreadable(&folder.join(path), &error));
        }
        files += u64::from(matches!(entry, Entry::File { .. }));
        if let Some(bar) = bar {
            bar.set_position(files);
        }
    }
    let finished =
        builder.into_inner().and_then(|writer| Ok(writer.into_inner()?)).and_then(GzEncoder::finish);
    let Counted { mut file, hash, bytes, .. } = match finished {
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            return Err(too_large(format!("it is larger than {} when packed", HumanBytes(bytes_max))));
        }
        finished => finished?,
    };
    file.rewind()?;
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let digest = Digest::from_bytes(hash.finalize().into());
    Ok(Packed { folder: folder.to_owned(), file, digest, bytes, files, unpacked, outside })
}

fn look_through(folder: &Path) -> Result<Tree, Failure> {
    let in_repository = folder.ancestors().any(|above| above.join(".git").exists());
    let walk = WalkBuilder::new(folder)
        .hidden(false)
        .ignore(false)
        .git_global(false)
        .git_exclude(false)
        .parents(in_repository)
        .require_git(false)
        .add_custom_ignore_filename(".bursarignore")
        .filter_entry(|entry| entry.file_name() != ".git")
        .build();
    let mut tree = Tree::default();
    for entry in walk {
        let entry = entry.map_err(|error| Failure::new(FAILED, format!("workdir: {error}")))?;
        let path = entry.path();
        let inside = path.strip_prefix(folder).expect("a walk stays below its folder").to_owned();
        let Some(kind) = entry.file_type() else { continue };
        if entry.depth() == 0 {
            continue;
        }
        if entry.depth() > DEPTH_MAX {
            let message = format!("workdir: {} is more than {DEPTH_MAX} folders deep", path.display());
            return Err(Failure::new(USAGE, message));
        }
        let read = if kind.is_dir() {
            Ok(Entry::Folder)
        } else if kind.is_symlink() {
            fs::read_link(path).map(|to| Entry::Link { to })
        } else if kind.is_file() {
            path.metadata().map(|metadata| Entry::File {
                bytes: metadata.len(),
                is_program: metadata.permissions().mode() & 0o111 != 0,
            })
        } else {
            // Sockets, pipes and devices are of this machine.
            continue;
        };
        let entry = read.map_err(|error| unreadable(path, &error))?;
        if let Entry::Link { to } = &entry
            && !leads_inside(&inside, to)
        {
            tree.outside.push((inside, to.clone()));
            continue;
        }
        tree.entries.insert(inside, entry);
        if tree.entries.len() > ENTRIES_MAX {
            let message =
                format!("workdir: {} holds more than {ENTRIES_MAX} files and folders", folder.display());
            return Err(
                Failure::new(USAGE, message).hint("leave out what is not needed by a .bursarignore file")
            );
        }
    }
    tree.outside.sort();
    Ok(tree)
}

impl Entry {
    fn bytes(&self) -> u64 {
        match self {
            Self::File { bytes, .. } => *bytes,
            Self::Folder | Self::Link { .. } => 0,
        }
    }
}

fn append(builder: &mut Builder<impl Write>, folder: &Path, path: &Path, entry: &Entry) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_mtime(0);
    header.set_mode(0o644);
    header.set_size(0);
    match entry {
        Entry::Folder => {
            header.set_mode(0o755);
            header.set_entry_type(EntryType::Directory);
            builder.append_data(&mut header, path, io::empty())
        }
        Entry::Link { to } => {
            header.set_entry_type(EntryType::Symlink);
            builder.append_link(&mut header, path, to)
        }
        Entry::File { bytes, is_program } => {
            if *is_program {
                header.set_mode(0o755);
            }
            header.set_size(*bytes);
            // No more than was there when it was looked at, and no less: an archive that says otherwise is broken.
            let content = Exactly { file: File::open(folder.join(path))?, left: *bytes };
            builder.append_data(&mut header, path, content)
        }
    }
}

fn too_large<'a>(folder: &Path, what: &str, sizes: impl Iterator<Item = (&'a Path, u64)>) -> Failure {
    let mut below: BTreeMap<&Path, u64> = BTreeMap::new();
    for (path, bytes) in sizes {
        let top = path.iter().next().map_or(path, Path::new);
        *below.entry(top).or_default() += bytes;
    }
    let mut below: Vec<_> = below.into_iter().collect();
    below.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    let named = below.iter().take(NAMED_MAX);
    let named: Vec<String> =
        named.map(|(path, bytes)| format!("{} ({})", path.display(), HumanBytes(*bytes))).collect();
    let message =
        format!("workdir: {} is too large: {what}; most is in {}", folder.display(), named.join(", "));
    Failure::new(USAGE, message)
        .hint("name what is not needed in a .bursarignore file; data belongs where instances read it, not in what is sent to each")
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    let code = if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { FAILED };
    Failure::new(code, format!("workdir: cannot pack {}: {error}", path.display()))
}

/// A file that is read to the length that it had.
struct Exactly {
    file: File,
    left: u64,
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read(&mut buffer[..most])?;
        if read == 0 && most > 0 {
            return Err(io::Error::other("it became shorter while it was packed: submit again"));
        }
        self.left -= read as u64;
        Ok(read)
    }
}

/// The archive on its way to the disk.
struct Counted {
    file: File,
    hash: Sha256,
    bytes: u64,
    bytes_max: u64,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.bytes += written as u64;
        if self.bytes > self.bytes_max {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests write real files")]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        folder
    }

    fn names(folder: &Path) -> Vec<String> {
        let tree = look_through(folder).unwrap();
        tree.entries.keys().map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn equal_folders_make_equal_archives_whenever_and_by_whom_they_were_made() {
        let files = [("b/train.py", "print()"), ("a.txt", "a"), (".hidden", "h")];
        let (one, other) = (folder(&files), folder(&[files[2], files[1], files[0]]));
        let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1);
        File::options().append(true).open(other.path().join("a.txt")).unwrap().set_modified(old).unwrap();
        fs::set_permissions(other.path().join("a.txt"), fs::Permissions::from_mode(0o600)).unwrap();
        let digest = |folder: &tempfile::TempDir| pack(folder.path(), None).unwrap().digest;
        assert_eq!(digest(&one), digest(&other));
        fs::set_permissions(other.path().join("a.txt"), fs::Permissions::from_mode(0o700)).unwrap();
        assert_ne!(digest(&one), digest(&other), "whether it can be run is part of it");
    }

    #[test]
    fn what_is_ignored_stays_behind_and_bursarignore_has_the_last_word() {
        let folder = folder(&[
            (".git/config", ""),
            (".gitignore", "*.log\n/data\n"),
            (".bursarignore", "!keep.log\nnotes\n"),
            ("train.py", ""),
            ("a.log", ""),
            ("keep.log", ""),
            ("data/big", ""),
            ("sub/.gitignore", "cache\n"),
            ("sub/cache", ""),
            ("sub/data/small", ""),
            ("notes/todo", ""),
        ]);
        let kept = [
            ".bursarignore",
            ".gitignore",
            "keep.log",
            "sub",
            "sub/.gitignore",
            "sub/data",
            "sub/data/small",
            "train.py",
        ];
        assert_eq!(names(folder.path()), kept);
        // A part of the repository goes by what stands above it.
        fs::write(folder.path().join("sub/x.log"), "").unwrap();
        assert_eq!(names(&folder.path().join("sub")), [".gitignore", "data", "data/small"]);
    }

    #[test]
    fn links_travel_as_links_and_those_that_lead_out_stay_behind() {
        let folder = folder(&[("a/file", "x")]);
        symlink("a/file", folder.path().join("in")).unwrap();
        symlink("/etc", folder.path().join("out")).unwrap();
        let packed = pack(folder.path(), None).unwrap();
        assert_eq!(packed.outside, [(PathBuf::from("out"), PathBuf::from("/etc"))]);
        assert_eq!(packed.files, 1);
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(packed.file));
        let kinds = archive.entries().unwrap().map(|entry| entry.unwrap().header().entry_type());
        assert_eq!(kinds.collect::<Vec<_>>(), [EntryType::Directory, EntryType::Regular, EntryType::Symlink]);
    }

    #[test]
    fn a_folder_that_is_too_large_is_refused_with_where_most_of_it_is() {
        // Text that does not get smaller by packing.
        let noise: String =
            (0..4000_u64).map(|i| format!("{:x}", i.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
        let folder = folder(&[("data/one", &noise), ("data/two", &noise), ("train.py", "print()")]);
        let error = pack_within(folder.path(), None, 1000).unwrap_err().to_string();
        assert!(
            error.contains("is too large: it is larger than 1000 B when packed; most is in data ("),
            "{error}"
        );
        assert!(error.contains("hint: name what is not needed in a .bursarignore file"), "{error}");
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let failure = pack(Path::new("/no/such/folder"), None).unwrap_err();
        assert_eq!(failure.code, NOT_FOUND);
        assert!(failure.to_string().contains("cannot pack /no/such/folder"), "{failure}");
    }
}
