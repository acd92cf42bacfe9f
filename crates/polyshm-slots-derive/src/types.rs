//! What can be said about a field's Rust type by its spelling alone.
//!
//! Types have other names too, so nothing here decides that a type is right:
//! the traits do. It only gives the most likely mistakes a message of their
//! own.

use crate::annotation::{Annotation, DTYPES, Dtype};
use proc_macro2::{TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::{Expr, GenericArgument, Lit, PathArguments, Type};

/// A type as a person writes it.
pub(crate) fn spelled(ty: &Type) -> String {
    let mut text = String::new();
    spell(ty.to_token_stream(), &mut text);
    text
}

fn spell(tokens: TokenStream, into: &mut String) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    proc_macro2::Delimiter::Parenthesis => ("(", ")"),
                    proc_macro2::Delimiter::Brace => ("{", "}"),
                    proc_macro2::Delimiter::Bracket => ("[", "]"),
                    proc_macro2::Delimiter::None => ("", ""),
                };
                *into += open;
                spell(group.stream(), into);
                *into += close;
            }
            TokenTree::Punct(punct) => {
                into.push(punct.as_char());
                if matches!(punct.as_char(), ',' | ';') {
                    into.push(' ');
                }
            }
            word => {
                if into.ends_with(|c: char| c.is_alphanumeric() || c == '_') {
                    into.push(' ');
                }
                *into += &word.to_string();
            }
        }
    }
}

/// Without parentheses and invisible groups.
fn bare(ty: &Type) -> &Type {
    match ty {
        Type::Paren(inner) => bare(&inner.elem),
        Type::Group(inner) => bare(&inner.elem),
        _ => ty,
    }
}

