//! A session: one bidirectional stream that begins with a header frame of its opener, followed by frames and raw
//! bytes both ways.
//!
//! On the wire a stream is one byte that says its kind, then the header. A frame is its length as four bytes, most
//! significant first, and as many bytes of CBOR. Backpressure is QUIC's: a sender waits while the receiver does not
//! read. A side that drops its end before it has finished resets the stream, and the other side sees a [`Refusal`]
//! instead of an end, so a broken body is never taken for a whole one.

use crate::{
    counters::{Counters, add},
    error::{Refusal, SessionError},
    limits::{FRAME_STEP_BYTES, SESSION_TIMEOUT},
};
use bytes::{BufMut, Bytes, BytesMut};
use daitn_messages::encoding;
use futures_util::{Stream, stream};
use iroh::endpoint::{ReadError, ReadExactError, RecvStream, SendStream};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio_util::task::TaskTracker;

/// What a stream is for; its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamKind {
    /// A session between terminals; the caller's routes answer it.
    Session = 0,
    /// A range of an artifact.
    Artifact = 1,
    /// A reachability probe.
    Probe = 2,
}

impl StreamKind {
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        [Self::Session, Self::Artifact, Self::Probe]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// Held by every handle of a connection and by every session on it: tells whether anyone uses the connection.
#[derive(Debug)]
pub(crate) struct Usage {
    pub(crate) counters: Arc<Counters>,
    /// Where replies that are still on their way are waited for before the endpoint closes.
    pub(crate) deliveries: TaskTracker,
}

/// Both directions of a session.
#[derive(Debug)]
pub struct Session {
    sender: SessionSender,
    receiver: SessionReceiver,
}

impl Session {
    pub(crate) fn new(send: SendStream, receive: RecvStream, usage: Arc<Usage>, accepted: bool) -> Self {
        Self {
            sender: SessionSender {
                stream: send,
                usage: usage.clone(),
                timeout: SESSION_TIMEOUT,
                ended: false,
                accepted,
            },
            receiver: SessionReceiver {
                stream: receive,
                usage,
                timeout: SESSION_TIMEOUT,
                ended: false,
            },
        }
    }

    /// Each operation of this session fails when it makes no progress for this long. 30 s at first.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.sender.timeout = timeout;
        self.receiver.timeout = timeout;
    }

    /// Sends a value as a frame.
    ///
    /// # Errors
    /// Where the session broke off.
    pub async fn send<T: Serialize>(&mut self, value: &T) -> Result<(), SessionError> {
        self.sender.send(value).await
    }

    /// Sends a value as a frame and ends this direction.
    ///
    /// # Errors
    /// Where the session broke off.
    pub async fn send_last<T: Serialize>(&mut self, value: &T) -> Result<(), SessionError> {
        self.sender.send(value).await?;
        self.sender.finish()
    }

    /// Receives the next frame of at most `bytes_max` bytes, which must come.
    ///
    /// # Errors
    /// Where the session broke off or ended, or the frame is too large or malformed.
    pub async fn recv<T: DeserializeOwned>(&mut self, bytes_max: usize) -> Result<T, SessionError> {
        self.receiver.recv(bytes_max).await
    }

    /// The two directions, for tasks of their own.
    #[must_use]
    pub fn split(self) -> (SessionSender, SessionReceiver) {
        (self.sender, self.receiver)
    }

    /// The sending direction.
    pub fn sender(&mut self) -> &mut SessionSender {
        &mut self.sender
    }

    /// The receiving direction.
    pub fn receiver(&mut self) -> &mut SessionReceiver {
        &mut self.receiver
    }

    /// Ends both directions and tells the other side why.
    pub fn refuse(mut self, refusal: Refusal) {
        self.sender.cancel(refusal);
        self.receiver.cancel(refusal);
    }
}

/// The sending direction of a session. Dropped before [`Self::finish`] it resets the stream.
#[derive(Debug)]
pub struct SessionSender {
    stream: SendStream,
    usage: Arc<Usage>,
    timeout: Duration,
    ended: bool,
    /// Whether the peer opened the stream, so that what is sent here is a reply.
    accepted: bool,
}

impl SessionSender {
    /// Sends a value as a frame.
    ///
    /// # Errors
    /// Where the session broke off.
    pub async fn send<T: Serialize>(&mut self, value: &T) -> Result<(), SessionError> {
        self.send_frame(&encoding::encode(value)).await
    }

    /// Sends bytes as a frame.
    ///
    /// # Errors
    /// Where the session broke off, or the bytes do not fit a frame's length.
    pub async fn send_frame(&mut self, payload: &[u8]) -> Result<(), SessionError> {
        self.send_bytes(framed(None, payload)?).await
    }

