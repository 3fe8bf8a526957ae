//! What others have in nf_tables: the chains that packets pass, and the rules in them.

use super::super::netlink::{Attributes, DUMP, Messages, REQUEST};
use super::{Family, GET_CHAIN, GET_RULE, NEW_CHAIN, NEW_RULE, Nftables, userdata};
use crate::net::Result;

const TABLE: u16 = 1;

/// A chain that is called from a hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseChain {
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Number of the hook, as [`super::Hook`] counts them.
    pub hook: u32,
    /// Whether a packet that no rule decides about is dropped.
    pub drops: bool,
}

/// A rule, of which only the remark is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The kernel's number of it, unique in its table.
    pub handle: u64,
    /// The remark it was made with.
    pub comment: Option<String>,
}

impl Nftables {
    /// All chains of a family that are called from hooks.
    pub fn base_chains(&mut self, family: Family) -> Result<Vec<BaseChain>> {
        const NAME: u16 = 3;
        const HOOK: u16 = 4;
        const HOOK_NUMBER: u16 = 1;
        const POLICY: u16 = 5;
        const DROP: u32 = 0;
        let read = |attributes: Attributes<'_>| {
            Some(BaseChain {
                table: attributes.string(TABLE)?.to_owned(),
                name: attributes.string(NAME)?.to_owned(),
                hook: attributes.nested(HOOK).be32(HOOK_NUMBER)?,
                drops: attributes.be32(POLICY)? == DROP,
            })
        };
        self.retry_dump("list the chains of nf_tables", |what, socket| {
            let mut messages = Messages::new();
            messages.message(GET_CHAIN, REQUEST | DUMP, &family.header(), |_| ());
            let mut chains = Vec::new();
            socket.dump(what, &messages, |kind, payload| {
                if kind == NEW_CHAIN {
                    chains.extend(payload.get(4..).map(Attributes).and_then(read));
                }
            })?;
            Ok(chains)
        })
    }

    /// The rules of a chain, in order.
    pub fn rules(&mut self, family: Family, table: &str, chain: &str) -> Result<Vec<Rule>> {
        const CHAIN: u16 = 2;
        const HANDLE: u16 = 3;
        const USERDATA: u16 = 7;
        let read = |attributes: Attributes<'_>| {
            Some(Rule {
                handle: u64::from_be_bytes(attributes.get(HANDLE)?.try_into().ok()?),
                comment: attributes.get(USERDATA).and_then(userdata::read_comment),
            })
        };
        self.retry_dump(&format!("list the rules of chain {chain}"), |what, socket| {
            let mut messages = Messages::new();
            messages.message(GET_RULE, REQUEST | DUMP, &family.header(), |m| {
                m.string(TABLE, table);
                m.string(CHAIN, chain);
            });
            let mut rules = Vec::new();
            socket.dump(what, &messages, |kind, payload| {
                if kind == NEW_RULE {
                    rules.extend(payload.get(4..).map(Attributes).and_then(read));
                }
            })?;
            Ok(rules)
        })
    }
}
