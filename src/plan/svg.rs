//! A plan as a picture: dispatches with what they compute, tensors between them, top to bottom.
//!
//! A box is a dispatch; the chips at its lower edge are the tensors that later dispatches read, and the lines lead there.
//! What comes from outside (state, inputs) or goes there (logs) is named in the box. Rows are found by the longest path,
//! the order within a row by the mean place of what a box reads, as Sugiyama, Tagawa and Toda (1981) do; `layout` has
//! that. SVG because it is text: no dependency, sharp at any size, light or dark as the viewer is. Deliberately absent:
//! options.

use std::fmt::Write;

use super::layout::{Layout, layout};
use super::report::{Line, Plan, Role, human};
use crate::collections::Table;

/// Width of a character of the monospaced font at its size, and the height of a line of text.
const CHARACTER: f64 = 6.65;
const LINE: f64 = 15.0;
/// Space between a box's edge and its text.
const PAD: f64 = 12.0;
/// Height of a chip.
const CHIP: f64 = 19.0;
/// Characters of a line of text; longer ones are wrapped.
const COLUMNS: usize = 92;
/// Lines of expressions in a box; the rest is counted.
const LINES: usize = 40;
/// Around the picture, with room for a title above.
const MARGIN: f64 = 24.0;
const TITLE: f64 = 44.0;

const STYLE: &str = "\
svg{font:11px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace}\
.ground{fill:#fff}.box{fill:#f6f8fa;stroke:#afb8c1}.head{fill:#0969da;font-weight:600}.chip{fill:#ddf4ff;stroke:#54aeff}\
.edge{fill:none;stroke:#54aeff;stroke-width:1.4}.tip{fill:#54aeff}text{fill:#1f2328;white-space:pre}.dim{fill:#59636e}\
.title{font-size:14px;font-weight:600}\
@media(prefers-color-scheme:dark){.ground{fill:#0d1117}.box{fill:#161b22;stroke:#3d444d}.head{fill:#58a6ff}\
.chip{fill:#0c2d6b;stroke:#316dca}.edge{stroke:#316dca}.tip{fill:#316dca}text{fill:#e6edf3}.dim{fill:#9198a1}}";

/// Text as XML.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A dispatch as it is drawn.
struct Card {
    head: String,
    /// Lines of text, with whether they are dim.
    lines: Vec<(String, bool)>,
    /// What later dispatches read: the value and its text.
    chips: Vec<(usize, String)>,
}

impl Card {
    fn width(&self) -> f64 {
        let text = self.lines.iter().map(|line| &line.0).chain([&self.head]).map(|text| text.chars().count());
        let chips: f64 = self.rows().iter().map(|row| self.row_width(row)).fold(0.0, f64::max);
        (text.max().unwrap_or(0) as f64 * CHARACTER + 2.0 * PAD).max(chips + 2.0 * PAD)
    }

    fn height(&self) -> f64 {
        PAD + LINE * (1 + self.lines.len()) as f64 + (CHIP + 4.0) * self.rows().len() as f64 + PAD
    }

    /// Chips of a row: as many as fit into the longest text.
    fn rows(&self) -> Vec<std::ops::Range<usize>> {
        let most = COLUMNS as f64 * CHARACTER;
        let (mut rows, mut start) = (Vec::new(), 0);
        for end in 1..=self.chips.len() {
            if end == self.chips.len() || self.row_width(&(start..end + 1)) > most {
                rows.push(start..end);
                start = end;
            }
        }
        rows
    }

    fn row_width(&self, row: &std::ops::Range<usize>) -> f64 {
        row.clone().map(|at| self.chip_width(at) + 6.0).sum::<f64>() - 6.0
    }

    fn chip_width(&self, at: usize) -> f64 {
        self.chips[at].1.chars().count() as f64 * CHARACTER + 12.0
    }

    /// The left edge of each chip in a box of this width, and its row.
    fn places(&self, width: f64) -> Vec<(f64, usize)> {
        let mut places = Vec::new();
        for (number, row) in self.rows().into_iter().enumerate() {
            let mut x = (width - self.row_width(&row)) / 2.0;
            for at in row {
                places.push((x, number));
                x += self.chip_width(at) + 6.0;
            }
        }
        places
    }
}

/// A text in lines of at most [`COLUMNS`] characters, broken at spaces.
fn wrapped(text: &str) -> Vec<String> {
    let (mut lines, mut line) = (Vec::new(), String::new());
    for word in text.split(' ') {
        if line.chars().count() + word.chars().count() + 1 > COLUMNS && !line.trim().is_empty() {
            lines.push(std::mem::replace(&mut line, "    ".into()));
        } else if !line.is_empty() {
            line.push(' ');
        }
        // A single long word is cut rather than let the box grow.
        line.extend(word.chars().take(COLUMNS));
    }
    lines.push(line);
    lines
}

