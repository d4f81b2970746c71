//! AMQP's values as Erlang writes them, which is how RabbitMQ's own trace files show them.

use std::fmt;

use lapin::types::{AMQPValue, FieldTable};

/// A byte string: `<<"text">>`, or its bytes as numbers if it is no text.
pub(crate) struct Binary<'b>(pub(crate) &'b [u8]);

/// A list of byte strings.
pub(crate) struct Binaries<'b>(pub(crate) &'b [String]);

/// A table: a list of `{Key,Type,Value}`.
pub(crate) struct Table<'t>(pub(crate) &'t FieldTable);

struct Value<'v>(&'v AMQPValue);

impl fmt::Display for Binary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match std::str::from_utf8(self.0) {
            Ok(text) if !text.chars().any(char::is_control) => {
                write!(f, "<<\"{}\">>", text.replace('\\', "\\\\").replace('"', "\\\""))
            }
            _ => {
                write!(f, "<<")?;
                list(f, self.0, |f, byte| write!(f, "{byte}"))?;
                write!(f, ">>")
            }
        }
    }
}

impl fmt::Display for Binaries<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[")?;
        list(f, self.0, |f, text| Binary(text.as_bytes()).fmt(f))?;
        write!(f, "]")
    }
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[")?;
        list(f, self.0, |f, (key, value)| {
            write!(f, "{{{},{},{}}}", Binary(key.as_str().as_bytes()), type_name(value), Value(value))
        })?;
        write!(f, "]")
    }
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            AMQPValue::Boolean(value) => write!(f, "{value}"),
            AMQPValue::ShortShortInt(value) => write!(f, "{value}"),
            AMQPValue::ShortShortUInt(value) => write!(f, "{value}"),
            AMQPValue::ShortInt(value) => write!(f, "{value}"),
            AMQPValue::ShortUInt(value) => write!(f, "{value}"),
            AMQPValue::LongInt(value) => write!(f, "{value}"),
            AMQPValue::LongUInt(value) => write!(f, "{value}"),
            AMQPValue::LongLongInt(value) => write!(f, "{value}"),
            AMQPValue::Float(value) => write!(f, "{value:?}"),
            AMQPValue::Double(value) => write!(f, "{value:?}"),
            AMQPValue::DecimalValue(value) => write!(f, "{{{},{}}}", value.scale, value.value),
            AMQPValue::ShortString(value) => Binary(value.as_str().as_bytes()).fmt(f),
            AMQPValue::LongString(value) => Binary(value.as_bytes()).fmt(f),
            AMQPValue::ByteArray(value) => Binary(value.as_slice()).fmt(f),
            AMQPValue::Timestamp(value) => write!(f, "{value}"),
            AMQPValue::FieldTable(value) => Table(value).fmt(f),
            AMQPValue::FieldArray(value) => {
                write!(f, "[")?;
                list(f, value.as_slice(), |f, value| write!(f, "{{{},{}}}", type_name(value), Value(value)))?;
                write!(f, "]")
            }
            AMQPValue::Void => write!(f, "undefined"),
        }
    }
}

/// RabbitMQ's name for a value's type.
fn type_name(value: &AMQPValue) -> &'static str {
    match value {
        AMQPValue::Boolean(_) => "bool",
        AMQPValue::ShortShortInt(_) => "byte",
        AMQPValue::ShortShortUInt(_) => "unsignedbyte",
        AMQPValue::ShortInt(_) => "short",
        AMQPValue::ShortUInt(_) => "unsignedshort",
        AMQPValue::LongInt(_) => "signedint",
        AMQPValue::LongUInt(_) => "unsignedint",
        AMQPValue::LongLongInt(_) => "long",
        AMQPValue::Float(_) => "float",
        AMQPValue::Double(_) => "double",
        AMQPValue::DecimalValue(_) => "decimal",
        AMQPValue::ShortString(_) | AMQPValue::LongString(_) => "longstr",
        AMQPValue::ByteArray(_) => "binary",
        AMQPValue::Timestamp(_) => "timestamp",
        AMQPValue::FieldTable(_) => "table",
        AMQPValue::FieldArray(_) => "array",
        AMQPValue::Void => "void",
    }
}

fn list<T>(
    f: &mut fmt::Formatter<'_>,
    items: impl IntoIterator<Item = T>,
    item: impl Fn(&mut fmt::Formatter<'_>, T) -> fmt::Result,
) -> fmt::Result {
    for (at, each) in items.into_iter().enumerate() {
        if at > 0 {
            write!(f, ",")?;
        }
        item(f, each)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use lapin::types::{ByteArray, DecimalValue, FieldArray};

    use super::*;

    #[test]
    fn byte_strings_are_text_where_they_can_be() {
        for (bytes, written) in [
            (&b"hello"[..], r#"<<"hello">>"#),
            (b"", r#"<<"">>"#),
            (b"a\"b\\", r#"<<"a\"b\\">>"#),
            ("sch\u{f6}n".as_bytes(), "<<\"sch\u{f6}n\">>"),
            (b"\xff\x00", "<<255,0>>"),
            (b"a\n", "<<97,10>>"),
        ] {
            assert_eq!(Binary(bytes).to_string(), written);
        }
        assert_eq!(Binaries(&[]).to_string(), "[]");
        assert_eq!(Binaries(&["a".to_owned(), "b".to_owned()]).to_string(), r#"[<<"a">>,<<"b">>]"#);
    }

    #[test]
    fn every_type_of_value_has_its_name() {
        let mut inner = FieldTable::default();
        inner.insert("x".into(), AMQPValue::Boolean(true));
        let mut array = FieldArray::default();
        array.push(AMQPValue::LongString("a".into()));
        array.push(AMQPValue::LongInt(-1));
        for (value, written) in [
            (AMQPValue::Boolean(false), "bool,false"),
            (AMQPValue::ShortShortInt(-1), "byte,-1"),
            (AMQPValue::ShortShortUInt(1), "unsignedbyte,1"),
            (AMQPValue::ShortInt(-2), "short,-2"),
            (AMQPValue::ShortUInt(2), "unsignedshort,2"),
            (AMQPValue::LongInt(2), "signedint,2"),
            (AMQPValue::LongUInt(3), "unsignedint,3"),
            (AMQPValue::LongLongInt(4), "long,4"),
            (AMQPValue::Float(1.5), "float,1.5"),
            (AMQPValue::Double(2.0), "double,2.0"),
            (AMQPValue::DecimalValue(DecimalValue { scale: 2, value: 314 }), "decimal,{2,314}"),
            (AMQPValue::LongString("text/plain".into()), r#"longstr,<<"text/plain">>"#),
            (AMQPValue::ByteArray(ByteArray::from(&[1_u8, 200][..])), "binary,<<1,200>>"),
            (AMQPValue::Timestamp(1_698_760_365), "timestamp,1698760365"),
            (AMQPValue::FieldTable(inner), r#"table,[{<<"x">>,bool,true}]"#),
            (AMQPValue::FieldArray(array), r#"array,[{longstr,<<"a">>},{signedint,-1}]"#),
            (AMQPValue::Void, "void,undefined"),
        ] {
            let mut table = FieldTable::default();
            table.insert("k".into(), value);
            assert_eq!(Table(&table).to_string(), format!("[{{<<\"k\">>,{written}}}]"));
        }
    }
}
