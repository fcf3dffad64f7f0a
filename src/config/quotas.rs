//! `limits.quotas`: what each app may have at most.

use super::layers::one_line;
use super::{ConfigError, app_ids};
use crate::limits::{QUOTAS_MAX, RATE_MAX};
use crate::shard::Quota;

/// Reads the list; by the number of the app, empty where nobody has a quota.
pub(super) fn parse(entries: &[String], apps: &[String]) -> Result<Vec<Quota>, ConfigError> {
    if entries.len() > QUOTAS_MAX {
        return Err(error(format!("{} are too many", entries.len())));
    }
    let mut quotas = vec![Quota::default(); if entries.is_empty() { 0 } else { apps.len() }];
    for entry in entries {
        let wrong = || error(format!("`{}` is not one", one_line(entry)));
        let (names, (what, number)) =
            entry.split_once(':').and_then(|(names, rest)| Some((names, rest.split_once('=')?))).ok_or_else(wrong)?;
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let named = app_ids(names, apps).map_err(error)?;
        for (index, quota) in quotas.iter_mut().enumerate() {
            if named.as_ref().is_some_and(|ids| ids.iter().all(|id| usize::from(id.0) != index)) {
                continue;
            }
            match what {
                "connections" => drop(quota.connections.get_or_insert(number)),
                "subscriptions" => drop(quota.subscriptions.get_or_insert(number)),
                "stored_bytes" => drop(quota.stored_bytes.get_or_insert(number)),
                "push_rate" => {
                    let rate = u32::try_from(number).ok().filter(|rate| (1..=RATE_MAX).contains(rate));
                    quota.push_rate.get_or_insert(rate.ok_or_else(wrong)?);
                }
                _ => return Err(wrong()),
            }
        }
    }
    Ok(quotas)
}

fn error(wrong: String) -> ConfigError {
    let allowed = format!(
        "at most {QUOTAS_MAX} entries APPS:WHAT=NUMBER, such as default+shop:connections=1000 or *:stored_bytes=1000000000; \
         WHAT is connections, subscriptions, push_rate (1 to {RATE_MAX}) or stored_bytes"
    );
    ConfigError::new("limits.quotas", wrong, allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(entries: &[&str]) -> Result<Vec<Quota>, ConfigError> {
        let entries: Vec<String> = entries.iter().map(|&entry| entry.to_owned()).collect();
        parse(&entries, &["default".into(), "shop".into()])
    }

    #[test]
    fn the_first_entry_that_names_an_app_decides_and_no_entry_is_no_quota() {
        assert_eq!(parsed(&[]), Ok(Vec::new()));
        let quotas = parsed(&["shop:connections=5", "*:connections=7", "*:push_rate=9", "default:stored_bytes=0"]);
        let default = Quota { connections: Some(7), push_rate: Some(9), stored_bytes: Some(0), ..Quota::default() };
        let shop = Quota { connections: Some(5), push_rate: Some(9), ..Quota::default() };
        assert_eq!(quotas, Ok(vec![default, shop]));
    }

    #[test]
    fn what_is_no_quota_is_refused_in_one_line() {
        for entry in ["", "shop", "shop:connections", "shop:connections=", "shop:connections=-1", "shop:bytes=1"] {
            let error = parsed(&[entry]).expect_err("it is none").to_string();
            assert!(error.starts_with("limits.quotas: ") && !error.contains('\n'), "{error}");
        }
        assert!(parsed(&["other:connections=1"]).is_err() && parsed(&["shop:push_rate=0"]).is_err());
        assert!(parsed(&["shop:push_rate=1000000001"]).is_err());
        assert!(parsed(&vec!["*:connections=1"; QUOTAS_MAX]).is_ok());
        assert!(parsed(&vec!["*:connections=1"; QUOTAS_MAX + 1]).is_err());
    }
}
