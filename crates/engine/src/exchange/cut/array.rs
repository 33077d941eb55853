//! Tracks the elements of a JSON array as it passes.

/// The position in an array.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ArrayProgress {
    /// The number of open brackets and braces, including the array's own.
    depth: u32,
    in_string: bool,
    is_escaped: bool,
    has_elements: bool,
    /// Whether a comma has followed the last element.
    after_comma: bool,
    /// Whether the array's own bracket has closed.
    is_over: bool,
}

impl ArrayProgress {
    /// Whether the position is between two elements.
    pub fn is_between(self) -> bool {
        self.depth == 1 && !self.in_string
    }

    pub fn is_over(self) -> bool {
        self.is_over
    }

    /// Appends another element and closes the array.
    pub fn ending(self, element: &[u8]) -> Vec<u8> {
        let separator: &[u8] = if self.has_elements && !self.after_comma { b"," } else { b"" };
        [separator, element, b"]"].concat()
    }

    /// Splits the bytes at the end of the current element. The first part is empty between two elements.
    pub fn take_element<'a>(&mut self, bytes: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        let mut begin = 0;
        for (at, byte) in bytes.iter().enumerate() {
            let was_between = self.depth <= 1;
            self.step(*byte);
            let after = at.saturating_add(1);
            match (was_between, self.depth > 1) {
                (true, true) => begin = at,
                (true, false) => begin = after,
                (false, false) => {
                    let (element, rest) = bytes.split_at(after);
                    return (element.get(begin..).unwrap_or_default(), rest);
                }
                (false, true) => {}
            }
        }
        (bytes.get(begin..).unwrap_or_default(), &[])
    }

    fn step(&mut self, byte: u8) {
        if self.in_string {
            match byte {
                _ if std::mem::take(&mut self.is_escaped) => {}
                b'\\' => self.is_escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return;
        }
        match byte {
            b'"' => self.in_string = true,
            b'[' | b'{' => {
                (self.has_elements, self.after_comma) = (self.depth > 0, false);
                self.depth = self.depth.saturating_add(1);
            }
            b']' | b'}' => {
                self.depth = self.depth.saturating_sub(1);
                self.after_comma = false;
                self.is_over |= self.depth == 0;
            }
            b',' => self.after_comma = true,
            _ => {}
        }
    }
}
