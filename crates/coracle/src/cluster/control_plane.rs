//! The API server of this process: its plugins, its listeners, and the objects that a cluster has from the start.
//! Upstream counterpart: `cmd/kube-apiserver/app`, `pkg/controlplane`.

use super::service_warnings::ServiceWarnings;
use super::tls;
use crate::certificates::{Authority, KeyPairPem, Leaf};
use anyhow::{Context, Result, anyhow};
use coracle_apiserver::admission;
use coracle_apiserver::authn::{
    Anonymous, BearerTokens, BootstrapTokens, ClientCertificate, SelfSubjectReviews, ServiceAccountTokens,
    TokenReviews, TokenSource,
};
use coracle_apiserver::authz::access_review::AccessReviews;
use coracle_apiserver::authz::{NodeAuthorizer, Rbac};
use coracle_apiserver::bootstrap::{self, ApiEndpoint};
use coracle_apiserver::node_proxy::NodeProxy;
use coracle_apiserver::registry::core::service::{IpChanges, PortRange, ServiceAllocator, ip_addresses};
use coracle_apiserver::serviceaccounts::{Keys, TokenRequests, openid};
use coracle_apiserver::{ApiServer, Authenticator, Authorizer, Config, Connection, Connector, UserInfo};
use coracle_client::{Client, Transport, TransportError};
use coracle_meta::GroupResource;
use futures::future::BoxFuture;
use http::header::{HeaderValue, USER_AGENT};
use http::{Request, Response};
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;

/// The issuer in service-account tokens: the name under which Pods know the API server.
fn issuer(domain: &str) -> String {
    format!("https://kubernetes.default.svc.{domain}")
}

/// Where Pods and nodes reach the API server: in the primary family, as upstream has it.
fn advertised(options: &Options, port: u16) -> Result<SocketAddr> {
    let ip = options.node_ips.first().context("the node has no address")?;
    Ok(SocketAddr::new(*ip, port))
}

/// What the control plane needs to know.
pub struct Options<'a> {
    /// The store's file.
    pub store: &'a Path,
    /// DNS domain of the cluster.
    pub domain: &'a str,
    /// Address of the Service `kubernetes`.
    pub kubernetes_ip: IpAddr,
    /// Ranges of Service addresses, the primary one first.
    pub service_cidrs: &'a [IpNet],
    /// Range of node ports.
    pub node_ports: (u16, u16),
    /// Addresses of this node, one of each family, the primary one first.
    pub node_ips: &'a [IpAddr],
    /// Name of this node.
    pub node_name: &'a str,
    /// Signs service-account tokens, PEM.
    pub service_account_key: &'a str,
}

/// A running API server.
pub struct ControlPlane {
    server: Arc<ApiServer>,
    store: coracle_store::Store,
    port: u16,
    ip_changes: Option<tokio::sync::mpsc::UnboundedReceiver<ip_addresses::IpChange>>,
    /// Turns true when the listeners are to end.
    stopping: tokio::sync::watch::Sender<bool>,
}

impl ControlPlane {
    /// Opens the store and puts the API server together. It answers in this process at once.
    pub fn open(options: &Options, authority: &Authority, port: u16) -> Result<Self> {
        let store = coracle_apiserver::open_store(options.store)
            .with_context(|| format!("cannot open the store {}", options.store.display()))?;
        let keys = Arc::new(
            Keys::from_pem(options.service_account_key.as_bytes(), &[])
                .context("the service-account key is damaged")?,
        );
        let documents = openid::documents(&keys, &issuer(options.domain), advertised(options, port)?);
        let (mut config, allocator, ip_changes) = plugins(options, authority, keys)?;
        config.documents = documents;
        let server = Arc::new(ApiServer::new(config, store.clone()));
        let services = server.reader().list(&GroupResource::new("", "services"), None);
        for complaint in allocator.restore(&services) {
            tracing::warn!(complaint, "service allocation repaired");
        }
        Ok(Self {
            server,
            store,
            port,
            ip_changes: Some(ip_changes),
            stopping: tokio::sync::watch::Sender::new(false),
        })
    }

    /// A client under an identity of its own, without a network in between.
    pub fn client(&self, user: UserInfo) -> Client {
        let agent = user_agent(&user.name);
        let transport = InProcess {
            server: self.server.clone(),
            user: with_authenticated(user),
        };
        Client::new(Arc::new(transport)).with_user_agent(agent)
    }

