//! `cornjacket completions`: a script that lets a shell complete commands, flags and their values.

use std::io::{Write, stdout};

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::cli::Cli;

/// What `completions --help` begins with.
pub const ABOUT: &str = "\
Print a script that lets a shell complete the commands of cornjacket, their flags and the values of those.

The script belongs to this version: write it anew after an update.";

/// What `completions --help` ends with.
pub const EXAMPLES: &str = "\
Where to put it (a new shell reads it):
  bash        cornjacket completions bash > ~/.local/share/bash-completion/completions/cornjacket
  zsh         cornjacket completions zsh > \"${fpath[1]}/_cornjacket\"
  fish        cornjacket completions fish > ~/.config/fish/completions/cornjacket.fish
  elvish      cornjacket completions elvish >> ~/.config/elvish/rc.elv
  powershell  cornjacket completions powershell >> $PROFILE

For the shell that is open now, in bash:
  source <(cornjacket completions bash)

bash needs the package bash-completion. The folders must be there: make one with mkdir -p.

Exit codes: 0 done, 1 there is no such shell.";

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The shell that the script is for.
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Prints the script.
pub fn completions(arguments: &Arguments) {
    // Whoever reads has perhaps seen enough.
    let _ = stdout().lock().write_all(&script(arguments.shell));
}

fn script(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "cornjacket", &mut script);
    script
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn every_shell_completes_every_command() {
        let command = Cli::command();
        let names: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
        assert!(names.contains(&"run") && names.contains(&"completions"), "{names:?}");
        assert_eq!(Shell::value_variants().len(), 5, "a new shell: say in EXAMPLES where its script goes");
        for shell in Shell::value_variants() {
            let script = String::from_utf8(script(*shell)).unwrap();
            for name in &names {
                let entry = match shell {
                    Shell::Bash => format!("cornjacket,{name})"),
                    Shell::Zsh => format!("({name})"),
                    Shell::Fish => format!("-a \"{name}\""),
                    Shell::Elvish => format!("cand {name} "),
                    _ => format!("[CompletionResult]::new('{name}'"),
                };
                assert!(script.contains(&entry), "{shell} does not know {name}");
            }
            assert!(script.contains("data-dir"), "{shell} does not know flags");
            assert!(EXAMPLES.contains(&format!("cornjacket completions {shell} >")), "{shell} has no place");
        }
    }
}
