//! Header blocks of SPDY/3: name-value pairs in one zlib stream a direction, with a dictionary known beforehand.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use std::io;
use std::sync::OnceLock;

/// A peer that inflates more than this out of one block means no good.
const MAX_BLOCK: usize = 256 * 1024;

/// Header names are lower case on the wire.
pub type Headers = Vec<(String, String)>;

/// The value of a header.
pub fn get<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
    let mut found = headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
    found.next().map(|(_, value)| value.as_str())
}

/// The dictionary of SPDY/3: words with their length before them, then some text.
fn dictionary() -> &'static [u8] {
    static DICTIONARY: OnceLock<Vec<u8>> = OnceLock::new();
    DICTIONARY.get_or_init(|| {
        const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding \
            accept-language accept-ranges age allow authorization cache-control connection content-base \
            content-encoding content-language content-length content-location content-md5 content-range \
            content-type date etag expect expires from host if-match if-modified-since if-none-match if-range \
            if-unmodified-since last-modified location max-forwards pragma proxy-authenticate \
            proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade \
            user-agent vary via warning www-authenticate method get status";
        const MORE: [&str; 8] = [
            "200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive", "origin",
        ];
        const TEXT: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417\
            502504505203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request\
            401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented\
            503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, \
            Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,\
            application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdch\
            charset=utf-8charset=iso-8859-1,utf-,*,enq=0.";
        let mut bytes = Vec::with_capacity(1423);
        for word in WORDS.split_whitespace().chain(MORE) {
            bytes.extend_from_slice(&(word.len() as u32).to_be_bytes());
            bytes.extend_from_slice(word.as_bytes());
        }
        bytes.extend_from_slice(TEXT.as_bytes());
        bytes
    })
}

/// Writes header blocks.
pub struct Encoder(Compress);

impl Encoder {
    /// At the beginning of a connection.
    pub fn new() -> io::Result<Self> {
        let mut compress = Compress::new(Compression::fast(), true);
        compress.set_dictionary(dictionary()).map_err(io::Error::other)?;
        Ok(Self(compress))
    }

    /// The next block.
    pub fn encode(&mut self, headers: &Headers) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        let mut put = |bytes: &[u8]| plain.extend_from_slice(bytes);
        put(&(headers.len() as u32).to_be_bytes());
        for (name, value) in headers {
            for text in [name.to_lowercase().as_str(), value] {
                put(&(text.len() as u32).to_be_bytes());
                put(text.as_bytes());
            }
        }
        let mut block = Vec::with_capacity(plain.len() + 64);
        let before = self.0.total_in();
        loop {
            let read = usize::try_from(self.0.total_in() - before).unwrap_or(plain.len());
            let room = block.capacity();
            self.0
                .compress_vec(&plain[read..], &mut block, FlushCompress::Sync)
                .map_err(io::Error::other)?;
            // A flush is complete when it leaves room.
            if block.len() < room {
                return Ok(block);
            }
            block.reserve(256);
        }
    }
}

/// Reads header blocks.
pub struct Decoder(Decompress);

impl Decoder {
    /// At the beginning of a connection.
    pub fn new() -> Self {
        Self(Decompress::new(true))
    }

    /// The headers of the next block.
    pub fn decode(&mut self, block: &[u8]) -> io::Result<Headers> {
        let plain = self.inflate(block)?;
        let mut rest = plain.as_slice();
        let count = take_length(&mut rest)?;
        let mut headers = Headers::new();
        for _ in 0..count {
            let name = take_text(&mut rest)?;
            let value = take_text(&mut rest)?;
            headers.push((name, value));
        }
        Ok(headers)
    }

