//! Unix sockets with descriptors in them (SCM_RIGHTS), and the handshake's socket pair.

use std::ffi::OsStr;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::net::sockopt::Timeout;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

use super::path::Name;

/// Two ends that keep message boundaries and notice when the other side dies.
pub(crate) fn message_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

pub(crate) fn connect(path: &Path) -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// A datagram socket at `name` in a directory. By descriptor: an address has room for 107 bytes only.
pub(crate) fn bind_datagram(directory: BorrowedFd<'_>, name: Name<'_>) -> io::Result<OwnedFd> {
    let socket = datagram()?;
    let path = format!("{}/{}", super::mount::fd_path(directory), name.as_str());
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// `@name` is an abstract one.
pub(crate) fn connect_datagram(address: &OsStr) -> io::Result<OwnedFd> {
    let socket = datagram()?;
    rustix::net::connect(&socket, &unix_address(address)?)?;
    Ok(socket)
}

/// The same for a stream, to somebody who may have no time for us.
pub(crate) fn connect_stream(address: &OsStr) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let patience = Some(std::time::Duration::from_secs(30));
    rustix::net::sockopt::set_socket_timeout(&socket, Timeout::Send, patience)?;
    rustix::net::connect(&socket, &unix_address(address)?)?;
    Ok(socket)
}

fn unix_address(address: &OsStr) -> io::Result<SocketAddrUnix> {
    Ok(match address.as_encoded_bytes() {
        [b'@', name @ ..] => SocketAddrUnix::new_abstract_name(name)?,
        path => SocketAddrUnix::new(path)?,
    })
}

fn datagram() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?)
}

/// One message, or as much of it as anyone sends; empty where there is none.
pub(crate) fn receive_now(socket: impl AsFd) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0_u8; 4096];
    match rustix::net::recv(socket, &mut bytes[..], RecvFlags::DONTWAIT) {
        Ok((length, _)) => {
            bytes.truncate(length);
            Ok(bytes)
        }
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

pub(crate) fn stream_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

pub(crate) fn send_fds(
    socket: BorrowedFd<'_>,
    name: &[u8],
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(name)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// One message with one descriptor.
pub(crate) fn receive_fd(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let (_, fd) = receive_with_fd(socket)?;
    fd.ok_or_else(|| io::Error::from_raw_os_error(libc::EBADMSG))
}

/// One message, and the descriptor in it; empty when the other side is gone.
pub(crate) fn receive_with_fd(socket: BorrowedFd<'_>) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let mut bytes = vec![0_u8; 40 * 1024];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        let mut slices = [IoSliceMut::new(&mut bytes)];
        rustix::net::recvmsg(socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC)
    });
    let length = match received {
        // A dead peer with unread data resets the pair.
        Err(rustix::io::Errno::CONNRESET) => 0,
        result => result?.bytes,
    };
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    bytes.truncate(length);
    Ok((bytes, fd))
}

pub(crate) fn send(socket: impl AsFd, bytes: &[u8]) -> io::Result<()> {
    rustix::net::send(socket, bytes, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// One message; empty when the other side is gone.
pub(crate) fn receive(socket: impl AsFd) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0_u8; 16 * 1024];
    loop {
        match rustix::net::recv(&socket, &mut bytes[..], RecvFlags::empty()) {
            Ok((length, _)) => {
                bytes.truncate(length);
                return Ok(bytes);
            }
            Err(rustix::io::Errno::INTR) => {}
            // A dead peer with unread data resets the pair.
            Err(rustix::io::Errno::CONNRESET) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
    }
}
