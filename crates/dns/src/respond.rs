//! A query in, an answer out, or the question that a resolver has to be asked first. Nothing waits here.

use crate::answer::{Answer, TTL, answer, soa};
use crate::forward::{Entry, Forwarder};
use crate::metrics::Count;
use crate::query::{Query, Question, Unreadable, flag};
use crate::record_type::{AXFR, CNAME, IXFR, code};
use crate::reply::{Owner, Reply, Section, refusal};
use crate::search_path::SharedSearchPaths;
use crate::zone::Zone;
use parking_lot::RwLock;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use tokio::time::Instant;

/// The zone that the node's watches write and the server reads.
pub type SharedZone = Arc<RwLock<Zone>>;

/// Aliases that are followed: as many as CoreDNS does.
const MOST_ALIASES: usize = 10;

/// All that an answer may need.
pub(crate) struct Responder {
    pub zone: SharedZone,
    pub search_paths: SharedSearchPaths,
    pub forwarder: Forwarder,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client {
    pub address: IpAddr,
    pub over_tcp: bool,
    /// When the query came.
    pub since: Instant,
}

impl Client {
    /// Who asks now.
    pub fn new(address: IpAddr, over_tcp: bool) -> Self {
        Self {
            address,
            over_tcp,
            since: Instant::now(),
        }
    }
}

/// What resolvers have answered on the way to this answer. It may not be worth remembering for others.
pub(crate) type Asked = Vec<(Question, Arc<Entry>)>;

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The answer is in the buffer.
    Reply,
    /// Not a query.
    Ignore,
    /// Ask a resolver this, then try again.
    Ask(Question),
}

/// How a name turned out.
enum Outcome {
    /// Answered with this code.
    Done {
        code: u16,
        authoritative: bool,
        authentic: bool,
    },
    /// The cluster has no such name, or no such record of it.
    Missing { code: u16 },
    /// A resolver has to be asked.
    Ask,
}

/// What the cluster DNS says without sockets and resolvers: the zone alone. For simulations and fuzzing.
pub struct Answers(Responder);

impl Answers {
    /// Answers from this zone.
    pub fn of(zone: SharedZone) -> Self {
        Self(Responder {
            zone,
            search_paths: SharedSearchPaths::default(),
            forwarder: Forwarder::default(),
        })
    }

    /// The answer to a message that came over UDP; none if it is no query, or if a resolver would have to be asked.
    pub fn answer(&self, message: &[u8]) -> Option<Vec<u8>> {
        let client = Client::new(IpAddr::V4(Ipv4Addr::LOCALHOST), false);
        let mut out = Vec::new();
        (self.0.respond(message, client, &Asked::new(), &mut out) == Next::Reply).then_some(out)
    }
}

impl Responder {
    /// Answers a message as far as that can be done at once.
    pub fn respond(&self, message: &[u8], client: Client, asked: &Asked, out: &mut Vec<u8>) -> Next {
        let metrics = self.forwarder.metrics();
        let query = match Query::read(message) {
            Ok(query) => query,
            Err(Unreadable::NotAQuery) => return Next::Ignore,
            Err(Unreadable::Malformed { id, flags }) => {
                refusal(out, id, flags, code::FORM_ERR);
                metrics.answered(&client, 0, code::FORM_ERR);
                return Next::Reply;
            }
            Err(Unreadable::OtherOperation { id, flags }) => {
                refusal(out, id, flags, code::NOT_IMP);
                metrics.answered(&client, 0, code::NOT_IMP);
                return Next::Reply;
            }
        };
        let mut reply = Reply::new(out, &query, client.over_tcp);
        // What the answer is about in the end: an alias or the search path may have led there.
        let mut question = query.question;
        let outcome = match self.refusal(&query) {
            Some(code) => Outcome::Done {
                code,
                authoritative: false,
                authentic: false,
            },
            None => Walk {
                responder: self,
                query: &query,
                asked,
                now: Instant::now(),
            }
            .answer(client, &mut question, &mut reply),
        };
        let (code, flags) = match outcome {
            Outcome::Ask => return Next::Ask(question),
            Outcome::Missing { code } => {
                // Without room for it the answer is marked as truncated, and is asked for again.
                let _ = soa(&self.zone.read(), &question.name, Section::Authority, &mut reply);
                (code, flag::AUTHORITATIVE)
            }
            Outcome::Done {
                code,
                authoritative,
                authentic,
            } => {
                let authoritative = if authoritative { flag::AUTHORITATIVE } else { 0 };
                (
                    code,
                    authoritative | if authentic { flag::AUTHENTIC_DATA } else { 0 },
                )
            }
        };
        reply.finish(code, flags);
        metrics.answered(&client, query.question.record_type, code);
        Next::Reply
    }

