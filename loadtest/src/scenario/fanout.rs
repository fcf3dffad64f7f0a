use crate::Failure;
use crate::cli::Fanout;
use crate::report::Report;
use crate::rig::Rig;
use kittiwake::io::Driver;
pub fn run<D: Driver>(_rig: Rig<D>, _arguments: &Fanout) -> Result<Report, Failure> {
    Err("not built".into())
}
