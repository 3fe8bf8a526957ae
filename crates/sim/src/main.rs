//! Runs seeds: `cargo run -p coracle-sim -- --seeds 1000`, and one of them again with `--seed 42 --print`.

use anyhow::{Result, bail};
use clap::Parser;
use coracle_sim::World;
use std::num::NonZero;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// A simulated cluster
#[derive(Parser)]
struct Args {
    /// The first seed
    #[arg(long, env = "CORACLE_SIM_SEED", default_value_t = 0)]
    seed: u64,
    /// How many seeds
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Tell every step on standard error
    #[arg(long)]
    print: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let next = AtomicU64::new(args.seed);
    let end = args.seed + args.seeds;
    let failed = Mutex::new(Vec::new());
    let steps = AtomicU64::new(0);
    let threads = if args.print {
        1
    } else {
        thread::available_parallelism().map_or(1, NonZero::get)
    };
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    match World::new(seed, args.print).run() {
                        Ok(summary) => {
                            steps.fetch_add(summary.steps as u64, Ordering::Relaxed);
                        }
                        Err(failure) => {
                            let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                            if failed.is_empty() {
                                failure.history.iter().for_each(|line| println!("  {line}"));
                            }
                            println!("seed {seed}: {}", failure.what);
                            failed.push(seed);
                        }
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!(
        "{} seeds, {} steps, {} failed",
        args.seeds,
        steps.into_inner(),
        failed.len()
    );
    if let Some(seed) = failed.first() {
        bail!("again: cargo run -p coracle-sim -- --seed {seed} --print");
    }
    Ok(())
}
