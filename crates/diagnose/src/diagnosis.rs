//! What is concluded: the steps of the walk, one verdict, and what to do about it.

use serde::Serialize;
use std::fmt;

/// The result of a diagnosis. Its text form is what people read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// Namespace of the Service.
    pub namespace: String,
    /// Name of the Service.
    pub name: String,
    /// Who connected: a Pod, or the node itself.
    pub client: String,
    /// What was seen on the way from the object to the connection. A step may have several lines.
    pub steps: Vec<Step>,
    /// What it comes to.
    pub verdict: Verdict,
}

impl Diagnosis {
    /// Whether something has to be done.
    pub fn is_problem(&self) -> bool {
        self.verdict.severity == Severity::Problem
    }
}

/// One observation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Which step of the way.
    pub step: StepName,
    /// How it is.
    pub outcome: Outcome,
    /// What was seen.
    pub text: String,
}

/// The steps from the object to the connection, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum StepName {
    /// The Service itself.
    Object,
    /// Which Pods the selector finds.
    Selector,
    /// Whether these are ready, and why not.
    Pods,
    /// Whether a socket listens where the Service sends packets.
    TargetPort,
    /// Whether the EndpointSlices say so.
    EndpointSlice,
    /// Whether the kernel's packet rules say so.
    Rule,
    /// Whether the kernel remembers older answers.
    Conntrack,
    /// Whether NetworkPolicies let the client's connections through.
    NetworkPolicy,
    /// Whether the name has the right addresses.
    Dns,
    /// Whether a connection is accepted.
    Connection,
}

impl fmt::Display for StepName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Object => "object",
            Self::Selector => "selector",
            Self::Pods => "pods",
            Self::TargetPort => "targetPort",
            Self::EndpointSlice => "endpointslice",
            Self::Rule => "rule",
            Self::Conntrack => "conntrack",
            Self::NetworkPolicy => "networkpolicy",
            Self::Dns => "dns",
            Self::Connection => "connection",
        })
    }
}

/// How an observation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// Worth knowing.
    Warning,
    /// Not as it should be.
    Failed,
    /// It could not be looked at.
    Unknown,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warning => "note",
            Self::Failed => "FAILED",
            Self::Unknown => "?",
        })
    }
}

/// What a diagnosis comes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// What is the matter, for programs.
    pub code: Code,
    /// Whether something has to be done.
    pub severity: Severity,
    /// What is the matter, in a sentence.
    pub message: String,
    /// What to do; empty if there is nothing to do.
    pub fix: String,
}

impl Verdict {
    /// Something has to be done.
    pub fn problem(code: Code, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(code, Severity::Problem, message, fix)
    }

    /// Good to know, but the Service answers.
    pub fn note(code: Code, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(code, Severity::Note, message, fix)
    }

    fn new(code: Code, severity: Severity, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            code,
            severity,
            message: message.into(),
            fix: fix.into(),
        }
    }
}

/// Whether something has to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// Nothing is wrong.
    Fine,
    /// The Service answers, but there is something to know.
    Note,
    /// The Service does not answer, or not always.
    Problem,
}

