//! Network devices over rtnetlink (rtnetlink(7)): find one, move it to another namespace, and give it
//! back what the move takes away.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::clone::setns;

#[derive(Debug)]
pub(crate) struct Netlink(OwnedFd);

/// An address of a device as the kernel told it, ready to be given again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    family: u8,
    prefix: u8,
    flags: u32,
    scope: u8,
    index: u32,
    /// `IFA_*` of what names it.
    names: Vec<(u16, Vec<u8>)>,
}

impl Address {
    /// Given by somebody, and of use in another namespace.
    pub(crate) fn is_portable(&self) -> bool {
        self.flags & IFA_F_PERMANENT != 0 && self.scope == RT_SCOPE_UNIVERSE
    }
}

impl Netlink {
    /// Protocol 0 of this family is rtnetlink.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None,
        )?))
    }

    /// Of another network namespace; the caller's own is the same before and after.
    pub(crate) fn within(namespace: BorrowedFd<'_>, own: BorrowedFd<'_>) -> io::Result<Self> {
        setns(namespace, libc::CLONE_NEWNET)?;
        let made = Self::new();
        setns(own, libc::CLONE_NEWNET)?;
        made
    }

    /// The number of the device with this name.
    pub(crate) fn find(&self, name: &str) -> io::Result<u32> {
        let mut message = Message::new(RTM_GETLINK, 0, &link(0, 0, 0));
        message.attribute(IFLA_IFNAME, &with_zero(name));
        let mut found = None;
        self.ask(message, |kind, body| {
            if kind == RTM_NEWLINK {
                found = body.get(4..8).and_then(|bytes| Some(number(bytes.try_into().ok()?)));
            }
        })?;
        found.ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
    }

    pub(crate) fn set_up(&self, index: u32, up: bool) -> io::Result<()> {
        let flags = if up { IFF_UP } else { 0 };
        self.ask(Message::new(RTM_NEWLINK, 0, &link(index, flags, IFF_UP)), |_, _| {})
    }

    pub(crate) fn addresses(&self, index: u32) -> io::Result<Vec<Address>> {
        let mut found = Vec::new();
        self.ask(Message::new(RTM_GETADDR, NLM_F_DUMP, &[0; 8]), |kind, body| {
            if kind == RTM_NEWADDR
                && let Some(address) = address(body)
                && address.index == index
            {
                found.push(address);
            }
        })?;
        Ok(found)
    }

    pub(crate) fn add(&self, index: u32, address: &Address) -> io::Result<()> {
        let Address { family, prefix, scope, flags, names, .. } = address;
        let mut head = vec![*family, *prefix, 0, *scope];
        head.extend(index.to_ne_bytes());
        let mut message = Message::new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &head);
        for (kind, value) in names {
            message.attribute(*kind, value);
        }
        message.attribute(IFA_FLAGS, &(flags & LASTING).to_ne_bytes());
        self.ask(message, |_, _| {})
    }

    /// In one step with a new name, so that nobody there has it first.
    pub(crate) fn move_to(
        &self,
        index: u32,
        name: &str,
        namespace: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let mut message = Message::new(RTM_NEWLINK, 0, &link(index, 0, 0));
        message.attribute(IFLA_IFNAME, &with_zero(name));
        message.attribute(IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
        self.ask(message, |_, _| {})
    }

    /// Sends and reads up to the acknowledgement.
    fn ask(&self, message: Message, mut each: impl FnMut(u16, &[u8])) -> io::Result<()> {
        rustix::net::send(self.0.as_fd(), &message.finish(), SendFlags::empty())?;
        let mut bytes = vec![0_u8; 64 * 1024];
        loop {
            let (length, _) = rustix::io::retry_on_intr(|| {
                rustix::net::recv(self.0.as_fd(), &mut bytes[..], RecvFlags::empty())
            })?;
            let mut rest = &bytes[..length];
            while let Some((kind, body, after)) = split(rest) {
                match kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => {
                        let code =
                            body.first_chunk().map_or(-libc::EPROTO, |b| i32::from_ne_bytes(*b));
                        return if code == 0 {
                            Ok(())
                        } else {
                            Err(io::Error::from_raw_os_error(-code))
                        };
                    }
                    kind => each(kind, body),
                }
                rest = after;
            }
        }
    }
}

/// A request in the making.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16, head: &[u8]) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
        bytes.extend(1_u32.to_ne_bytes());
        bytes.extend(0_u32.to_ne_bytes());
        bytes.extend(head);
        Self(bytes)
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(aligned(self.0.len()), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0
    }
}

/// `struct ifinfomsg`.
fn link(index: u32, flags: u32, change: u32) -> Vec<u8> {
    [0, index, flags, change].iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// `struct ifaddrmsg` and its attributes.
fn address(body: &[u8]) -> Option<Address> {
    let [family, prefix, flags, scope, index @ ..] = *body.first_chunk::<8>()?;
    let mut address = Address {
        family,
        prefix,
        flags: u32::from(flags),
        scope,
        index: number(index),
        names: Vec::new(),
    };
    let mut rest = body.get(8..)?;
    while let Some((kind, value, after)) = attribute(rest) {
        match kind {
            // The wider field, where the kernel has it.
            IFA_FLAGS => address.flags = number(value.try_into().ok()?),
            IFA_ADDRESS | IFA_LOCAL | IFA_BROADCAST => address.names.push((kind, value.to_vec())),
            _ => {}
        }
        rest = after;
    }
    Some(address)
}

/// Kind, body and what follows.
fn split(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(number(*bytes.first_chunk()?)).ok()?;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let body = bytes.get(16..length)?;
    Some((kind, body, bytes.get(aligned(length)..).unwrap_or_default()))
}

fn attribute(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
    let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?);
    let value = bytes.get(4..length)?;
    Some((kind, value, bytes.get(aligned(length)..).unwrap_or_default()))
}

fn number(bytes: [u8; 4]) -> u32 {
    u32::from_ne_bytes(bytes)
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn with_zero(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
const IFA_F_PERMANENT: u32 = 0x80;
/// `IFA_F_NODAD` and `IFA_F_NOPREFIXROUTE`: what was asked for, not what has become of it.
const LASTING: u32 = 0x202;
const RT_SCOPE_UNIVERSE: u8 = 0;
const IFF_UP: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_device_is_found_with_its_address() {
        let netlink = Netlink::new().unwrap();
        let index = netlink.find("lo").unwrap();
        assert_eq!(index, 1);
        let own = netlink.addresses(index).unwrap();
        let local = (IFA_LOCAL, vec![127, 0, 0, 1]);
        assert!(own.iter().any(|one| one.names.contains(&local) && !one.is_portable()), "{own:?}");
        let missing = netlink.find("no-such-device").unwrap_err();
        assert_eq!(missing.raw_os_error(), Some(libc::ENODEV));
    }

    #[test]
    fn what_is_cut_short_is_no_message() {
        let whole = Message::new(RTM_GETLINK, 0, &link(7, 0, 0)).finish();
        assert_eq!(split(&whole).map(|(kind, body, _)| (kind, body.len())), Some((18, 16)));
        for length in 0..whole.len() {
            assert!(split(&whole[..length]).is_none(), "{length}");
        }
        assert!(address(&[2, 24, 0, 0, 1, 0, 0]).is_none());
        assert!(attribute(&[3, 0, 1, 0]).is_none());
    }
}
