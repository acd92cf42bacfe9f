//! `#[record(...)]`.

use crate::annotation::Annotation;
use syn::{
    Attribute, Error, Ident, LitStr, Path, Result, Token, ext::IdentExt as _, parse::ParseStream,
};

/// On the struct.
#[derive(Default)]
pub(crate) struct RecordAttributes {
    pub(crate) krate: Option<Path>,
    pub(crate) fields: Option<Ident>,
    pub(crate) update: Option<Ident>,
}

/// On a field.
#[derive(Default)]
pub(crate) struct FieldAttributes {
    pub(crate) annotation: Option<(LitStr, Annotation)>,
    pub(crate) name: Option<LitStr>,
}

fn set<T>(place: &mut Option<T>, value: T, at: proc_macro2::Span, what: &str) -> Result<()> {
    if place.replace(value).is_some() {
        return Err(Error::new(at, format!("{what} is given twice")));
    }
    Ok(())
}

/// Calls `item` for each item between the commas of all `#[record(...)]`.
fn items(
    attributes: &[Attribute],
    mut item: impl FnMut(ParseStream<'_>) -> Result<()>,
) -> Result<()> {
    for attribute in attributes {
        if !attribute.path().is_ident("record") {
            continue;
        }
        // `#[record = "..."]` and `#[record]` say what is expected themselves.
        attribute.meta.require_list()?;
        attribute.parse_args_with(|input: ParseStream<'_>| {
            while !input.is_empty() {
                item(input)?;
                if !input.is_empty() {
                    input.parse::<Token![,]>()?;
                }
            }
            Ok(())
        })?;
    }
    Ok(())
}

impl RecordAttributes {
    pub(crate) fn read(attributes: &[Attribute]) -> Result<Self> {
        let mut read = Self::default();
        let allowed = "allowed on a struct are `crate = path`, `fields = Name` and \
                       `update = Name`";
        items(attributes, |input| {
            if !input.peek(Ident::peek_any) {
                return Err(input.error(allowed));
            }
            let key = Ident::parse_any(input)?;
            input.parse::<Token![=]>()?;
            match &*key.to_string() {
                "crate" => set(
                    &mut read.krate,
                    input.call(Path::parse_mod_style)?,
                    key.span(),
                    "crate",
                ),
                "fields" => set(&mut read.fields, input.parse()?, key.span(), "fields"),
                "update" => set(&mut read.update, input.parse()?, key.span(), "update"),
                other => Err(Error::new(
                    key.span(),
                    format!("{other} is unknown: {allowed}"),
                )),
            }
        })?;
        Ok(read)
    }
}

impl FieldAttributes {
    pub(crate) fn read(attributes: &[Attribute], field: &str) -> Result<Self> {
        let mut read = Self::default();
        items(attributes, |input| {
            if input.peek(LitStr) {
                let literal: LitStr = input.parse()?;
                let at = literal.span();
                let annotation =
                    Annotation::parse(&literal.value()).map_err(|why| Error::new(at, why))?;
                return set(
                    &mut read.annotation,
                    (literal, annotation),
                    at,
                    "the annotation",
                );
            }
            let allowed = "allowed on a field are its annotation, as in \"str[32]\", and \
                           `name = \"other\"`";
            if !input.peek(Ident::peek_any) {
                return Err(input.error(allowed));
            }
            let key = Ident::parse_any(input)?;
            if key != "name" {
                return Err(Error::new(
                    key.span(),
                    format!("{key} is unknown: {allowed}"),
                ));
            }
            input.parse::<Token![=]>()?;
            let name: LitStr = input.parse()?;
            check_name(&name)?;
            let at = name.span();
            set(&mut read.name, name, at, "name")
        })
        .map_err(|error| of_field(field, &error))?;
        Ok(read)
    }
}

/// The same error, which names the field.
pub(crate) fn of_field(field: &str, error: &Error) -> Error {
    let mut all: Option<Error> = None;
    for error in error.clone() {
        let error = Error::new(error.span(), format!("field `{field}`: {error}"));
        match &mut all {
            Some(all) => all.combine(error),
            None => all = Some(error),
        }
    }
    all.unwrap_or_else(|| error.clone())
}

/// The longest name of a field in bytes.
const MAX_NAME_LEN: usize = 255;

fn check_name(name: &LitStr) -> Result<()> {
    let text = name.value();
    let fits = |c: char| c == '_' || c.is_alphanumeric();
    if text.is_empty() || text.starts_with(char::is_numeric) || !text.chars().all(fits) {
        return Err(Error::new(
            name.span(),
            format!(
                "{text:?} is no name of a field: letters, digits and _ make one, and no digit is \
                 the first"
            ),
        ));
    }
    if text.len() > MAX_NAME_LEN {
        return Err(Error::new(
            name.span(),
            format!(
                "the name has {} bytes: at most {MAX_NAME_LEN} are allowed",
                text.len()
            ),
        ));
    }
    Ok(())
}