    pub(crate) async fn send_header(&mut self, kind: StreamKind, payload: &[u8]) -> Result<(), SessionError> {
        self.send_bytes(framed(Some(kind), payload)?).await
    }

    /// Sends raw bytes, without a length, and waits until the transport has taken them.
    ///
    /// # Errors
    /// Where the session broke off.
    pub async fn send_bytes(&mut self, bytes: Bytes) -> Result<(), SessionError> {
        let n_bytes = bytes.len();
        // In steps, so that the time-out is one without progress and not one for the whole.
        let mut rest = bytes;
        while !rest.is_empty() {
            let step = rest.split_to(rest.len().min(FRAME_STEP_BYTES));
            tokio::time::timeout(self.timeout, self.stream.write_chunk(step))
                .await
                .map_err(|_| SessionError::TimedOut(self.timeout))??;
        }
        add(&self.usage.counters.bytes_sent_total, n_bytes);
        Ok(())
    }

    /// Ends this direction. What was sent is still delivered.
    ///
    /// # Errors
    /// [`SessionError::Ended`] where it has ended already.
    pub fn finish(&mut self) -> Result<(), SessionError> {
        self.ended = true;
        self.stream.finish().map_err(|_| SessionError::Ended)
    }

    /// Waits until the other side wants no more of this direction: gave up, read to the end, or is gone.
    pub async fn abandoned(&self) {
        // Why it ended does not matter here: the next operation says it.
        let _ = self.stream.stopped().await;
    }

    /// Breaks this direction off and tells the other side why.
    pub fn cancel(&mut self, refusal: Refusal) {
        if !self.ended {
            self.ended = true;
            // An error means that the stream has ended already.
            let _ = self.stream.reset(refusal.var());
        }
    }
}

impl Drop for SessionSender {
    fn drop(&mut self) {
        if self.ended && self.accepted {
            // Closing a connection throws away what is still on its way, so shutting down waits for this.
            let delivered = self.stream.stopped();
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                self.usage.deliveries.spawn_on(
                    async {
                        let _ = delivered.await;
                    },
                    &runtime,
                );
            }
        }
        // A dropped QUIC stream would end as if it were whole.
        self.cancel(Refusal::Cancelled);
    }
}

impl AsyncWrite for SessionSender {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, buf)).map_err(SessionError::from)?;
        add(&self.usage.counters.bytes_sent_total, written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.finish().map_err(Into::into))
    }
}

/// The receiving direction of a session. Dropped before its end it tells the other side to stop.
#[derive(Debug)]
pub struct SessionReceiver {
    stream: RecvStream,
    usage: Arc<Usage>,
    timeout: Duration,
    ended: bool,
}

impl SessionReceiver {
    /// Receives the next frame, which must come.
    ///
    /// # Errors
    /// Where the session broke off or ended, or the frame is too large or malformed.
    pub async fn recv<T: DeserializeOwned>(&mut self, bytes_max: usize) -> Result<T, SessionError> {
        self.try_recv(bytes_max).await?.ok_or(SessionError::EndedEarly)
    }

    /// Receives the next frame, or `None` where the other side has ended its direction.
    ///
    /// # Errors
    /// Where the session broke off, or the frame is too large or malformed.
    pub async fn try_recv<T: DeserializeOwned>(
        &mut self,
        bytes_max: usize,
    ) -> Result<Option<T>, SessionError> {
        let Some(frame) = self.recv_frame(bytes_max).await? else {
            return Ok(None);
        };
        encoding::decode_at_most(&frame, bytes_max)
            .map(Some)
            .map_err(|rejection| {
                self.cancel(Refusal::Malformed);
                SessionError::Malformed(rejection)
            })
    }

    /// Receives the bytes of the next frame, or `None` where the other side has ended its direction.
    ///
    /// # Errors
    /// Where the session broke off, or the frame is too large.
    pub async fn recv_frame(&mut self, bytes_max: usize) -> Result<Option<Bytes>, SessionError> {
        let mut length = [0u8; 4];
        if !self.fill(&mut length).await? {
            return Ok(None);
        }
        let length = u32::from_be_bytes(length) as usize;
        if length > bytes_max {
            self.cancel(Refusal::TooLarge);
            return Err(SessionError::TooLarge {
                found: length as u64,
                max: bytes_max,
            });
        }
        let mut frame = BytesMut::with_capacity(length.min(FRAME_STEP_BYTES));
        self.append(&mut frame, length).await?;
        Ok(Some(frame.freeze()))
    }

