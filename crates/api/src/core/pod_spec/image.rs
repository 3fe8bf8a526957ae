//! The tag of an image name. Upstream: `pkg/util/parsers`, `github.com/distribution/reference`.

/// The tag that an image name means: `latest` without tag and digest, empty with a digest only or when the
/// name is malformed.
pub(super) fn tag(image: &str) -> &str {
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    // A colon before the last slash belongs to the registry's port.
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    let (repository, tag) = match name[last..].rfind(':') {
        Some(colon) => (&name[..last + colon], Some(&name[last + colon + 1..])),
        None => (name, None),
    };
    let repository_is_valid = repository
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "._-/:[]".contains(c))
        && repository
            .rsplit('/')
            .next()
            .is_some_and(|last| !last.is_empty() && !last.contains(|c: char| c.is_ascii_uppercase()));
    match (repository_is_valid, tag, digest) {
        (false, ..) => "",
        (true, Some(tag), _) => tag,
        (true, None, Some(_)) => "",
        (true, None, None) => "latest",
    }
}

#[cfg(test)]
mod tests {
    use super::tag;

    #[test]
    fn tags_of_image_names() {
        let cases = [
            ("mongo", "latest"),
            ("mongo:3.3", "3.3"),
            ("mongo:latest", "latest"),
            ("vfarcic/go-demo-2", "latest"),
            ("localhost:5000/a/b", "latest"),
            ("localhost:5000/a/b:v1", "v1"),
            ("a@sha256:0123", ""),
            ("a:v1@sha256:0123", "v1"),
            ("", ""),
            ("UPPER", ""),
        ];
        for (image, expected) in cases {
            assert_eq!(tag(image), expected, "{image}");
        }
    }
}
