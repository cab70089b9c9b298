//! Finding the beginning of a session on the stream port: everything before the line `volant-stream <nonce>` is left over from
//! sessions that died, also half a frame without a line end. Constant memory. Pure.

/// The line that begins a session with this nonce, in either direction.
pub fn sync_line(nonce: &str) -> String {
    format!("volant-stream {nonce}\n")
}

/// Searches a byte stream for one [`sync_line`] (Knuth–Morris–Pratt, so no byte is kept).
pub struct SyncScanner {
    pattern: Vec<u8>,
    fallback: Vec<usize>,
    matched: usize,
}

impl SyncScanner {
    /// A scanner for the session with this nonce.
    pub fn new(nonce: &str) -> Self {
        let pattern = sync_line(nonce).into_bytes();
        let mut fallback = vec![0; pattern.len()];
        let mut length = 0;
        for at in 1..pattern.len() {
            while length > 0 && pattern[at] != pattern[length] {
                length = fallback[length - 1];
            }
            length += usize::from(pattern[at] == pattern[length]);
            fallback[at] = length;
        }
        Self { pattern, fallback, matched: 0 }
    }

    /// Feeds bytes. When they complete the line, returns how many of them belong to it or to what came before: the rest is HTTP/2.
    pub fn feed(&mut self, bytes: &[u8]) -> Option<usize> {
        for (at, &byte) in bytes.iter().enumerate() {
            while self.matched > 0 && self.pattern[self.matched] != byte {
                self.matched = self.fallback[self.matched - 1];
            }
            self.matched += usize::from(self.pattern[self.matched] == byte);
            if self.matched == self.pattern.len() {
                self.matched = 0;
                return Some(at + 1);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn scan(nonce: &str, bytes: &[u8], size: usize) -> Option<Vec<u8>> {
        let mut scanner = SyncScanner::new(nonce);
        let mut fed = 0;
        for chunk in bytes.chunks(size) {
            if let Some(used) = scanner.feed(chunk) {
                return Some(bytes[fed + used..].to_vec());
            }
            fed += chunk.len();
        }
        None
    }

    #[test]
    fn golden_streams_begin_where_they_say_however_they_are_cut() {
        let cases: Vec<Value> = serde_json::from_str(include_str!("../../golden/stream-sync.json")).expect("golden");
        assert!(cases.len() >= 5);
        for case in &cases {
            let bytes = unhex(case["received_hex"].as_str().expect("hex"));
            let expected = case["rest_hex"].as_str().map(unhex);
            for size in 1..=bytes.len() {
                assert_eq!(scan(case["nonce"].as_str().expect("nonce"), &bytes, size), expected, "{} cut by {size}", case["name"]);
            }
        }
    }

    fn unhex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
    }
}
