use crate::Failure;
use crate::cli::Hold;
use crate::report::Report;
use crate::rig::Rig;
use kittiwake::io::Driver;
pub fn run<D: Driver>(_rig: Rig<D>, _arguments: &Hold) -> Result<Report, Failure> {
    Err("not built".into())
}
