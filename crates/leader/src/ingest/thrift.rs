//! Thrift's compact protocol, as far as Parquet files from strangers are looked at before they are read.
//!
//! What Parquet's reader takes bytes for depends on what it expects of a field, and it passes over lists of
//! booleans that it does not know one by one, though they take no bytes. So fields have to be what every writer
//! writes: those of the format by their numbers, upwards, with their types. Then what is looked at here is what is
//! read there.

use std::io::{self, Read};

/// Structures within structures; Parquet's reader goes as deep.
const DEPTH_MAX: u8 = 64;

/// The type of a field, where it is known.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Bool,
    Byte,
    Int16,
    Int32,
    Int64,
    Double,
    Binary,
    Struct(&'static [Self]),
    List(&'static Self),
    /// Whoever looks is told of it.
    Seen(&'static Self),
    /// Nobody reads it, so it may be anything.
    Any,
}

// The types of Thrift's compact protocol.
pub(super) const STOP: u8 = 0;
pub(super) const TRUE: u8 = 1;
pub(super) const FALSE: u8 = 2;
pub(super) const BYTE: u8 = 3;
pub(super) const INT16: u8 = 4;
pub(super) const INT32: u8 = 5;
pub(super) const INT64: u8 = 6;
pub(super) const DOUBLE: u8 = 7;
pub(super) const BINARY: u8 = 8;
pub(super) const LIST: u8 = 9;
pub(super) const SET: u8 = 10;
pub(super) const MAP: u8 = 11;
pub(super) const STRUCT: u8 = 12;
pub(super) const UUID: u8 = 13;

impl Kind {
    fn is(self, kind: u8) -> bool {
        match self {
            Self::Bool => is_bool(kind),
            Self::Byte => kind == BYTE,
            // All are the same bytes, and some writers take one for the other.
            Self::Int16 | Self::Int32 | Self::Int64 => matches!(kind, INT16 | INT32 | INT64),
            Self::Double => kind == DOUBLE,
            Self::Binary => kind == BINARY,
            Self::Struct(_) => kind == STRUCT,
            Self::List(_) => kind == LIST,
            Self::Seen(known) => known.is(kind),
            Self::Any => true,
        }
    }
}

fn is_bool(kind: u8) -> bool {
    matches!(kind, TRUE | FALSE)
}

pub(super) fn garbled(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// Is told the number of each field that is [`Kind::Seen`], and its value if that is an `i32`.
pub(super) type See<'a> = &'a mut dyn FnMut(i16, i32) -> io::Result<()>;

/// What is looked at.
#[derive(Debug)]
pub(super) struct Thrift<R> {
    reader: R,
    /// Whether fields may have their numbers written out, which those far behind others have to.
    has_long_numbers: bool,
}

impl<R: Read> Thrift<R> {
    pub(super) fn new(reader: R) -> Self {
        Self {
            reader,
            has_long_numbers: false,
        }
    }

    pub(super) fn with_long_numbers(self) -> Self {
        Self {
            has_long_numbers: true,
            ..self
        }
    }

    /// Looks at a structure whose first fields are known.
    pub(super) fn check(&mut self, fields: &[Kind], see: See<'_>) -> io::Result<()> {
        self.known(fields, DEPTH_MAX, see)
    }

    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.reader.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    fn number(&mut self) -> io::Result<u64> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(garbled("a number is too long"))
    }

    fn signed(&mut self) -> io::Result<i64> {
        let number = self.number()?;
        Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    /// Parquet's reader cuts a larger number off.
    fn int32(&mut self) -> io::Result<i32> {
        i32::try_from(self.signed()?).map_err(|_| garbled("a number is too large"))
    }

    fn pass(&mut self, count: u64) -> io::Result<()> {
        let passed = io::copy(&mut self.reader.by_ref().take(count), &mut io::sink())?;
        if passed < count {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    /// A structure whose first fields are known.
    fn known(&mut self, fields: &[Kind], depth: u8, see: See<'_>) -> io::Result<()> {
        let mut last = 0_i16;
        loop {
            let byte = self.byte()?;
            let (step, kind) = (byte >> 4, byte & 0x0F);
            if kind == STOP {
                return Ok(());
            }
            let field = match step {
                0 if self.has_long_numbers => i16::try_from(self.signed()?).ok(),
                0 => None,
                step => last.checked_add(step.into()),
            };
            let field = field.filter(|field| *field > last);
            last = field.ok_or_else(|| garbled("its fields are in no order"))?;
            let place = usize::from(last.unsigned_abs()) - 1;
            match fields.get(place) {
                Some(known) if known.is(kind) => self.value(*known, (last, kind), depth, see)?,
                Some(_) => return Err(garbled(&format!("field {last} has another type"))),
                None => self.unknown(kind, depth)?,
            }
        }
    }

    /// A value of a known type, in a field of this number.
    fn value(
        &mut self,
        known: Kind,
        (field, kind): (i16, u8),
        depth: u8,
        see: See<'_>,
    ) -> io::Result<()> {
        match known {
            Kind::Struct(fields) => self.known(fields, deeper(depth)?, see),
            Kind::List(element) => self.list(*element, field, deeper(depth)?, see),
            Kind::Seen(Kind::Int32) => {
                let value = self.int32()?;
                see(field, value)
            }
            Kind::Seen(known) => {
                self.value(*known, (field, kind), depth, see)?;
                see(field, 0)
            }
            Kind::Int32 => self.int32().map(drop),
            // As long as their types say, whatever they mean.
            Kind::Bool
            | Kind::Byte
            | Kind::Int16
            | Kind::Int64
            | Kind::Double
            | Kind::Binary
            | Kind::Any => self.unknown(kind, depth),
        }
    }

    fn list(&mut self, element: Kind, field: i16, depth: u8, see: See<'_>) -> io::Result<()> {
        let (count, kind) = self.list_header()?;
        // Some writers give an empty list no type.
        if count > 0 && !element.is(kind) {
            return Err(garbled(&format!("field {field} has another type")));
        }
        for _ in 0..count {
            self.value(element, (field, kind), depth, see)?;
        }
        Ok(())
    }

    /// How many elements a list has, and of which type.
    fn list_header(&mut self) -> io::Result<(u64, u8)> {
        let byte = self.byte()?;
        let count = match byte >> 4 {
            15 => self.number()?,
            count => u64::from(count),
        };
        Ok((count, byte & 0x0F))
    }

    /// A value of which only the type is known.
    fn unknown(&mut self, kind: u8, depth: u8) -> io::Result<()> {
        let depth = deeper(depth)?;
        match kind {
            TRUE | FALSE => Ok(()),
            BYTE => self.pass(1),
            INT16 | INT32 | INT64 => self.number().map(drop),
            DOUBLE => self.pass(8),
            UUID => self.pass(16),
            BINARY => {
                let length = self.number()?;
                self.pass(length)
            }
            LIST | SET => {
                let (count, kind) = self.list_header()?;
                self.many(count, &[kind], depth)
            }
            MAP => match self.number()? {
                0 => Ok(()),
                count => {
                    let kinds = self.byte()?;
                    self.many(count, &[kinds >> 4, kinds & 0x0F], depth)
                }
            },
            STRUCT => loop {
                let byte = self.byte()?;
                if byte & 0x0F == STOP {
                    return Ok(());
                }
                if byte >> 4 == 0 {
                    self.number()?;
                }
                self.unknown(byte & 0x0F, depth)?;
            },
            _ => Err(garbled("a value has no type")),
        }
    }

    /// As many of some values. Nothing in the format is a list of booleans here.
    fn many(&mut self, count: u64, kinds: &[u8], depth: u8) -> io::Result<()> {
        if count > 0 && kinds.iter().any(|kind| is_bool(*kind)) {
            return Err(garbled("there is a list of booleans"));
        }
        for _ in 0..count {
            for kind in kinds {
                self.unknown(*kind, depth)?;
            }
        }
        Ok(())
    }
}

fn deeper(depth: u8) -> io::Result<u8> {
    depth
        .checked_sub(1)
        .ok_or_else(|| garbled("it is nested too deep"))
}

/// What tests write.
#[cfg(test)]
pub(super) mod written {
    /// A field: its distance from the last one, and its type.
    pub(crate) const fn field(step: u8, kind: u8) -> u8 {
        step << 4 | kind
    }

    pub(crate) fn number(mut value: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while value > 0x7F {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    }
}
