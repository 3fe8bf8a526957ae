//! Layers: compressed archives in, unpacked directories out, named by what is in them and below them.

use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use coracle_kernel::mount::Overlay;
use coracle_kernel::root::{self, Root};
use sha2::{Digest, Sha256};

use super::reference::sha256_digits;
use super::unpack::unpack;
use crate::{Error, Result};

/// Names of the directories for layers with these uncompressed digests, lowest first: the chain ids of the image
/// specification, as what a layer unpacks to depends on those below it.
pub(super) fn chain(diff_ids: &[String]) -> Result<Vec<String>> {
    let mut names: Vec<String> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let digits = sha256_digits(diff_id)?;
        let name = match names.last() {
            None => digits.to_owned(),
            Some(below) => hex(&Sha256::digest(format!("sha256:{below} {diff_id}"))),
        };
        names.push(name);
    }
    Ok(names)
}

/// `sha256:…` of bytes.
pub(super) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// A stream that keeps the digest of what was read from it.
struct Hashing<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Hashing<R> {
    fn new(inner: R) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
        }
    }

    /// The digest of the whole stream, what was not read included.
    fn finish(mut self) -> io::Result<String> {
        let mut rest = vec![0; 64 * 1024];
        while self.read(&mut rest)? > 0 {}
        Ok(format!("sha256:{}", hex(&self.hash.finalize())))
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

/// Decompresses what is compressed: the first bytes tell.
pub(super) fn decompressed<'a>(stream: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut stream = BufReader::with_capacity(64 * 1024, stream);
    let start = stream.fill_buf()?;
    if start.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(flate2::bufread::MultiGzDecoder::new(stream)));
    }
    if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let decoder = ruzstd::decoding::StreamingDecoder::new(stream).map_err(io::Error::other)?;
        return Ok(Box::new(decoder));
    }
    Ok(Box::new(stream))
}

/// Unpacks a layer on top of those `below` (lowest first) into `target`, which appears when it is complete. `expected` are
/// the digests of the stream, where it is known, and of what it decompresses to.
pub(super) fn install(
    stream: impl Read,
    expected: (Option<&str>, &str),
    below: &[PathBuf],
    scratch: &Path,
    target: &Path,
) -> Result<()> {
    let scratch = tempfile::tempdir_in(scratch)
        .map_err(Error::io("make directory in", scratch))?
        .keep();
    let result = install_in(stream, expected, below, &scratch, target);
    let cleaned = root::remove_path(&scratch).map_err(Error::io("remove", &scratch));
    result.and(cleaned)
}

fn install_in(
    stream: impl Read,
    (compressed_digest, diff_id): (Option<&str>, &str),
    below: &[PathBuf],
    scratch: &Path,
    target: &Path,
) -> Result<()> {
    let (upper, work) = (scratch.join("upper"), scratch.join("work"));
    let failed = |error: io::Error| Error::InvalidImage(format!("layer {diff_id}: {error}"));
    let prepare = || -> io::Result<Root> {
        fs::create_dir(&upper)?;
        fs::create_dir(&work)?;
        let Some(top) = below.last() else {
            fs::set_permissions(&upper, fs::Permissions::from_mode(0o755))?;
            return Root::open_path(&upper);
        };
        // Unless the layer says otherwise, the root directory stays what it is.
        let metadata = fs::metadata(top)?;
        std::os::unix::fs::chown(&upper, Some(metadata.uid()), Some(metadata.gid()))?;
        fs::set_permissions(&upper, metadata.permissions())?;
        // Into an overlay, so that the layer's paths follow the links of those below, and its whiteouts become what the
        // kernel takes for whiteouts. What must be durable is flushed once for the whole image.
        Overlay {
            lower: below,
            upper: &upper,
            work: &work,
            volatile: true,
        }
        .mount()
        .map(Root::new)
    };
    let root = prepare().map_err(Error::io("prepare", scratch))?;
    let mut compressed = Hashing::new(stream);
    let actual = {
        let mut plain = Hashing::new(decompressed(&mut compressed).map_err(failed)?);
        unpack(&root, &mut plain).map_err(failed)?;
        plain.finish().map_err(failed)?
    };
    if actual != diff_id {
        return Err(Error::InvalidImage(format!(
            "layer {diff_id} has the digest {actual}"
        )));
    }
    let actual = compressed.finish().map_err(failed)?;
    if let Some(expected) = compressed_digest
        && actual != expected
    {
        return Err(Error::InvalidImage(format!(
            "blob {expected} has the digest {actual}"
        )));
    }
    drop(root);
    match fs::rename(&upper, target) {
        // Somebody else has unpacked the same layer meanwhile.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTEMPTY | libc::EEXIST)) => Ok(()),
        result => result.map_err(Error::io("make", target)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_are_named_as_the_specification_says() {
        let ids = ["a", "b"].map(|text| digest(text.as_bytes()));
        let chain = chain(&ids).unwrap();
        assert_eq!(format!("sha256:{}", chain[0]), ids[0]);
        assert_eq!(
            format!("sha256:{}", chain[1]),
            digest(format!("{} {}", ids[0], ids[1]).as_bytes())
        );
        assert!(super::chain(&["md5:abc".to_owned()]).is_err());
    }

    #[test]
    fn digests_are_known_ones() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest(b""), empty);
        assert_eq!(Hashing::new(&b""[..]).finish().unwrap(), empty);
    }

    #[test]
    fn compression_is_recognised() {
        use std::io::Write;
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"text").unwrap();
        let gzip = gzip.finish().unwrap();
        let zstd =
            ruzstd::encoding::compress_to_vec(&b"text"[..], ruzstd::encoding::CompressionLevel::Fastest);
        for packed in [&gzip[..], &zstd, b"text"] {
            let mut text = String::new();
            decompressed(packed).unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "text");
        }
        assert_eq!(decompressed(&b""[..]).unwrap().read(&mut [0; 8]).unwrap(), 0);
    }
}
