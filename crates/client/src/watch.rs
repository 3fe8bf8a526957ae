//! Frames of a watch: one JSON object a line, cut out of the body without copying the object.
//! Upstream: `k8s.io/apimachinery/pkg/watch`, `metav1.WatchEvent`.

use crate::error::ClientError;
use crate::transport::Body;
use bytes::{Bytes, BytesMut};
use coracle_meta::Status;
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::value::RawValue;

/// What happened to the object of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum FrameType {
    /// It came to be, or came to match the selector.
    Added,
    /// It changed.
    Modified,
    /// It is gone, or no longer matches the selector; the object is its last state.
    Deleted,
    /// Only `metadata.resourceVersion` is set: everything up to it has been sent.
    Bookmark,
    /// The object is a `Status`. [`WatchStream::next`] returns it as an error.
    Error,
}

/// One frame.
#[derive(Debug, Clone)]
pub struct Frame {
    /// What happened.
    pub frame_type: FrameType,
    /// The object as JSON.
    pub object: Bytes,
}

#[derive(Deserialize)]
struct WireFrame<'a> {
    #[serde(rename = "type")]
    frame_type: FrameType,
    #[serde(borrow)]
    object: &'a RawValue,
}

/// A running watch. Dropping it ends the request.
pub struct WatchStream {
    request: String,
    body: Body,
    buffer: BytesMut,
    /// Up to here `buffer` has no line end.
    searched: usize,
}

impl WatchStream {
    pub(crate) fn new(request: String, body: Body) -> Self {
        Self {
            request,
            body,
            buffer: BytesMut::new(),
            searched: 0,
        }
    }

    /// The next frame; `None` when the server ended the watch. Cancel-safe: what was read stays in the buffer.
    pub async fn next(&mut self) -> Result<Option<Frame>, ClientError> {
        loop {
            while let Some(line) = self.take_line() {
                if !line.iter().all(u8::is_ascii_whitespace) {
                    return self.decode(&line).map(Some);
                }
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(source)) => {
                    return Err(ClientError::Body {
                        request: self.request.clone(),
                        source,
                    });
                }
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
            }
        }
    }

    fn take_line(&mut self) -> Option<Bytes> {
        match self.buffer[self.searched..].iter().position(|b| *b == b'\n') {
            Some(offset) => {
                let line = self.buffer.split_to(self.searched + offset + 1);
                self.searched = 0;
                Some(line.freeze())
            }
            None => {
                self.searched = self.buffer.len();
                None
            }
        }
    }

    fn decode(&self, line: &Bytes) -> Result<Frame, ClientError> {
        let decode_error = |source| ClientError::Decode {
            request: self.request.clone(),
            source,
        };
        let wire: WireFrame<'_> = serde_json::from_slice(line).map_err(decode_error)?;
        if wire.frame_type == FrameType::Error {
            let status: Status = serde_json::from_str(wire.object.get()).map_err(decode_error)?;
            return Err(ClientError::Refused(Box::new(status)));
        }
        Ok(Frame {
            frame_type: wire.frame_type,
            object: line.slice_ref(wire.object.get().as_bytes()),
        })
    }
}
