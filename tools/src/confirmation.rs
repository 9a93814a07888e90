//! What cannot be undone is asked first. Reading the answer has a thread of its own, so that Ctrl-C ends the command.

use std::io::{self, BufRead, IsTerminal, Write};

use tokio::sync::oneshot;

use crate::cluster_args::CommandError;

/// Asks a person whether it shall be done. Without a terminal nobody can be asked, so `--yes` must have said it.
///
/// # Errors
/// [`CommandError::Usage`] when there is nobody to ask, [`CommandError::Failed`] when the answer is no.
pub(crate) async fn confirmed(yes: bool, question: &str) -> Result<(), CommandError> {
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
    let (sender, answered) = oneshot::channel();
    std::thread::spawn(move || {
        let mut answer = String::new();
        let read = io::stdin().lock().read_line(&mut answer);
        // Nobody waits any more after Ctrl-C.
        let _ = sender.send(read.map(|_| answer));
    });
    match answered.await {
        Ok(Ok(answer)) if matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") => Ok(()),
        _ => Err(CommandError::Failed("nothing was done".to_owned())),
    }
}
