//! Switches that take single mends of the protocol out again, in debug builds only: the simulator shows that
//! it finds what each of them mends.

/// A mend, named by what goes wrong without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mend {
    /// Without it nobody looks again at messages that the server delivers no more.
    StuckMessages,
    /// Without it every delivery counts as the death of a worker.
    OnlyDeathsCount,
    /// Without it a snapshot that no message can hold is tried for ever.
    TooLargeEnds,
    /// Without it a run whose job was never queued waits as long as any job of its tag does.
    OwnMessage,
    /// Without it several gateways give one delivery back, and the second NAK hits the next delivery.
    OneRescue,
    /// Without it a worker that stood still gives back what another worker has got since.
    OnlyHeldGoesBack,
}

impl Mend {
    pub const ALL: [Mend; 6] = [
        Mend::StuckMessages,
        Mend::OnlyDeathsCount,
        Mend::TooLargeEnds,
        Mend::OwnMessage,
        Mend::OneRescue,
        Mend::OnlyHeldGoesBack,
    ];
}

#[cfg(debug_assertions)]
thread_local! {
    static TAKEN_OUT: std::cell::Cell<Option<Mend>> = const { std::cell::Cell::new(None) };
}

/// Takes a mend out, for the decisions of this thread.
#[cfg(debug_assertions)]
pub fn take_out(mend: Option<Mend>) {
    TAKEN_OUT.set(mend);
}

#[cfg(debug_assertions)]
pub(super) fn is_in(mend: Mend) -> bool {
    TAKEN_OUT.get() != Some(mend)
}

#[cfg(not(debug_assertions))]
pub(super) const fn is_in(_: Mend) -> bool {
    true
}