impl Plan {
    /// The dispatches and the tensors between them as a self-contained SVG:
    /// `std::fs::write("graph.svg", plan.svg("My model"))`.
    pub fn svg(&self, title: &str) -> String {
        let edges = self.edges();
        let cards: Vec<Card> =
            self.lines.iter().enumerate().map(|(at, line)| self.card(at, line, &edges[..])).collect();
        let sizes: Vec<(f64, f64)> = cards.iter().map(|card| (card.width(), card.height())).collect();
        let mut pairs: Vec<(usize, usize)> = edges.iter().map(|&(from, _, to)| (from, to)).collect();
        pairs.dedup();
        let Layout { places, ways, width, height } = layout(&sizes, &pairs);
        let long = title.chars().count() as f64 * 9.0;
        let (width, height) = (width.max(long).max(240.0) + 2.0 * MARGIN, height + TITLE + 2.0 * MARGIN);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
             height=\"{height:.0}\" role=\"img\">\n<title>{0}</title>\n<style>{STYLE}</style>\n\
             <rect class=\"ground\" width=\"100%\" height=\"100%\"/>\n\
             <text class=\"title\" x=\"{MARGIN}\" y=\"30\">{0}</text>\n\
             <g transform=\"translate({MARGIN},{1})\">\n",
            escape(title),
            TITLE + MARGIN / 2.0,
        );
        for &(from, value, to) in &edges {
            let chip = cards[from].chips.iter().position(|chip| chip.0 == value).unwrap_or(0);
            let (x, y) = places[from];
            let left = cards[from].places(sizes[from].0).get(chip).map_or(0.0, |place| place.0);
            let start = (x + left + cards[from].chip_width(chip) / 2.0, y + sizes[from].1);
            // Lines arrive side by side, in the order of where they come from.
            let last = |edge: &&(usize, usize, usize)| match ways.get(&(edge.0, edge.2)).and_then(|way| way.last()) {
                Some(passage) => passage.0,
                None => places[edge.0].0 + sizes[edge.0].0 / 2.0,
            };
            let mut arrivals: Vec<_> = edges.iter().filter(|edge| edge.2 == to).collect();
            arrivals.sort_by(|a, b| last(a).total_cmp(&last(b)));
            let number = arrivals.iter().position(|edge| **edge == (from, value, to)).unwrap_or(0);
            let (to_x, to_y) = places[to];
            let share = (number + 1) as f64 / (arrivals.len() + 1) as f64;
            let end = (to_x + sizes[to].0 * share, to_y);
            let way = ways.get(&(from, to)).map(Vec::as_slice).unwrap_or_default();
            let title = &self.values[value];
            edge(&mut svg, start, way, end, &format!("{} {}", title.name, title.spec));
        }
        for (card, (&place, &size)) in cards.iter().zip(places.iter().zip(&sizes)) {
            draw(&mut svg, card, place, size);
        }
        svg.push_str("</g>\n</svg>\n");
        svg
    }

    /// Which dispatch hands which value to which: each reader takes it from the latest writer before it.
    fn edges(&self) -> Vec<(usize, usize, usize)> {
        let mut writer: Table<usize, usize> = Table::new();
        let mut edges = Vec::new();
        for (to, line) in self.lines.iter().enumerate() {
            edges.extend(line.reads.iter().filter_map(|value| Some((*writer.get(value)?, *value, to))));
            writer.extend(line.writes.iter().map(|&value| (value, to)));
        }
        edges.sort_unstable_by_key(|&(from, value, to)| (from, to, value));
        edges
    }

    fn card(&self, at: usize, line: &Line, edges: &[(usize, usize, usize)]) -> Card {
        let [x, y, z] = line.grid;
        let grid = if z > 1 { format!("{x}x{y}x{z}") } else { format!("{x}x{y}") };
        let flops = if line.flops > 0 { format!(", {:.1} MFLOP", line.flops as f64 / 1e6) } else { String::new() };
        let mut lines = vec![(format!("{grid} workgroups, {}{flops}", human(line.bytes())), true)];
        let from_outside: Vec<&str> = (line.reads.iter())
            .filter(|&&value| !edges.iter().any(|&(_, other, to)| other == value && to == at))
            .map(|&value| self.values[value].name.as_str())
            .collect();
        if !from_outside.is_empty() {
            lines.extend(wrapped(&format!("reads {}", few(&from_outside))).into_iter().map(|text| (text, true)));
        }
        let mut level = 0;
        let mut shown = Vec::new();
        for computed in &line.computes {
            if std::mem::replace(&mut level, computed.level) != computed.level {
                shown.push((format!("-- barrier, level {level}"), true));
            }
            shown.extend(wrapped(&computed.to_string()).into_iter().map(|text| (text, false)));
        }
        let more = shown.len().saturating_sub(LINES);
        lines.extend(shown.into_iter().take(LINES));
        if more > 0 {
            lines.push((format!("... and {more} lines more"), true));
        }
        for (role, verb) in [(Role::State, "updates"), (Role::Log, "logs"), (Role::Result, "gives")] {
            let written = line.writes.iter().map(|&value| &self.values[value]).filter(|value| value.role == role);
            let names: Vec<&str> = written.map(|value| value.name.as_str()).collect();
            if !names.is_empty() {
                lines.extend(wrapped(&format!("{verb} {}", few(&names))).into_iter().map(|text| (text, true)));
            }
        }
        let mut chips: Vec<usize> = edges.iter().filter(|edge| edge.0 == at).map(|edge| edge.1).collect();
        chips.sort_unstable();
        chips.dedup();
        let text = |value: usize| {
            let stored = &self.values[value];
            (value, format!("{} {} {}", stored.name, stored.spec, human(stored.bytes)))
        };
        Card { head: format!("{at}  {}", line.label), lines, chips: chips.into_iter().map(text).collect() }
    }
}

