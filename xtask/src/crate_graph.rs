//! Holds the workspace to the table of crates in ARCHITECTURE.md.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Reads the table and the real graph and compares them.
pub fn check() -> Result<()> {
    let text = std::fs::read_to_string(crate::root().join("ARCHITECTURE.md"))?;
    let allowed = allowed(&text)?;
    let output = crate::cargo()
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .output()
        .context("cannot run cargo metadata")?;
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata is not JSON")?;
    let problems = problems(&metadata, &allowed);
    if problems.is_empty() {
        println!(
            "crate graph: {} crates, no edge outside ARCHITECTURE.md",
            allowed.len()
        );
        return Ok(());
    }
    bail!(
        "edges that ARCHITECTURE.md does not allow:\n  {}",
        problems.join("\n  ")
    )
}

type Allowed = BTreeMap<String, BTreeSet<String>>;

/// The rows `| layer | `crate` | … | may use |`. `all` allows everything, `those` the crates of the layers below.
fn allowed(text: &str) -> Result<Allowed> {
    let mut table = Allowed::new();
    for line in text.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [_, name, .., uses] = cells.as_slice() else {
            continue;
        };
        let names = name
            .split(',')
            .filter_map(|n| n.trim().strip_prefix('`')?.strip_suffix('`'));
        for name in names {
            let uses = uses
                .split(',')
                .map(str::trim)
                .filter(|u| !u.is_empty() && *u != "–");
            table.insert(name.to_owned(), uses.map(str::to_owned).collect());
        }
    }
    if table.len() < 10 {
        bail!("ARCHITECTURE.md has no table of crates");
    }
    Ok(table)
}

fn problems(metadata: &Value, allowed: &Allowed) -> Vec<String> {
    let mut problems = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = short(&package["name"]);
        let Some(uses) = allowed.get(name) else {
            problems.push(format!("{name} is not in the table"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let used = short(&dependency["name"]);
            // Tests may reach further: they are not part of what is shipped.
            let counts = dependency["kind"].is_null() && allowed.contains_key(used);
            if counts && !uses.contains(used) && !uses.contains("all") {
                problems.push(format!("{name} uses {used}"));
            }
        }
    }
    problems
}

fn short(name: &Value) -> &str {
    let name = name.as_str().unwrap_or_default();
    name.strip_prefix("coracle-").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_edge_outside_the_table_is_found() {
        let rows: String = (0..10).map(|n| format!("| 0 | `x{n}` | – | – |\n")).collect();
        let table = allowed(&format!(
            "{rows}| 1 | `a` | things | x1 |\n| 4 | `b` | all | all |\n"
        ))
        .expect("a table");
        let package = |name: &str, uses: &str, kind: Value| json!({"name": name, "dependencies": [{"name": uses, "kind": kind}]});
        let metadata = json!({"packages": [
            package("coracle-a", "coracle-x1", Value::Null),
            package("coracle-a", "coracle-x2", Value::Null),
            package("coracle-a", "coracle-x2", json!("dev")),
            package("b", "coracle-x2", Value::Null),
            package("coracle-new", "serde", Value::Null),
        ]});
        assert_eq!(
            problems(&metadata, &table),
            ["a uses x2", "new is not in the table"]
        );
    }
}
