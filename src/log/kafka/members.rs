//! Who is in a group, as the brokers tell it: the group's description -> which member owns what.

use rdkafka::groups::GroupMemberInfo;
use serde::Serialize;

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Owner {
    /// What the process calls itself: `millrace-<pid>@<HTTP address>`.
    pub instance: String,
    /// Where the brokers see it.
    pub host: String,
}

impl Owner {
    /// Where the process answers HTTP, if it has said so. An address that stands for all of its
    /// machine's is that of the machine as the brokers see it.
    #[must_use]
    pub fn http_addr(&self) -> Option<String> {
        let (_, addr) = self.instance.rsplit_once('@')?;
        let (host, port) = addr.rsplit_once(':')?;
        let host = if ["0.0.0.0", "[::]"].contains(&host) { self.host.as_str() } else { host };
        Some(format!("{host}:{port}"))
    }
}

/// A partition and who owns it.
pub(super) type Owned = ((String, i32), Owner);

/// What a member owns.
pub(super) fn owned_by(member: &GroupMemberInfo) -> Vec<Owned> {
    let owner = Owner {
        instance: member.client_id().to_owned(),
        host: member.client_host().trim_start_matches('/').to_owned(),
    };
    let places = member.assignment().and_then(parse_assignment).unwrap_or_default();
    places.into_iter().map(|place| (place, owner.clone())).collect()
}

/// Reads an assignment in the form that all consumers share: version, topics, their partitions.
fn parse_assignment(bytes: &[u8]) -> Option<Vec<(String, i32)>> {
    let (_version, mut rest) = bytes.split_first_chunk::<2>()?;
    let mut places = Vec::new();
    for _ in 0..take_i32(&mut rest)? {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let length = usize::try_from(i16::from_be_bytes(*length)).ok()?;
        let (topic, after) = after.split_at_checked(length)?;
        rest = after;
        let topic = std::str::from_utf8(topic).ok()?;
        for _ in 0..take_i32(&mut rest)? {
            places.push((topic.to_owned(), take_i32(&mut rest)?));
        }
    }
    Some(places)
}

fn take_i32(bytes: &mut &[u8]) -> Option<i32> {
    let (number, rest) = bytes.split_first_chunk::<4>()?;
    *bytes = rest;
    Some(i32::from_be_bytes(*number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_is_read_and_nonsense_is_not() {
        let mut bytes = vec![0, 1, 0, 0, 0, 1, 0, 3];
        bytes.extend(b"a.b");
        bytes.extend([0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0]);
        let expected = vec![("a.b".to_owned(), 0), ("a.b".to_owned(), 3)];
        assert_eq!(parse_assignment(&bytes), Some(expected));
        for length in 0..bytes.len() - 4 {
            assert_eq!(parse_assignment(&bytes[..length]), None, "{length} bytes");
        }
    }

    #[test]
    fn an_address_for_all_is_that_of_the_machine() {
        let owner = |instance: &str| Owner { instance: instance.into(), host: "10.0.0.7".into() };
        let addr = |instance: &str| owner(instance).http_addr();
        assert_eq!(addr("millrace-1@127.0.0.1:80"), Some("127.0.0.1:80".to_owned()));
        assert_eq!(addr("millrace-1@0.0.0.0:80"), Some("10.0.0.7:80".to_owned()));
        assert_eq!(addr("somebody else"), None);
    }
}
