//! How the model looks: lines of cells, for a terminal of any size. Pure. Names come from peers and files: control characters never get here.

use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use super::model::{HERE, Kind, Model, Piece};
use crate::cli::documents::Status;
use crate::ui::{clean, size};

/// One column of the timeline, in microseconds.
const CELL_US: u64 = 1_000_000;
/// Narrower or lower than this nothing useful can be shown.
const MIN_WIDTH: u16 = 24;
const MIN_HEIGHT: u16 = 5;
/// From this width on lines are written out.
const WIDE: u16 = 66;
/// Columns for names, at most.
const MAX_LABEL: u16 = 18;
/// Columns for "busy/all".
const COUNT: u16 = 6;
/// Lines for what runs, if it is that much.
const MIN_RUNNING: u16 = 4;
/// From empty to full.
const BARS: [&str; 9] = [" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];

/// A row of the timeline.
struct Row {
    label: String,
    count: String,
    dim: bool,
    cells: Vec<Cell>,
}

/// One column of a row: how full, and of what.
#[derive(Clone, Copy, Default)]
struct Cell {
    eighths: usize,
    kind: Option<Kind>,
}

/// Draws it.
pub fn render(model: &Model, area: Rect, out: &mut Buffer) {
    if area.width < MIN_WIDTH || area.height < MIN_HEIGHT {
        if !area.is_empty() {
            out.set_stringn(area.x, area.y, "too small", usize::from(area.width), Style::new());
        }
        return;
    }
    let mut lines = head(model, area.width);
    let room = area.height.saturating_sub(u16::try_from(lines.len()).unwrap_or(u16::MAX) + 1);
    let n_running = u16::try_from(model.running.len()).unwrap_or(u16::MAX).saturating_add(1).min(MIN_RUNNING);
    lines.extend(timeline(model, area.width, room.saturating_sub(n_running)));
    let used = u16::try_from(lines.len()).unwrap_or(u16::MAX);
    lines.extend(running(model, area.width, area.height.saturating_sub(used + 1)));
    for (line, y) in lines.iter().zip(area.y..area.bottom().saturating_sub(1)) {
        out.set_line(area.x, y, line, area.width);
    }
    out.set_line(area.x, area.bottom() - 1, &foot(model), area.width);
}

fn dim() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

fn color(kind: Kind) -> Color {
    match kind {
        Kind::Run => Color::Green,
        Kind::Transfer => Color::Blue,
        Kind::Ongoing => Color::Yellow,
    }
}

fn head(model: &Model, width: u16) -> Vec<Line<'static>> {
    let Status { farm, uptime_s, .. } = &model.status;
    let is_wide = width >= WIDE;
    let title = match farm {
        Some(farm) => {
            let n_connected = farm.agents.iter().filter(|agent| agent.connected).count();
            let has_coordinator = farm.coordinator.as_ref().is_some_and(|coordinator| coordinator.connected);
            let coordinator = if has_coordinator { "coordinator connected" } else { "no coordinator" };
            // What is as it should be need not be said where there is no room.
            let coordinator = if is_wide || !has_coordinator { format!("{coordinator}, ") } else { String::new() };
            format!("{}: {coordinator}{n_connected} of {} agents", clean(&farm.name), farm.agents.len())
        }
        None => "no farm joined".to_owned(),
    };
    let (stats, lately, rates) = (&model.stats, model.lately(), model.rates());
    let counts = |cached: u64, remote: u64, local: u64| {
        if !is_wide {
            return format!("{cached} cached {remote} remote {local} local");
        }
        let percent = (cached * 100).checked_div(cached + remote + local);
        let hits = percent.map_or_else(String::new, |percent| format!("  hits {percent} %"));
        format!("{cached} cached  {remote} remote  {local} local{hits}")
    };
    let now = counts(lately.cached, lately.remote, lately.local);
    let in_all = counts(stats.cached, stats.remote, stats.local);
    if !is_wide {
        return vec![
            Line::styled(title, bold()),
            Line::from(format!("1 min {now}")),
            Line::styled(format!("all   {in_all}"), dim()),
            Line::styled(format!("↑ {}/s  ↓ {}/s", size(rates.sent), size(rates.received)), dim()),
        ];
    }
    let uptime = humantime::format_duration(Duration::from_secs(*uptime_s));
    let sent = format!("sent {}/s, {} in all", size(rates.sent), size(stats.bytes_sent));
    let received = format!("received {}/s, {} in all", size(rates.received), size(stats.bytes_received));
    vec![
        Line::from(vec![Span::styled("buildbee  ", bold()), Span::raw(title)]),
        Line::from(format!("last minute  {now}")),
        Line::styled(format!("in all       {in_all}; daemon up {uptime}"), dim()),
        Line::styled(format!("{sent}   {received}"), dim()),
    ]
}

