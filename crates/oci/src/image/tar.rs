//! A reader of tar archives: ustar, with the extensions of pax and GNU that image builders write. Names and attributes are
//! bytes, lengths are bounded, and binary values of extended attributes come out as they are.

use std::io::{self, Read};

const BLOCK: usize = 512;
/// Extended headers of one entry are kept in memory: names and extended attributes.
const MAX_EXTENSION: u64 = 4 << 20;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    HardLink,
    Symlink,
    Character,
    Block,
    Directory,
    Fifo,
}

/// A file, directory or other thing in an archive. File contents follow in the reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    pub(super) path: Vec<u8>,
    /// Where a link leads.
    pub(super) link: Vec<u8>,
    pub(super) size: u64,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Seconds since 1970.
    pub(super) modified: i64,
    pub(super) major: u32,
    pub(super) minor: u32,
    /// Extended attributes, name and value.
    pub(super) attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Reads entries one after the other; between two, it reads the contents of the first.
#[derive(Debug)]
pub(super) struct Reader<R> {
    inner: R,
    consumed: u64,
    /// Contents of the present entry that were not read.
    left: u64,
    /// What fills its last block.
    padding: u64,
}

/// What extended headers say about the next entry.
#[derive(Default)]
struct Extension {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    modified: Option<i64>,
    attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

impl<R: Read> Reader<R> {
    pub(super) fn new(inner: R) -> Self {
        Self {
            inner,
            consumed: 0,
            left: 0,
            padding: 0,
        }
    }

    /// Bytes of the archive that were read.
    pub(super) fn consumed(&self) -> u64 {
        self.consumed
    }

    /// The next entry; what was not read of the present one is skipped.
    pub(super) fn next(&mut self) -> io::Result<Option<Entry>> {
        io::copy(self, &mut io::sink())?;
        let mut extension = Extension::default();
        loop {
            self.skip_padding()?;
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            let size = number(&header[124..136])?;
            match header[156] {
                b'x' => extension.pax(&self.extension(size)?)?,
                b'L' => extension.path = Some(until_zero(&self.extension(size)?).to_vec()),
                b'K' => extension.link = Some(until_zero(&self.extension(size)?).to_vec()),
                // Applies to all that follow; nobody puts anything into it but comments.
                b'g' => {
                    self.extension(size)?;
                }
                _ => {
                    let entry = entry(&header, size, extension)?;
                    self.expect(entry.size);
                    return Ok(Some(entry));
                }
            }
        }
    }

    fn expect(&mut self, size: u64) {
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
    }

    fn skip_padding(&mut self) -> io::Result<()> {
        let mut padding = [0; BLOCK];
        let length = usize::try_from(std::mem::take(&mut self.padding)).unwrap_or(0);
        self.exactly(&mut padding[..length])
    }

    fn exactly(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        self.inner.read_exact(buffer)?;
        self.consumed += buffer.len() as u64;
        Ok(())
    }

