//! `broker`: a private, throw-away RabbitMQ in the foreground.

mod keep_cluster;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use broker::{CertificateFiles, Certificates, Node};
use clap::Parser;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

/// How soon a signal, or the end of the node, is noticed.
const INTERVAL: Duration = Duration::from_millis(50);

/// What comes so soon after the first signal is the same wish: `timeout` signals the process, and then its group.
const SAME_WISH: Duration = Duration::from_millis(200);

/// Run a private, throw-away RabbitMQ until Ctrl-C.
///
/// It listens on this machine's loopback interface only. Everything in it is lost when it ends.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Port for AMQP [default: 5672, with --tls 5671, or a free one if that is taken]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,

    /// Port for the management page [default: 15672, or a free one if that is taken]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    management_port: Option<u16>,

    /// Folder with another Linux system (made by debootstrap, say), whose RabbitMQ is to be run
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,

    /// Plugin to enable, such as rabbitmq_tracing; can be given several times
    #[arg(long = "plugin", value_name = "NAME")]
    plugins: Vec<String>,

    /// Line for rabbitmq.conf; can be given several times
    #[arg(long = "config", value_name = "LINE")]
    config: Vec<String>,

    /// Listen with TLS only, and ask every client for a certificate
    #[arg(long)]
    tls: bool,

    /// Folder with the certificates for --tls, as `cargo xtask certs` makes them
    #[arg(long, value_name = "FOLDER", default_value = "cert", requires = "tls")]
    certs: PathBuf,

    /// Start so many nodes as one cluster, on ports that follow each other
    #[arg(long, value_name = "NODES", conflicts_with = "tls", value_parser = clap::value_parser!(u16).range(2..=7))]
    cluster: Option<u16>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let stop = stop_flag()?;
    let mut builder = Node::builder().usual_ports().cancel_when(stop.clone());
    if let Some(root) = &args.root {
        builder = builder.root(root);
    }
    for plugin in &args.plugins {
        builder = builder.plugin(plugin);
    }
    for line in &args.config {
        builder = builder.config(line);
    }
    if let Some(port) = args.management_port {
        builder = builder.management_port(port);
    }
    if let Some(port) = args.port {
        builder = if args.tls { builder.tls_port(port) } else { builder.port(port) };
    }
    if let Some(count) = args.cluster {
        return keep_cluster::run(builder, count, &stop);
    }
    if args.tls {
        let certificates = Certificates::read(&args.certs).context(
            "no certificates: make them with `cargo xtask certs`, or name their folder with --certs",
        )?;
        builder = builder.plain(false).tls(&certificates);
    }
    println!("# Starting a private RabbitMQ, which takes some seconds.");
    let node = match builder.start() {
        // Interrupted while it started: that is what the user wanted.
        Err(_) if stop.load(Ordering::Relaxed) => return Ok(()),
        started => started?,
    };
    let files = args.tls.then(|| CertificateFiles::in_folder(&args.certs));
    introduce(&node, files.as_ref()).context("cannot write to standard output")?;
    while !stop.load(Ordering::Relaxed) {
        if !node.is_running() {
            bail!("the node ended by itself");
        }
        thread::sleep(INTERVAL);
    }
    Ok(())
}

/// Turns true at the first Ctrl-C, SIGTERM or SIGHUP; the second one ends the program at once.
fn stop_flag() -> Result<Arc<AtomicBool>> {
    let [stop, again] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        flag::register(signal, stop.clone())?;
        flag::register_conditional_shutdown(signal, 130, again.clone())?;
    }
    let first = stop.clone();
    thread::spawn(move || {
        while !first.load(Ordering::Relaxed) {
            thread::sleep(INTERVAL);
        }
        thread::sleep(SAME_WISH);
        again.store(true, Ordering::Relaxed);
    });
    Ok(stop)
}

/// Says where the node is. Each line that starts at the margin can be pasted into a shell.
fn introduce(node: &Node, tls: Option<&CertificateFiles>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "# RabbitMQ is ready. For the programs, in another terminal:")?;
    match tls {
        None => writeln!(out, "export AMQP_URL={}", node.url())?,
        Some(files) => {
            writeln!(out, "export AMQP_URL={}", node.tls_url())?;
            writeln!(
                out,
                "# and for each of them the options\n#   --ca-cert {} --client-cert {} --client-key {}",
                files.ca_certificate.display(),
                files.client_certificate.display(),
                files.client_key.display()
            )?;
        }
    }
    writeln!(out, "# The management page (log in as guest, guest):")?;
    writeln!(out, "{}", node.management_url())?;
    writeln!(out, "# So that the commands of the pages ask this node:")?;
    writeln!(out, "rabbitmqctl() {{ {} \"$@\"; }}", node.rabbitmqctl_line())?;
    writeln!(out, "# press Ctrl-C to stop")?;
    out.flush()
}
