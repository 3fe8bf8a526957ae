//! Some seeds on every run, and more with `cargo run -p coracle-sim -- --seeds 1000`.

use coracle_sim::World;

/// Seeds of every run; `CORACLE_SIM_SEED` runs that one alone.
const SEEDS: u64 = 24;

#[test]
fn invariants_hold() {
    let only = std::env::var("CORACLE_SIM_SEED").ok();
    let seeds: Vec<u64> = match only {
        Some(seed) => vec![seed.parse().expect("CORACLE_SIM_SEED is a number")],
        None => (0..SEEDS).collect(),
    };
    for seed in seeds {
        if let Err(failure) = World::new(seed, false).run() {
            failure.history.iter().for_each(|line| eprintln!("  {line}"));
            panic!(
                "seed {seed}: {}\nCORACLE_SIM_SEED={seed} runs it again",
                failure.what
            );
        }
    }
}

#[test]
fn a_seed_gives_the_same_history_again() {
    let run = || World::new(7, false).run();
    assert_eq!(run(), run());
}
