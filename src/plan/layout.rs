//! Where boxes go that are joined by edges from earlier to later ones: rows, order within a row, coordinates.
//!
//! The method is that of Sugiyama, Tagawa and Toda (1981): a box stands below all that it depends on; an edge that
//! passes rows takes a narrow place in each; rows are ordered by the mean of the neighbours' places, and then pushed
//! towards them. Deliberately absent: the fewest crossings; a plan has a dozen boxes.

use crate::collections::Table;
use crate::sort::sort_by;

/// Between boxes of a row, and between rows.
const GAP: f64 = 28.0;
const ROW_GAP: f64 = 52.0;
/// What a passing edge takes.
const PASSAGE: f64 = 10.0;
/// Rounds of moving boxes towards their neighbours.
const ROUNDS: usize = 12;

/// The way of an edge through the rows it passes: where, and between which heights.
pub(super) type Way = Vec<(f64, f64, f64)>;

/// Where everything is.
pub(super) struct Layout {
    /// The upper left corner of each box.
    pub places: Vec<(f64, f64)>,
    /// For each edge that passes rows the way through them.
    pub ways: Table<(usize, usize), Way>,
    /// Of all.
    pub width: f64,
    pub height: f64,
}

/// A box, or the place of a passing edge.
struct Cell {
    width: f64,
    /// The middle.
    x: f64,
    above: Vec<usize>,
    below: Vec<usize>,
}

/// Lays out boxes of these sizes, joined by `edges` from a lower to a higher number.
pub(super) fn layout(sizes: &[(f64, f64)], edges: &[(usize, usize)]) -> Layout {
    let mut row = vec![0usize; sizes.len()];
    for to in 0..sizes.len() {
        row[to] = edges.iter().filter(|edge| edge.1 == to).map(|edge| row[edge.0] + 1).max().unwrap_or(0);
    }
    let rows = row.iter().map(|row| row + 1).max().unwrap_or(0);
    let mut order: Vec<Vec<usize>> = vec![Vec::new(); rows];
    let cell = |width: f64| Cell { width, x: 0.0, above: Vec::new(), below: Vec::new() };
    let mut cells: Vec<Cell> = sizes.iter().map(|size| cell(size.0)).collect();
    (0..sizes.len()).for_each(|at| order[row[at]].push(at));
    let mut passages: Table<(usize, usize), Vec<usize>> = Table::new();
    for &(from, to) in edges {
        let mut last = from;
        for passed in &mut order[row[from] + 1..row[to]] {
            cells.push(cell(PASSAGE));
            let at = cells.len() - 1;
            passed.push(at);
            passages.or_default((from, to)).push(at);
            cells[last].below.push(at);
            cells[at].above.push(last);
            last = at;
        }
        cells[last].below.push(to);
        cells[to].above.push(last);
    }
    order.iter().for_each(|row| spread(&mut cells, row));
    for round in 0..ROUNDS {
        let down = round % 2 == 0;
        for step in 0..rows {
            let row = if down { step } else { rows - 1 - step };
            let wanted = |cells: &[Cell], at: usize| {
                let near = if down { &cells[at].above } else { &cells[at].below };
                match near.len() {
                    0 => cells[at].x,
                    count => near.iter().map(|&other| cells[other].x).sum::<f64>() / count as f64,
                }
            };
            let targets: Table<usize, f64> = order[row].iter().map(|&at| (at, wanted(&cells, at))).collect();
            // The order is settled halfway; then only distances change.
            if round < ROUNDS / 2 {
                sort_by(&mut order[row], |a, b| targets[a].total_cmp(&targets[b]));
            }
            settle(&mut cells, &order[row], &targets);
        }
    }
    let left = cells.iter().map(|cell| cell.x - cell.width / 2.0).fold(f64::INFINITY, f64::min);
    let right = cells.iter().map(|cell| cell.x + cell.width / 2.0).fold(f64::NEG_INFINITY, f64::max);
    let left = if left.is_finite() { left } else { 0.0 };
    let tall = |row: &Vec<usize>| row.iter().filter_map(|&at| sizes.get(at)).map(|size| size.1).fold(0.0, f64::max);
    let mut tops = Vec::new();
    let mut y = 0.0;
    for row in &order {
        tops.push((y, y + tall(row)));
        y += tall(row) + ROW_GAP;
    }
    let places = (0..sizes.len()).map(|at| (cells[at].x - cells[at].width / 2.0 - left, tops[row[at]].0)).collect();
    let way = |(edge, passed): ((usize, usize), Vec<usize>)| {
        let through =
            passed.iter().zip(row[edge.0] + 1..).map(|(&at, row)| (cells[at].x - left, tops[row].0, tops[row].1));
        (edge, through.collect())
    };
    let ways = passages.into_iter().map(way).collect();
    Layout { places, ways, width: (right - left).max(0.0), height: (y - ROW_GAP).max(0.0) }
}

/// The least distance of the middles of neighbours.
fn distance(a: &Cell, b: &Cell) -> f64 {
    (a.width + b.width) / 2.0 + GAP
}

/// Puts the cells of a row side by side, around 0.
fn spread(cells: &mut [Cell], row: &[usize]) {
    let mut x = 0.0;
    for (index, &at) in row.iter().enumerate() {
        if index > 0 {
            x += distance(&cells[row[index - 1]], &cells[at]);
        }
        cells[at].x = x;
    }
    row.iter().for_each(|&at| cells[at].x -= x / 2.0);
}

/// Moves the cells of a row to their targets, as far as their order and distances allow: the mean of what they would be
/// pushed to from the left and from the right.
fn settle(cells: &mut [Cell], row: &[usize], targets: &Table<usize, f64>) {
    let mut from_left: Vec<f64> = row.iter().map(|at| targets[at]).collect();
    let mut from_right = from_left.clone();
    for index in 1..row.len() {
        let least = from_left[index - 1] + distance(&cells[row[index - 1]], &cells[row[index]]);
        from_left[index] = from_left[index].max(least);
    }
    for index in (1..row.len()).rev() {
        let most = from_right[index] - distance(&cells[row[index - 1]], &cells[row[index]]);
        from_right[index - 1] = from_right[index - 1].min(most);
    }
    for (index, &at) in row.iter().enumerate() {
        cells[at].x = (from_left[index] + from_right[index]) / 2.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_lie_below_what_they_need_and_do_not_overlap() {
        let sizes = [(100.0, 40.0), (300.0, 20.0), (80.0, 60.0), (120.0, 30.0), (50.0, 30.0)];
        let edges = [(0, 1), (0, 2), (1, 3), (2, 3), (0, 4), (3, 4)];
        let found = layout(&sizes, &edges);
        for (from, to) in edges {
            assert!(found.places[to].1 >= found.places[from].1 + sizes[from].1 + ROW_GAP, "{from} -> {to}");
        }
        for a in 0..sizes.len() {
            for b in a + 1..sizes.len() {
                let apart = |p: f64, w: f64, q: f64, v: f64| p + w <= q + 1e-9 || q + v <= p + 1e-9;
                let ((x, y), (u, v)) = (found.places[a], found.places[b]);
                assert!(apart(x, sizes[a].0, u, sizes[b].0) || apart(y, sizes[a].1, v, sizes[b].1), "{a} and {b}");
            }
        }
        assert_eq!(found.ways[&(0, 4)].len(), 2);
        assert!(found.places.iter().zip(&sizes).all(|(p, s)| p.0 >= -1e-9 && p.0 + s.0 <= found.width + 1e-9));
        let none = layout(&[], &[]);
        assert_eq!((none.width, none.height), (0.0, 0.0));
    }
}