    /// A header block; none at the end, which is a block of zeros or that of the stream.
    fn header(&mut self) -> io::Result<Option<[u8; BLOCK]>> {
        let mut header = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.inner.read(&mut header[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.consumed += BLOCK as u64;
        if header.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let sum: u64 = header
            .iter()
            .enumerate()
            .map(|(index, byte)| {
                if (148..156).contains(&index) {
                    u64::from(b' ')
                } else {
                    u64::from(*byte)
                }
            })
            .sum();
        if number(&header[148..156])? != sum {
            return Err(invalid("header checksum is wrong"));
        }
        Ok(Some(header))
    }

    fn extension(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > MAX_EXTENSION {
            return Err(invalid("headers are too long"));
        }
        self.expect(size);
        let mut contents = Vec::new();
        self.read_to_end(&mut contents)?;
        Ok(contents)
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        match self.inner.read(&mut buffer[..wanted])? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.left -= count as u64;
                self.consumed += count as u64;
                Ok(count)
            }
        }
    }
}

fn entry(header: &[u8; BLOCK], size: u64, extension: Extension) -> io::Result<Entry> {
    let name = until_zero(&header[..100]);
    let prefix = if &header[257..263] == b"ustar\0" {
        until_zero(&header[345..500])
    } else {
        b""
    };
    let path = match (extension.path, prefix) {
        (Some(path), _) => path,
        (None, b"") => name.to_vec(),
        (None, prefix) => [prefix, b"/", name].concat(),
    };
    let kind = match header[156] {
        // Before ustar, directories were files with a slash at the end.
        b'0' | b'\0' | b'7' if path.ends_with(b"/") => Kind::Directory,
        b'0' | b'\0' | b'7' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' => Kind::Character,
        b'4' => Kind::Block,
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        other => return Err(invalid(&format!("unknown kind of entry {:?}", char::from(other)))),
    };
    let id = |id: u64| u32::try_from(id).map_err(|_| invalid("owner is out of range"));
    let device = |field: &[u8]| u32::try_from(number(field)?).map_err(|_| invalid("device is out of range"));
    let is_device = matches!(kind, Kind::Character | Kind::Block);
    Ok(Entry {
        kind,
        path,
        link: extension
            .link
            .unwrap_or_else(|| until_zero(&header[157..257]).to_vec()),
        // Only files have contents, whatever else the header says.
        size: if kind == Kind::File {
            extension.size.unwrap_or(size)
        } else {
            0
        },
        mode: u32::try_from(number(&header[100..108])? & 0o7777).unwrap_or_default(),
        uid: id(extension.uid.map_or_else(|| number(&header[108..116]), Ok)?)?,
        gid: id(extension.gid.map_or_else(|| number(&header[116..124]), Ok)?)?,
        modified: extension
            .modified
            .map_or_else(|| number(&header[136..148]).map(u64::cast_signed), Ok)?,
        major: if is_device { device(&header[329..337])? } else { 0 },
        minor: if is_device { device(&header[337..345])? } else { 0 },
        attributes: extension.attributes,
    })
}

impl Extension {
    /// Takes records `LENGTH KEY=VALUE\n`, where the length counts itself and the end.
    fn pax(&mut self, mut records: &[u8]) -> io::Result<()> {
        let malformed = || invalid("malformed pax header");
        while !records.is_empty() {
            let space = records
                .iter()
                .position(|byte| *byte == b' ')
                .ok_or_else(malformed)?;
            let length: usize = text(&records[..space]).ok_or_else(malformed)?;
            let record = records.get(space + 1..length).ok_or_else(malformed)?;
            let record = record.strip_suffix(b"\n").ok_or_else(malformed)?;
            let equals = record
                .iter()
                .position(|byte| *byte == b'=')
                .ok_or_else(malformed)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.size = Some(text(value).ok_or_else(malformed)?),
                b"uid" => self.uid = Some(text(value).ok_or_else(malformed)?),
                b"gid" => self.gid = Some(text(value).ok_or_else(malformed)?),
                b"mtime" => {
                    // With a fraction, which is not worth keeping.
                    let whole = value.split(|byte| *byte == b'.').next().unwrap_or_default();
                    self.modified = Some(text(whole).ok_or_else(malformed)?);
                }
                _ => {
                    if key.starts_with(b"GNU.sparse.") {
                        return Err(invalid("sparse files are not supported"));
                    }
                    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                        self.attributes.push((name.to_vec(), value.to_vec()));
                    }
                }
            }
            records = &records[length..];
        }
        Ok(())
    }
}

fn text<T: std::str::FromStr>(bytes: &[u8]) -> Option<T> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

fn until_zero(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A number: octal digits, or GNU's binary form for those that do not fit.
fn number(field: &[u8]) -> io::Result<u64> {
    if field[0] & 0x80 != 0 {
        let (high, low) = field.split_at(field.len() - 7);
        if field[0] != 0x80 || high[1..].iter().any(|byte| *byte != 0) {
            return Err(invalid("number is out of range"));
        }
        return Ok(low.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)));
    }
    let digits = until_zero(field).trim_ascii();
    if digits.is_empty() {
        return Ok(0);
    }
    let digits = std::str::from_utf8(digits).map_err(|_| invalid("number is not octal"))?;
    u64::from_str_radix(digits, 8).map_err(|_| invalid("number is not octal"))
}

