//! What is measured: each hot function once, in a form that both the timer and the instruction counter run.

mod base;
mod mail;
mod router;
mod shard;
mod wire;

/// One measurement. A run does the same work each time, so that counts can be compared.
pub struct Case {
    /// `part/what`.
    pub name: &'static str,
    /// What a run does so often, by which its cost is divided.
    pub units: u32,
    prepare: Box<dyn FnMut()>,
    run: Box<dyn FnMut()>,
}

impl Case {
    /// Work that leaves everything as it was.
    fn plain(name: &'static str, units: u32, run: impl FnMut() + 'static) -> Self {
        Self { name, units, prepare: Box::new(|| {}), run: Box::new(run) }
    }

    /// Work on what `prepare` has laid out, which is not measured.
    fn prepared(name: &'static str, units: u32, prepare: impl FnMut() + 'static, run: impl FnMut() + 'static) -> Self {
        Self { name, units, prepare: Box::new(prepare), run: Box::new(run) }
    }

    /// Lays out what the next run works on.
    pub fn prepare(&mut self) {
        (self.prepare)();
    }

    /// Called after each counted run: the instruction counter writes down what it has, and starts from zero.
    #[allow(dead_code, reason = "the timer needs no such thing")]
    #[inline(never)]
    pub fn written_down(&self) {
        std::hint::black_box(self.units);
    }

    /// The work once, so that caches, tables and branches are as they are under way.
    #[allow(dead_code, reason = "the timer warms up by itself")]
    pub fn warm_up(&mut self) {
        self.prepare();
        (self.run)();
    }

    /// The work. Not inlined: the instruction counter is switched on while this function runs.
    #[inline(never)]
    pub fn measured_run(&mut self) {
        (self.run)();
    }
}

/// How a case is made; only one that is asked for costs anything.
pub type Make = fn() -> Case;

/// All of them.
pub fn all() -> Vec<Make> {
    [base::CASES, wire::CASES, mail::CASES, router::CASES, shard::CASES].concat()
}
