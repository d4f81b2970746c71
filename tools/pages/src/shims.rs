//! What stands in for the commands of a page, in a folder that comes first in `PATH`: the same words lead to programs
//! that are built already, and to the node and the vhost of the page.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Result;
use broker::Node;

use crate::programs::Programs;

/// Which of `rabbitmqctl`'s commands look at a single vhost, and may be run while others use the node.
const OF_A_VHOST: &[&str] = &[
    "list_queues",
    "list_exchanges",
    "list_bindings",
    "list_consumers",
    "purge_queue",
    "delete_queue",
    "set_policy",
    "clear_policy",
    "trace_on",
    "trace_off",
    "close_all_connections",
    "set_permissions",
];

/// Whether a command of a page changes, or tells of, more than a vhost, so that it needs a node of its own.
pub(crate) fn needs_own_node(command: &str) -> bool {
    let words: Vec<_> = command.split([' ', '|', ';', '&', '(']).filter(|word| !word.is_empty()).collect();
    words.iter().enumerate().any(|(at, word)| match *word {
        "rabbitmq-plugins" | "rabbitmq-diagnostics" => true,
        "rabbitmqctl" => !words[at..].iter().any(|word| OF_A_VHOST.contains(word)),
        _ => false,
    })
}

/// Writes the commands for a page into the folder.
pub(crate) fn write(folder: &Path, programs: &Programs, node: &Node, vhost: Option<&str>) -> Result<()> {
    fs::create_dir_all(folder)?;
    let line = node.rabbitmqctl_line();
    command(folder, "cargo", &cargo(programs, &node.management_url()))?;
    command(folder, "rabbitmqctl", &rabbitmqctl(&line, vhost))?;
    for tool in ["rabbitmq-diagnostics", "rabbitmq-plugins"] {
        let line = line.replace("/rabbitmqctl", &format!("/{tool}"));
        let plugins = "RABBITMQ_ENABLED_PLUGINS_FILE=\"$HOME/enabled_plugins\"";
        let (environment, program) = line.rsplit_once(' ').unwrap_or(("", &line));
        command(
            folder,
            tool,
            &format!("exec {environment} sh -c '{plugins} exec \"$0\" \"$@\"' {program} \"$@\"\n"),
        )?;
    }
    // What `cargo install --path smoke` puts into the path.
    command(folder, "smoke", &(execute("smoke", &programs.get("smoke")?.path) + "\n"))?;
    command(folder, "pgrep", PGREP)
}

fn command(folder: &Path, name: &str, text: &str) -> Result<()> {
    let file = folder.join(name);
    fs::write(&file, format!("#!/bin/sh\n{text}"))?;
    fs::set_permissions(file, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// A line of shell that becomes the program.
fn execute(name: &str, path: &Path) -> String {
    // That the machine of a test is busy is nothing for the page to show.
    let patience = if name == "smoke" { "--slow 1m --timeout 30s " } else { "" };
    format!("exec '{}' {patience}\"$@\"", path.display())
}

/// `cargo run` without the building.
fn cargo(programs: &Programs, management: &str) -> String {
    let mut cases = String::new();
    for (name, path) in programs.iter() {
        cases += &format!("  {name}) {} ;;\n", execute(name, path));
    }
    format!(
        r#"case $1 in
  xtask) shift; name=xtask ;;
  run)
    shift
    while [ $# -gt 0 ]; do
      case $1 in
        -q | --release) shift ;;
        -p) name=${{name:-$2}}; shift 2 ;;
        --bin) name=$2; shift 2 ;;
        --example) name=example/$2; shift 2 ;;
        --) shift; break ;;
        -*) echo "error: unexpected argument '$1' found" >&2; exit 1 ;;
        *) break ;;
      esac
    done ;;
  *) echo "error: the pages know cargo run and cargo xtask only, not cargo $1" >&2; exit 1 ;;
esac
# A tested node has its management API elsewhere than on port 15672.
case "$name $* " in
  trace_tail*--management-url*) ;;
  trace_tail*--enable*) set -- "$@" --management-url {management} ;;
esac
case $name in
{cases}  *) echo "error: no package has a program $name" >&2; exit 1 ;;
esac
"#
    )
}

/// `rabbitmqctl` for the node, and for the page's vhost where that is not `/`.
fn rabbitmqctl(line: &str, vhost: Option<&str>) -> String {
    let Some(vhost) = vhost else {
        return format!("exec {line} \"$@\"\n");
    };
    format!(
        r#"option=-p
for word; do
  case $word in
    close_all_connections) option=--vhost ;;
    -p) echo "error: leave the vhost / out, please" >&2; exit 1 ;;
  esac
done
exec {line} "$@" $option {vhost}
"#
    )
}

/// Knows the page's own programs only, from a list of numbers and names, the oldest first.
const PGREP: &str = r#"for name; do :; done
case $1 in
  -x) awk -v name="$name" '$2 == name { print $1 }' "$RUNNING" ;;
  -ox) awk -v name="$name" '$2 == name { print $1; exit }' "$RUNNING" ;;
  -nx) awk -v name="$name" '$2 == name { last = $1 } END { print last }' "$RUNNING" ;;
  *) echo "error: the pages know pgrep -x, -ox and -nx only" >&2; exit 1 ;;
esac
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_for_more_than_a_vhost_needs_a_node() {
        for (command, needs) in [
            ("rabbitmqctl -q list_queues name", false),
            ("rabbitmqctl list_bindings | grep trace", false),
            ("rabbitmqctl -q stop_app", true),
            ("rabbitmqctl stop_app && sleep 5 && rabbitmqctl start_app", true),
            ("rabbitmq-plugins list", true),
            ("cargo run -p hello --bin sender", false),
        ] {
            assert_eq!(needs_own_node(command), needs, "{command}");
        }
    }
}
