//! Specialising a kernel's text.
//!
//! Kernels are readable WGSL files that compile as they are; a variant is made by rewriting named declarations: the
//! value of a constant, the meaning of an alias, the body of a function (a *seam*, where fused code goes in).
//! That way the file on disk is what a reader, an editor and a validator see, with no template language in between.
//! Comments are never mistaken for code (WGSL has no strings). Deliberately absent: a parser; only module-scope
//! declarations are found, by their keyword and name, and naga or the browser judges the result.

use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};

/// Copies the lines of a text that are not comments to `out`, as far as it goes. Returns how many bytes they are.
pub const fn code(text: &[u8], out: &mut [u8]) -> usize {
    let (mut at, mut length) = (0, 0);
    while at < text.len() {
        let comment = text[at] == b'/' && at + 1 < text.len() && text[at + 1] == b'/';
        while at < text.len() {
            if !comment {
                if length < out.len() {
                    out[length] = text[at];
                }
                length += 1;
            }
            at += 1;
            if text[at - 1] == b'\n' {
                break;
            }
        }
    }
    length
}

/// The text of a file of WGSL without its lines of comments, which a page need not download.
macro_rules! shader_text {
    ($path:literal) => {{
        const FILE: &[u8] = include_bytes!($path);
        const LENGTH: usize = $crate::gpu::shader::code(FILE, &mut []);
        const CODE: [u8; LENGTH] = {
            let mut code = [0; LENGTH];
            $crate::gpu::shader::code(FILE, &mut code);
            code
        };
        match std::str::from_utf8(&CODE) {
            Ok(text) => text,
            Err(_) => panic!("a shader is not UTF-8"),
        }
    }};
}
pub(crate) use shader_text;

/// A kernel's text under specialisation. The first mistake is kept and returned by [`Shader::build`], so that
/// rewrites chain.
#[derive(Clone, Debug)]
pub struct Shader {
    text: String,
    wrong: Option<String>,
}

impl Shader {
    /// A kernel's text as it is in its file.
    pub fn new(text: impl Into<String>) -> Shader {
        Shader { text: text.into(), wrong: None }
    }

    /// Gives `const name` another value. A declared type stays.
    pub fn constant(self, name: &str, value: &str) -> Shader {
        self.rewrite(|code| assigned(code, "const", name), value)
    }

    /// Gives `alias name` another type.
    pub fn alias(self, name: &str, ty: &str) -> Shader {
        self.rewrite(|code| assigned(code, "alias", name), ty)
    }

    /// Replaces the body of `fn name`, braces included.
    pub fn seam(mut self, name: &str, body: &str) -> Shader {
        let code = blank(body);
        let start = code.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(0);
        let whole = code.trim_ascii().starts_with(b"{")
            && matching(&code, start).is_some_and(|end| code[end + 1..].trim_ascii().is_empty());
        if !whole {
            self.refuse(format!("the new body of fn {name} is not one block in braces: {body}"));
            return self;
        }
        self.rewrite(|code| function_body(code, name), body.trim())
    }

    /// Appends module-scope declarations: bindings, helper functions. WGSL does not mind their order.
    pub fn declare(mut self, text: &str) -> Shader {
        if !self.text.ends_with('\n') {
            self.text.push('\n');
        }
        self.text.push_str(text.trim_end());
        self.text.push('\n');
        self
    }

    /// Enables an extension of the language, such as `f16`, on top, where WGSL wants it.
    pub fn enable(mut self, extension: &str) -> Shader {
        self.text.insert_str(0, &format!("enable {extension};\n"));
        self
    }

    /// The text, or [`ErrorKind::Shader`] for the first rewrite that found nothing to rewrite.
    pub fn build(self) -> Result<Arc<str>> {
        match self.wrong {
            None => Ok(self.text.into()),
            Some(why) => Err(Error::new(ErrorKind::Shader { why, source: self.text.into() })),
        }
    }

    fn rewrite(mut self, place: impl FnOnce(&[u8]) -> Place, with: &str) -> Shader {
        match place(&blank(&self.text)) {
            // Positions come from ASCII bytes of the code, so they lie between characters.
            Ok((from, to)) => self.text.replace_range(from..to, with),
            Err(why) => self.refuse(why),
        }
        self
    }

