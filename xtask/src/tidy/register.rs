//! The private register: words that name nothing, in comments and documents.
//!
//! A sentence has a noun of the domain as its subject and says its numbers. The words below stand
//! where such a noun or number is missing, so they are not for the repository.

use crate::tidy::{Complaint, Source};

/// Words and pairs of words, in lower case.
const PRIVATE: [&str; 13] = [
    "whoever",
    "whomever",
    "whatever",
    "whichever",
    "somebody",
    "nobody",
    "anybody",
    "everybody",
    "so many",
    "so much",
    "so few",
    "so long",
    "all sorts",
];

/// Every private word in the comments of a program, or in a document.
pub(crate) fn check(source: &Source) -> Vec<Complaint> {
    let of_line: fn(&str) -> &str = match source.path.rsplit_once('.') {
        Some((_, "rs" | "proto")) => comment,
        Some((_, "md")) => |line| line,
        _ => return Vec::new(),
    };
    let mut complaints = Vec::new();
    let mut quoted = false;
    for (at, line) in source.text.lines().enumerate() {
        // What a document quotes, a program has printed.
        quoted ^= source.is("md") && line.trim_start().starts_with("```");
        if quoted {
            continue;
        }
        let text = of_line(line).to_lowercase();
        complaints.extend(PRIVATE.iter().filter(|word| stands_in(&text, word)).map(|word| {
            let what = format!("`{word}`: say which thing, or how many (docs/glossary.md)");
            Complaint::at(&source.path, at + 1, what)
        }));
    }
    complaints
}

/// The comment of a line, or nothing. A `//` behind a quotation mark may be part of a literal.
fn comment(line: &str) -> &str {
    match line.split_once("//") {
        Some((code, comment)) if !code.contains('"') => comment,
        _ => "",
    }
}

fn stands_in(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + word.len()..]);
        !before.ends_with(char::is_alphanumeric) && !after.starts_with(char::is_alphanumeric)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(path: &str, text: &str) -> usize {
        check(&Source { path: path.into(), text: text.into() }).len()
    }

    #[test]
    fn a_private_word_is_caught_in_comments_and_documents() {
        for word in PRIVATE {
            assert_eq!(complaints("a.rs", &format!("/// For {word} of it.\n")), 1, "{word}");
            assert_eq!(complaints("a.rs", &format!("go(); // {word}\n")), 1, "{word}");
            assert_eq!(complaints("a.proto", &format!("// {word}\n")), 1, "{word}");
            assert_eq!(complaints("a.md", &format!("It is for {word}.\n")), 1, "{word}");
        }
        assert_eq!(complaints("a.md", "Nobody waits.\n"), 1, "at the start of a sentence");
    }

    #[test]
    fn code_and_quoted_output_are_not_comments() {
        assert_eq!(complaints("a.rs", "say(\"nobody\"); nobody();\n"), 0);
        assert_eq!(complaints("a.rs", "say(\"http://nobody\");\n"), 0);
        assert_eq!(complaints("a.md", "```\nnobody\n```\n"), 0);
        assert_eq!(complaints("a.md", "busybody nobodys\n"), 0);
        assert_eq!(complaints("a.svg", "nobody\n"), 0);
    }
}
