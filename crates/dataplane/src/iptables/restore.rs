//! From the chains that are there to those that should be: the input of `iptables-restore --noflush`.

use super::names::is_ours;
use super::{Chain, JUMPS, Ruleset, Table};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// The chains of a proxy for Services that are in the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Installed {
    /// And the rules in each; none if they are not known.
    chains: BTreeMap<Chain, Option<Vec<String>>>,
    /// Jumps from the kernel's chains to ours: table, from, to, and the whole rule behind `-A`.
    jumps: BTreeMap<(Table, String, String), String>,
}

impl Installed {
    /// What `iptables-save` printed.
    pub fn read(saved: &str) -> Self {
        let mut installed = Self::default();
        let mut table = None;
        for line in saved.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = [Table::Filter, Table::Nat]
                    .into_iter()
                    .find(|table| table.to_string() == name);
            }
            let Some(table) = table else {
                continue;
            };
            if let Some(chain) = line.strip_prefix(':') {
                let name = chain.split(' ').next().unwrap_or_default();
                if is_ours(name) {
                    installed.chains.insert((table, name.to_owned()), None);
                }
            } else if let Some(rule) = line.strip_prefix("-A ") {
                let from = rule.split(' ').next().unwrap_or_default();
                let to = rule.rsplit_once(" -j ").map_or("", |(_, target)| target);
                if !is_ours(from) && is_ours(to) {
                    let jump = (table, from.to_owned(), to.to_owned());
                    installed.jumps.insert(jump, rule.to_owned());
                }
            }
        }
        installed
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.chains.is_empty()
    }

    /// What makes `wanted` of this; none if it is so.
    pub fn restore(&self, wanted: &Ruleset) -> Option<String> {
        let mut text = String::new();
        for table in [Table::Filter, Table::Nat] {
            let of_table = |chain: &&Chain| chain.0 == table;
            let changed: Vec<(&Chain, &Vec<String>)> = wanted
                .chains
                .iter()
                .filter(|(chain, rules)| {
                    chain.0 == table && self.chains.get(*chain) != Some(&Some((*rules).clone()))
                })
                .collect();
            let gone: Vec<&Chain> = self
                .chains
                .keys()
                .filter(of_table)
                .filter(|chain| !wanted.chains.contains_key(*chain))
                .collect();
            let jumps = JUMPS.iter().filter(|(of, from, to, ..)| {
                *of == table
                    && !self
                        .jumps
                        .contains_key(&(table, (*from).to_owned(), (*to).to_owned()))
            });
            let mut lines = String::new();
            // Naming a chain makes it, or empties it; to go, it has to be empty.
            for (_, name) in changed
                .iter()
                .map(|(chain, _)| *chain)
                .chain(gone.iter().copied())
            {
                let _ = writeln!(lines, ":{name} - [0:0]");
            }
            for ((_, name), rules) in changed {
                for rule in rules {
                    let _ = writeln!(lines, "-A {name} {rule}");
                }
            }
            for (_, from, to, condition, comment) in jumps {
                let _ = writeln!(
                    lines,
                    r#"-I {from} {condition}-m comment --comment "{comment}" -j {to}"#
                );
            }
            for (_, name) in gone {
                let _ = writeln!(lines, "-X {name}");
            }
            if !lines.is_empty() {
                let _ = writeln!(text, "*{table}\n{lines}COMMIT");
            }
        }
        (!text.is_empty()).then_some(text)
    }

    /// What takes all of it away; none if there is nothing.
    pub fn removal(&self) -> Option<String> {
        let tables: BTreeSet<Table> = self.chains.keys().map(|(table, _)| *table).collect();
        let mut text = String::new();
        for table in tables {
            let _ = writeln!(text, "*{table}");
            let names = || self.chains.keys().filter(|chain| chain.0 == table);
            for (_, name) in names() {
                let _ = writeln!(text, ":{name} - [0:0]");
            }
            for ((of, ..), rule) in &self.jumps {
                if *of == table {
                    let _ = writeln!(text, "-D {rule}");
                }
            }
            for (_, name) in names() {
                let _ = writeln!(text, "-X {name}");
            }
            text.push_str("COMMIT\n");
        }
        (!text.is_empty()).then_some(text)
    }

    /// Notes that `wanted` is there now.
    pub fn set(&mut self, wanted: Ruleset) {
        let chains = wanted.chains.into_iter();
        self.chains = chains.map(|(chain, rules)| (chain, Some(rules))).collect();
        for (table, from, to, condition, comment) in JUMPS {
            let rule = format!(r#"{from} {condition}-m comment --comment "{comment}" -j {to}"#);
            let jump = (table, from.to_owned(), to.to_owned());
            self.jumps.entry(jump).or_insert(rule);
        }
    }
}