    /// The objects and their last changes.
    pub fn store(&self) -> &coracle_store::Store {
        &self.store
    }

    /// Serves TLS on the listeners, each until the future that it is given ends: after [`stop`](Self::stop).
    pub fn serve(
        &self,
        listeners: Vec<TcpListener>,
        authority: &Authority,
        options: &Options,
    ) -> Result<Vec<impl Future<Output = ()> + Send + 'static + use<>>> {
        let mut addresses = vec![options.kubernetes_ip];
        addresses.extend(options.node_ips);
        for listener in &listeners {
            let address = listener.local_addr()?.ip();
            if !addresses.contains(&address) && !address.is_unspecified() {
                addresses.push(address);
            }
        }
        let mut names: Vec<String> = [
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "localhost",
        ]
        .map(String::from)
        .into();
        names.push(format!("kubernetes.default.svc.{}", options.domain));
        names.push(options.node_name.to_owned());
        let pair = authority.issue(
            "kube-apiserver",
            &Leaf::Server {
                names: &names,
                addresses: &addresses,
            },
        )?;
        let config = tls::server(&pair, &authority.certificate, tls::ClientCertificates::Welcome)?;
        listeners
            .into_iter()
            .map(|listener| {
                listener.set_nonblocking(true)?;
                let listener = tokio::net::TcpListener::from_std(listener)?;
                let mut stopping = self.stopping.subscribe();
                let stopped = async move {
                    // An error says that nobody is left to stop it otherwise.
                    let _ = stopping.wait_for(|stopping| *stopping).await;
                };
                Ok(self.server.clone().serve(listener, config.clone(), stopped))
            })
            .collect()
    }

    /// Makes the objects that a cluster has from the start.
    pub async fn bootstrap(&self, options: &Options<'_>, authority: &Authority) -> Result<()> {
        let endpoint = self.endpoint(options, authority)?;
        let send = self.privileged();
        for group in bootstrap::objects(&endpoint) {
            bootstrap::run(group, &send)
                .await
                .context("cannot make the cluster's first objects")?;
        }
        Ok(())
    }

    /// Makes those of them again that are deleted while the cluster runs. After the bootstrap.
    pub fn keep_objects(
        &self,
        options: &Options,
        authority: &Authority,
    ) -> Result<impl Future<Output = ()> + Send + 'static + use<>> {
        let kept = bootstrap::kept(&self.endpoint(options, authority)?);
        Ok(bootstrap::keep(self.store.clone(), kept, self.privileged()))
    }

    fn endpoint(&self, options: &Options, authority: &Authority) -> Result<ApiEndpoint> {
        Ok(ApiEndpoint {
            advertised: advertised(options, self.port)?,
            service_networks: options.service_cidrs.to_vec(),
            client_ca: authority.certificate.clone(),
        })
    }

    /// Keeps the IPAddress objects in step with the allocator. To be taken once, after the bootstrap.
    pub fn keep_ip_addresses(&mut self) -> Result<impl Future<Output = ()> + Send + 'static + use<>> {
        let changes = self
            .ip_changes
            .take()
            .ok_or_else(|| anyhow!("IP addresses are kept already"))?;
        let (reader, send) = (self.server.reader(), self.privileged());
        Ok(async move { ip_addresses::keep(changes, &*reader, send).await })
    }

    /// Ends all watches and closes the listeners; requests that are under way may finish.
    pub fn stop(&self) {
        self.server.stop();
        self.stopping.send_replace(true);
    }

    /// Finishes the writes that wait and releases the store's file.
    pub fn close(&self) {
        self.store.close();
    }

    fn privileged(&self) -> impl Fn(Request<Body>) -> BoxFuture<'static, Response<Body>> + Clone + use<> {
        let server = self.server.clone();
        move |mut request| {
            let server = server.clone();
            let agent = HeaderValue::from_static("kube-apiserver");
            request.headers_mut().insert(USER_AGENT, agent);
            Box::pin(async move { server.handle(admin("system:apiserver"), request).await })
        }
    }
}

type Body = coracle_apiserver::Body;

/// A user who may do everything.
pub fn admin(name: &str) -> UserInfo {
    with_authenticated(UserInfo::new(name, &["system:masters"]))
}

/// The identity of a controller, as upstream's controller manager uses one service account a controller.
pub fn controller(name: &str) -> UserInfo {
    let user = format!("system:serviceaccount:kube-system:{name}");
    UserInfo::new(
        user,
        &["system:serviceaccounts", "system:serviceaccounts:kube-system"],
    )
}

