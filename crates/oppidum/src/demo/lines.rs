//! The typed lines of the prompt: a thread reads them, at a terminal with editing and a history.
//!
//! While the editor waits for a key, the terminal is in raw mode, and Ctrl-C is a byte, not SIGINT.

use std::future::pending;
use std::io::{self, IsTerminal};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use rustyline::error::ReadlineError;
use rustyline::{Config, DefaultEditor};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::output;

/// The lines, each read when it is asked for: signals reach the program while a command runs.
#[derive(Debug)]
pub(super) struct TypedLines {
    prompts: mpsc::Sender<String>,
    lines: mpsc::Receiver<rustyline::Result<String>>,
    stop: CancellationToken,
    /// The terminal's mode before the editor changes it. None: the lines are not edited.
    mode: Option<Termios>,
}

impl TypedLines {
    /// Starts the thread, which ends with the program. Ctrl-C cancels `stop`.
    pub(super) fn open(stop: CancellationToken) -> Self {
        let is_edited = io::stdin().is_terminal() && output::answers_a_terminal();
        let (prompts, mut asked) = mpsc::channel::<String>(1);
        let (sender, lines) = mpsc::channel(1);
        std::thread::spawn(move || {
            // A pasted text is as many commands as it has lines.
            let config = Config::builder().auto_add_history(true).bracketed_paste(false).build();
            let mut editor = DefaultEditor::with_config(config).ok().filter(|_| is_edited);
            while let Some(prompt) = asked.blocking_recv() {
                let line = match &mut editor {
                    Some(editor) => editor.readline(&prompt),
                    None => {
                        output::answer_part(format_args!("{prompt}"));
                        let line = io::stdin().lines().next();
                        line.map_or(Err(ReadlineError::Eof), |line| line.map_err(Into::into))
                    }
                };
                if sender.blocking_send(line).is_err() {
                    return;
                }
            }
        });
        let mode = tcgetattr(io::stdin()).ok().filter(|_| is_edited);
        Self { prompts, lines, stop, mode }
    }

    /// Whether the lines are edited at a terminal: then each ends on the screen, too.
    pub(super) fn is_edited(&self) -> bool {
        self.mode.is_some()
    }

    /// Shows the prompt, and reads the next line. None: the input has ended.
    pub(super) async fn next(&mut self, prompt: String) -> Option<String> {
        self.prompts.send(prompt).await.ok()?;
        match self.lines.recv().await? {
            Ok(line) => Some(line),
            Err(ReadlineError::Interrupted) => {
                self.stop.cancel();
                pending().await
            }
            Err(_) => None,
        }
    }
}

/// Ends raw mode: the thread may still wait for a key when another reason ends the demo.
impl Drop for TypedLines {
    fn drop(&mut self) {
        if let Some(mode) = &self.mode {
            // A terminal that is gone needs no mode.
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, mode);
        }
    }
}
