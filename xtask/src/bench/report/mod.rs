//! Reports: figures as they were measured, and the sentences, tables and targets around them.

mod book;
mod closed;
mod figures;
mod markdown;
mod page;
mod runs;
mod sections;
mod targets;

pub(crate) use book::Book;
pub(crate) use figures::{
    Alone, Answers, ClosedLoop, ClosedSide, CpuShares, Failover, Figures, Growth, HalfRate, Memory,
    OpenSide, Overload, OverloadCost, Phase, Return, Row, StoreState,
};
