//! A client's connection, of either kind. Streams that have nothing to tell look here whether
//! somebody still listens: the HTTP server leaves a half-closed connection open for those who only
//! said their last word.

use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::net::RecvFlags;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

#[derive(Clone, Debug)]
pub(crate) struct Watched(Arc<Stream>);

#[derive(Debug)]
enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// The same method of either.
macro_rules! either {
    ($stream:expr, $inner:ident => $call:expr) => {
        match &*$stream.0 {
            Stream::Unix($inner) => $call,
            Stream::Tcp($inner) => $call,
        }
    };
}

impl From<UnixStream> for Watched {
    fn from(stream: UnixStream) -> Self {
        Self(Arc::new(Stream::Unix(stream)))
    }
}

impl From<TcpStream> for Watched {
    fn from(stream: TcpStream) -> Self {
        Self(Arc::new(Stream::Tcp(stream)))
    }
}

impl Watched {
    /// Waits until the client has closed its direction. Compat: dockerd takes that for the end of
    /// whoever waits for a stream.
    pub(crate) async fn gone(&self) {
        let peek = || {
            let mut byte = [0_u8; 1];
            let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
            let fd = either!(self, stream => stream.as_fd());
            let (count, _) = rustix::net::recv(fd, &mut byte[..], flags)?;
            Ok(count)
        };
        loop {
            if either!(self, stream => stream.readable().await).is_err() {
                return;
            }
            match either!(self, stream => stream.try_io(Interest::READABLE, peek)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) | Err(_) => return,
                // The next request is here already; its sender is, too.
                Ok(_) => std::future::pending().await,
            }
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(either!(self, stream => stream.poll_read_ready(context)))?;
            match either!(self, stream => stream.try_read(into.initialize_unfilled())) {
                Ok(count) => {
                    into.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(either!(self, stream => stream.poll_write_ready(context)))?;
            match either!(self, stream => stream.try_write_vectored(parts)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return Poll::Ready(outcome),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let fd = either!(self, stream => stream.as_fd());
        match rustix::net::shutdown(fd, rustix::net::Shutdown::Write) {
            Ok(()) | Err(rustix::io::Errno::NOTCONN) => Poll::Ready(Ok(())),
            Err(errno) => Poll::Ready(Err(errno.into())),
        }
    }
}