    fn refuse(&mut self, why: String) {
        self.wrong.get_or_insert(why);
    }
}

/// Where to rewrite, or what is missing.
type Place = std::result::Result<(usize, usize), String>;

/// The code with every byte of a comment (and every non-ASCII byte) blanked, at unchanged positions.
fn blank(text: &str) -> Vec<u8> {
    let mut code = text.as_bytes().to_vec();
    let mut i = 0;
    while i < code.len() {
        let end = match &code[i..] {
            [b'/', b'/', ..] => code[i..].iter().position(|byte| *byte == b'\n').map_or(code.len(), |n| i + n),
            [b'/', b'*', ..] => block_comment(&code, i),
            [byte, ..] if !byte.is_ascii() => i + 1,
            _ => {
                i += 1;
                continue;
            }
        };
        code[i..end].fill(b' ');
        i = end;
    }
    code
}

/// The end of the block comment that starts at `start`; WGSL's nest.
fn block_comment(code: &[u8], start: usize) -> usize {
    let mut depth = 0;
    let mut i = start;
    while i + 1 < code.len() {
        match &code[i..i + 2] {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                i += 1;
                continue;
            }
        }
        i += 2;
        if depth == 0 {
            return i;
        }
    }
    code.len()
}

/// The position of the brace or parenthesis that closes the one at `open`.
fn matching(code: &[u8], open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (i, byte) in code.iter().enumerate().skip(open) {
        match byte {
            b'{' | b'(' => depth += 1,
            b'}' | b')' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(i);
                }
            }
            _ => {}
        }
    }
    None
}

/// The position just after `keyword name` at module scope.
fn find(code: &[u8], keyword: &str, name: &str) -> Option<usize> {
    let mut depth = 0usize;
    let mut previous: &[u8] = b"";
    let mut i = 0;
    while i < code.len() {
        let word = code[i..].iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
        if word > 0 {
            let current = &code[i..i + word];
            i += word;
            if depth == 0 && previous == keyword.as_bytes() && current == name.as_bytes() {
                return Some(i);
            }
            previous = current;
            continue;
        }
        match code[i] {
            b'{' | b'(' => depth += 1,
            b'}' | b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if !code[i].is_ascii_whitespace() {
            previous = b"";
        }
        i += 1;
    }
    None
}

/// The value in `keyword name ... = value;`.
fn assigned(code: &[u8], keyword: &str, name: &str) -> Place {
    let after = find(code, keyword, name).ok_or_else(|| format!("there is no `{keyword} {name}` to replace"))?;
    let broken = || format!("`{keyword} {name}` has no `= value;`");
    let end = after + code[after..].iter().position(|byte| *byte == b';').ok_or_else(broken)?;
    let equals = after + code[after..end].iter().position(|byte| *byte == b'=').ok_or_else(broken)?;
    let value = &code[equals + 1..end];
    let blanks = value.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    Ok((equals + 1 + blanks.min(1), end))
}

/// The declaration `fn name(...) ... {...}` in a text, from `fn` to its closing brace.
pub fn function<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let code = blank(text);
    let (_, end) = function_body(&code, name).ok()?;
    let name_end = find(&code, "fn", name)?;
    let start = code[..name_end - name.len()].windows(2).rposition(|pair| pair == b"fn")?;
    Some(&text[start..end])
}