/// Upstream's program that has this identity: its name is who manages the fields that are written.
fn user_agent(name: &str) -> &'static str {
    if name == "system:kube-scheduler" {
        "kube-scheduler"
    } else if name.starts_with("system:node:") {
        "kubelet"
    } else if name == "system:kube-controller-manager"
        || name.starts_with("system:serviceaccount:kube-system:")
    {
        "kube-controller-manager"
    } else {
        "coracle"
    }
}

fn with_authenticated(mut user: UserInfo) -> UserInfo {
    if !user.in_group("system:authenticated") {
        user.groups.push("system:authenticated".into());
    }
    user
}

fn plugins(
    options: &Options,
    authority: &Authority,
    keys: Arc<Keys>,
) -> Result<(
    Config,
    Arc<ServiceAllocator>,
    tokio::sync::mpsc::UnboundedReceiver<ip_addresses::IpChange>,
)> {
    let issuer = issuer(options.domain);
    let audiences = vec![issuer.clone()];
    let tokens = || {
        let accounts = ServiceAccountTokens::new(keys.clone(), vec![issuer.clone()], audiences.clone());
        let sources: Vec<Box<dyn TokenSource>> = vec![Box::new(accounts), Box::new(BootstrapTokens)];
        BearerTokens::new(sources)
    };
    let authenticators: Vec<Arc<dyn Authenticator>> = vec![
        Arc::new(ClientCertificate),
        Arc::new(tokens()),
        Arc::new(Anonymous),
    ];
    let rbac = Arc::new(Rbac::default());
    let authorizers: Vec<Arc<dyn Authorizer>> = vec![Arc::new(NodeAuthorizer::default()), rbac.clone()];

    let (changes, ip_changes) = IpChanges::channel();
    let (first, last) = options.node_ports;
    let range = PortRange { first, last };
    let allocator = Arc::new(ServiceAllocator::new(options.service_cidrs, range, changes));
    let mut admission = admission::default_plugins(&authorizers, &rbac);
    admission.push(Arc::new(ServiceWarnings));
    admission.push(allocator.clone());

    let kubelet_client = authority
        .issue(
            "kube-apiserver-kubelet-client",
            &Leaf::Client {
                groups: &["system:masters"],
            },
        )
        .context("cannot issue the API server's certificate for nodes")?;
    let mut connections = node_proxy(&kubelet_client, authority, &authorizers)?;
    let reviews: Arc<dyn Connector> = Arc::new(AccessReviews::new(authorizers.clone(), rbac));
    for resource in [
        "subjectaccessreviews",
        "selfsubjectaccessreviews",
        "localsubjectaccessreviews",
        "selfsubjectrulesreviews",
    ] {
        connections.push(Connection::new(
            "authorization.k8s.io",
            resource,
            "",
            reviews.clone(),
        ));
    }
    let connect =
        |group, resource, subresource, connector| Connection::new(group, resource, subresource, connector);
    connections.push(connect(
        "authentication.k8s.io",
        "tokenreviews",
        "",
        Arc::new(TokenReviews::new(tokens())),
    ));
    connections.push(connect(
        "authentication.k8s.io",
        "selfsubjectreviews",
        "",
        Arc::new(SelfSubjectReviews),
    ));
    let token_requests = Arc::new(TokenRequests::new(keys, issuer, audiences));
    connections.push(connect("", "serviceaccounts", "token", token_requests));
    Ok((
        Config {
            authenticators,
            authorizers,
            admission,
            connections,
            documents: Vec::new(),
        },
        allocator,
        ip_changes,
    ))
}

fn node_proxy(
    pair: &KeyPairPem,
    authority: &Authority,
    authorizers: &[Arc<dyn Authorizer>],
) -> Result<Vec<Connection>> {
    let tls = tls::client(pair, &authority.certificate)?;
    Ok(NodeProxy::new(tls, authorizers.to_vec())?.connections())
}

/// The seam between client and API server when both are in this process.
struct InProcess {
    server: Arc<ApiServer>,
    user: UserInfo,
}

impl Transport for InProcess {
    fn send(&self, request: Request<Body>) -> BoxFuture<'_, Result<Response<Body>, TransportError>> {
        Box::pin(async move { Ok(self.server.handle(self.user.clone(), request).await) })
    }
}