    /// Receives raw bytes as they come, at most `bytes_max` at once, or `None` at the end.
    ///
    /// # Errors
    /// Where the session broke off.
    pub async fn recv_bytes(&mut self, bytes_max: usize) -> Result<Option<Bytes>, SessionError> {
        let bytes = tokio::time::timeout(self.timeout, self.stream.read_chunk(bytes_max))
            .await
            .map_err(|_| SessionError::TimedOut(self.timeout))??;
        match &bytes {
            Some(bytes) => add(&self.usage.counters.bytes_received_total, bytes.len()),
            None => self.ended = true,
        }
        Ok(bytes)
    }

    /// Receives exactly `n_bytes` raw bytes and appends them.
    ///
    /// # Errors
    /// [`SessionError::EndedEarly`] where fewer come, and where the session broke off.
    pub async fn append(&mut self, buffer: &mut BytesMut, n_bytes: usize) -> Result<(), SessionError> {
        let whole = buffer.len() + n_bytes;
        while buffer.len() < whole {
            // As much as there is under one lock of the connection, instead of a packet's worth.
            let n_missing = whole - buffer.len();
            let mut rest = (&mut *buffer).limit(n_missing);
            let read = tokio::time::timeout(self.timeout, self.stream.read_buf(&mut rest))
                .await
                .map_err(|_| SessionError::TimedOut(self.timeout))?;
            match read.map_err(io_cause)? {
                0 => {
                    self.ended = true;
                    return Err(SessionError::EndedEarly);
                }
                n_bytes => add(&self.usage.counters.bytes_received_total, n_bytes),
            }
        }
        Ok(())
    }

    /// The rest as a stream of raw bytes, for instance as an HTTP body.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, SessionError>> + Send {
        stream::unfold(Some(self), |receiver| async {
            let mut receiver = receiver?;
            match receiver.recv_bytes(FRAME_STEP_BYTES).await {
                Ok(Some(bytes)) => Some((Ok(bytes), Some(receiver))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    /// Wants no more and tells the other side why.
    pub fn cancel(&mut self, refusal: Refusal) {
        if !self.ended {
            self.ended = true;
            // An error means that the stream has ended already.
            let _ = self.stream.stop(refusal.var());
        }
    }

    pub(crate) async fn recv_kind(&mut self) -> Result<u8, SessionError> {
        let mut byte = [0u8; 1];
        if self.fill(&mut byte).await? {
            Ok(byte[0])
        } else {
            Err(SessionError::EndedEarly)
        }
    }

    /// Fills the buffer; false where the stream ends before its first byte.
    async fn fill(&mut self, buffer: &mut [u8]) -> Result<bool, SessionError> {
        let read = tokio::time::timeout(self.timeout, self.stream.read_exact(buffer))
            .await
            .map_err(|_| SessionError::TimedOut(self.timeout))?;
        match read {
            Ok(()) => {
                add(&self.usage.counters.bytes_received_total, buffer.len());
                Ok(true)
            }
            Err(ReadExactError::FinishedEarly(0)) => {
                self.ended = true;
                Ok(false)
            }
            Err(ReadExactError::FinishedEarly(_)) => Err(SessionError::EndedEarly),
            Err(ReadExactError::ReadError(error)) => Err(error.into()),
        }
    }
}

impl AsyncRead for SessionReceiver {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(AsyncRead::poll_read(Pin::new(&mut self.stream), cx, buf)).map_err(io_cause)?;
        add(
            &self.usage.counters.bytes_received_total,
            buf.filled().len() - before,
        );
        Poll::Ready(Ok(()))
    }
}

/// What the transport meant before it became an I/O error.
fn io_cause(error: io::Error) -> SessionError {
    let text = error.to_string();
    match error
        .into_inner()
        .and_then(|cause| cause.downcast::<ReadError>().ok())
    {
        Some(cause) => (*cause).into(),
        None => SessionError::ConnectionLost(text),
    }
}

fn framed(kind: Option<StreamKind>, payload: &[u8]) -> Result<Bytes, SessionError> {
    let length = u32::try_from(payload.len()).map_err(|_| SessionError::TooLarge {
        found: payload.len() as u64,
        max: u32::MAX as usize,
    })?;
    // One buffer, so that a small frame is one packet.
    let mut frame = BytesMut::with_capacity(payload.len() + 5);
    if let Some(kind) = kind {
        frame.put_u8(kind as u8);
    }
    frame.put_u32(length);
    frame.put_slice(payload);
    Ok(frame.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_kind_length_payload() {
        // Written out by hand from the description at the top of this file.
        assert_eq!(
            framed(Some(StreamKind::Artifact), b"abc").unwrap().as_ref(),
            b"\x01\0\0\0\x03abc"
        );
        assert_eq!(framed(None, &[9; 258]).unwrap()[..5], [0, 0, 1, 2, 9]);
        assert_eq!(StreamKind::from_byte(2), Some(StreamKind::Probe));
        assert_eq!(StreamKind::from_byte(3), None);
    }
}
