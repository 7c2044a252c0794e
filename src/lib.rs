pub mod clock;
pub mod embedded;