/// The body of `fn name(...) {...}`, braces included.
fn function_body(code: &[u8], name: &str) -> Place {
    let after = find(code, "fn", name).ok_or_else(|| format!("there is no `fn {name}` to replace the body of"))?;
    let broken = || format!("`fn {name}` has no body");
    let parameters = after + code[after..].iter().position(|byte| *byte == b'(').ok_or_else(broken)?;
    let closed = matching(code, parameters).ok_or_else(broken)?;
    let open = closed + code[closed..].iter().position(|byte| *byte == b'{').ok_or_else(broken)?;
    let close = matching(code, open).ok_or_else(broken)?;
    Ok((open, close + 1))
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use super::*;
    use crate::error::Error;

    const KERNEL: &str = "// const TILE: u32 = 1u; fn load(i: u32) {} – a comment
/* alias T = i32; /* nested */ fn load(i: u32) -> T { return 0; } */
alias T = f32; // the element
const TILE: u32 = 8u; const TILE_M = TILE * 2u;
@group(0) @binding(0) var<storage, read_write> data: array<T>;
fn load(i: u32) -> T { // } not the end
    if (i > 3u) { return data[i]; }
    return data[0];
}
fn loaded(i: u32) -> T { const TILE = 3u; return load(i + TILE); }
@compute @workgroup_size(TILE_M) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    data[id.x] = load(id.x) + loaded(id.x);
}
";

    fn valid(text: &str) {
        use wgpu::naga;
        let module = naga::front::wgsl::parse_str(text).unwrap_or_else(|e| panic!("{}", e.emit_to_string(text)));
        let flags = naga::valid::ValidationFlags::all();
        naga::valid::Validator::new(flags, naga::valid::Capabilities::all()).validate(&module).unwrap();
    }

    #[test]
    fn every_kind_of_rewrite() {
        valid(KERNEL);
        let text = Shader::new(KERNEL)
            .constant("TILE", "4u")
            .constant("TILE_M", "TILE * 8u")
            .alias("T", "vec4<f32>")
            .seam("load", " { let v = data[i]; { return other(v); } } ")
            .declare("fn other(v: T) -> T { return v * scale; }")
            .declare("@group(0) @binding(1) var<uniform> scale: f32;")
            .build()
            .unwrap();
        valid(&text);
        assert!(text.contains("\nconst TILE: u32 = 4u; const TILE_M = TILE * 8u;\n"), "{text}");
        assert!(text.contains("\nalias T = vec4<f32>; // the element\n"), "{text}");
        assert!(text.contains("\nfn load(i: u32) -> T { let v = data[i]; { return other(v); } }\nfn loaded"), "{text}");
        // Comments and inner scopes are as they were.
        assert!(text.starts_with(KERNEL.lines().next().unwrap()), "{text}");
        assert!(text.contains("/* alias T = i32; /* nested */ fn load(i: u32) -> T { return 0; } */"), "{text}");
        assert!(text.contains("const TILE = 3u;"), "{text}");
    }

    #[test]
    fn a_function_is_found_whole() {
        let load = function(KERNEL, "load").unwrap();
        assert!(
            load.starts_with("fn load(i: u32) -> T { // } not the end\n") && load.ends_with("data[0];\n}"),
            "{load}"
        );
        assert!(function(KERNEL, "main").unwrap().ends_with("loaded(id.x);\n}"));
        assert_eq!(function(KERNEL, "loa"), None);
        assert_eq!(function(KERNEL, "TILE"), None);
    }

    #[test]
    fn an_extension_is_enabled_before_anything_else() {
        let text = Shader::new(KERNEL).alias("T", "f16").enable("f16").build().unwrap();
        assert!(text.starts_with("enable f16;\n// const TILE"), "{text}");
    }

    #[test]
    fn mistakes_are_typed_and_name_what_is_missing() {
        let missing = [
            Shader::new(KERNEL).constant("ABSENT", "1"),
            Shader::new(KERNEL).alias("TILE", "f32"),
            Shader::new(KERNEL).seam("data", "{}"),
            Shader::new(KERNEL).seam("load", "return 1;"),
            Shader::new(KERNEL).seam("load", "{ } }"),
            Shader::new("const A").constant("A", "1"),
            Shader::new("fn f() {").seam("f", "{}"),
        ];
        for shader in missing {
            let error = shader.constant("TILE", "1u").build().unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Shader { .. }), "{error}");
        }
        let Err(ErrorKind::Shader { why, source }) =
            Shader::new(KERNEL).constant("ABSENT", "1").build().map_err(Error::into_kind)
        else {
            panic!()
        };
        assert_eq!((why.as_str(), &*source), ("there is no `const ABSENT` to replace", KERNEL));
    }
}
