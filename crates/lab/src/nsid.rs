//! Whether a network namespace still lives, asked of the kernel from another one that is connected
//! with it: there it has a number, and the kernel looks the number up without taking part in its
//! life. One request, however many processes and namespaces there are.

use crate::error::Error;
use crate::rtnl::Rtnl;
use futures_util::TryStreamExt;
use futures_util::stream::StreamExt;
use netns::Namespace;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::nsid::{NsidAttribute, NsidMessage};
use std::fmt;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicI32, Ordering};

/// A namespace's number, as known in the namespace that was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Nsid(pub(crate) i32);

/// The number of `namespace` where `rtnl` is; it gets one if it has none, that this process has never
/// given to another: of several that come and go, one that has gone is not taken for one that came. A
/// cable between the two would give it the lowest that is free (`peernet2id_alloc`).
pub(crate) fn of(rtnl: &mut Rtnl, namespace: &Namespace) -> Result<Nsid, Error> {
    static NEXT: AtomicI32 = AtomicI32::new(1 << 16);
    if let Some(number) = known(rtnl, namespace)? {
        return Ok(number);
    }
    let doing = format_args!("numbering a namespace");
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let new = vec![attribute(namespace), NsidAttribute::Id(number)];
    ask(rtnl, doing, NLM_F_ACK, RouteNetlinkMessage::NewNsId, new)?;
    Ok(Nsid(number))
}

fn known(rtnl: &mut Rtnl, namespace: &Namespace) -> Result<Option<Nsid>, Error> {
    let doing = format_args!("looking up a namespace's number");
    let it = vec![attribute(namespace)];
    let answer = ask(rtnl, doing, 0, RouteNetlinkMessage::GetNsId, it)?;
    Ok(answer.into_iter().flatten().find_map(|attribute| match attribute {
        NsidAttribute::Id(number) if number >= 0 => Some(Nsid(number)),
        _ => None,
    }))
}

fn attribute(namespace: &Namespace) -> NsidAttribute {
    NsidAttribute::Fd(namespace.as_raw_fd().cast_unsigned())
}

/// Whether anything holds the namespace of this number: a process in it, a descriptor of it, a
/// socket. The kernel answers ENOENT from the moment on at which nothing does (`get_net_ns_by_id`
/// takes no reference that is not there), long before it has cleaned up after it.
pub(crate) fn lives(rtnl: &mut Rtnl, Nsid(number): Nsid) -> Result<bool, Error> {
    let doing = format_args!("looking for a namespace");
    let it = vec![NsidAttribute::Id(number)];
    match ask(rtnl, doing, 0, RouteNetlinkMessage::GetNsId, it) {
        Err(Error::Kernel { source, .. }) if source.raw_os_error() == Some(libc::ENOENT) => {
            Ok(false)
        }
        found => found.map(|_| true),
    }
}

/// Has one request answered: with attributes, or with an acknowledgement.
fn ask(
    rtnl: &mut Rtnl,
    doing: fmt::Arguments<'_>,
    flags: u16,
    kind: fn(NsidMessage) -> RouteNetlinkMessage,
    attributes: Vec<NsidAttribute>,
) -> Result<Option<Vec<NsidAttribute>>, Error> {
    let mut message = NsidMessage::default();
    message.attributes = attributes;
    let mut message = NetlinkMessage::from(kind(message));
    message.header.flags = NLM_F_REQUEST | flags;
    rtnl.ask(doing, |handle| {
        let answers = handle.clone().request(message);
        async move {
            let answers = answers.map_err(|_| rtnetlink::Error::RequestFailed)?;
            let mut answers = Box::pin(answers.map(|answer| match answer.payload {
                NetlinkPayload::Error(error) if error.code.is_some() => {
                    Err(rtnetlink::Error::NetlinkError(error))
                }
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNsId(found)) => {
                    Ok(Some(found.attributes))
                }
                _ => Ok(None),
            }));
            answers.try_next().await.map(Option::flatten)
        }
    })
}
