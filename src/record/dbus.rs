//! The little of D-Bus that a question to systemd needs: calls out of strings, answers of one value.
//!
//! Holds: pure, bytes to values; any bytes give a message, a wish for more or an error, never a panic; no length
//! is believed beyond [`MESSAGE_BYTES_MAX`]. Not here: the socket, what is asked ([`super::systemd`]).
//!
//! The wire format is that of the D-Bus specification, 0.43: numbers little-endian (systemd speaks as the machine
//! does), values aligned to their size from the start of the message, the body from the next multiple of 8.

use crate::error::{Error, Result};

/// Before messages: a zero byte, who we are (user 0 in hexadecimal digits; systemd looks at the socket's
/// credentials anyway) and the end of it. A call may follow only when the answer is there: systemd lets one lie
/// that comes in the same breath.
pub const AUTHENTICATE: &[u8] = b"\0AUTH EXTERNAL 30\r\nBEGIN\r\n";

/// The largest message that is taken. Signals with all properties of a unit have some 10 KiB.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// An answer to authentication; systemd's has 37 bytes.
const LINE_BYTES_MAX: usize = 512;
/// Bytes of a header before its fields.
const FIXED_BYTES: usize = 16;

const LITTLE_ENDIAN: u8 = b'l';
const PROTOCOL_VERSION: u8 = 1;
/// Header fields by number.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Somebody asks.
    Call,
    /// An answer.
    Return,
    /// A refusal.
    Error,
    /// News that nobody asked for.
    Signal,
}

/// A message, as far as it concerns us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it is.
    pub kind: Kind,
    /// Its number.
    pub serial: u32,
    /// The number of the call that it answers; 0 for none.
    pub reply_to: u32,
    /// The object it is from or for.
    pub path: String,
    /// The method or the signal.
    pub member: String,
    /// The types of the body's values.
    signature: String,
    body: Vec<u8>,
}

/// A method call with strings as arguments.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    pub path: &'a str,
    pub interface: &'a str,
    pub member: &'a str,
    pub arguments: &'a [&'a str],
}

fn align(bytes: &mut Vec<u8>, to: usize) {
    bytes.resize(bytes.len().next_multiple_of(to), 0);
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    align(bytes, 4);
    bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
    bytes.push(0);
}

impl Call<'_> {
    /// The message with this number.
    pub fn encode(&self, serial: u32) -> Vec<u8> {
        let mut fields = Vec::new();
        let texts = [(PATH, b'o', self.path), (INTERFACE, b's', self.interface), (MEMBER, b's', self.member)];
        for (field, kind, text) in texts.into_iter().chain([(DESTINATION, b's', "org.freedesktop.systemd1")])
        {
            align(&mut fields, 8);
            fields.extend_from_slice(&[field, 1, kind, 0]);
            put_text(&mut fields, text);
        }
        let mut body = Vec::new();
        self.arguments.iter().for_each(|argument| put_text(&mut body, argument));
        align(&mut fields, 8);
        fields.extend_from_slice(&[SIGNATURE, 1, b'g', 0, self.arguments.len() as u8]);
        fields.extend(self.arguments.iter().map(|_| b's').chain([0]));
        const CALL: u8 = 1;
        let mut message = vec![LITTLE_ENDIAN, CALL, 0, PROTOCOL_VERSION];
        for number in [body.len() as u32, serial, fields.len() as u32] {
            message.extend_from_slice(&number.to_le_bytes());
        }
        message.extend_from_slice(&fields);
        align(&mut message, 8);
        message.extend_from_slice(&body);
        message
    }
}

/// The answer to [`AUTHENTICATE`] at the start of what was received: how long it is, `None` while it is not whole.
pub fn authenticated(bytes: &[u8]) -> Result<Option<usize>> {
    let Some(end) = bytes.windows(2).take(LINE_BYTES_MAX).position(|two| two == b"\r\n") else {
        if bytes.len() > LINE_BYTES_MAX {
            return Err(Error::failed("failed to read systemd's answer: its line does not end"));
        }
        return Ok(None);
    };
    if bytes.starts_with(b"OK ") {
        return Ok(Some(end + 2));
    }
    let line = String::from_utf8_lossy(&bytes[..end]).escape_debug().to_string();
    Err(Error::failed(format!("failed to be let in by systemd: `{line}`")))
}

/// Steps through values; every step says whether the bytes were there.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn align(&mut self, to: usize) -> Option<()> {
        let at = self.at.next_multiple_of(to);
        self.take(at - self.at).map(drop)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u32(&mut self) -> Option<u32> {
        self.align(4)?;
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        self.align(8)?;
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    /// A string of so many bytes and the zero behind it.
    fn text_of(&mut self, count: usize) -> Option<&'a str> {
        let text = std::str::from_utf8(self.take(count)?).ok()?;
        (self.byte()? == 0).then_some(text)
    }

    fn text(&mut self) -> Option<&'a str> {
        let count = self.u32()?;
        self.text_of(count as usize)
    }

    fn signature(&mut self) -> Option<&'a str> {
        let count = self.byte()?;
        self.text_of(count.into())
    }
}