/// The rows that fit into `room` lines: one a slot, else one a machine, else as many as there is room for.
fn timeline(model: &Model, width: u16, room: u16) -> Vec<Line<'static>> {
    let label = (width / 4).clamp(8, MAX_LABEL);
    let n_cells = usize::from(width.saturating_sub(label + COUNT + 2));
    let places = places(model);
    let room = usize::from(room).saturating_sub(1);
    let detailed: Vec<Row> = places.iter().flat_map(|place| slots(model, place, n_cells)).collect();
    let mut rows = vec![hits(model, n_cells)];
    if rows.len() + detailed.len() <= room {
        rows.extend(detailed);
    } else {
        rows.extend(places.iter().map(|place| machine(model, place, n_cells)));
    }
    let n_rows = rows.len();
    if n_rows > room {
        rows.truncate(room.saturating_sub(1));
    }
    let n_hidden = n_rows - rows.len();
    let mut lines: Vec<Line<'static>> = rows.iter().map(|row| line(row, label)).collect();
    if n_hidden > 0 && room > 0 {
        lines.push(Line::styled(format!("… {n_hidden} more"), dim()));
    }
    let ago = format!("{n_cells} s ago");
    let gap = usize::from(label + COUNT + 2);
    let axis = format!("{:gap$}{ago}{:>rest$}", "", "now", rest = n_cells.saturating_sub(ago.len()));
    lines.push(Line::styled(axis, dim()));
    lines
}

fn line(row: &Row, label: u16) -> Line<'static> {
    let width = usize::from(label);
    let style = if row.dim { dim() } else { Style::new() };
    let name: String = row.label.chars().take(width).collect();
    let mut spans = vec![Span::styled(format!("{name:<width$} "), style)];
    spans.push(Span::styled(format!("{:>count$} ", row.count, count = usize::from(COUNT)), style));
    // Cells of one colour as one span.
    let mut text = String::new();
    let mut kind = None;
    for cell in &row.cells {
        if cell.kind != kind && !text.is_empty() {
            spans.push(colored(std::mem::take(&mut text), kind));
        }
        kind = cell.kind;
        text.push_str(BARS[cell.eighths.min(BARS.len() - 1)]);
    }
    spans.push(colored(text, kind));
    Line::from(spans)
}

fn colored(text: String, kind: Option<Kind>) -> Span<'static> {
    Span::styled(text, kind.map_or_else(|| Style::new().fg(Color::Cyan), |kind| Style::new().fg(color(kind))))
}

/// Somewhere with slots.
struct Place {
    /// As the model knows it.
    key: String,
    name: String,
    n_slots: usize,
    connected: bool,
}

