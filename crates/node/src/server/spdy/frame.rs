//! Frames of SPDY/3.1. Upstream: `github.com/moby/spdystream/spdy`.

use bytes::{BufMut, Bytes, BytesMut};

/// No frame of this connection may be longer.
pub const MAX_LENGTH: usize = 4 << 20;
/// The last frame of its sender on the stream.
pub const FIN: u8 = 0x01;

const HEAD: usize = 8;
const VERSION: u16 = 3;

/// A frame as it is on the wire, header blocks still compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Bytes of a stream.
    Data {
        /// Which.
        stream: u32,
        /// [`FIN`].
        flags: u8,
        /// The bytes.
        data: Bytes,
    },
    /// Opens a stream.
    SynStream {
        /// Odd if a client opens it.
        stream: u32,
        /// [`FIN`].
        flags: u8,
        /// Headers.
        block: Bytes,
    },
    /// Accepts a stream.
    SynReply {
        /// Which.
        stream: u32,
        /// Headers.
        block: Bytes,
    },
    /// Ends a stream both ways.
    Reset {
        /// Which.
        stream: u32,
        /// Why.
        status: u32,
    },
    /// To be sent back.
    Ping {
        /// Odd if a client asks.
        id: u32,
    },
    /// No more streams.
    GoAway {
        /// The last stream that was accepted.
        last: u32,
        /// Why.
        status: u32,
    },
    /// More headers of a stream.
    Headers {
        /// Headers.
        block: Bytes,
    },
    /// Settings, windows: of no meaning here, for the clients know no flow control but TCP's.
    Other,
}

/// A peer breaks the rules.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FrameError {
    /// More than [`MAX_LENGTH`].
    #[error("spdy frame of {0} bytes")]
    TooLong(usize),
    /// Too short for its type.
    #[error("spdy frame of type {0} is too short")]
    TooShort(u16),
    /// Not 3.
    #[error("spdy version {0}")]
    Version(u16),
}

impl Frame {
    /// Takes the first frame out of the buffer; nothing if it is not complete yet.
    pub fn take(buffer: &mut BytesMut) -> Result<Option<Self>, FrameError> {
        if buffer.len() < HEAD {
            return Ok(None);
        }
        let length = usize::from(buffer[5]) << 16 | usize::from(buffer[6]) << 8 | usize::from(buffer[7]);
        if length > MAX_LENGTH {
            return Err(FrameError::TooLong(length));
        }
        if buffer.len() < HEAD + length {
            buffer.reserve(HEAD + length - buffer.len());
            return Ok(None);
        }
        let head = buffer.split_to(HEAD);
        let payload = buffer.split_to(length).freeze();
        let word = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        let flags = head[4];
        if word & 0x8000_0000 == 0 {
            return Ok(Some(Self::Data {
                stream: word,
                flags,
                data: payload,
            }));
        }
        let version = u16::from_be_bytes([head[0] & 0x7f, head[1]]);
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        Self::control(u16::from_be_bytes([head[2], head[3]]), flags, &payload).map(Some)
    }

    fn control(kind: u16, flags: u8, payload: &Bytes) -> Result<Self, FrameError> {
        let number = |at: usize| {
            let bytes = payload.get(at..at + 4).ok_or(FrameError::TooShort(kind))?;
            Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        };
        let block = |at: usize| {
            if payload.len() < at {
                Err(FrameError::TooShort(kind))
            } else {
                Ok(payload.slice(at..))
            }
        };
        let id = |at: usize| number(at).map(|n| n & 0x7fff_ffff);
        Ok(match kind {
            1 => Self::SynStream {
                stream: id(0)?,
                flags,
                block: block(10)?,
            },
            2 => Self::SynReply {
                stream: id(0)?,
                block: block(4)?,
            },
            3 => Self::Reset {
                stream: id(0)?,
                status: number(4)?,
            },
            6 => Self::Ping { id: number(0)? },
            7 => Self::GoAway {
                last: id(0)?,
                status: number(4)?,
            },
            8 => Self::Headers { block: block(4)? },
            _ => Self::Other,
        })
    }

