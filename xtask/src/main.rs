//! The project's build chores. One so far:
//!
//!     cargo run -p xtask -- web <example> [--page <html>]
//!
//! builds an example for the browser and writes target/web/<example>/: <example>.js with its types, <example>_bg.wasm and
//! the page. An example that is a folder with an index.html is a page of its own: all its files but the Rust ones are
//! copied. Any other gets index.html, a copy of the page named, else of tests/web/index.html, with EXAMPLE replaced by the
//! example's name.
//!
//! It uses wasm-bindgen's own library in place of its command-line tool, so that Cargo.lock keeps the two halves of
//! wasm-bindgen in step and nobody has to install anything.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const TARGET: &str = "wasm32-unknown-unknown";
const PROFILE: &str = "wasm"; // see Cargo.toml

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["web", example] => web(example, None),
        ["web", example, "--page", page] => web(example, Some(Path::new(page))),
        _ => Err("usage: cargo run -p xtask -- web <example> [--page <html>]".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

fn web(example: &str, page: Option<&Path>) -> Result<()> {
    let folder = root().join("examples").join(example);
    let site_of_its_own = page.is_none() && folder.join("index.html").exists();
    let usual = root().join("tests/web/index.html");
    let page = page.unwrap_or(&usual);
    let page = std::fs::read_to_string(page).map_err(|error| format!("{}: {error}", page.display()))?;

    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    let built = Command::new(cargo)
        .current_dir(root())
        .args(["build", "--target", TARGET, "--profile", PROFILE, "--no-default-features", "--example", example])
        .arg("--target-dir")
        .arg(&target)
        .status()?;
    if !built.success() {
        return Err(format!("cargo could not build example {example} for {TARGET}").into());
    }

    let site = target.join("web").join(example);
    std::fs::create_dir_all(&site)?;
    wasm_bindgen_cli_support::Bindgen::new()
        .input_path(target.join(TARGET).join(PROFILE).join("examples").join(format!("{example}.wasm")))
        .out_name(example)
        .web(true)?
        // Otherwise init() without an argument does not know where its own wasm lies.
        .omit_default_module_path(false)
        // A quarter of a megabyte of function names; the glue has its own.
        .remove_name_section(true)
        .remove_producers_section(true)
        .typescript(true)
        .generate(&site)?;
    if site_of_its_own {
        for file in std::fs::read_dir(folder)? {
            let path = file?.path();
            if let (Some(name), true) = (path.file_name(), path.extension().is_none_or(|kind| kind != "rs")) {
                std::fs::copy(&path, site.join(name))?;
            }
        }
    } else {
        std::fs::write(site.join("index.html"), page.replace("EXAMPLE", example))?;
    }

    let size = std::fs::metadata(site.join(format!("{example}_bg.wasm")))?.len();
    println!("{}: {} KB of wasm", site.display(), size / 1000);
    Ok(())
}

fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().expect("xtask/ lies directly under the root of the repository").to_path_buf()
}