fn places(model: &Model) -> Vec<Place> {
    let agents = model.status.farm.iter().flat_map(|farm| &farm.agents);
    let mut places: Vec<Place> = agents
        .map(|agent| Place {
            key: agent.name.clone(),
            name: clean(&agent.name),
            n_slots: agent.slots as usize,
            connected: agent.connected,
        })
        .collect();
    places.sort_by(|one, other| one.name.cmp(&other.name));
    let n_slots = usize::try_from(model.status.local_slots.total).unwrap_or(usize::MAX);
    places.push(Place { key: HERE.to_owned(), name: clean(HERE.trim_end()), n_slots, connected: true });
    places
}

/// One row for each slot in use lately, and one for a machine that has none.
fn slots(model: &Model, place: &Place, n_cells: usize) -> Vec<Row> {
    let pieces = model.pieces(&place.key);
    let since = model.now_us().saturating_sub(n_cells as u64 * CELL_US);
    let shown: Vec<&Piece> = pieces.iter().filter(|piece| piece.end_us >= since).collect();
    let mut lanes: Vec<usize> = shown.iter().map(|piece| piece.lane).collect();
    lanes.sort_unstable();
    lanes.dedup();
    let mut rows: Vec<Row> = lanes
        .into_iter()
        .map(|lane| {
            let of_lane = shown.iter().filter(|piece| piece.lane == lane).copied();
            Row { label: String::new(), count: String::new(), dim: false, cells: cells(model, of_lane, n_cells, 1) }
        })
        .collect();
    if rows.is_empty() {
        rows.push(Row {
            label: String::new(),
            count: String::new(),
            dim: false,
            cells: vec![Cell::default(); n_cells],
        });
    }
    (rows[0].label, rows[0].count, rows[0].dim) = title(model, place);
    rows
}

/// A whole machine in one row.
fn machine(model: &Model, place: &Place, n_cells: usize) -> Row {
    let pieces = model.pieces(&place.key);
    let (label, count, dim) = title(model, place);
    Row { label, count, dim, cells: cells(model, pieces.iter(), n_cells, place.n_slots.max(1)) }
}

fn title(model: &Model, place: &Place) -> (String, String, bool) {
    let count =
        if place.connected { format!("{}/{}", model.n_ongoing(&place.key), place.n_slots) } else { "away".to_owned() };
    (place.name.clone(), count, !place.connected)
}

/// How full each column is of `pieces`, where `n_slots` of them at a time fill it.
fn cells<'a>(model: &Model, pieces: impl Iterator<Item = &'a Piece>, n_cells: usize, n_slots: usize) -> Vec<Cell> {
    const KINDS: [Kind; 3] = [Kind::Run, Kind::Transfer, Kind::Ongoing];
    let mut covered = vec![[0_u64; KINDS.len()]; n_cells];
    let begin = |at: usize| model.now_us().saturating_sub((n_cells - at) as u64 * CELL_US);
    for piece in pieces {
        let first = n_cells.saturating_sub(cells_ago(model, piece.start_us) + 1);
        let last = n_cells.saturating_sub(cells_ago(model, piece.end_us));
        for (at, cell) in covered.iter_mut().enumerate().take(last.min(n_cells)).skip(first) {
            let end = begin(at).saturating_add(CELL_US);
            let overlap = piece.end_us.min(end).saturating_sub(piece.start_us.max(begin(at)));
            cell[piece.kind as usize] += overlap;
        }
    }
    let full = CELL_US * n_slots as u64;
    let cell = |covered: &[u64; KINDS.len()]| {
        let sum: u64 = covered.iter().sum();
        // What there was at all can be seen.
        let eighths = usize::try_from((sum * 8).div_ceil(full)).unwrap_or(8).min(8);
        let kind = KINDS.into_iter().max_by_key(|kind| (covered[*kind as usize], std::cmp::Reverse(*kind)));
        Cell { eighths, kind: kind.filter(|_| sum > 0) }
    };
    covered.iter().map(cell).collect()
}

fn cells_ago(model: &Model, at_us: u64) -> usize {
    usize::try_from(model.now_us().saturating_sub(at_us) / CELL_US).unwrap_or(usize::MAX - 1)
}

