//! Reading what a socket has, without a buffer for each connection: most are quiet most of the time.

use std::io;

use tokio::net::unix::OwnedReadHalf;

use crate::Decoder;

/// Waits for bytes and hands them to the decoder; gives their number, 0 at the end. Nothing is lost when
/// the future is dropped.
pub(crate) async fn receive(socket: &OwnedReadHalf, decoder: &mut Decoder) -> io::Result<usize> {
    loop {
        socket.readable().await?;
        match take(socket, decoder) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            taken => return taken,
        }
    }
}

fn take(socket: &OwnedReadHalf, decoder: &mut Decoder) -> io::Result<usize> {
    let mut buffer = [0_u8; 8192];
    let count = socket.try_read(&mut buffer)?;
    decoder.push(&buffer[..count]);
    Ok(count)
}
