//! Asks the daemon and shows the answer, until q, Ctrl-C or a signal. Not here: what is shown.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use buildbee_proto::local::AdminCall;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use super::model::Model;
use super::view;
use crate::cli::ask::{AskError, Start, ask};
use crate::config::Settings;
use crate::exit::{Failure, SUCCESS};
use crate::journal::activity::Activity;
use crate::ui;
use crate::wrapper::signals::Signals;

/// How often the daemon is asked.
const POLL: Duration = Duration::from_millis(400);
/// Actions in one answer at most; beyond it the oldest are not drawn.
const MAX_ACTIONS: u32 = 5_000;
/// Width of what is no terminal.
const TEXT_WIDTH: u16 = 80;

/// Shows it once, or until the user has seen enough.
pub fn run(settings: &Settings, once: bool) -> Result<u8, Failure> {
    let mut model = Model::default();
    look(settings, &mut model, Start::IfNeeded)?;
    if once || !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        ui::print(&view::text(&model, TEXT_WIDTH));
        return Ok(SUCCESS);
    }
    let no_terminal = |error: io::Error| {
        Failure::environment(format!(
            "cannot use the terminal: {error}\nhint: `buildbee top --once` prints the same as text"
        ))
    };
    // The terminal must be itself again, however this ends.
    let signals = Signals::take_over().map_err(no_terminal)?;
    let mut terminal = ratatui::try_init().map_err(no_terminal)?;
    let shown = show(settings, &mut model, &mut terminal, &signals);
    ratatui::restore();
    shown.map_err(no_terminal)?;
    Ok(SUCCESS)
}

fn show(
    settings: &Settings,
    model: &mut Model,
    terminal: &mut ratatui::DefaultTerminal,
    signals: &Signals,
) -> io::Result<()> {
    loop {
        terminal.draw(|frame| {
            let area = frame.area();
            view::render(model, area, frame.buffer_mut());
        })?;
        if wait(signals)? {
            return Ok(());
        }
        if let Err(error) = look(settings, model, Start::Never) {
            model.trouble = Some(error.to_string().lines().next().unwrap_or_default().to_owned());
        }
    }
}

/// Until it is time to look again. Whether the user wants out.
fn wait(signals: &Signals) -> io::Result<bool> {
    if signals.take().is_some() {
        return Ok(true);
    }
    // A signal's handler interrupts the wait.
    if !event::poll(POLL)? {
        return Ok(signals.take().is_some());
    }
    match event::read()? {
        Event::Key(key) if key.kind == KeyEventKind::Press => {
            let is_ctrl_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
            Ok(is_ctrl_c || matches!(key.code, KeyCode::Char('q' | 'Q') | KeyCode::Esc))
        }
        _ => Ok(false),
    }
}

fn look(settings: &Settings, model: &mut Model, starting: Start) -> Result<(), AskError> {
    let call = AdminCall::Activity { after: model.after(), limit: MAX_ACTIONS };
    let json = ask(&settings.socket, call, starting)?;
    let activity: Activity = serde_json::from_str(&json).map_err(|_| AskError::Nonsense)?;
    model.take_in(activity);
    Ok(())
}
