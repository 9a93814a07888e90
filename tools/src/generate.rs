//! `milena completions` and `milena man`: what is made from the declaration of the command line itself.

use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_complete::Shell;

use crate::{Exit, complain};

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  milena completions bash > /etc/bash_completion.d/milena
  milena completions zsh > ~/.zfunc/_milena
  milena completions fish > ~/.config/fish/completions/milena.fish";

#[derive(Debug, Args)]
#[command(after_help = COMPLETIONS_EXAMPLES)]
pub(crate) struct CompletionsArgs {
    /// For which shell.
    #[arg(value_enum)]
    shell: Shell,
}

const MAN_EXAMPLES: &str = "\
Examples:
  milena man /usr/local/share/man/man1     one page per command; then: man milena-topics-create";

#[derive(Debug, Args)]
#[command(after_help = MAN_EXAMPLES)]
pub(crate) struct ManArgs {
    /// Where to write the pages; made if missing.
    #[arg(value_name = "directory")]
    directory: PathBuf,
}

pub(crate) fn completions(arguments: &CompletionsArgs, mut command: Command) -> Exit {
    let name = command.get_name().to_owned();
    // Into memory first: the generator panics where its output fails.
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, name, &mut script);
    match io::stdout()
        .write_all(&script)
        .and_then(|()| io::stdout().flush())
    {
        Ok(()) => Exit::Success,
        // Whoever read has enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Exit::Success,
        Err(error) => {
            complain(format_args!("standard output: {error}"));
            Exit::Failed
        }
    }
}

pub(crate) fn man(arguments: &ManArgs, mut command: Command) -> Exit {
    let directory = &arguments.directory;
    command = command.disable_help_subcommand(true);
    command.build();
    let written = std::fs::create_dir_all(directory).and_then(|()| write_pages(&command, directory));
    match written {
        Ok(()) => Exit::Success,
        Err(error) => {
            complain(format_args!("{}: {error}", directory.display()));
            Exit::Failed
        }
    }
}

/// The page of a command, and those of its subcommands.
fn write_pages(command: &Command, directory: &Path) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or(command.get_name());
    std::fs::write(directory.join(format!("{name}.1")), page(command)?)?;
    command
        .get_subcommands()
        .try_for_each(|subcommand| write_pages(subcommand, directory))
}

/// Examples are not filled like other text.
fn page(command: &Command) -> io::Result<Vec<u8>> {
    let examples = command.get_after_help().map(ToString::to_string);
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone().after_help(None)).render(&mut page)?;
    if let Some(examples) = examples {
        page.extend_from_slice(b".SH EXAMPLES\n.nf\n");
        for line in examples.trim_start_matches("Examples:\n").lines() {
            let escaped = line
                .replace('\\', "\\e")
                .replace('-', "\\-")
                .replace('\'', "\\(aq");
            writeln!(page, "\\&{escaped}")?;
        }
        page.extend_from_slice(b".fi\n");
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_stand_in_a_page_line_by_line() {
        let command = Command::new("c")
            .about("does it")
            .after_help("Examples:\n  c '/a\\d/' --x\n.dot");
        let page = String::from_utf8(page(&command).unwrap()).unwrap();
        let expected = ".SH EXAMPLES\n.nf\n\\&  c \\(aq/a\\ed/\\(aq \\-\\-x\n\\&.dot\n.fi\n";
        assert!(page.ends_with(expected), "{page}");
        assert!(page.contains("does it"));
    }
}
