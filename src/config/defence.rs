//! `limits.enforce` and what follows it: rates, bans, and who is never refused.

use super::ConfigError;
use super::layers::{Values, one_line};
use crate::auth::BanRule;
use crate::base::bucket::Rate;
use crate::base::prefix::Prefix;
use crate::limits::{ALLOWED_RANGES_MAX, PUBLISH_BURST_SECONDS, RATE_BURST_SECONDS};
use crate::shard::{Defence, Enforce, OverPublish};

pub(super) fn parse(values: &Values) -> Result<Defence, ConfigError> {
    let rate = |name, burst_seconds| {
        let per_second = u32::try_from(values.integer(name)).expect("the table bounds every rate to 32 bits");
        (per_second > 0).then_some(Rate { per_second, burst_seconds })
    };
    Ok(Defence {
        enforce: match values.text("limits.enforce") {
            "alert" => Enforce::Alert,
            "off" => Enforce::Off,
            _ => Enforce::Refuse,
        },
        allow: allow(values.list("limits.allow"))?,
        connects: rate("limits.connect_rate", RATE_BURST_SECONDS),
        user_connects: rate("limits.user_connect_rate", RATE_BURST_SECONDS),
        publishes: rate("limits.publish_rate", PUBLISH_BURST_SECONDS),
        publish_bytes: rate("limits.publish_bytes", PUBLISH_BURST_SECONDS),
        over_publish: match values.text("limits.publish_over") {
            "close" => OverPublish::Close,
            _ => OverPublish::Pause,
        },
        bans: BanRule {
            weight: u32::try_from(values.integer("limits.ban_weight")).expect("the table bounds it to 32 bits"),
            time: values.duration("limits.ban_time"),
            time_max: values.duration("limits.ban_time_max").max(values.duration("limits.ban_time")),
        },
    })
}

fn allow(list: &[String]) -> Result<Vec<Prefix>, ConfigError> {
    let error = |wrong: String| {
        let allowed = format!("at most {ALLOWED_RANGES_MAX} addresses and ranges, such as 10.0.0.0/8 or 2001:db8::1");
        ConfigError::new("limits.allow", wrong, allowed)
    };
    if list.len() > ALLOWED_RANGES_MAX {
        return Err(error(format!("{} are too many", list.len())));
    }
    let one = |text: &String| text.parse().map_err(|_| error(format!("`{}` is not one", one_line(text))));
    list.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(file: &str) -> Result<Defence, ConfigError> {
        let mut values = Values::defaults();
        values.lay_file(file)?;
        parse(&values)
    }

    #[test]
    fn the_defaults_are_generous_and_let_this_machine_alone() {
        let defence = with("").expect("defaults");
        let allow = vec!["127.0.0.0/8".parse().expect("a range"), "::1".parse().expect("an address")];
        assert_eq!(defence, Defence { allow, ..Defence::default() });
    }

    #[test]
    fn a_rate_of_none_is_not_watched_and_the_longest_ban_is_no_shorter_than_the_first() {
        let file = "[limits]\nconnect_rate = 0\npublish_rate = 5\nban_time = \"2h\"\nban_time_max = \"1h\"\n\
                    enforce = \"alert\"\npublish_over = \"close\"\nallow = []";
        let defence = with(file).expect("it is valid");
        assert_eq!(defence.connects, None);
        assert_eq!(defence.publishes, Some(Rate { per_second: 5, burst_seconds: 1 }));
        assert_eq!(defence.bans.time_max, defence.bans.time);
        assert_eq!((defence.enforce, defence.over_publish), (Enforce::Alert, OverPublish::Close));
        assert!(defence.allow.is_empty());
    }

    #[test]
    fn what_is_no_range_is_refused_in_one_line() {
        for entry in ["", "localhost", "10.0.0.1/8", "10.0.0.0/33"] {
            let error = with(&format!("[limits]\nallow = [\"{entry}\"]")).expect_err("it is none").to_string();
            assert!(error.starts_with("limits.allow: ") && !error.contains('\n'), "{error}");
        }
    }
}
