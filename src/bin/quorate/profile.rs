//! Profiles in the format of the tool `pprof`: its `profile.proto`, gzipped. Stacks of addresses become
//! samples; the names of their functions are looked up in this program's debug information.

use std::collections::HashMap;
use std::ffi::c_void;
use std::fs;
use std::io::{self, Write as _};

use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;

/// The frames of a stack, innermost first, as addresses of call instructions.
pub type Stack = Vec<u64>;

/// Encodes samples of this process, each a stack and its value, of the kind `kind` in `unit`.
pub fn encode(
    kind: &str,
    unit: &str,
    samples: impl IntoIterator<Item = (Stack, i64)>,
) -> io::Result<Vec<u8>> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let mut builder = Builder::new(&maps);
    let kind = ValueType { kind: builder.text(kind), unit: builder.text(unit) };
    builder.profile.sample_type.push(kind);
    for (stack, value) in samples {
        let location_id = stack.into_iter().map(|address| builder.location(address)).collect();
        builder.profile.sample.push(Sample { location_id, value: vec![value] });
    }
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&builder.profile.encode_to_vec())?;
    gzip.finish()
}

/// A profile under construction. An id is an index into its table plus one; 0 stands for none.
struct Builder {
    profile: Profile,
    texts: HashMap<String, i64>,
    /// By address.
    locations: HashMap<u64, u64>,
    /// By name and file.
    functions: HashMap<(i64, i64), u64>,
}

impl Builder {
    /// `maps` is the text of `/proc/self/maps`.
    fn new(maps: &str) -> Self {
        let (texts, locations, functions) = Default::default();
        let mut builder = Self { profile: Profile::default(), texts, locations, functions };
        // The format requires the empty text first.
        builder.text("");
        let mappings = maps.lines().filter_map(|line| builder.mapping(line));
        let mappings: Vec<_> = mappings.enumerate().collect();
        for (at, mapping) in mappings {
            builder.profile.mapping.push(Mapping { id: at as u64 + 1, ..mapping });
        }
        builder
    }

    /// Reads a line of `/proc/self/maps` (`proc_pid_maps(5)`) about code of a file.
    fn mapping(&mut self, line: &str) -> Option<Mapping> {
        let mut words = line.splitn(6, ' ');
        let (start, limit) = words.next()?.split_once('-')?;
        let executable = words.next()?.as_bytes().get(2) == Some(&b'x');
        let offset = words.next()?;
        let filename = words.nth(2)?.trim_start();
        if !executable || !filename.starts_with('/') {
            return None;
        }
        let hexadecimal = |text| u64::from_str_radix(text, 16).ok();
        Some(Mapping {
            id: 0,
            memory_start: hexadecimal(start)?,
            memory_limit: hexadecimal(limit)?,
            file_offset: hexadecimal(offset)?,
            filename: self.text(filename),
            has_functions: true,
            has_filenames: true,
            has_line_numbers: true,
            has_inline_frames: true,
        })
    }

    fn location(&mut self, address: u64) -> u64 {
        if let Some(id) = self.locations.get(&address) {
            return *id;
        }
        let covers =
            |mapping: &&Mapping| (mapping.memory_start..mapping.memory_limit).contains(&address);
        let mapping_id = self.profile.mapping.iter().find(covers).map_or(0, |mapping| mapping.id);
        let mut line = Vec::new();
        // Its argument is a return address, which it turns into that of the call.
        backtrace::resolve((address + 1) as *mut c_void, |symbol| {
            let Some(name) = symbol.name().map(|name| format!("{name:#}")) else { return };
            let file = symbol.filename().map(|path| path.to_string_lossy().into_owned());
            let function_id = self.function(&name, &file.unwrap_or_default());
            line.push(Line { function_id, line: symbol.lineno().unwrap_or(0).into() });
        });
        let id = self.profile.location.len() as u64 + 1;
        self.profile.location.push(Location { id, mapping_id, address, line });
        self.locations.insert(address, id);
        id
    }