pub(super) fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(archive: &[u8]) -> io::Result<Vec<(Entry, Vec<u8>)>> {
        let mut reader = Reader::new(archive);
        let mut all = Vec::new();
        while let Some(entry) = reader.next()? {
            let mut contents = Vec::new();
            reader.read_to_end(&mut contents)?;
            all.push((entry, contents));
        }
        Ok(all)
    }

    /// What another writer makes of names and numbers that need extensions.
    #[test]
    fn reads_what_others_write() {
        let long = "directory/".repeat(20) + "name";
        let mut builder = ::tar::Builder::new(Vec::new());
        let mut header = ::tar::Header::new_gnu();
        header.set_size(5);
        header.set_mode(0o640);
        header.set_uid(3_000_000_000);
        header.set_mtime(77);
        builder.append_data(&mut header, &long, &b"12345"[..]).unwrap();
        let mut header = ::tar::Header::new_gnu();
        header.set_entry_type(::tar::EntryType::Symlink);
        header.set_size(0);
        builder.append_link(&mut header, "link", &long).unwrap();
        builder
            .append_pax_extensions([("path", &b"pax-name"[..]), ("SCHILY.xattr.user.x", b"a\nb=\0")])
            .unwrap();
        let mut header = ::tar::Header::new_ustar();
        header.set_size(0);
        header.set_entry_type(::tar::EntryType::Directory);
        header.set_path("short").unwrap();
        header.set_cksum();
        builder.append(&header, &[][..]).unwrap();
        let all = entries(&builder.into_inner().unwrap()).unwrap();
        assert_eq!(all.len(), 3);
        let (file, contents) = &all[0];
        assert_eq!(
            (file.kind, file.path.as_slice(), contents.as_slice()),
            (Kind::File, long.as_bytes(), &b"12345"[..])
        );
        assert_eq!((file.mode, file.uid, file.modified), (0o640, 3_000_000_000, 77));
        assert_eq!(
            (all[1].0.kind, all[1].0.link.as_slice()),
            (Kind::Symlink, long.as_bytes())
        );
        assert_eq!(
            (all[2].0.kind, all[2].0.path.as_slice()),
            (Kind::Directory, &b"pax-name"[..])
        );
        assert_eq!(all[2].0.attributes, [(b"user.x".to_vec(), b"a\nb=\0".to_vec())]);
    }

    #[test]
    fn broken_archives_are_told_not_believed() {
        assert!(entries(b"").unwrap().is_empty());
        assert!(entries(&[0; 1024]).unwrap().is_empty());
        assert_eq!(
            entries(&[0; 100]).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
        assert!(entries(&[b'x'; 512]).is_err());
        let mut header = ::tar::Header::new_ustar();
        header.set_size(600);
        header.set_cksum();
        let truncated = [header.as_bytes().as_slice(), &[0; 512]].concat();
        assert_eq!(
            entries(&truncated).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
        let mut extension = Extension::default();
        for record in [
            &b"9 a=b"[..],
            b"x a=b\n",
            b"6 ab\n\n",
            b"99999999999999999999 a=b\n",
            b"3\n",
        ] {
            assert!(extension.pax(record).is_err(), "{record:?}");
        }
    }

    #[test]
    fn numbers_have_two_forms() {
        assert_eq!(number(b"0000644\0").unwrap(), 0o644);
        assert_eq!(number(b"   644 \0").unwrap(), 0o644);
        assert_eq!(number(b"\0\0\0\0\0\0\0\0").unwrap(), 0);
        assert_eq!(number(b"\x80\0\0\0\0\x02\0\0\0\0\0\0").unwrap(), 2 << 48);
        assert!(number(b"\xff\xff\xff\xff\xff\xff\xff\xff").is_err());
        assert!(number(b"99999999").is_err());
    }
}