/// What can be the matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Code {
    /// Nothing: connections were accepted.
    Answers,
    /// Nothing was found, but no connection was tried either.
    NothingFound,
    /// There is no such Service.
    NoSuchService,
    /// An ExternalName Service stands for an address and not for a name.
    ExternalNameIsAddress,
    /// The name that an ExternalName Service stands for has no address.
    ExternalNameUnresolved,
    /// No load balancer has given the Service an address.
    LoadBalancerPending,
    /// The annotation about balancing says something that nobody knows.
    BalancingUnknown,
    /// The selector finds no Pod.
    SelectorMatchesNothing,
    /// What should make the Pods is told to keep none.
    ScaledToZero,
    /// No selector, and nobody wrote EndpointSlices either.
    NoSelectorNoEndpoints,
    /// Pods wait for a node.
    Unschedulable,
    /// An image cannot be had.
    ImagePull,
    /// Pods are on their way: their containers are being made.
    PodsStarting,
    /// A container cannot be made.
    ContainerNotCreated,
    /// A container ends again and again.
    CrashLoop,
    /// An init container has not done its work.
    InitContainer,
    /// A readiness or startup probe fails.
    ProbeFailing,
    /// All Pods are being deleted, or have ended.
    PodsEnded,
    /// Pods are not ready for another reason.
    PodsNotReady,
    /// The targetPort is a name that no container port has.
    TargetPortUnknown,
    /// Nothing listens on the targetPort.
    NothingListens,
    /// The program listens on the loopback address only.
    ListensOnLoopback,
    /// The program listens with another protocol.
    WrongProtocol,
    /// An EndpointSlice names a port otherwise than the Service.
    PortNameMismatch,
    /// The EndpointSlices do not say what the Pods say.
    EndpointsDiffer,
    /// A traffic policy Local, and no endpoint on this node.
    NoLocalEndpoints,
    /// The kernel has no rule for the Service.
    RuleMissing,
    /// The kernel's rule does not say what the EndpointSlices say.
    RuleDiffers,
    /// The kernel remembers endpoints that are gone.
    StaleFlows,
    /// NetworkPolicies do not let the client's connections through.
    NetworkPolicyDenies,
    /// The cluster DNS does not know the name, or knows other addresses.
    DnsDiffers,
    /// The cluster DNS does not answer.
    DnsNoAnswer,
    /// The client does not ask the cluster DNS.
    ClientResolver,
    /// A headless Service does not translate ports.
    HeadlessPort,
    /// Endpoints do not answer the client.
    EndpointUnreachable,
    /// Endpoints answer, but not through the Service.
    ServiceUnreachable,
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Service {}/{}, from {}",
            self.namespace, self.name, self.client
        )?;
        let mut last = None;
        for step in &self.steps {
            let name = if last == Some(step.step) {
                String::new()
            } else {
                step.step.to_string()
            };
            last = Some(step.step);
            writeln!(f, "  {name:13}  {:6}  {}", step.outcome, step.text)?;
        }
        writeln!(f, "Verdict: {}", self.verdict.message)?;
        if !self.verdict.fix.is_empty() {
            writeln!(f, "Fix: {}", self.verdict.fix)?;
        }
        Ok(())
    }
}

/// The walk so far.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    steps: Vec<Step>,
    verdicts: Vec<Verdict>,
}

impl Walk {
    pub fn ok(&mut self, step: StepName, text: impl Into<String>) {
        self.step(step, Outcome::Ok, text);
    }

    /// A consequence of what was seen before: it has no verdict of its own.
    pub fn failed(&mut self, step: StepName, text: impl Into<String>) {
        self.step(step, Outcome::Failed, text);
    }

    pub fn unknown(&mut self, step: StepName, text: impl Into<String>) {
        self.step(step, Outcome::Unknown, text);
    }

    /// An observation that says what is the matter.
    pub fn found(&mut self, step: StepName, verdict: Verdict) {
        let outcome = match verdict.severity {
            Severity::Fine => Outcome::Ok,
            Severity::Note => Outcome::Warning,
            Severity::Problem => Outcome::Failed,
        };
        self.step(step, outcome, verdict.message.clone());
        self.verdicts.push(verdict);
    }

    /// Whether something that explains what follows was found.
    pub fn has_problem(&self) -> bool {
        self.verdicts.iter().any(|v| v.severity == Severity::Problem)
    }

    /// The first problem is the cause of those that come after it; the first note comes next.
    pub fn verdict(&self) -> Option<Verdict> {
        let first = |severity| self.verdicts.iter().find(move |v| v.severity == severity);
        first(Severity::Problem)
            .or_else(|| first(Severity::Note))
            .cloned()
    }

    pub fn into_steps(self) -> Vec<Step> {
        self.steps
    }

    fn step(&mut self, step: StepName, outcome: Outcome, text: impl Into<String>) {
        self.steps.push(Step {
            step,
            outcome,
            text: text.into(),
        });
    }
}
