//! Bodies: whole, streamed, and read with a limit.

use crate::request::Body;
use bytes::{Bytes, BytesMut};
use coracle_meta::Status;
use futures::{Stream, StreamExt};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};

/// The largest request body. Upstream: `MaxRequestBodyBytes`.
pub const LIMIT: usize = 3 << 20;

/// A body of known length.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// A body that is made while it is sent.
pub fn stream(chunks: impl Stream<Item = Bytes> + Send + 'static) -> Body {
    StreamBody::new(chunks.map(|chunk| Ok(Frame::data(chunk)))).boxed_unsync()
}

/// Reads a whole request body. Frame by frame: `Limited` over a boxed error is not `Send` for the compiler.
pub async fn read(mut body: Body) -> Result<Bytes, Status> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| Status::bad_request(format!("reading the request body: {error}")))?;
        if let Ok(data) = frame.into_data() {
            if whole.len() + data.len() > LIMIT {
                return Err(Status::failure(
                    413,
                    "RequestEntityTooLarge",
                    format!("Request entity too large: limit is {LIMIT}"),
                ));
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok(whole.freeze())
}