    fn inflate(&mut self, block: &[u8]) -> io::Result<Vec<u8>> {
        let mut plain = Vec::with_capacity(1024);
        let before = self.0.total_in();
        loop {
            let read = usize::try_from(self.0.total_in() - before).unwrap_or(block.len());
            let room = plain.capacity();
            let result = self
                .0
                .decompress_vec(&block[read..], &mut plain, FlushDecompress::Sync);
            match result {
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(dictionary()).map_err(invalid)?;
                    continue;
                }
                Err(error) => return Err(invalid(error)),
                Ok(Status::StreamEnd) => return Ok(plain),
                Ok(_) => {}
            }
            let read = usize::try_from(self.0.total_in() - before).unwrap_or(block.len());
            if read == block.len() && plain.len() < room {
                return Ok(plain);
            }
            if plain.len() > MAX_BLOCK {
                return Err(invalid("the header block is too large"));
            }
            plain.reserve(1024);
        }
    }
}

fn take_length(rest: &mut &[u8]) -> io::Result<usize> {
    let (head, tail) = rest
        .split_first_chunk::<4>()
        .ok_or_else(|| invalid("the header block is too short"))?;
    *rest = tail;
    Ok(u32::from_be_bytes(*head) as usize)
}

fn take_text(rest: &mut &[u8]) -> io::Result<String> {
    let length = take_length(rest)?;
    if length > rest.len() {
        return Err(invalid("the header block is too short"));
    }
    let (head, tail) = rest.split_at(length);
    *rest = tail;
    Ok(String::from_utf8_lossy(head).into_owned())
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dictionary_is_the_specified_one() {
        let dictionary = dictionary();
        let (mut a, mut b) = (1u32, 0u32);
        for byte in dictionary {
            a = (a + u32::from(*byte)) % 65_521;
            b = (b + a) % 65_521;
        }
        assert_eq!(
            (dictionary.len(), b << 16 | a),
            (1423, 0xe3c6_a7c2),
            "length and Adler-32"
        );
    }

    #[test]
    fn blocks_of_one_connection_share_their_state() {
        let mut encoder = Encoder::new().expect("an encoder");
        let mut decoder = Decoder::new();
        for round in 0..3 {
            let headers: Headers = vec![
                ("streamtype".into(), "data".into()),
                ("port".into(), format!("{}", 8080 + round)),
                ("requestid".into(), "x".repeat(round * 3000)),
            ];
            let block = encoder.encode(&headers).expect("encoded");
            assert_eq!(decoder.decode(&block).expect("decoded"), headers);
        }
        assert_eq!(
            decoder
                .decode(&encoder.encode(&vec![]).expect("encoded"))
                .expect("decoded"),
            vec![]
        );
    }

    /// Two blocks of one connection, compressed by zlib itself.
    #[test]
    fn foreign_blocks_are_read() {
        let bytes = |hex: &str| -> Vec<u8> {
            let digits = hex.as_bytes().chunks(2);
            digits
                .map(|d| u8::from_str_radix(std::str::from_utf8(d).expect("ascii"), 16).expect("hex"))
                .collect()
        };
        let first = bytes("78f9e3c6a7c202e50e703a2b294a4dcc851625aca9a0808614cb45e01c6061606100000000ffff");
        let second = bytes("02a54f0ca5a05227118b4ace22488467823202a301000000ffff");
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut decoder = Decoder::new();
        assert_eq!(
            decoder.decode(&first).expect("decoded"),
            [pair("streamtype", "error"), pair("port", "8080")]
        );
        assert_eq!(
            decoder.decode(&second).expect("decoded"),
            [
                pair("streamtype", "data"),
                pair("port", "8080"),
                pair("requestid", "0")
            ]
        );
    }

    #[test]
    fn broken_blocks_are_refused() {
        assert!(Decoder::new().decode(b"garbage").is_err());
        let mut encoder = Encoder::new().expect("an encoder");
        let huge: Headers = vec![("a".into(), "a".repeat(4 * MAX_BLOCK))];
        let block = encoder.encode(&huge).expect("encoded");
        assert!(Decoder::new().decode(&block).is_err(), "a bomb");
    }
}
