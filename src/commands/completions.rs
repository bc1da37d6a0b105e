//! `completions`: what a shell completes, from the same definitions that parse the command line.

use super::Cli;
use super::output::Output;
use crate::error::{Context, Result};
use clap::{Command, CommandFactory, ValueEnum};
use clap_complete::Shell;
use serde::Serialize;

/// Print a script that lets a shell complete verbs and options
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ebs-prewarm completions bash > /usr/share/bash-completion/completions/ebs-prewarm
  ebs-prewarm completions zsh > /usr/share/zsh/vendor-completions/_ebs-prewarm
  ebs-prewarm completions fish > /usr/share/fish/vendor_completions.d/ebs-prewarm.fish")]
pub struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: ShellArg,
}

/// The shells whose scripts were tried.
#[derive(Clone, Copy, Debug, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum ShellArg {
    Bash,
    Fish,
    Zsh,
}

#[derive(Serialize)]
struct Script {
    shell: ShellArg,
    script: String,
}

/// Prints it.
pub fn run(args: Args, output: Output) -> Result<()> {
    let shell = match args.shell {
        ShellArg::Bash => Shell::Bash,
        ShellArg::Fish => Shell::Fish,
        ShellArg::Zsh => Shell::Zsh,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "ebs-prewarm", &mut script);
    let mut script = String::from_utf8(script).context(|| "failed to make a script of completions".into())?;
    if matches!(args.shell, ShellArg::Bash) {
        script = mended(script, &Cli::command());
    }
    output.print(&Script { shell: args.shell, script }, |made| made.script.clone())
}

/// clap_complete 4.6.11 writes the hyphen of a name in two ways, so that bash would never find what comes after
/// `ebs-prewarm VERB`. Nothing changes where it writes it in one.
fn mended(script: String, command: &Command) -> String {
    let name = command.get_name();
    let script = script.replace(&name.replace('-', "__subcmd__"), &name.replace('-', "__"));
    command.get_subcommands().fold(script, mended)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_bash_sets_has_a_case() {
        let mut script = Vec::new();
        clap_complete::generate(Shell::Bash, &mut Cli::command(), "ebs-prewarm", &mut script);
        let script = mended(String::from_utf8(script).unwrap(), &Cli::command());
        let set: Vec<&str> =
            script.lines().filter_map(|line| line.trim().strip_prefix("cmd=\"ebs")).collect();
        assert!(set.len() > Cli::command().get_subcommands().count());
        for rest in set {
            let case = format!("        ebs{})", rest.trim_end_matches('"'));
            assert!(script.lines().any(|line| line == case), "no case `{case}`");
        }
    }
}
