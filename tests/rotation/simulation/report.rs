//! What happened in a world.

#[derive(Default)]
pub struct Report {
    pub trace: Vec<String>,
    pub rotations: u64,
    pub tokens: u64,
    pub verified: u64,
    pub faults: u64,
    pub kills: u64,
    pub calls: u64,
    pub excused: u64,
}

impl Report {
    pub fn add(&mut self, other: &Self) {
        self.rotations += other.rotations;
        self.tokens += other.tokens;
        self.verified += other.verified;
        self.faults += other.faults;
        self.kills += other.kills;
        self.calls += other.calls;
        self.excused += other.excused;
    }

    pub fn told(&self) -> String {
        format!(
            "{} keys began to sign, {} calls with {} faults, {} kills, {} tokens, {} verifications, {} of them excused by an emergency",
            self.rotations,
            self.calls,
            self.faults,
            self.kills,
            self.tokens,
            self.verified,
            self.excused
        )
    }

    /// The end of the trace.
    pub fn tail(&self) -> String {
        let from = self.trace.len().saturating_sub(60);
        self.trace[from..].join("\n")
    }
}