/// Answers from the cache, the most in one column being full.
fn hits(model: &Model, n_cells: usize) -> Row {
    let counts = model.hits(n_cells, CELL_US);
    let most = counts.iter().copied().max().unwrap_or(0).max(1);
    let cell = |count: &u64| Cell { eighths: usize::try_from((count * 8).div_ceil(most)).unwrap_or(8), kind: None };
    let sum: u64 = counts.iter().sum();
    Row { label: "cache hits".to_owned(), count: sum.to_string(), dim: false, cells: counts.iter().map(cell).collect() }
}

/// What is under way, longest first.
fn running(model: &Model, width: u16, room: u16) -> Vec<Line<'static>> {
    if room == 0 {
        return Vec::new();
    }
    let n_running = model.running.len();
    let title = match n_running {
        0 => "nothing runs".to_owned(),
        n => format!("{n} under way"),
    };
    let mut lines = vec![Line::styled(title, bold())];
    let n_shown = n_running.min(usize::from(room) - 1);
    let place = usize::from((width / 4).clamp(8, MAX_LABEL));
    for ongoing in model.running.iter().take(n_shown) {
        let tenths = model.now_us().saturating_sub(ongoing.since_us) / 100_000;
        let source = clean(&ongoing.source);
        let left = usize::from(width).saturating_sub(place + 11);
        let wher: String = clean(&ongoing.r#where).chars().take(place).collect();
        let time = format!("{}.{} s", tenths / 10, tenths % 10);
        lines.push(Line::from(format!("{time:>9} {wher:<place$} {}", end_of(&source, left))));
    }
    if n_shown < n_running && n_shown > 0 {
        lines.pop();
        lines.push(Line::styled(format!("… {} more", n_running - n_shown + 1), dim()));
    }
    lines
}

/// The last `width` characters: a path's end tells most.
fn end_of(text: &str, width: usize) -> String {
    let n = text.chars().count();
    if n <= width || width == 0 {
        return text.to_owned();
    }
    let kept: String = text.chars().skip(n - (width - 1)).collect();
    format!("…{kept}")
}

fn foot(model: &Model) -> Line<'static> {
    if let Some(trouble) = &model.trouble {
        return Line::styled(clean(trouble), Style::new().fg(Color::Red));
    }
    let legend = [("run", Kind::Run), ("transfer", Kind::Transfer), ("under way", Kind::Ongoing)];
    let mut spans = vec![Span::raw("q quits  ")];
    for (name, kind) in legend {
        spans.push(Span::styled("█", Style::new().fg(color(kind))));
        spans.push(Span::styled(format!(" {name}  "), dim()));
    }
    Line::from(spans)
}

/// The same as text, for what is no terminal: as many lines as it takes.
pub fn text(model: &Model, width: u16) -> String {
    let n_places = places(model).len() + usize::try_from(model.status.local_slots.total).unwrap_or(0);
    let n_slots: usize = model.status.farm.iter().flat_map(|farm| &farm.agents).map(|agent| agent.slots as usize).sum();
    let n_lines = 8 + n_places + n_slots + model.running.len();
    let area = Rect::new(0, 0, width, u16::try_from(n_lines.min(1_000)).unwrap_or(1_000));
    let mut buffer = Buffer::empty(area);
    render(model, area, &mut buffer);
    // The last line is about keys.
    let mut lines: Vec<String> = rows_of(&buffer).collect();
    lines.pop();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines.push(String::new());
    lines.join("\n")
}

/// Lines of a buffer, without what is empty at their ends.
pub(super) fn rows_of(buffer: &Buffer) -> impl Iterator<Item = String> {
    let area = buffer.area;
    (area.y..area.bottom()).map(move |y| {
        let row: String = (area.x..area.right()).map(|x| buffer[(x, y)].symbol()).collect();
        row.trim_end().to_owned()
    })
}
