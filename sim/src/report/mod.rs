//! A verdict for people: [`mod@text`] for a terminal, one line per event, and [`mod@html`], one page for a
//! browser that needs no other file and no network. Neither checks anything: both show the story and
//! point at the events that prove what the checkers found.
//!
//! Reading order: `line` (an event in words, the same for both) · `proof` (which events a
//! violation rests on) · `text` · `html` (the run as data, put into the page of the folder `page`:
//! `page.html`, `style.css`, and the scripts in the order in which they run: `model.js`, `view.js`,
//! `draw.js`, `panel.js`, `main.js`).

mod html;
mod line;
mod proof;
#[cfg(test)]
mod sample;
mod text;

pub use html::html;
pub use line::between;
pub use text::text;