/// The last name of a path, and the types it is given.
fn named(ty: &Type) -> Option<(String, Vec<&Type>)> {
    let Type::Path(path) = bare(ty) else {
        return None;
    };
    let last = path.path.segments.last()?;
    let given = match &last.arguments {
        PathArguments::AngleBracketed(given) => given
            .args
            .iter()
            .filter_map(|argument| match argument {
                GenericArgument::Type(ty) => Some(ty),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    };
    Some((last.ident.to_string(), given))
}

/// The element type of that name.
fn dtype(ty: &Type) -> Option<&'static Dtype> {
    let (name, _) = named(ty)?;
    DTYPES.iter().find(|dtype| dtype.rust == name)
}

/// Why a type cannot be a field's, whatever is said about it.
pub(crate) fn refuse(ty: &Type) -> Option<String> {
    let text = spelled(ty);
    match bare(ty) {
        Type::Path(_) => {}
        Type::Array(array) => return refuse_element(&array.elem, true),
        Type::Reference(_) => {
            return Some(format!(
                "{text} is a reference, and a record owns its values: use a String, a Vec or an \
                 array"
            ));
        }
        Type::Slice(_) => {
            return Some(format!(
                "{text} is no type of a field: use a Vec and its shape, #[record(\"uint8[480]\")], \
                 or an array, [u8; 480]"
            ));
        }
        Type::Verbatim(_) | Type::Macro(_) | Type::Infer(_) => return None,
        _ => return Some(format!("{text} is no type of a field: {ALLOWED}")),
    }
    let (name, given) = named(ty)?;
    match (&*name, &*given) {
        ("f32", []) => Some("f32 is no type of a field: use f64, or an array, [f32; 1]".into()),
        ("i8" | "i16" | "i64" | "u8" | "u16" | "u32" | "u64", []) => Some(format!(
            "{text} is no type of a field: use i32, or an array, [{text}; 1]"
        )),
        ("isize" | "i128", []) => Some(format!(
            "{text} is no type of a field: use i32, or an array, [i64; 1]"
        )),
        ("usize" | "u128", []) => Some(format!(
            "{text} is no type of a field: use i32, or an array, [u64; 1]"
        )),
        ("char" | "str", []) => Some(format!(
            "{text} is no type of a field: use String, #[record(\"str[1]\")]"
        )),
        ("Option", [inner]) => Some(format!(
            "{text} is no type of a field: use {}, since the status of each field tells whether \
             it was written",
            spelled(inner)
        )),
        ("Vec", [element]) => refuse_element(element, false),
        ("Box", [inner]) => match bare(inner) {
            Type::Array(array) => refuse_element(&array.elem, true),
            _ => Some(format!(
                "{text} is no type of a field: only arrays are boxed, Box<[u8; 480]>"
            )),
        },
        _ => None,
    }
}

const ALLOWED: &str = "allowed are f64, i32, bool, String, and arrays of numbers and bool as \
                       [T; N], Box<[T; N]> and Vec<T>";

/// Why a type cannot be an array's element.
fn refuse_element(element: &Type, nested: bool) -> Option<String> {
    let text = spelled(element);
    let (name, given) = match bare(element) {
        Type::Array(array) if nested => return refuse_element(&array.elem, true),
        Type::Array(_) => {
            return Some(format!(
                "a Vec holds the elements of all dimensions, and {text} is none: use the element \
                 itself, and the shape in the annotation"
            ));
        }
        Type::Path(_) => named(element)?,
        Type::Verbatim(_) | Type::Macro(_) | Type::Infer(_) => return None,
        _ => (String::new(), Vec::new()),
    };
    let known = matches!(
        (&*name, &*given),
        (
            "isize" | "usize" | "i128" | "u128" | "char" | "String" | "",
            []
        ) | ("Vec" | "Option" | "Box", _)
    );
    known.then(|| {
        let rust: Vec<_> = DTYPES.iter().map(|dtype| dtype.rust).collect();
        format!(
            "{text} is no element of an array: allowed are {}",
            rust.join(", ")
        )
    })
}

/// What a type that stands for several needs to be told.
pub(crate) fn needs(ty: &Type) -> Option<String> {
    let (name, given) = named(ty)?;
    let array = |dimensions: usize| {
        let dtype = given.first().and_then(|element| dtype(element));
        let sizes = ["480", "640", "3", "2", "2", "2"];
        format!(
            "{} needs its shape: #[record(\"{}[{}]\")]",
            spelled(ty),
            dtype.map_or("uint8", |dtype| dtype.name),
            sizes[..dimensions].join(",")
        )
    };
    match (&*name, given.len()) {
        ("String", 0) => Some("String needs its length: #[record(\"str[32]\")]".into()),
        ("Vec" | "ArrayD" | "Array3", 1) | ("Array", 2) => Some(array(3)),
        ("Array1", 1) => Some(array(1)),
        ("Array2", 1) => Some(array(2)),
        ("Array4", 1) => Some(array(4)),
        ("Array5", 1) => Some(array(5)),
        ("Array6", 1) => Some(array(6)),
        _ => None,
    }
}

/// The size of a field without annotation, when the spelling gives it.
pub(crate) fn size(ty: &Type) -> Option<u64> {
    match bare(ty) {
        Type::Array(array) => {
            let Expr::Lit(len) = &array.len else {
                return None;
            };
            let Lit::Int(len) = &len.lit else {
                return None;
            };
            let element = match bare(&array.elem) {
                Type::Array(_) => size(&array.elem)?,
                _ => dtype(&array.elem)?.size,
            };
            Some(len.base10_parse::<u64>().ok()?.saturating_mul(element))
        }
        _ => match named(ty)? {
            (name, given) if name == "Box" && given.len() == 1 => size(given[0]),
            (name, given) if given.is_empty() => {
                let annotation = match &*name {
                    "f64" => Annotation::Float,
                    "i32" => Annotation::Int,
                    "bool" => Annotation::Bool,
                    _ => return None,
                };
                annotation.size().ok()
            }
            _ => None,
        },
    }
}

/// What a write takes for the type, when the spelling gives it: a shorter name
/// for the same type, to be read in documentation.
pub(crate) fn input(ty: &Type) -> Option<TokenStream> {
    let array = |ty: &Type| matches!(bare(ty), Type::Array(_)).then(|| quote!(&'a #ty));
    if let Some(array) = array(ty) {
        return Some(array);
    }
    let Type::Path(path) = bare(ty) else {
        return None;
    };
    path.path
        .segments
        .first()
        .filter(|_| path.path.segments.len() == 1)?;
    let (name, given) = named(ty)?;
    match (&*name, &*given) {
        ("f64" | "i32" | "bool", []) => Some(quote!(#ty)),
        ("String", []) => Some(quote!(&'a str)),
        ("Vec", [element]) => Some(quote!(&'a [#element])),
        ("Box", [inner]) => array(inner),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Type {
        syn::parse_str(text).unwrap()
    }

    #[test]
    fn types_are_spelled_as_they_were_written() {
        for text in [
            "f64",
            "[[f32; 3]; 3]",
            "Box<[[[u8; 3]; 640]; N]>",
            "std::vec::Vec<u8>",
            "&'a str",
            "Option<(i32, bool)>",
        ] {
            assert_eq!(spelled(&parsed(text)), text);
        }
    }

    #[test]
    fn sizes_known_by_spelling() {
        for (text, size) in [
            ("f64", Some(8)),
            ("i32", Some(4)),
            ("bool", Some(1)),
            ("[bool; 3]", Some(3)),
            ("[[f32; 3]; 4]", Some(48)),
            ("Box<[[[u8; 3]; 640]; 480]>", Some(921_600)),
            ("[u64; 99999999999999999999]", None),
            ("[u64; 9999999999999999999]", Some(u64::MAX)),
            ("[f64; N]", None),
            ("String", None),
            ("Mine", None),
        ] {
            assert_eq!(super::size(&parsed(text)), size, "{text}");
        }
    }
}
