//! Whether a schema may follow earlier ones: schema, earlier schemas -> violations.

use apache_avro::Schema;
use apache_avro::error::CompatibilityError;
use apache_avro::schema_compatibility::{Compatibility, SchemaCompatibility};

use super::compiled::Level;

/// Why a schema may not follow an earlier one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which reader could not read which writer.
    pub direction: &'static str,
    /// The field, if it is about one.
    pub field: Option<String>,
    /// What is wrong.
    pub reason: String,
}

/// Checks a schema against one that came before it. With [`Level::FullTransitive`] each must read
/// what the other writes; with [`Level::Backward`] the newer one what the earlier one wrote.
#[must_use]
pub fn check(level: Level, earlier: &str, newer: &str) -> Vec<Violation> {
    let parse = |text: &str| Schema::parse_str(text).map_err(|error| error.to_string());
    let (earlier, newer) = match (parse(earlier), parse(newer)) {
        (Ok(earlier), Ok(newer)) => (earlier, newer),
        (Err(reason), _) | (_, Err(reason)) => {
            let direction = "cannot be parsed";
            return vec![Violation { direction, field: None, reason }];
        }
    };
    let mut violations = Vec::new();
    let mut read = |direction, writer: &Schema, reader: &Schema| {
        let outcome = SchemaCompatibility::can_read(writer, reader);
        match outcome {
            Ok(Compatibility::Full) => {}
            Ok(Compatibility::Partial) => {
                let reason = "the reader does not know every value of an enum or a union";
                violations.push(Violation { direction, field: None, reason: reason.to_owned() });
            }
            Err(error) => violations.push(explain(direction, &error)),
        }
    };
    read("the new version cannot read the old one's", &earlier, &newer);
    if level == Level::FullTransitive {
        read("the old version cannot read the new one's", &newer, &earlier);
    }
    violations
}

fn explain(direction: &'static str, error: &CompatibilityError) -> Violation {
    let (mut path, mut reason) = (Vec::new(), error);
    while let CompatibilityError::FieldTypeMismatch(field, inner) = reason {
        path.push(field.clone());
        reason = inner;
    }
    if let CompatibilityError::MissingDefaultValue(field) = reason {
        path.push(field.clone());
    }
    let text = reason.to_string();
    let text = text.rsplit_once("! ").map_or(text.as_str(), |(_, text)| text).to_owned();
    Violation { direction, field: (!path.is_empty()).then(|| path.join(".")), reason: text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::compiled;
    use crate::kernel::stream::Namespace;

    fn record(fields: &str) -> String {
        format!(r#"{{"type":"record","name":"R","fields":[{fields}]}}"#)
    }

    const AMOUNT: &str = r#"{"name":"amount",
        "type":{"type":"bytes","logicalType":"decimal","precision":28,"scale":8}}"#;

    #[test]
    fn every_kept_version_may_follow_the_ones_before_it() {
        for subject in compiled::subjects(&Namespace::default()) {
            for pair in subject.versions.windows(2) {
                let found = check(subject.level, pair[0].source.text, pair[1].source.text);
                assert_eq!(found, [], "{}", subject.name);
            }
        }
    }

    #[test]
    fn names_the_field_and_the_reason() {
        let old = record(AMOUNT);
        let required = record(&format!(r#"{AMOUNT},{{"name":"fee","type":"string"}}"#));
        let found = check(Level::FullTransitive, &old, &required);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].field.as_deref(), Some("fee"));
        assert!(found[0].reason.contains("must have a default"), "{:?}", found[0]);
        assert!(found[0].direction.starts_with("the new version"));
        let found = check(Level::FullTransitive, &required, &old);
        assert!(found[0].direction.starts_with("the old version"));
        assert_eq!(check(Level::Backward, &required, &old), []);
        let rescaled = record(&AMOUNT.replace(r#""scale":8"#, r#""scale":2"#));
        let found = check(Level::Backward, &old, &rescaled);
        assert_eq!(found[0].field.as_deref(), Some("amount"));
        let number = record(r#"{"name":"amount","type":"double"}"#);
        assert_eq!(check(Level::FullTransitive, &old, &number).len(), 2);
        assert_eq!(check(Level::Backward, "{", &old)[0].direction, "cannot be parsed");
    }
}
