//! What subcommands print: tables and progress for people, JSON for scripts. Nothing else prints.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use comfy_table::presets::UTF8_NO_BORDERS;
use comfy_table::{ContentArrangement, LineStyle, Table};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::failure::one_line;

/// Where a subcommand's words go: results to standard output, progress and errors to standard
/// error. Colours and bars appear on a terminal only.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    json: bool,
    terminal: bool,
}

impl Output {
    /// Looks at where the output goes.
    #[must_use]
    pub fn new(json: bool) -> Self {
        let terminal = io::stdout().is_terminal();
        Self { json, terminal }
    }

    /// Whether scripts read along (`--json`).
    #[must_use]
    pub const fn is_json(self) -> bool {
        self.json
    }

    /// Whether a person watches standard output.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        self.terminal
    }

    /// Prints a line for people; nothing with `--json`.
    pub fn line(self, text: impl AsRef<str>) {
        if !self.json {
            print(text.as_ref());
        }
    }

    /// Prints a table for people; nothing with `--json`.
    pub fn table<const N: usize>(
        self,
        header: [&str; N],
        rows: impl IntoIterator<Item = [String; N]>,
    ) {
        if self.json {
            return;
        }
        let mut table = Table::new();
        table
            .load_style(UTF8_NO_BORDERS.row_separator(LineStyle::none()))
            .set_content_arrangement(if self.terminal {
                ContentArrangement::Dynamic
            } else {
                ContentArrangement::Disabled
            })
            .set_header(header);
        for row in rows {
            table.add_row(row);
        }
        print(&table.trim_fmt());
    }

    /// Prints one JSON value on one line; nothing without `--json`.
    ///
    /// # Errors
    /// The value has no JSON form: a bug.
    pub fn json(self, value: &impl Serialize) -> anyhow::Result<()> {
        if self.json {
            print(&serde_json::to_string(value)?);
        }
        Ok(())
    }

    /// Clears the terminal before the next picture of a live view; nothing elsewhere.
    pub fn clear(self) {
        if self.terminal && !self.json {
            // Home, then clear to the end: no flicker.
            write(io::stdout().lock(), "\x1b[H\x1b[2J");
        }
    }

    /// A progress bar over `length` steps on a terminal; it draws nothing elsewhere.
    #[must_use]
    pub fn progress(self, length: u64, what: impl Into<Cow<'static, str>>) -> ProgressBar {
        if self.json || !io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let template = "{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}";
        let style = ProgressStyle::with_template(template);
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        ProgressBar::new(length).with_style(style).with_message(what)
    }

    /// A spinner for work without a known length, on a terminal only.
    #[must_use]
    pub fn spinner(self, what: impl Into<Cow<'static, str>>) -> ProgressBar {
        if self.json || !io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let spinner = ProgressBar::new_spinner().with_message(what);
        spinner.enable_steady_tick(Duration::from_millis(100));
        spinner
    }

    /// Prints a remark to standard error, also with `--json`.
    pub fn note(self, text: impl AsRef<str>) {
        write(io::stderr().lock(), &format!("{}\n", text.as_ref()));
    }

    /// Prints an error with its causes on one line.
    pub fn error(self, error: &anyhow::Error) {
        self.note(format!("millrace: {}", one_line(error.as_ref())));
    }
}

fn print(text: &str) {
    write(io::stdout().lock(), &format!("{text}\n"));
}

/// A reader that went away (`| head`) is no error of ours.
fn write(mut to: impl Write, text: &str) {
    let _ = to.write_all(text.as_bytes()).and_then(|()| to.flush());
}
