//! hostPath volumes: a file or directory of the node, checked and made as `type` says. Upstream:
//! `pkg/volume/hostpath`.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

/// Checks the path, or makes it for the types that allow it.
pub fn check(path: &Path, kind: &str) -> Result<(), String> {
    let shown = path.display();
    let found = fs::metadata(path).ok().map(|m| m.file_type());
    let expect = |ok: bool, what: &str| {
        if ok {
            Ok(())
        } else {
            Err(format!("hostPath type check failed: {shown} is not a {what}"))
        }
    };
    match (kind, found) {
        ("", _) => Ok(()),
        ("DirectoryOrCreate", None) => {
            fs::create_dir_all(path).map_err(|error| format!("create {shown}: {error}"))?;
            set_mode(path, 0o755)
        }
        ("FileOrCreate", None) => {
            fs::File::create(path).map_err(|error| format!("create {shown}: {error}"))?;
            set_mode(path, 0o644)
        }
        ("Directory" | "DirectoryOrCreate", found) => expect(found.is_some_and(|t| t.is_dir()), "directory"),
        ("File" | "FileOrCreate", found) => expect(found.is_some_and(|t| t.is_file()), "file"),
        ("Socket", found) => expect(found.is_some_and(|t| t.is_socket()), "socket file"),
        ("CharDevice", found) => expect(found.is_some_and(|t| t.is_char_device()), "character device"),
        ("BlockDevice", found) => expect(found.is_some_and(|t| t.is_block_device()), "block device"),
        (other, _) => Err(format!("{other} is an invalid volume type")),
    }
}

fn set_mode(path: &Path, mode: u32) -> Result<(), String> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(|error| format!("chmod {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn types_are_checked_and_made() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("file");
        let sub = directory.path().join("sub");
        assert!(check(&file, "File").is_err());
        assert_eq!(check(&file, "FileOrCreate"), Ok(()));
        assert_eq!(check(&file, "File"), Ok(()));
        assert!(check(&file, "Directory").is_err());
        assert_eq!(check(&sub, ""), Ok(()));
        assert_eq!(check(&sub, "DirectoryOrCreate"), Ok(()));
        assert!(sub.is_dir());
        assert!(check(&sub, "Socket").is_err());
        assert!(check(&sub, "Cloud").is_err());
    }
}
