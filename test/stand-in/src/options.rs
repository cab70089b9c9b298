//! The values of QEMU's options: `type,key=value,…`, and what their types admit. Pure.

/// `key=value` pairs in the order in which they were written.
pub struct Options {
    /// The option as the user wrote it, for errors.
    written: String,
    pairs: Vec<(String, String)>,
}

/// What a property can be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    Flag,
    /// A whole number up to this.
    Number(u64),
    /// A number with a unit: `96M`.
    Size,
    Mac,
    OneOf(&'static [&'static str]),
}

/// A property's name and type.
pub type Property = (&'static str, Kind);

impl Options {
    /// Splits a value at its commas; a doubled one is a comma of the text (qemu(1), "-drive").
    ///
    /// `implied` is the key of a first word without `=`; other words without it are flags that are on.
    pub fn parse(option: &str, value: &str, implied: &str) -> Self {
        let mut pairs = Vec::new();
        for (index, word) in split(value).into_iter().enumerate() {
            match word.split_once('=') {
                Some((key, text)) => pairs.push((key.to_owned(), text.to_owned())),
                None if index == 0 => pairs.push((implied.to_owned(), word)),
                None => pairs.push((word, "on".to_owned())),
            }
        }
        Self { written: format!("{option} {value}"), pairs }
    }

    /// An error about this option.
    pub fn wrong<T>(&self, problem: impl std::fmt::Display) -> Result<T, String> {
        Err(format!("{}: {problem}", self.written))
    }

    /// The last value of a key, which is the one that counts.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs.iter().rfind(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The value of a key that must be there.
    pub fn need(&self, key: &str) -> Result<&str, String> {
        self.get(key).map_or_else(|| self.wrong(format_args!("Parameter '{key}' is missing")), Ok)
    }

    /// Whether a flag is on; absent is off.
    pub fn is_on(&self, key: &str) -> bool {
        self.get(key).is_some_and(|value| flag(value) == Some(true))
    }

    /// The id, which most options need; QEMU admits letters, digits and `-._`, a letter first.
    pub fn id(&self) -> Result<String, String> {
        let id = self.need("id")?;
        let mut letters = id.chars();
        if letters.next().is_some_and(|c| c.is_ascii_alphabetic()) && letters.all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)) {
            return Ok(id.to_owned());
        }
        self.wrong("Parameter 'id' expects an identifier")
    }

    /// Refuses a key that is none of `properties`, and a value that its type does not admit.
    pub fn check(&self, properties: &[&[Property]]) -> Result<(), String> {
        for (key, value) in &self.pairs {
            let Some((_, kind)) = properties.iter().copied().flatten().find(|(name, _)| name == key) else {
                return self.wrong(format_args!("Invalid parameter '{key}'"));
            };
            if !kind.admits(value) {
                return self.wrong(format_args!("Parameter '{key}' does not accept value '{value}'"));
            }
        }
        Ok(())
    }
}

impl Kind {
    fn admits(self, value: &str) -> bool {
        match self {
            Self::Text => true,
            Self::Flag => flag(value).is_some(),
            Self::Number(most) => number(value).is_some_and(|found| found <= most),
            Self::Size => size(value).is_some(),
            Self::Mac => is_mac(value),
            Self::OneOf(values) => values.contains(&value),
        }
    }
}

fn split(value: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut letters = value.chars().peekable();
    while let Some(letter) = letters.next() {
        let doubled = letter == ',' && letters.next_if_eq(&',').is_some();
        match words.last_mut() {
            Some(word) if letter != ',' || doubled => word.push(letter),
            _ => words.push(String::new()),
        }
    }
    words
}

fn flag(value: &str) -> Option<bool> {
    match value {
        "on" | "yes" | "true" | "y" => Some(true),
        "off" | "no" | "false" | "n" => Some(false),
        _ => None,
    }
}

/// A whole number, decimal or with `0x`.
pub fn number(value: &str) -> Option<u64> {
    match value.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None if value.bytes().all(|byte| byte.is_ascii_digit()) => value.parse().ok(),
        None => None,
    }
}

/// A size in bytes: digits and at most one of the units B, K, M, G, T, P, E. Without a unit the number is returned as it is.
pub fn size(value: &str) -> Option<u64> {
    let (digits, unit) = match value.char_indices().last()? {
        (at, letter) if letter.is_ascii_alphabetic() => (&value[..at], letter.to_ascii_uppercase()),
        _ => (value, 'B'),
    };
    let power = "BKMGTPE".find(unit)?;
    number(digits)?.checked_mul(1024u64.checked_pow(u32::try_from(power).ok()?)?)
}

fn is_mac(value: &str) -> bool {
    let digits: Vec<&str> = value.split([':', '-']).collect();
    digits.len() == 6 && digits.iter().all(|part| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doubled_comma_belongs_to_the_value() {
        let options = Options::parse("-name", "a,,b,guest=c,,,on", "guest");
        assert_eq!(options.pairs[0], ("guest".to_owned(), "a,b".to_owned()));
        assert_eq!((options.get("guest"), options.get("on")), (Some("c,"), Some("on")));
    }

    #[test]
    fn sizes_have_one_unit_and_fit_64_bits() {
        assert_eq!(["0", "96M", "1g", "16E", "96Q", "-1", "", "M", "1MM"].map(size), {
            [Some(0), Some(96 << 20), Some(1 << 30), None, None, None, None, None, None]
        });
    }

    #[test]
    fn a_mac_has_six_parts_of_two_digits() {
        assert!(is_mac("02:00:00:00:00:aF") && is_mac("02-00-00-00-00-01"));
        assert!(!is_mac("02:00:00:00:00") && !is_mac("zz:00:00:00:00:00") && !is_mac("2:0:0:0:0:0"));
    }
}