    /// Appends the frame to a buffer.
    pub fn put(&self, out: &mut BytesMut) {
        match self {
            Self::Data { stream, flags, data } => {
                out.reserve(HEAD + data.len());
                out.put_u32(*stream);
                put_length(out, *flags, data.len());
                out.put_slice(data);
            }
            Self::SynStream { stream, flags, block } => {
                put_control(out, 1, *flags, 10 + block.len());
                out.put_u32(*stream);
                out.put_u32(0);
                out.put_u16(0);
                out.put_slice(block);
            }
            Self::SynReply { stream, block } => {
                put_control(out, 2, 0, 4 + block.len());
                out.put_u32(*stream);
                out.put_slice(block);
            }
            Self::Reset { stream, status } => {
                put_control(out, 3, 0, 8);
                out.put_u32(*stream);
                out.put_u32(*status);
            }
            Self::Ping { id } => {
                put_control(out, 6, 0, 4);
                out.put_u32(*id);
            }
            Self::GoAway { last, status } => {
                put_control(out, 7, 0, 8);
                out.put_u32(*last);
                out.put_u32(*status);
            }
            Self::Headers { .. } | Self::Other => {}
        }
    }
}

fn put_control(out: &mut BytesMut, kind: u16, flags: u8, length: usize) {
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    put_length(out, flags, length);
}

fn put_length(out: &mut BytesMut, flags: u8, length: usize) {
    out.put_u32(u32::from(flags) << 24 | (length as u32 & 0x00ff_ffff));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Frame> {
        let bytes = Bytes::from_static;
        vec![
            Frame::Data {
                stream: 5,
                flags: FIN,
                data: bytes(b"hello"),
            },
            Frame::Data {
                stream: 7,
                flags: 0,
                data: bytes(b""),
            },
            Frame::SynStream {
                stream: 1,
                flags: 0,
                block: bytes(b"headers"),
            },
            Frame::SynReply {
                stream: 1,
                block: bytes(b"more"),
            },
            Frame::Reset { stream: 3, status: 5 },
            Frame::Ping { id: 9 },
            Frame::GoAway { last: 11, status: 0 },
        ]
    }

    #[test]
    fn frames_survive_the_wire_in_any_pieces() {
        let mut wire = BytesMut::new();
        for frame in all() {
            frame.put(&mut wire);
        }
        for piece in [1, 3, 8, 1000] {
            let mut buffer = BytesMut::new();
            let mut read = Vec::new();
            for part in wire.chunks(piece) {
                buffer.extend_from_slice(part);
                while let Some(frame) = Frame::take(&mut buffer).expect("valid") {
                    read.push(frame);
                }
            }
            assert_eq!(read, all(), "in pieces of {piece}");
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn a_syn_stream_looks_as_specified() {
        let mut wire = BytesMut::new();
        Frame::SynStream {
            stream: 1,
            flags: 0,
            block: Bytes::from_static(b"x"),
        }
        .put(&mut wire);
        assert_eq!(
            wire[..],
            [0x80, 3, 0, 1, 0, 0, 0, 11, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, b'x']
        );
    }

    #[test]
    fn unknown_frames_are_skipped_and_wrong_ones_refused() {
        let mut settings = BytesMut::from(&[0x80, 3, 0, 4, 0, 0, 0, 4, 0, 0, 0, 0][..]);
        assert_eq!(Frame::take(&mut settings), Ok(Some(Frame::Other)));
        let mut short = BytesMut::from(&[0x80, 3, 0, 3, 0, 0, 0, 4, 0, 0, 0, 1][..]);
        assert_eq!(Frame::take(&mut short), Err(FrameError::TooShort(3)));
        let mut old = BytesMut::from(&[0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1][..]);
        assert_eq!(Frame::take(&mut old), Err(FrameError::Version(2)));
        let mut huge = BytesMut::from(&[0, 0, 0, 1, 0, 0xff, 0xff, 0xff][..]);
        assert_eq!(Frame::take(&mut huge), Err(FrameError::TooLong(0xff_ffff)));
    }
}
