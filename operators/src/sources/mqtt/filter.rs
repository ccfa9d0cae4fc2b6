//! Topic filters: which topics match, and what their wildcards stand for.

use std::fmt;

/// The greatest number of levels of a filter; subscriptions are looked up level by level.
const MAX_LEVELS: usize = 128;

/// A topic filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    levels: Vec<Level>,
}

/// One level of a filter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Level {
    /// Just this text.
    Text(Box<str>),
    /// `+`: any one level.
    One,
    /// `#`: this and all that follow, or none.
    Rest,
}

impl Filter {
    /// Reads a filter.
    ///
    /// # Errors
    /// What is wrong, for the user.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > usize::from(u16::MAX) || text.contains('\0') {
            return Err("a topic filter has from 1 to 65535 bytes, none of them zero".into());
        }
        let count = text.split('/').count();
        if count > MAX_LEVELS {
            return Err(format!("a topic filter has at most {MAX_LEVELS} levels, this has {count}"));
        }
        let levels = text.split('/').enumerate().map(|(index, level)| match level {
            "+" => Ok(Level::One),
            "#" if index + 1 == count => Ok(Level::Rest),
            "#" => Err("`#` stands for all levels that follow, so nothing can come after it".to_string()),
            _ if level.contains(['+', '#']) => {
                Err(format!("`{level}` mixes text and a wildcard: `+` and `#` stand for whole levels"))
            }
            _ => Ok(Level::Text(level.into())),
        });
        Ok(Self { levels: levels.collect::<Result<_, _>>()? })
    }

    /// Its levels.
    pub fn levels(&self) -> &[Level] {
        &self.levels
    }

    /// How many wildcards it has.
    pub fn wildcards(&self) -> usize {
        self.levels.iter().filter(|level| !matches!(level, Level::Text(_))).count()
    }

    /// What the wildcards stand for in a topic; `None` if it does not match.
    pub fn captures<'t>(&self, topic: &'t str) -> Option<Vec<&'t str>> {
        // Topics of the broker itself are not for wildcards (MQTT 5, 4.7.2).
        if topic.starts_with('$') && !matches!(self.levels.first(), Some(Level::Text(_))) {
            return None;
        }
        let (mut captures, mut rest) = (Vec::new(), Some(topic));
        for level in &self.levels {
            if *level == Level::Rest {
                captures.push(rest.unwrap_or_default());
                return Some(captures);
            }
            let (found, after) = match rest?.split_once('/') {
                Some((found, after)) => (found, Some(after)),
                None => (rest?, None),
            };
            match level {
                Level::Text(text) if **text != *found => return None,
                Level::Text(_) => {}
                _ => captures.push(found),
            }
            rest = after;
        }
        rest.is_none().then_some(captures)
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, level) in self.levels.iter().enumerate() {
            let text = match level {
                Level::Text(text) => text,
                Level::One => "+",
                Level::Rest => "#",
            };
            write!(f, "{}{text}", if index == 0 { "" } else { "/" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_match_and_say_what_wildcards_stand_for() {
        let cases: [(&str, &str, Option<&[&str]>); 16] = [
            ("devices/+/reading", "devices/d1/reading", Some(&["d1"])),
            ("devices/+/reading", "devices/d1/x/reading", None),
            ("devices/+/reading", "devices/d1", None),
            ("devices/+/reading", "devices//reading", Some(&[""])),
            ("a/#", "a/b/c", Some(&["b/c"])),
            ("a/#", "a", Some(&[""])),
            ("a/#", "a/", Some(&[""])),
            ("a/#", "ab", None),
            ("+/b/#", "a/b/c/d", Some(&["a", "c/d"])),
            ("#", "a/b", Some(&["a/b"])),
            ("#", "$SYS/x", None),
            ("+/x", "$SYS/x", None),
            ("$SYS/#", "$SYS/x", Some(&["x"])),
            ("/+", "/a", Some(&["a"])),
            ("+", "/a", None),
            ("A/b", "a/b", None),
        ];
        for (filter, topic, expected) in cases {
            let filter = Filter::parse(filter).expect("a filter");
            assert_eq!(filter.captures(topic).as_deref(), expected, "{filter} on {topic}");
        }
    }

    #[test]
    fn wrong_filters_are_refused() {
        for wrong in ["", "a/#/b", "a#", "a/b+", "+a/b", "a/++", "a\0b", &"a/".repeat(200), &"a".repeat(70_000)] {
            assert!(Filter::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(
            Filter::parse("+/a/#").map(|filter| (filter.wildcards(), filter.to_string())),
            Ok((2, "+/a/#".into()))
        );
    }
}
