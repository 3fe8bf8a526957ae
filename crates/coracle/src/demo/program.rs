//! The two programs that the demo's containers run: a small database and an API in front of it.
//!
//! They are this same binary, called through hidden subcommands inside the demo's images. The API ends when it
//! cannot reach its database by the name in `DB`, so that running replicas prove that names and Services work.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Where the database takes requests, one line each.
pub const DB_PORT: u16 = 27017;
/// Where the database shows a page about itself.
pub const DB_HTTP_PORT: u16 = 28017;
/// Where the API answers `GET /demo/hello`.
pub const API_PORT: u16 = 8080;

/// A client that says nothing for this long is dropped.
const IDLE: Duration = Duration::from_secs(30);
/// How long requests may take that are under way at SIGTERM.
const LAST_REQUESTS: Duration = Duration::from_secs(1);
/// How long the API waits for its database, at start and in a request.
const DB_TIMEOUT: Duration = Duration::from_secs(5);
const DB_RETRY: Duration = Duration::from_millis(50);

/// SIGTERM has come.
static ENDING: AtomicBool = AtomicBool::new(false);

/// `demo-db`: answers `ping` with `pong HOSTNAME` on 27017, TCP and UDP, and shows a page on 28017.
pub fn db() -> ExitCode {
    end_at_sigterm();
    let hostname = hostname();
    let page = format!("demo-db on {hostname}\n");
    let (Some(lines), Some(http)) = (listen(DB_PORT), listen(DB_HTTP_PORT)) else {
        return ExitCode::FAILURE;
    };
    println!("waiting for connections on port {DB_PORT}, page on port {DB_HTTP_PORT}");
    answer_datagrams(&hostname);
    let pages =
        std::thread::spawn(move || serve(http, move |stream| answer_http(stream, |_| (200, page.clone()))));
    serve(lines, move |stream| {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut line = String::new();
        while reader.read_line(&mut line)? > 0 {
            match line.trim() {
                "ping" => writeln!(&stream, "pong {hostname}")?,
                other => writeln!(&stream, "unknown command {other:?}")?,
            }
            line.clear();
        }
        Ok(())
    });
    match pages.join() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// `demo-api`: reaches its database, then answers `GET /demo/hello` and `GET /demo/db`.
pub fn api() -> ExitCode {
    end_at_sigterm();
    let db = std::env::var("DB").unwrap_or_else(|_| "localhost".to_owned());
    match first_ping(&db) {
        Ok(pong) => println!("database {db}: {pong}"),
        Err(error) => {
            eprintln!("panic: no reachable servers: {db}: {error}");
            return ExitCode::FAILURE;
        }
    }
    let Some(listener) = listen(API_PORT) else {
        return ExitCode::FAILURE;
    };
    println!("listening on port {API_PORT}");
    serve(listener, move |stream| {
        answer_http(stream, |path| match path {
            "/demo/hello" => (200, "hello, world!\n".to_owned()),
            "/demo/hostname" => (200, format!("{}\n", hostname())),
            "/demo/db" => match ping(&db) {
                Ok(pong) => (200, format!("{pong}\n")),
                Err(error) => (502, format!("{db}: {error}\n")),
            },
            _ => (404, "404 page not found\n".to_owned()),
        })
    });
    ExitCode::SUCCESS
}

/// Answers each `ping` that comes over UDP.
fn answer_datagrams(hostname: &str) {
    let socket = match UdpSocket::bind(anywhere(DB_PORT).as_slice()) {
        Ok(socket) => socket,
        Err(error) => {
            eprintln!("cannot listen on UDP port {DB_PORT}: {error}");
            return;
        }
    };
    let pong = format!("pong {hostname}\n");
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        // An error of one datagram says nothing about the next.
        loop {
            if let Ok((length, client)) = socket.recv_from(&mut buffer)
                && buffer[..length].starts_with(b"ping")
            {
                let _ = socket.send_to(pong.as_bytes(), client);
            }
        }
    });
}

/// Ends the process at SIGTERM, for which the first process of a container has no default handler: connections that
/// have come by then are served to their end, and no new ones are taken.
fn end_at_sigterm() {
    std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async {
            if let Ok(mut term) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
                term.recv().await;
                ENDING.store(true, Ordering::Relaxed);
                let listeners = std::mem::take(&mut *open_listeners());
                if listeners.is_empty() {
                    std::process::exit(0);
                }
                for listener in listeners {
                    // A connection of our own wakes whoever waits for one, to see that the end has come.
                    let woken = listener
                        .set_nonblocking(true)
                        .and_then(|()| TcpStream::connect(listener.local_addr()?));
                    if woken.is_err() {
                        std::process::exit(1);
                    }
                }
            }
        });
    });
}

