//! The TLS listener. Connections are authenticated here, requests go to [`ApiServer::handle`].

use super::response;
use crate::ApiServer;
use crate::authn::impersonation::impersonate;
use crate::registry::event_ttl;
use crate::request::{Body, UserInfo};
use coracle_meta::Status;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustls::pki_types::CertificateDer;
use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// Windows of HTTP/2: the defaults of 64 kB stall watches and large lists.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 25 << 20;
/// A peer that has lost power never says so.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// A client that does not finish its TLS handshake is given up.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long requests may take to finish when the server stops.
const GRACE: Duration = Duration::from_secs(5);

impl ApiServer {
    /// Serves TLS connections until `shutdown` is ready, then ends watches and lets other requests finish.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        tls: rustls::ServerConfig,
        shutdown: impl Future<Output = ()> + Send,
    ) {
        let mut tls = tls;
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let mut connections = JoinSet::new();
        if !self.expiring.swap(true, Ordering::Relaxed) {
            let store = self.registry.store.clone();
            tokio::spawn(event_ttl::run(store, self.stopping.subscribe()));
        }
        let mut shutdown = std::pin::pin!(shutdown);
        // Out of file descriptors: one must be closed before the next connection can be accepted.
        let mut full = false;
        loop {
            // Accepting and joining are cancel-safe; `shutdown` is polled by reference.
            tokio::select! {
                accepted = listener.accept(), if !full => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(self.clone().connection(stream, acceptor.clone()));
                    }
                    Err(error) => {
                        tracing::warn!(error = &error as &dyn std::error::Error, "accept failed");
                        full = !connections.is_empty();
                    }
                },
                Some(_) = connections.join_next() => full = false,
                () = &mut shutdown => break,
            }
        }
        drop(listener);
        self.stop();
        let all = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, all).await.is_err() {
            tracing::info!("connections are closed with requests under way");
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, acceptor: TlsAcceptor) {
        // Small answers must not wait for an acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "tls handshake failed");
                return;
            }
            Err(_) => return,
        };
        let peer: Arc<[CertificateDer<'static>]> = match stream.get_ref().1.peer_certificates() {
            Some(chain) => chain.iter().map(|c| c.clone().into_owned()).collect(),
            None => Arc::new([]),
        };
        let mut stopping = self.stopping.subscribe();
        let service = service_fn(move |request: Request<Incoming>| {
            let (server, peer) = (self.clone(), peer.clone());
            async move { Ok::<_, Infallible>(server.authenticated(&peer, request).await) }
        });
        let mut builder = Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new());
        builder
            .http2()
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_streams(1000)
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE);
        let mut connection =
            std::pin::pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
        // The connection is polled by reference and goes on after either branch.
        let ended = tokio::select! {
            result = connection.as_mut() => Some(result),
            _ = stopping.wait_for(|stopping| *stopping) => None,
        };
        let result = match ended {
            Some(result) => result,
            None => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = result {
            tracing::debug!(error = &*error, "connection failed");
        }
    }

    async fn authenticated(
        &self,
        peer: &[CertificateDer<'static>],
        request: Request<Incoming>,
    ) -> Response<Body> {
        match self.authenticate(request.headers(), peer) {
            Ok(user) => {
                let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
                self.handle(user, request).await
            }
            Err(status) => response::status(&status, request.headers()),
        }
    }

    /// The first authenticator that knows the caller wins.
    fn authenticate(
        &self,
        headers: &HeaderMap,
        peer: &[CertificateDer<'static>],
    ) -> Result<UserInfo, Status> {
        for authenticator in &self.config.authenticators {
            let reader = &*self.registry.reader;
            if let Some(user) = authenticator.authenticate(headers, peer, reader)? {
                return impersonate(user, headers, &self.config.authorizers, reader);
            }
        }
        Err(Status::unauthorized())
    }

    /// Ends watches and asks connections to close.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
    }
}
