//! Output in etcdutl's formats: a row of cells with names for columns, for fields and for JSON.

use crate::codec::humanize;
use crate::tool::Output;
use crate::tool::exit::Exit;
use crate::tool::grid::Table;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Simple,
    Fields,
    Json,
    Protobuf,
    Table,
}

/// One value of a result, with its name in each format that has names.
pub struct Cell {
    pub column: &'static str,
    pub field: &'static str,
    pub json: &'static str,
    pub value: Value,
}

pub enum Value {
    Number(i64),
    Text(String),
    /// As it is shown in cells, and what it is.
    Shown(String, i64),
}

impl Format {
    /// # Errors
    /// etcdutl's for a name that is no format.
    pub fn parse(name: &str) -> Result<Self, Exit> {
        Ok(match name {
            "simple" => Self::Simple,
            "fields" => Self::Fields,
            "json" => Self::Json,
            "protobuf" => Self::Protobuf,
            "table" => Self::Table,
            _ => return Err(Exit::new(Exit::FEATURE, "unsupported output format")),
        })
    }

    /// Prints a result.
    pub fn print(self, output: &dyn Output, cells: Vec<Cell>) -> Result<(), Exit> {
        let header = cells.iter().map(|cell| cell.column).collect();
        let table = Table { header, rows: vec![cells.iter().map(|c| c.value.shown()).collect()] };
        let text = match self {
            Self::Simple => table.lines(),
            Self::Table => table.grid(),
            Self::Fields => cells.iter().map(Cell::line).collect(),
            Self::Json => {
                let members: Vec<_> = cells.iter().map(Cell::member).collect();
                format!("{{{}}}\n", members.join(","))
            }
            Self::Protobuf => {
                let why = "protobuf not supported as output format";
                return Err(Exit::new(Exit::FEATURE, why));
            }
        };
        Ok(output.out(text.as_bytes())?)
    }
}

impl Cell {
    fn line(&self) -> String {
        match &self.value {
            Value::Number(number) | Value::Shown(_, number) => {
                format!("\"{}\" : {number}\n", self.field)
            }
            Value::Text(text) => format!("\"{}\" : {text}\n", self.field),
        }
    }

    fn member(&self) -> String {
        let value = match &self.value {
            Value::Number(number) | Value::Shown(_, number) => number.to_string(),
            Value::Text(text) => serde_json::Value::from(text.as_str()).to_string(),
        };
        format!("\"{}\":{value}", self.json)
    }
}

impl Value {
    /// A number of bytes, shown as a size.
    pub fn size(bytes: i64) -> Self {
        Self::Shown(humanize(bytes as u64), bytes)
    }

    fn shown(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) | Self::Shown(text, _) => text.clone(),
        }
    }
}