/// Waits for the database as database drivers do: the containers of a Pod start at the same time.
fn first_ping(db: &str) -> std::io::Result<String> {
    let start = Instant::now();
    loop {
        match ping(db) {
            Err(_) if start.elapsed() < DB_TIMEOUT => std::thread::sleep(DB_RETRY),
            result => return result,
        }
    }
}

/// Asks the database for a sign of life.
fn ping(db: &str) -> std::io::Result<String> {
    let mut last = std::io::Error::new(std::io::ErrorKind::NotFound, "no address");
    for address in (db, DB_PORT).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, DB_TIMEOUT) {
            Ok(stream) => {
                stream.set_read_timeout(Some(DB_TIMEOUT))?;
                writeln!(&stream, "ping")?;
                let mut line = String::new();
                BufReader::new(stream).read_line(&mut line)?;
                return Ok(line.trim().to_owned());
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Both families, or IPv4 alone where there is no IPv6.
fn anywhere(port: u16) -> [SocketAddr; 2] {
    [
        (Ipv6Addr::UNSPECIFIED, port).into(),
        (Ipv4Addr::UNSPECIFIED, port).into(),
    ]
}

fn listen(port: u16) -> Option<TcpListener> {
    let listener = TcpListener::bind(anywhere(port).as_slice()).and_then(|listener| {
        open_listeners().push(listener.try_clone()?);
        Ok(listener)
    });
    match listener {
        Ok(listener) => Some(listener),
        Err(error) => {
            eprintln!("cannot listen on port {port}: {error}");
            None
        }
    }
}

/// Serves until SIGTERM, and then what has come by then.
fn serve(listener: TcpListener, handle: impl Fn(TcpStream) -> std::io::Result<()> + Clone + Send + 'static) {
    // Nothing is sent: it is closed when the last connection has ended.
    let (open, all_ended) = std::sync::mpsc::channel::<()>();
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
            Err(_) => continue,
        };
        let (handle, open) = (handle.clone(), open.clone());
        std::thread::spawn(move || {
            // A client that hangs up early is its own affair.
            let _ = stream.set_read_timeout(Some(IDLE)).and_then(|()| handle(stream));
            drop(open);
        });
    }
    // Who comes now is refused at once and goes elsewhere.
    drop(listener);
    drop(open);
    // Whoever only keeps a connection open is not waited for longer.
    let _ = all_ended.recv_timeout(LAST_REQUESTS);
}

/// Listeners that take connections.
fn open_listeners() -> MutexGuard<'static, Vec<TcpListener>> {
    static OPEN: Mutex<Vec<TcpListener>> = Mutex::new(Vec::new());
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Answers the requests of one connection, keep-alive as HTTP/1.1 has it.
fn answer_http(stream: TcpStream, handle: impl Fn(&str) -> (u16, String)) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut request = String::new();
        if reader.by_ref().take(8192).read_line(&mut request)? == 0 {
            return Ok(());
        }
        let mut close = request.trim_end().ends_with("HTTP/1.0");
        loop {
            let mut header = String::new();
            if reader.by_ref().take(8192).read_line(&mut header)? == 0 {
                return Ok(());
            }
            let header = header.trim().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            close |= header == "connection: close";
        }
        // The client goes elsewhere with its next request.
        close |= ENDING.load(Ordering::Relaxed);
        let path = request
            .split(' ')
            .nth(1)
            .unwrap_or("/")
            .split('?')
            .next()
            .unwrap_or("/");
        let (code, body) = handle(path);
        let reason = match code {
            200 => "OK",
            404 => "Not Found",
            _ => "Bad Gateway",
        };
        let connection = if close { "Connection: close\r\n" } else { "" };
        write!(
            &stream,
            "HTTP/1.1 {code} {reason}\r\nContent-Length: {}\r\nContent-Type: text/plain; charset=utf-8\r\n{connection}\r\n{body}",
            body.len()
        )?;
        if close {
            return Ok(());
        }
    }
}

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|h| h.trim().to_owned())
        .unwrap_or_default()
}
