//! Writes a set of files so that a reader sees the old or the new set, never a mixture: the files are in a
//! directory of their own behind the link `..data`, which is replaced in one rename; every visible name is a link
//! through `..data`. Upstream: `pkg/volume/util/atomic_writer.go`.

use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";

/// One file of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Permission bits.
    pub mode: u32,
    /// Content.
    pub data: Vec<u8>,
}

/// Files by relative path.
pub type Payload = BTreeMap<String, File>;

/// Makes `directory` show exactly the payload, owned by the group if one is given. Returns whether it changed.
pub fn write(directory: &Path, payload: &Payload, group: Option<u32>) -> io::Result<bool> {
    let current = fs::read_link(directory.join(DATA)).ok();
    if let Some(current) = &current
        && shows(&directory.join(current), payload)
    {
        return Ok(false);
    }
    let fresh = new_directory(directory)?;
    for (path, file) in payload {
        let path = fresh.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, &file.data)?;
        let mode = if group.is_some() {
            file.mode | 0o440
        } else {
            file.mode
        };
        chown(&path, None, group)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    }
    set_directory_modes(&fresh, group)?;
    let name = fresh.file_name().unwrap_or_default();
    let link = directory.join(NEW_DATA);
    let _ = fs::remove_file(&link);
    symlink(name, &link)?;
    fs::rename(&link, directory.join(DATA))?;
    link_names(directory, payload)?;
    if let Some(old) = current {
        fs::remove_dir_all(directory.join(old))?;
    }
    Ok(true)
}

fn new_directory(directory: &Path) -> io::Result<PathBuf> {
    let now = Timestamp::now();
    let name = format!(
        "..{}.{:09}",
        now.strftime("%Y_%m_%d_%H_%M_%S"),
        now.subsec_nanosecond()
    );
    let path = directory.join(name);
    fs::create_dir_all(&path)?;
    Ok(path)
}

fn set_directory_modes(directory: &Path, group: Option<u32>) -> io::Result<()> {
    let mode = if group.is_some() { 0o2755 } else { 0o755 };
    chown(directory, None, group)?;
    fs::set_permissions(directory, fs::Permissions::from_mode(mode))?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            set_directory_modes(&entry.path(), group)?;
        }
    }
    Ok(())
}

/// Whether the directory holds exactly these files.
fn shows(directory: &Path, payload: &Payload) -> bool {
    let mut found = BTreeSet::new();
    if collect(directory, "", &mut found).is_err() || !found.iter().eq(payload.keys()) {
        return false;
    }
    payload
        .iter()
        .all(|(path, file)| fs::read(directory.join(path)).is_ok_and(|data| data == file.data))
}

fn collect(directory: &Path, prefix: &str, found: &mut BTreeSet<String>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), &format!("{name}/"), found)?;
        } else {
            found.insert(name);
        }
    }
    Ok(())
}

/// Links the first part of every path through `..data` and removes links that lead nowhere any more.
fn link_names(directory: &Path, payload: &Payload) -> io::Result<()> {
    let names: BTreeSet<&str> = payload.keys().filter_map(|path| path.split('/').next()).collect();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !names.contains(name.as_str()) {
            fs::remove_file(entry.path())?;
        }
    }
    for name in names {
        match symlink(Path::new(DATA).join(name), directory.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        files
            .iter()
            .map(|(path, data)| {
                let file = File {
                    mode: 0o644,
                    data: data.as_bytes().to_vec(),
                };
                ((*path).to_owned(), file)
            })
            .collect()
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(directory)
            .expect("readable")
            .map(|e| e.expect("entry").file_name().to_string_lossy().into_owned())
            .filter(|name| !name.starts_with("..2"))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn replaces_the_whole_set_and_only_on_change() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path();
        let first = payload(&[("color", "red"), ("sub/deep", "x")]);
        assert!(write(path, &first, None).expect("written"));
        assert!(!write(path, &first, None).expect("written"), "the same again");
        assert_eq!(names(path), ["..data", "color", "sub"]);
        assert_eq!(fs::read_to_string(path.join("sub/deep")).expect("file"), "x");
        let old = fs::read_link(path.join("..data")).expect("link");

        let second = payload(&[("color", "blue"), ("size", "xl")]);
        assert!(write(path, &second, None).expect("written"));
        assert_eq!(names(path), ["..data", "color", "size"]);
        assert_eq!(fs::read_to_string(path.join("color")).expect("file"), "blue");
        assert!(!path.join(old).exists(), "the old set is gone");
    }

    #[test]
    fn an_empty_set_is_a_set() {
        let directory = tempfile::tempdir().expect("a directory");
        assert!(write(directory.path(), &payload(&[]), None).expect("written"));
        assert!(!write(directory.path(), &payload(&[]), None).expect("written"));
    }
}
