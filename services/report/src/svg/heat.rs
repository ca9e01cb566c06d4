//! A heat map: rectangles in a few shades, with lines over them.

use super::{
    Axis, BOTTOM, Caption, HEIGHT, LEFT, Line, RIGHT, Slice, TOP, WIDTH, drawn_lines, escape, frame, open, spot,
};

/// A rectangle in the units of the axes.
pub(crate) struct Cell {
    /// From left to right.
    pub(crate) x: (f64, f64),
    /// From the bottom up.
    pub(crate) y: (f64, f64),
    /// Index of the shade.
    pub(crate) shade: usize,
}

/// Cells of one shade are one path, which keeps the page small. `hints`: what a column says when pointed at; of a slice only `x` and `hint`
/// count.
pub(crate) fn heat(caption: &Caption, x: &Axis, y: &Axis, cells: &[Cell], lines: &[Line], hints: &[Slice]) -> String {
    let mut out = open(caption, HEIGHT);
    out.push_str(&frame(x, y));
    let shades = cells.iter().map(|cell| cell.shade + 1).max().unwrap_or(0);
    for shade in 0..shades {
        let corners = cells.iter().filter(|cell| cell.shade == shade).map(|cell| {
            let ((left, bottom), (right, top)) = (spot(x, y, cell.x.0, cell.y.0), spot(x, y, cell.x.1, cell.y.1));
            format!("M{left:.1} {top:.1}H{right:.1}V{bottom:.1}H{left:.1}Z")
        });
        let corners: String = corners.collect();
        if !corners.is_empty() {
            out.push_str(&format!("<path class=\"heat h{shade}\" d=\"{corners}\"/>"));
        }
    }
    out.push_str(&drawn_lines(x, y, lines));
    let wide = (WIDTH - LEFT - RIGHT) / hints.len().max(1) as f64;
    for column in hints {
        let at = spot(x, y, column.x, y.from).0;
        out.push_str(&format!(
            "<rect class=\"touch\" x=\"{:.1}\" y=\"{TOP}\" width=\"{wide:.1}\" height=\"{}\"><title>{}</title></rect>",
            at,
            HEIGHT - TOP - BOTTOM,
            escape(&column.hint)
        ));
    }
    out + "</svg>"
}