    fn function(&mut self, name: &str, file: &str) -> u64 {
        let (name, filename) = (self.text(name), self.text(file));
        let next = self.profile.function.len() as u64 + 1;
        let id = *self.functions.entry((name, filename)).or_insert(next);
        if id == next {
            let function = Function { id, name, system_name: name, filename };
            self.profile.function.push(function);
        }
        id
    }

    fn text(&mut self, text: &str) -> i64 {
        if let Some(at) = self.texts.get(text) {
            return *at;
        }
        let at = self.profile.string_table.len() as i64;
        self.profile.string_table.push(text.to_owned());
        self.texts.insert(text.to_owned(), at);
        at
    }
}

/// The fields in use here, by the numbers of `profile.proto`; texts are indices of `string_table`.
#[derive(Clone, PartialEq, Message)]
struct Profile {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    mapping: Vec<Mapping>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    kind: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(uint64, repeated, tag = "1")]
    location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct Mapping {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    memory_start: u64,
    #[prost(uint64, tag = "3")]
    memory_limit: u64,
    #[prost(uint64, tag = "4")]
    file_offset: u64,
    #[prost(int64, tag = "5")]
    filename: i64,
    #[prost(bool, tag = "7")]
    has_functions: bool,
    #[prost(bool, tag = "8")]
    has_filenames: bool,
    #[prost(bool, tag = "9")]
    has_line_numbers: bool,
    #[prost(bool, tag = "10")]
    has_inline_frames: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    mapping_id: u64,
    #[prost(uint64, tag = "3")]
    address: u64,
    /// Several where calls were inlined, innermost first.
    #[prost(message, repeated, tag = "4")]
    line: Vec<Line>,
}

#[derive(Clone, PartialEq, Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function_id: u64,
    #[prost(int64, tag = "2")]
    line: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
    #[prost(int64, tag = "3")]
    system_name: i64,
    #[prost(int64, tag = "4")]
    filename: i64,
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;

    use super::*;

    #[test]
    fn code_of_files_is_mapped() {
        let maps = "55d0-55d8 r--p 00000000 08:01 131 /usr/bin/a b\n\
                    55d8-55e0 r-xp 00001000 08:01 131                        /usr/bin/a b\n\
                    7ff0-7ff8 r-xp 00000000 00:00 0                          [vdso]\n\
                    7ff8-7fff r-xp 00000000 00:00 0\n";
        let builder = Builder::new(maps);
        let [mapping] = &builder.profile.mapping[..] else { panic!("one has code of a file") };
        let range = (mapping.id, mapping.memory_start, mapping.memory_limit, mapping.file_offset);
        assert_eq!(range, (1, 0x55d8, 0x55e0, 0x1000));
        assert_eq!(builder.profile.string_table[mapping.filename as usize], "/usr/bin/a b");
    }

    #[test]
    fn samples_name_functions_and_share_locations() {
        // An address inside of the function, behind its first instruction.
        let here = encode as fn(_, _, Vec<(Stack, i64)>) -> _ as usize as u64 + 1;
        let samples = vec![(vec![here, 7], 3), (vec![here], 4)];
        let gzip = encode("space", "bytes", samples).expect("this process has a map");
        let mut bytes = Vec::new();
        GzDecoder::new(&gzip[..]).read_to_end(&mut bytes).expect("it is gzip");
        let profile = Profile::decode(&bytes[..]).expect("it is a profile");
        let text = |at: i64| profile.string_table[at as usize].as_str();
        assert_eq!(text(0), "");
        assert_eq!(text(profile.sample_type[0].kind), "space");
        assert_eq!(text(profile.sample_type[0].unit), "bytes");
        let samples: Vec<_> =
            profile.sample.iter().map(|s| (&s.location_id[..], s.value[0])).collect();
        assert_eq!(samples, [(&[1, 2][..], 3), (&[1][..], 4)]);
        let [known, unknown] = &profile.location[..] else { panic!("two addresses") };
        let function = known.line.last().expect("it has a name").function_id;
        let function = &profile.function[function as usize - 1];
        assert!(text(function.name).contains("profile::encode"), "{}", text(function.name));
        assert_ne!(known.mapping_id, 0);
        assert_eq!((unknown.address, unknown.mapping_id, unknown.line.len()), (7, 0, 0));
    }
}
