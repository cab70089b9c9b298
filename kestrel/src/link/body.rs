//! Writing an HTTP/2 body at the peer's pace.

use bytes::Bytes;
use h2::SendStream;

/// Sends bytes as the peer's window allows, so that a slow reader costs no memory here.
pub async fn write(stream: &mut SendStream<Bytes>, mut bytes: Bytes) -> Result<(), h2::Error> {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        match std::future::poll_fn(|cx| stream.poll_capacity(cx)).await {
            Some(Ok(room)) => stream.send_data(bytes.split_to(room.min(bytes.len())), false)?,
            Some(Err(cause)) => return Err(cause),
            None => return Err(h2::Reason::CANCEL.into()),
        }
    }
    Ok(())
}

/// Resolves when the peer has cancelled the stream.
pub async fn gone(stream: &mut SendStream<Bytes>) -> Result<h2::Reason, h2::Error> {
    std::future::poll_fn(|cx| stream.poll_reset(cx)).await
}