fn damaged() -> Error {
    Error::failed("failed to read a message from systemd: it is no D-Bus message")
}

/// The first message of what was received and how long it is; `None` while it is not whole.
pub fn next(bytes: &[u8]) -> Result<Option<(Message, usize)>> {
    let mut header = Cursor { bytes, at: 4 };
    let numbers = (header.u32(), header.u32(), header.u32());
    let (Some(body_bytes), Some(serial), Some(field_bytes)) = numbers else { return Ok(None) };
    if bytes[0] != LITTLE_ENDIAN || bytes[3] != PROTOCOL_VERSION {
        return Err(damaged());
    }
    let (body_bytes, field_bytes) = (body_bytes as usize, field_bytes as usize);
    if body_bytes > MESSAGE_BYTES_MAX || field_bytes > MESSAGE_BYTES_MAX {
        return Err(Error::failed(format!(
            "failed to read a message from systemd: it has {} bytes, the limit is {MESSAGE_BYTES_MAX}",
            body_bytes.max(field_bytes)
        )));
    }
    let body_at = FIXED_BYTES + field_bytes.next_multiple_of(8);
    let Some(body) = bytes.get(body_at..body_at + body_bytes) else { return Ok(None) };
    let kind = match bytes[1] {
        1 => Kind::Call,
        2 => Kind::Return,
        3 => Kind::Error,
        4 => Kind::Signal,
        _ => return Err(damaged()),
    };
    let mut message = Message {
        kind,
        serial,
        reply_to: 0,
        path: String::new(),
        member: String::new(),
        signature: String::new(),
        body: body.to_vec(),
    };
    let fields = &bytes[..FIXED_BYTES + field_bytes];
    read_fields(&mut Cursor { bytes: fields, at: FIXED_BYTES }, &mut message).ok_or_else(damaged)?;
    Ok(Some((message, body_at + body_bytes)))
}

fn read_fields(cursor: &mut Cursor<'_>, message: &mut Message) -> Option<()> {
    while cursor.at < cursor.bytes.len() {
        cursor.align(8)?;
        let field = cursor.byte()?;
        match (field, cursor.signature()?) {
            (PATH, "o") => message.path = cursor.text()?.into(),
            (MEMBER, "s") => message.member = cursor.text()?.into(),
            (SIGNATURE, "g") => message.signature = cursor.signature()?.into(),
            (REPLY_SERIAL, "u") => message.reply_to = cursor.u32()?,
            // Others have no say here, but are stepped over.
            (_, "o" | "s") => _ = cursor.text()?,
            (_, "g") => _ = cursor.signature()?,
            (_, "u") => _ = cursor.u32()?,
            _ => return None,
        }
    }
    Some(())
}

impl Message {
    fn body(&self) -> Cursor<'_> {
        Cursor { bytes: &self.body, at: 0 }
    }

    /// The object's path that a body begins with.
    pub fn object(&self) -> Option<&str> {
        self.signature.starts_with('o').then(|| self.body().text())?
    }

    /// The string that a body begins with.
    pub fn text(&self) -> Option<&str> {
        self.signature.starts_with('s').then(|| self.body().text())?
    }

    /// The string in a body of one variant.
    pub fn string(&self) -> Option<&str> {
        let mut body = self.body();
        (self.signature == "v" && body.signature()? == "s").then(|| body.text())?
    }

    /// The number in a body of one variant.
    pub fn number(&self) -> Option<u64> {
        let mut body = self.body();
        (self.signature == "v" && body.signature()? == "t").then(|| body.u64())?
    }
}

