//! The files under `topics/`, compiled in: what every installation's topics must be.

use crate::kernel::stream::Namespace;
use crate::log::kafka::topic::{self, Declared, File};

/// Every file, in the order in which `topics plan` shows them.
pub const FILES: [File<'static>; 3] = [
    File { path: "topics/kinds.yaml", text: include_str!("../topics/kinds.yaml") },
    File { path: "topics/banking.yaml", text: include_str!("../topics/banking.yaml") },
    File { path: "topics/millrace.yaml", text: include_str!("../topics/millrace.yaml") },
];

/// Every topic of an installation, by its full name.
///
/// # Errors
/// A file is wrong: a test sees to it that none is.
pub fn declared(namespace: &Namespace) -> Result<Vec<Declared>, topic::Error> {
    topic::parse(&FILES, namespace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::stream::Kind;
    use crate::log::kafka::client::RECORD_BYTES_MAX;

    #[test]
    fn the_files_declare_safe_topics() {
        let namespace = Namespace::new("test1").unwrap();
        let topics = declared(&namespace).unwrap();
        let names: Vec<_> = topics.iter().map(|topic| topic.name.as_str()).collect();
        assert!(names.contains(&"test1.banking.account.dead-letters"), "{names:?}");
        assert!(names.contains(&"test1.millrace.schemas"), "{names:?}");
        for topic in &topics {
            let limit: usize = topic.config("max.message.bytes").unwrap().parse().unwrap();
            // What a handler sends must not be refused by the broker: room for the batch's head.
            if topic.kind != Some(Kind::Commands) {
                assert!(limit > RECORD_BYTES_MAX + 1_024, "{}", topic.name);
            }
        }
    }
}
