//! The world: one thread, a time of its own, and a seed that decides who does what next.

use crate::api::Api;
use crate::manager::{self, Manager};
use crate::node::{self, Node};
use crate::scheduler::{self, Scheduling};
use crate::{invariants, users};
use coracle_controllers::service_lb::Pool;
use coracle_controllers::{
    deployment, endpoint_slice, endpoints, pod_gc, replica_set, service_allocation_repair, service_diagnosis,
    service_lb,
};
use coracle_reconcile::Spec;
use jiff::{SignedDuration, Timestamp};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::cell::RefCell;
use std::collections::VecDeque;

/// Addresses of Services: few, so that they are used again.
pub const SERVICE_CIDR: &str = "10.96.0.0/24";
/// Ports of the nodes for Services: few, too.
pub const NODE_PORTS: (u16, u16) = (30000, 30031);
/// Steps in which people and faults interfere.
const BUSY_STEPS: usize = 1500;
/// By then the rest must have come to an end.
const MOST_STEPS: usize = 60_000;
/// So much time has the rest: Pods of a lost node are kept for 40 s, Services are looked at after 10 s, failures are
/// repeated after at most 41 s.
const REST: SignedDuration = SignedDuration::from_mins(20);
/// Lines of the history that a failure shows.
const LAST_LINES: usize = 60;

thread_local! {
    /// Of the allocators, which ask without an argument.
    static RANDOM: RefCell<StdRng> = RefCell::new(StdRng::seed_from_u64(0));
}

fn random_number() -> u64 {
    RANDOM.with_borrow_mut(Rng::random)
}

/// A broken invariant, and what came before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What does not hold.
    pub what: String,
    /// The last lines of the history.
    pub history: Vec<String>,
}

/// How a run went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Steps that were taken.
    pub steps: usize,
    /// Revisions that were written.
    pub revisions: u64,
    /// A number made of the whole history: the same seed gives the same.
    pub fingerprint: u64,
}

/// See the file's head.
pub struct World {
    /// The API server.
    pub api: Api,
    /// The controllers.
    pub manager: Manager,
    scheduling: Scheduling,
    /// All nodes that there ever were.
    pub nodes: Vec<Node>,
    random: StdRng,
    history: VecDeque<String>,
    steps: usize,
    fingerprint: u64,
    print: bool,
    /// The revision that was checked last.
    checked: u64,
    most_replicas: invariants::MostReplicas,
}

enum Move {
    Manager(manager::Move),
    Scheduler(scheduler::Move),
    Node(usize, node::Move),
    CollectGarbage,
    KeepIpAddresses,
}

fn controllers() -> Vec<Spec> {
    vec![
        endpoint_slice::spec(),
        endpoints::spec(),
        deployment::spec(),
        replica_set::spec(),
        service_lb::spec(Pool::default()),
        pod_gc::spec(100),
        service_allocation_repair::spec(
            vec![SERVICE_CIDR.parse().expect("a range")],
            NODE_PORTS.0..=NODE_PORTS.1,
        ),
        service_diagnosis::spec(),
    ]
}

impl World {
    /// Three nodes and nothing on them. With `print` every step is told on standard error.
    pub fn new(seed: u64, print: bool) -> Self {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        RANDOM.set(StdRng::seed_from_u64(seed));
        let network = SERVICE_CIDR.parse().expect("a range");
        let mut world = Self {
            api: Api::new(network, NODE_PORTS, random_number, start),
            manager: Manager::new(controllers()),
            scheduling: Scheduling::default(),
            nodes: Vec::new(),
            random: StdRng::seed_from_u64(seed),
            history: VecDeque::new(),
            steps: 0,
            fingerprint: 0,
            print,
            checked: 0,
            most_replicas: invariants::MostReplicas::new(),
        };
        users::begin(&mut world.api);
        (0..3).for_each(|_| world.add_node());
        world
    }

    /// Lives through the seed.
    pub fn run(mut self) -> Result<Summary, Failure> {
        let result = self.live();
        result.map_err(|what| Failure {
            what,
            history: self.history.iter().cloned().collect(),
        })?;
        Ok(Summary {
            steps: self.steps,
            revisions: self.api.revision(),
            fingerprint: self.fingerprint,
        })
    }

    fn live(&mut self) -> Result<(), String> {
        // Some clusters are busier than others.
        let busy = self.random.random_range(5..80);
        for _ in 0..BUSY_STEPS {
            self.api.now += SignedDuration::from_millis(self.random.random_range(0..20));
            match self.random.random_range(0..1000) {
                chance if chance < busy => {
                    let said = users::act(&mut self.api, &mut self.random);
                    self.tell(said);
                    self.check()?;
                }
                900..930 => self.fault(),
                930..940 => self.api.now += SignedDuration::from_secs(self.random.random_range(1..20)),
                _ => {
                    self.step()?;
                }
            }
        }
        self.api.conflicts = 0;
        let end = self.api.now + REST;
        while self.steps < MOST_STEPS {
            if self.step()? {
                continue;
            }
            let stuck = self.manager.stuck();
            if !stuck.is_empty() {
                return Err(stuck.join(", "));
            }
            match self.wake_at() {
                Some(at) if at <= end => self.api.now = self.api.now.max(at),
                _ => return invariants::at_rest(self),
            }
        }
        Err(format!("nothing has come to rest after {MOST_STEPS} steps"))
    }

