//! All fuzz targets in one program; the variable `FUZZ_TARGET` names the one that runs. With `FUZZ_SEEDS` it
//! writes the inputs to begin with into that folder instead, and prints the names of the targets.
#![no_main]

use std::path::Path;
use std::sync::OnceLock;
use std::{env, fs, io, process};

use libfuzzer_sys::fuzz_target;
use quorate_fuzz::{TARGETS, Target, coverage, find};

static TARGET: OnceLock<&'static Target> = OnceLock::new();

fn target() -> &'static Target {
    // Targets run on one thread, this one, as planted faults do.
    #[cfg(feature = "plant")]
    if let Ok(fault) = env::var("FUZZ_PLANT") {
        quorate::plant::set(Some(&fault));
    }
    let name = env::var("FUZZ_TARGET").expect("FUZZ_TARGET names a target");
    find(&name).unwrap_or_else(|| panic!("there is no fuzz target {name}"))
}

fn write_seeds(corpus: &Path) -> io::Result<()> {
    for target in TARGETS {
        println!("{}", target.name);
        let folder = corpus.join(target.name);
        fs::create_dir_all(&folder)?;
        for (number, seed) in (target.seeds)().into_iter().enumerate() {
            fs::write(folder.join(format!("seed-{number:03}")), seed)?;
        }
    }
    Ok(())
}

fuzz_target!(
    init: {
        if let Some(corpus) = env::var_os("FUZZ_SEEDS") {
            let written = write_seeds(Path::new(&corpus));
            process::exit(written.map_or(1, |()| 0));
        }
    },
    |bytes: &[u8]| {
        (TARGET.get_or_init(target).run)(bytes);
        coverage::note();
    }
);
