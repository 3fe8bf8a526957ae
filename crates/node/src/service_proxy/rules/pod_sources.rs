//! A pod cannot send in the name of another. In IPv4 the kernel sees to it on each pod's link (`rp_filter`); it has
//! nothing of the kind for IPv6.

use super::{Rules, TABLE, ZERO};
use crate::pod_network::LINK_PREFIX;
use coracle_kernel::net::nftables::{
    Batch, Comparison, Expression, Family, Fib, Hook, HookKind, MetaKey, Priority, Verdict,
};

const CHAIN: &str = "pod-sources";
/// Before anything remembers the packet.
const RAW: Priority = Priority(-300);

impl Rules {
    /// What comes in from a pod's link has a source that is routed out over that link.
    pub(super) fn write_pod_sources(&self, batch: &mut Batch) {
        if self.family == Family::Ip {
            return;
        }
        batch.add_base_chain(self.family, TABLE, CHAIN, HookKind::Filter, Hook::Prerouting, RAW);
        self.rule(
            batch,
            CHAIN,
            vec![
                Expression::Meta(MetaKey::InputName, 0),
                Expression::Compare(0, Comparison::Equal, LINK_PREFIX.as_bytes()),
                Expression::Fib(Fib::SourceRouted, 0),
                Expression::Compare(0, Comparison::Equal, &ZERO),
                Expression::Verdict(Verdict::Drop),
            ],
        );
    }
}
