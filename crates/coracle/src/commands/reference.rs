//! `docs/reference.md`: all flags, from the definitions that parse them.

use crate::cli::Cli;
use clap::{Arg, Command, CommandFactory};
use std::fmt::Write;

/// The reference as Markdown.
pub fn markdown() -> String {
    let mut out = String::from(
        "# Flags of Coracle\n\nGenerated from the definitions (`cargo xtask reference`); a test keeps it true.\n",
    );
    let mut root = Cli::command();
    root.build();
    for command in root.get_subcommands().filter(|c| !c.is_hide_set()) {
        describe(command, "coracle", &mut out);
    }
    out
}

fn describe(command: &Command, parent: &str, out: &mut String) {
    let path = format!("{parent} {}", command.get_name());
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let subcommands: Vec<&Command> = command.get_subcommands().filter(|c| !c.is_hide_set()).collect();
    let _ = write!(out, "\n## {path}\n\n{about}.\n");
    let flags: Vec<&Arg> = command
        .get_arguments()
        .filter(|a| !a.is_hide_set() && a.get_id() != "help" && a.get_id() != "version")
        .collect();
    if !flags.is_empty() && subcommands.is_empty() {
        out.push_str("\n| flag | default | meaning |\n|---|---|---|\n");
        for flag in flags {
            row(flag, out);
        }
    }
    for subcommand in subcommands.into_iter().filter(|c| c.get_name() != "help") {
        describe(subcommand, &path, out);
    }
}

fn row(flag: &Arg, out: &mut String) {
    let takes_value = flag.get_action().takes_values();
    let value = flag
        .get_value_names()
        .filter(|_| takes_value)
        .map(|names| names.iter().map(|n| n.to_string()).collect::<Vec<_>>().join(" "))
        .unwrap_or_default();
    let name = match flag.get_long() {
        Some(long) if value.is_empty() => format!("`--{long}`"),
        Some(long) => format!("`--{long} {value}`"),
        None => format!("`{value}`"),
    };
    let defaults: Vec<String> = flag
        .get_default_values()
        .iter()
        .filter(|_| takes_value)
        .map(|v| format!("`{}`", v.to_string_lossy()))
        .collect();
    let help = flag.get_help().map(ToString::to_string).unwrap_or_default();
    let _ = writeln!(out, "| {name} | {} | {help} |", defaults.join(" "));
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_committed_reference_is_the_generated_one() {
        let committed = include_str!("../../../../docs/reference.md");
        assert_eq!(committed, super::markdown(), "run `cargo xtask reference`");
    }
}
