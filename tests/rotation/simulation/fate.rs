//! What befalls a world: edits, vandals, outages, clocks.

use super::dice::Dice;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// A process dies, perhaps amid a visit, and is started again.
    Kill,
    /// A replica alone loses its way to the API server, for so many minutes.
    CutOff(i64),
    /// The API server is away, for so many minutes.
    Outage(i64),
    /// A replica's clock jumps by so many seconds, and is put right after two hours.
    Jump(i64),
    /// The annotation asks for a rotation.
    Request,
    /// Another interval, in hours.
    Interval(i64),
    /// The other algorithm.
    Algorithm,
    /// A retired key is withdrawn, with a grace of so many minutes; it is taken back a day later.
    WithdrawRetired(i64),
    /// The active key is withdrawn: with grace 0, or one hour.
    WithdrawActive(bool),
    /// `signWith` names a key that is retired and published, for a day.
    SignWith,
    /// The issuer's ConfigMap, the ring's, or the status is gone.
    LoseIssuerMap,
    LoseRingMap,
    LoseStatus,
    /// A retired key's Secret, or a next one's, is gone.
    LoseIdleSecret,
    /// The active key's Secret is gone.
    LoseActiveSecret,
}

pub const JUMPS: [i64; 6] = [300, -300, 86_400, -86_400, 31_536_000, -31_536_000];

impl Fate {
    pub fn drawn(dice: &mut Dice) -> Self {
        match dice.within(0, 20) {
            0..=3 => Self::Kill,
            4 => Self::CutOff(dice.within(5, 200)),
            5 => Self::Outage(dice.within(1, 45)),
            6 | 7 => Self::Jump(*dice.pick(&JUMPS)),
            8 | 9 => Self::Request,
            10 => Self::Interval(dice.within(72, 500)),
            11 => Self::Algorithm,
            12 => Self::WithdrawRetired(dice.within(0, 300)),
            13 => Self::WithdrawActive(dice.once_in(2)),
            14 => Self::SignWith,
            15 => Self::LoseIssuerMap,
            16 => Self::LoseRingMap,
            17 => Self::LoseStatus,
            18 => Self::LoseIdleSecret,
            _ => Self::LoseActiveSecret,
        }
    }
}
