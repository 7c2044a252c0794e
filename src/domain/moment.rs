//! A look at the clock, and whether to believe it.

use jiff::Timestamp;

/// What a look at the clock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The time, as this process believes it.
    pub now: Timestamp,
    /// False: the clock has just jumped, or is off from the API server's. Nothing irreversible
    /// may be done then.
    pub sure: bool,
}
