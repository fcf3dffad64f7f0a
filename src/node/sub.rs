//! `kittiwake sub`.
use super::cli::{Failure, SubArguments};
pub(super) fn run(_arguments: &SubArguments) -> Result<(), Failure> {
    Err(Failure::Runtime("not built".to_owned()))
}