    /// The answer when the answer cannot be had.
    pub fn fail(&self, message: &[u8], client: Client, out: &mut Vec<u8>) -> Next {
        let Ok(query) = Query::read(message) else {
            return Next::Ignore;
        };
        Reply::new(out, &query, client.over_tcp).finish(code::SERV_FAIL, 0);
        self.forwarder
            .metrics()
            .answered(&client, query.question.record_type, code::SERV_FAIL);
        Next::Reply
    }

    fn refusal(&self, query: &Query) -> Option<u16> {
        if query.edns.is_some_and(|edns| edns.version != 0) {
            return Some(code::BAD_VERS);
        }
        let is_transfer = matches!(query.question.record_type, AXFR | IXFR);
        let refused = is_transfer || !query.is_internet() || self.forwarder.came_back(&query.question);
        refused.then_some(code::REFUSED)
    }
}

/// One query on its way through the zone, aliases, the search path and the cache.
struct Walk<'a> {
    responder: &'a Responder,
    query: &'a Query<'a>,
    asked: &'a Asked,
    now: Instant,
}

impl Walk<'_> {
    fn answer(&self, client: Client, question: &mut Question, reply: &mut Reply) -> Outcome {
        let zone = self.responder.zone.read();
        let name = &self.query.question.name;
        let found = self.follow(&zone, question, reply);
        let is_first = matches!(
            found,
            Outcome::Missing {
                code: code::NX_DOMAIN
            }
        ) && question.name == *name;
        let paths = self.responder.search_paths.read();
        let Some(path) = paths.get(client.address).filter(|_| is_first) else {
            return found;
        };
        // The first suffix is not found: what the client would ask next is looked for here.
        for next in path.next_names(name) {
            reply.restart();
            let put = |out: &mut Vec<u8>| out.extend_from_slice(next.as_bytes());
            let Ok(at) = reply.record(Section::Answer, Owner::Current, CNAME, TTL, put) else {
                continue;
            };
            reply.name_at = at;
            question.name = next;
            match self.follow(&zone, question, reply) {
                Outcome::Ask => return Outcome::Ask,
                Outcome::Missing {
                    code: code::NX_DOMAIN,
                } => {}
                Outcome::Done { code, .. } if code != code::NO_ERROR => {}
                found => {
                    self.responder.forwarder.metrics().add(Count::SearchPaths);
                    return found;
                }
            }
        }
        // The client goes on by itself, and hears the same again.
        reply.restart();
        question.name = *name;
        found
    }

    /// Answers for a name and what it is an alias of. Afterwards the question is that for the last of them.
    fn follow(&self, zone: &Zone, question: &mut Question, reply: &mut Reply) -> Outcome {
        let mut authoritative = false;
        for _ in 0..=MOST_ALIASES {
            let code = match answer(zone, question, self.query.id, reply) {
                Answer::Records => code::NO_ERROR,
                Answer::Alias(_) if question.record_type == CNAME => code::NO_ERROR,
                Answer::Alias(target) => {
                    question.name = target;
                    authoritative = true;
                    continue;
                }
                Answer::NoData | Answer::NameError if !zone.is_synced() => code::SERV_FAIL,
                Answer::NoData => return Outcome::Missing { code: code::NO_ERROR },
                Answer::NameError => {
                    return Outcome::Missing {
                        code: code::NX_DOMAIN,
                    };
                }
                Answer::NotOurs => return self.external(question, authoritative, reply),
            };
            return Outcome::Done {
                code,
                authoritative: true,
                authentic: false,
            };
        }
        Outcome::Done {
            code: code::SERV_FAIL,
            authoritative,
            authentic: false,
        }
    }

    fn external(&self, question: &Question, authoritative: bool, reply: &mut Reply) -> Outcome {
        let known = self
            .asked
            .iter()
            .find(|(asked, _)| asked == question)
            .map(|(_, entry)| entry.clone());
        let Some(entry) = known.or_else(|| self.responder.forwarder.lookup(question, self.now)) else {
            return Outcome::Ask;
        };
        let (records, left) = entry.records(self.now);
        // What does not fit is told by the truncation flag.
        let _ = records.write(reply, left);
        let wants_authentic = self.query.flags & flag::AUTHENTIC_DATA != 0 || question.dnssec_ok;
        let authentic = entry.authentic && wants_authentic && !authoritative;
        Outcome::Done {
            code: entry.response_code,
            authoritative,
            authentic,
        }
    }
}

#[cfg(test)]
mod tests;
