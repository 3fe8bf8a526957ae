//! Names of images, as people write them and as the store keeps them. Upstream counterpart: `distribution/reference`.

use oci_client::Reference;

use crate::{Error, Result};

/// Parses a name: `busybox` means `docker.io/library/busybox:latest`. Of a name with tag and digest the digest counts.
pub(super) fn parse(name: &str) -> Result<Reference> {
    name.parse::<Reference>()
        .map_err(|error| Error::InvalidReference {
            reference: name.to_owned(),
            reason: error.to_string(),
        })
}

/// The name with tag, or with digest when it has one, as the store keeps it.
pub(super) fn canonical(reference: &Reference) -> String {
    let repository = repository(reference);
    match (reference.digest(), reference.tag()) {
        (Some(digest), _) => format!("{repository}@{digest}"),
        (None, tag) => format!("{repository}:{}", tag.unwrap_or("latest")),
    }
}

/// The name without tag and digest.
pub(super) fn repository(reference: &Reference) -> String {
    format!("{}/{}", reference.registry(), reference.repository())
}

/// The hexadecimal digits of `sha256:…`, which become a file name.
pub(super) fn sha256_digits(digest: &str) -> Result<&str> {
    digest
        .strip_prefix("sha256:")
        .filter(|digits| {
            digits.len() == 64
                && digits
                    .bytes()
                    .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        })
        .ok_or_else(|| Error::InvalidImage(format!("{digest:?} is not a SHA-256 digest")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_completed() {
        let canonical = |name| canonical(&parse(name).unwrap());
        let digest = format!("sha256:{}", "ab".repeat(32));
        assert_eq!(canonical("busybox"), "docker.io/library/busybox:latest");
        assert_eq!(canonical("demo/api:v1"), "docker.io/demo/api:v1");
        assert_eq!(canonical("localhost:5000/app"), "localhost:5000/app:latest");
        assert_eq!(
            canonical(&format!("a.io/b:c@{digest}")),
            format!("a.io/b@{digest}")
        );
        assert!(parse("example.com/UPPER").is_err());
        assert!(parse("").is_err());
    }

    #[test]
    fn digests_that_could_name_another_file_are_refused() {
        let good = "0".repeat(64);
        assert_eq!(sha256_digits(&format!("sha256:{good}")).unwrap(), good);
        for bad in [
            "",
            "sha256:",
            "sha256:../../etc",
            &format!("sha256:{}", "G".repeat(64)),
            &good,
        ] {
            assert!(sha256_digits(bad).is_err(), "{bad}");
        }
    }
}