/// The name of a unit from its object's path, in which every byte but letters and digits is `_` and two
/// hexadecimal digits.
pub fn unit_of(path: &str) -> Option<String> {
    let mut rest = path.strip_prefix("/org/freedesktop/systemd1/unit/")?.as_bytes();
    let mut name = Vec::with_capacity(rest.len());
    while let [first, more @ ..] = rest {
        rest = more;
        if *first == b'_' {
            let digits = std::str::from_utf8(more.get(..2)?).ok()?;
            name.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &more[2..];
        } else {
            name.push(*first);
        }
    }
    String::from_utf8(name).ok()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The answer to GetUnit that systemd 252 gave.
    const GET_UNIT: &[u8] =
        b"l\x02\x01\x01\x34\0\0\0\x01\0\0\0\x37\0\0\0\x05\x01u\0\x01\0\0\0\x07\x01s\0\x18\0\0\0\
        org.freedesktop.systemd1\0\0\0\0\0\0\0\0\x08\x01g\0\x01o\0\0\x2f\0\0\0\
        /org/freedesktop/systemd1/unit/default_2etarget\0";

    /// A value that systemd answers with.
    pub enum Value<'a> {
        Object(&'a str),
        String(&'a str),
        Name(&'a str),
        Number(u64),
        Nothing,
    }

    /// A message as systemd writes it.
    pub fn message(kind: u8, reply_to: u32, path: &str, value: &Value<'_>) -> Vec<u8> {
        let mut body = Vec::new();
        let signature = match value {
            Value::Object(path) => (put_text(&mut body, path), "o").1,
            Value::String(text) => {
                body.extend_from_slice(b"\x01s\0");
                (put_text(&mut body, text), "v").1
            }
            Value::Number(number) => {
                body.extend_from_slice(b"\x01t\0");
                align(&mut body, 8);
                body.extend_from_slice(&number.to_le_bytes());
                "v"
            }
            Value::Name(name) => (put_text(&mut body, name), "s").1,
            Value::Nothing => "",
        };
        let mut fields = vec![REPLY_SERIAL, 1, b'u', 0];
        fields.extend_from_slice(&reply_to.to_le_bytes());
        if !path.is_empty() {
            fields.extend_from_slice(&[PATH, 1, b'o', 0]);
            put_text(&mut fields, path);
            align(&mut fields, 8);
        }
        fields.extend_from_slice(&[SIGNATURE, 1, b'g', 0, signature.len() as u8]);
        fields.extend(signature.bytes().chain([0]));
        let mut bytes = vec![LITTLE_ENDIAN, kind, 1, PROTOCOL_VERSION];
        for number in [body.len() as u32, 77, fields.len() as u32] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&fields);
        align(&mut bytes, 8);
        bytes.extend_from_slice(&body);
        bytes
    }

    /// The strings that a call carries.
    pub fn arguments(message: &Message) -> Vec<String> {
        let mut body = message.body();
        std::iter::from_fn(|| body.text().map(str::to_owned)).collect()
    }

    #[test]
    fn what_systemd_answered_is_understood() {
        let (message, length) = next(GET_UNIT).unwrap().unwrap();
        assert_eq!((message.kind, message.reply_to, length), (Kind::Return, 1, GET_UNIT.len()));
        let path = message.object().unwrap();
        assert_eq!(unit_of(path).as_deref(), Some("default.target"));
        assert_eq!((message.string(), message.number()), (None, None));
        for cut in 0..GET_UNIT.len() {
            assert_eq!(next(&GET_UNIT[..cut]).unwrap(), None, "cut at {cut}");
        }
    }

    #[test]
    fn a_call_reads_back_and_values_too() {
        let call = Call { path: "/o", interface: "i.f", member: "Get", arguments: &["a", "", "longer text"] };
        let (read, length) = next(&call.encode(9)).unwrap().unwrap();
        assert_eq!(
            (read.kind, read.serial, read.path.as_str(), read.member.as_str()),
            (Kind::Call, 9, "/o", "Get")
        );
        assert_eq!(
            (arguments(&read), length),
            (vec!["a".into(), "".into(), "longer text".into()], call.encode(9).len())
        );
        let (read, _) = next(&message(2, 3, "", &Value::Number(1 << 40))).unwrap().unwrap();
        assert_eq!((read.number(), read.string(), read.object()), (Some(1 << 40), None, None));
        let (read, _) = next(&message(4, 0, "/unit", &Value::String("active"))).unwrap().unwrap();
        assert_eq!((read.kind, read.string(), read.path.as_str()), (Kind::Signal, Some("active"), "/unit"));
    }

    #[test]
    fn letting_in_is_one_line() {
        assert_eq!(authenticated(b"OK 1a17\r\nl\x02").unwrap(), Some(9));
        assert_eq!((authenticated(b"").unwrap(), authenticated(b"OK 1a17\r").unwrap()), (None, None));
        assert!(authenticated(b"REJECTED EXTERNAL\r\n").unwrap_err().full_text().contains("REJECTED"));
        assert!(authenticated(&[b'O'; 600]).unwrap_err().full_text().contains("does not end"));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let with = |at: usize, byte: u8| {
            let mut bytes = GET_UNIT.to_vec();
            bytes[at] = byte;
            next(&bytes)
        };
        assert!(with(0, b'B').is_err() && with(1, 9).is_err() && with(3, 2).is_err());
        assert!(with(7, 0xff).unwrap_err().full_text().contains("the limit is"));
        assert!(with(17, 200).is_err(), "a signature beyond the fields");
        assert_eq!(unit_of("/org/freedesktop/systemd1/unit/a_2"), None);
        assert_eq!(unit_of("/somewhere/else"), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (next(&bytes), authenticated(&bytes));
        }

        #[test]
        fn no_flipped_message_panics(flips in prop::collection::vec((0usize..1000, any::<u8>()), 1..6)) {
            let mut bytes = GET_UNIT.to_vec();
            for (at, byte) in flips {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            if let Ok(Some((message, length))) = next(&bytes) {
                prop_assert!(length <= bytes.len());
                let _ = (message.object().and_then(unit_of), message.string(), message.number());
            }
        }

        #[test]
        fn no_path_panics(path in "\\PC{0,30}") {
            let _ = unit_of(&format!("/org/freedesktop/systemd1/unit/{path}"));
        }
    }
}
