//! The command line.

use crate::commands::diagnose::DiagnoseArgs;
use crate::commands::path::PathArgs;
use crate::commands::trace::TraceArgs;
use crate::config::{ClusterConfig, DEFAULT_DATA_DIR, directory};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Kubernetes in one binary.
#[derive(Parser, Debug)]
#[command(name = "coracle", version, about, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Starts a cluster on this machine, in the foreground, until Ctrl-C
    Up(UpArgs),
    /// Stops the cluster with all its Pods and takes its network out of the kernel
    Down(DownArgs),
    /// Starts a cluster in a temporary directory and shows Pods found through a Service
    Demo(DemoArgs),
    /// Says whether the cluster is up
    Status(ClusterConfig),
    /// Says why a Service does not answer, and what to do about it
    Diagnose(DiagnoseArgs),
    /// Tells what happened at the last change of a Service, from the write to the first packet
    Trace(TraceArgs),
    /// Shows which packet rules a connection from a Pod to a Service takes
    Path(PathArgs),
    /// Prints the node's address, where NodePorts answer; of two families, the primary one's
    Ip(ClusterConfig),
    /// Images of this node
    Image(ImageArgs),
    /// Prints the reference of all flags as Markdown
    #[command(hide = true)]
    Reference,
}

/// `coracle up`.
#[derive(Args, Debug)]
pub struct UpArgs {
    /// The cluster
    #[command(flatten)]
    pub cluster: ClusterConfig,
    /// Return when the cluster is ready; it goes on in the background (`coracle down` ends it)
    #[arg(long)]
    pub detach: bool,
}

/// `coracle down`.
#[derive(Args, Debug)]
pub struct DownArgs {
    /// The cluster
    #[command(flatten)]
    pub cluster: ClusterConfig,
    /// Delete the cluster's directory and its kubeconfig context, too
    #[arg(long)]
    pub delete: bool,
}

/// `coracle demo`.
#[derive(Args, Debug)]
pub struct DemoArgs {
    /// The cluster; its directories are temporary unless they are given
    #[command(flatten)]
    pub cluster: ClusterConfig,
    /// End after the demonstration instead of staying up
    #[arg(long)]
    pub exit: bool,
}

/// `coracle image`.
#[derive(Args, Debug)]
pub struct ImageArgs {
    /// What to do
    #[command(subcommand)]
    pub command: ImageCommand,
}

/// The subcommands of `coracle image`.
#[derive(Subcommand, Debug)]
pub enum ImageCommand {
    /// Loads images from a docker-archive or an OCI image layout
    Load {
        /// Archive or directory
        file: PathBuf,
        #[command(flatten)]
        store: ImageStoreArgs,
    },
    /// Makes and loads the images that the demo's manifests run
    Demo {
        #[command(flatten)]
        store: ImageStoreArgs,
    },
    /// Pulls an image from a registry
    Pull {
        /// Such as docker.io/library/nginx:1.27
        reference: String,
        /// Credentials as USER:PASSWORD [default: $CORACLE_REGISTRY_CREDENTIALS]
        #[arg(long, env = "CORACLE_REGISTRY_CREDENTIALS", hide_env_values = true)]
        credentials: Option<String>,
        /// Registries that are spoken to without TLS, as HOST[:PORT] (loopback addresses always may)
        #[arg(long, value_name = "HOST", value_delimiter = ',')]
        insecure_registry: Vec<String>,
        #[command(flatten)]
        store: ImageStoreArgs,
    },
    /// Lists images
    Ls {
        #[command(flatten)]
        store: ImageStoreArgs,
    },
    /// Removes an image
    Rm {
        /// Name or digest
        reference: String,
        #[command(flatten)]
        store: ImageStoreArgs,
    },
}

/// How a command prints its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// For people
    Text,
    /// For programs
    Json,
}

/// Where the images are.
#[derive(Args, Debug)]
pub struct ImageStoreArgs {
    /// The cluster's directory
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DATA_DIR, value_parser = directory)]
    pub data_dir: PathBuf,
}
