//! What an interface does for its host: a packet socket in the middle must get frames that are
//! finished, with their checksums and no longer than the MTU.

use crate::error::Error;
use netns::Namespace;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::io;
use std::os::fd::AsRawFd;

/// Makes the host itself finish the frames that leave through an interface.
pub(crate) fn switch_off(namespace: &Namespace, interface: &str) -> Result<(), Error> {
    namespace
        .run(|| -> io::Result<()> {
            // Segmentation needs checksums: with those off it is off, but say so.
            for feature in [ETHTOOL_STSO, ETHTOOL_SGSO, ETHTOOL_STXCSUM] {
                set(interface, feature, 0)?;
            }
            Ok(())
        })
        .map_err(|source| Error::Namespace { doing: "switching offloads off", source })?
        .map_err(|source| {
            Error::kernel(
                format!("switching checksum and segmentation offload of {interface} off"),
                source,
            )
        })
}

// include/uapi/linux/ethtool.h
const ETHTOOL_STXCSUM: u32 = 0x17;
const ETHTOOL_STSO: u32 = 0x1f;
const ETHTOOL_SGSO: u32 = 0x24;

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

#[expect(unsafe_code, reason = "ethtool is an ioctl with a pointer in its argument")]
fn set(interface: &str, command: u32, data: u32) -> io::Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut value = Value { command, data };
    let mut name = [0; libc::IFNAMSIZ];
    // The last byte stays zero.
    for (to, from) in name[..libc::IFNAMSIZ - 1].iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    let mut request = libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: (&raw mut value).cast() },
    };
    // SAFETY: SIOCETHTOOL takes a `struct ifreq` whose data point to a `struct ethtool_value` for
    // these commands; both live until the call returns.
    let result = unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as libc::Ioctl, &raw mut request)
    };
    Errno::result(result).map(drop).map_err(io::Error::from)
}