/// The first names of a list.
fn few(names: &[&str]) -> String {
    const FEW: usize = 12;
    let more = if names.len() > FEW { format!(" and {} more", names.len() - FEW) } else { String::new() };
    format!("{}{more}", names[..names.len().min(FEW)].join(", "))
}

fn draw(svg: &mut String, card: &Card, (x, y): (f64, f64), (width, height): (f64, f64)) {
    write!(svg, "<g transform=\"translate({x:.1},{y:.1})\">").ok();
    write!(svg, "<rect class=\"box\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"6\"/>").ok();
    let mut at = PAD + 9.0;
    writeln!(svg, "<text class=\"head\" x=\"{PAD}\" y=\"{at:.1}\">{}</text>", escape(&card.head)).ok();
    for (text, dim) in &card.lines {
        at += LINE;
        let class = if *dim { " class=\"dim\"" } else { "" };
        writeln!(svg, "<text{class} x=\"{PAD}\" y=\"{at:.1}\">{}</text>", escape(text)).ok();
    }
    let rows = card.rows().len();
    for (index, (left, row)) in card.places(width).into_iter().enumerate() {
        let top = height - (CHIP + 4.0) * (rows - row) as f64 - 2.0;
        let wide = card.chip_width(index);
        write!(
            svg,
            "<rect class=\"chip\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{wide:.1}\" height=\"{CHIP}\" rx=\"9\"/>"
        )
        .ok();
        let text = escape(&card.chips[index].1);
        writeln!(svg, "<text x=\"{:.1}\" y=\"{:.1}\">{text}</text>", left + 6.0, top + 13.0).ok();
    }
    svg.push_str("</g>\n");
}

/// A line from a chip by way of gaps between boxes to the upper edge of a box.
fn edge(svg: &mut String, start: (f64, f64), way: &[(f64, f64, f64)], end: (f64, f64), title: &str) {
    write!(svg, "<path class=\"edge\" d=\"M{:.1} {:.1}", start.0, start.1).ok();
    let mut from = start;
    let curve = |svg: &mut String, from: (f64, f64), to: (f64, f64)| {
        let bend = (to.1 - from.1) / 2.0;
        write!(svg, "C{:.1} {:.1} {:.1} {:.1} {:.1} {:.1}", from.0, from.1 + bend, to.0, to.1 - bend, to.0, to.1).ok();
    };
    for &(x, top, bottom) in way {
        curve(svg, from, (x, top));
        write!(svg, "V{bottom:.1}").ok();
        from = (x, bottom);
    }
    curve(svg, from, (end.0, end.1 - 6.0));
    writeln!(svg, "\"><title>{}</title></path>", escape(title)).ok();
    let (x, y) = end;
    writeln!(
        svg,
        "<path class=\"tip\" d=\"M{:.1} {:.1}L{x:.1} {y:.1}L{:.1} {:.1}z\"/>",
        x - 4.0,
        y - 7.0,
        x + 4.0,
        y - 7.0
    )
    .ok();
}
