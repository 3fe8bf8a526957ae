//! The search paths of the node's pods, so that the server walks them instead of the client.
//! Upstream: CoreDNS' `autopath` plugin.
//!
//! A client with `ndots:5` asks for `example.com` as `example.com.NAMESPACE.svc.cluster.local` first, then with the
//! other suffixes, and last as it is: five questions, ten with IPv6. Who knows the client's path can answer the first.

use crate::name::{InvalidName, Name};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// The search paths that the node writes and the server reads.
pub type SharedSearchPaths = Arc<RwLock<SearchPaths>>;

/// The `search` line of a resolv.conf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchPath {
    first: Name,
    /// The others; last the root, for the name as it is.
    rest: Vec<Name>,
}

/// The search path of each client, by its address.
#[derive(Debug, Default)]
pub struct SearchPaths(HashMap<IpAddr, Arc<SearchPath>>);

impl SearchPath {
    /// The domains in order; absent if there are none.
    pub fn new<'a>(domains: impl IntoIterator<Item = &'a str>) -> Result<Option<Self>, InvalidName> {
        let mut domains = domains.into_iter().map(Name::parse);
        let Some(first) = domains.next() else {
            return Ok(None);
        };
        let mut rest = domains.collect::<Result<Vec<_>, _>>()?;
        rest.push(Name::ROOT);
        Ok(Some(Self { first: first?, rest }))
    }

    /// Under which names a client with this path goes on if there is no such name; none if it is not the first that
    /// such a client asks.
    pub(crate) fn next_names<'a>(&'a self, asked: &'a Name) -> impl Iterator<Item = Name> + 'a {
        let own = asked.before(&self.first).filter(|own| !own.is_empty());
        let rest = own.and(Some(&self.rest)).into_iter().flatten();
        rest.filter_map(move |suffix| suffix.prefixed(own?))
    }
}

impl SearchPaths {
    /// A client with this address has this path.
    pub fn insert(&mut self, client: IpAddr, path: Arc<SearchPath>) {
        self.0.insert(client, path);
    }

    /// The client is gone.
    pub fn remove(&mut self, client: IpAddr) {
        self.0.remove(&client);
    }

    /// The path of the client with this address.
    pub fn get(&self, client: IpAddr) -> Option<&Arc<SearchPath>> {
        self.0.get(&client.to_canonical())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_question_is_walked_on() {
        let path = SearchPath::new(["ns.svc.cluster.local", "svc.cluster.local", "corp"]);
        let path = path.expect("names").expect("not empty");
        let next = |asked: &str| -> Vec<String> {
            path.next_names(&Name::parse(asked).expect("a name"))
                .map(|name| name.to_string())
                .collect()
        };
        assert_eq!(
            next("example.com.ns.svc.cluster.local"),
            [
                "example.com.svc.cluster.local.",
                "example.com.corp.",
                "example.com."
            ]
        );
        for other in [
            "ns.svc.cluster.local",
            "example.com.svc.cluster.local",
            "example.com",
        ] {
            assert!(next(other).is_empty(), "{other}");
        }
        assert_eq!(SearchPath::new([]), Ok(None));
        assert!(SearchPath::new(["a..b"]).is_err());
    }
}