    fn wake_at(&self) -> Option<Timestamp> {
        let wakes = [self.manager.wake_at(), self.scheduling.wake_at()];
        wakes.into_iter().flatten().min()
    }

    /// Somebody does something. False if nobody has anything to do now.
    fn step(&mut self) -> Result<bool, String> {
        let api = &self.api;
        let mut moves: Vec<Move> = self.manager.moves(api).into_iter().map(Move::Manager).collect();
        moves.extend(self.scheduling.moves(api).into_iter().map(Move::Scheduler));
        for (index, node) in self.nodes.iter().enumerate() {
            moves.extend(node.moves(api).into_iter().map(|step| Move::Node(index, step)));
        }
        moves.extend([Move::CollectGarbage, Move::KeepIpAddresses]);
        while !moves.is_empty() {
            let step = moves.swap_remove(self.random.random_range(0..moves.len()));
            let choice = self.random.random_range(0..1000);
            let said = match step {
                Move::Manager(step) => self.manager.act(step, &mut self.api, choice),
                Move::Scheduler(step) => self.scheduling.act(step, &mut self.api),
                Move::Node(index, step) => self.nodes[index].act(&step, &mut self.api, &mut self.random)?,
                // These two know only by trying whether there is something to do.
                Move::CollectGarbage => match self.api.collect_garbage() {
                    true => "garbage is collected".to_owned(),
                    false => continue,
                },
                Move::KeepIpAddresses => match self.api.keep_ip_addresses() {
                    true => "an IPAddress is kept".to_owned(),
                    false => continue,
                },
            };
            self.tell(said);
            self.check()?;
            return Ok(true);
        }
        Ok(false)
    }

    /// What must always hold, if something was written.
    fn check(&mut self) -> Result<(), String> {
        if self.checked == self.api.revision() {
            return Ok(());
        }
        self.checked = self.api.revision();
        invariants::allocations(&self.api)?;
        invariants::replicas(&self.api, &mut self.most_replicas)
    }

    fn fault(&mut self) {
        let node = self.random.random_range(0..self.nodes.len());
        let is_up = self.nodes[node].is_up;
        let up = self.nodes.iter().filter(|node| node.is_up).count();
        let said = match self.random.random_range(0..100) {
            0..45 => self.cut_a_watch(node),
            45..60 => {
                self.api.conflicts = self.random.random_range(1..3);
                "fault: the next update is overtaken".to_owned()
            }
            60..70 => {
                self.manager = Manager::new(controllers());
                "fault: the controllers start anew".to_owned()
            }
            70..75 => {
                self.scheduling = Scheduling::default();
                "fault: the scheduler starts anew".to_owned()
            }
            75..83 if is_up => {
                self.nodes[node].restart();
                format!("fault: {} starts anew", self.nodes[node].name)
            }
            83..95 if is_up => {
                let choice = self.random.random_range(0..1000);
                self.nodes[node].kubelet.flip_readiness(&mut self.api, choice)
            }
            95..98 if is_up && up > 1 => {
                let name = self.nodes[node].name.clone();
                self.nodes[node].is_up = false;
                users::remove_node(&mut self.api, &name);
                format!("fault: {name} is lost")
            }
            98.. if self.nodes.len() < 6 => {
                self.add_node();
                "a node comes".to_owned()
            }
            _ => return,
        };
        self.tell(said);
    }

    fn cut_a_watch(&mut self, node: usize) -> String {
        let mut watches: Vec<(&str, &mut crate::watch::Watch)> = Vec::new();
        match self.random.random_range(0..3) {
            0 => watches.extend(
                self.manager
                    .watches
                    .iter_mut()
                    .map(|watch| ("controllers", watch)),
            ),
            1 => watches.extend(
                self.scheduling
                    .watches
                    .iter_mut()
                    .map(|watch| ("scheduler", watch)),
            ),
            _ => watches.extend(
                self.nodes[node]
                    .watches()
                    .into_iter()
                    .map(|watch| ("node", watch)),
            ),
        }
        let index = self.random.random_range(0..watches.len());
        let (whose, watch) = &mut watches[index];
        watch.cut();
        format!(
            "fault: the watch of {} by {whose} is cut",
            watch.resource.resource
        )
    }

    fn add_node(&mut self) {
        let number = u8::try_from(self.nodes.len() + 1).expect("few nodes");
        let node = Node::new(number);
        users::add_node(&mut self.api, &node.name, node.address);
        self.nodes.push(node);
    }

    fn tell(&mut self, said: String) {
        self.steps += 1;
        for byte in said.bytes() {
            self.fingerprint = (self.fingerprint ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        if self.print {
            eprintln!("{} {said}", self.api.now);
        }
        self.history.push_back(said);
        if self.history.len() > LAST_LINES {
            self.history.pop_front();
        }
    }
}
