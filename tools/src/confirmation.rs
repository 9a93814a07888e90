//! What cannot be undone is asked first.

use std::io::{self, BufRead, IsTerminal, Write};

use crate::cluster_args::CommandError;

/// Asks a person whether it shall be done. Without a terminal nobody can be asked, so `--yes` must have said it.
///
/// # Errors
/// [`CommandError::Usage`] when there is nobody to ask, [`CommandError::Failed`] when the answer is no.
pub(crate) fn confirmed(yes: bool, question: &str) -> Result<(), CommandError> {
    if yes {
        return Ok(());
    }
    let input = io::stdin();
    if !input.is_terminal() {
        return Err(CommandError::Usage(format!(
            "{question} Add --yes to say so; there is nobody to ask"
        )));
    }
    // A prompt is no result: it goes where complaints go.
    let _ = write!(io::stderr(), "{question} [y/N] ");
    let _ = io::stderr().flush();
    let mut answer = String::new();
    let read = input.lock().read_line(&mut answer);
    match (read, answer.trim().to_lowercase().as_str()) {
        (Ok(_), "y" | "yes") => Ok(()),
        _ => Err(CommandError::Failed("nothing was done".to_owned())),
    }
}
