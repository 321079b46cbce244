//! Reports: rows for the terminal, for the page in the repository, and as JSON.

mod book;
mod page;
mod row;

pub(crate) use book::Book;
pub(crate) use row::{Aim, Line, Row, figure};
