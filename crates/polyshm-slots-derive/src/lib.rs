#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod annotation;
mod attributes;
mod expand;
mod types;

use proc_macro::TokenStream;
use syn::{DeriveInput, Error, Path, parse_macro_input, parse_quote};

/// Makes a struct a record of `polyshm-slots`; see the crate's page.
#[proc_macro_derive(Record, attributes(record))]
pub fn record(input: TokenStream) -> TokenStream {
    with_crate(parse_macro_input!(input), parse_quote!(::polyshm_slots))
}

/// The same for users of the facade, which exports it as `Record`: the generated
/// code names `polyshm::slots`.
#[doc(hidden)]
#[proc_macro_derive(FacadeRecord, attributes(record))]
pub fn facade_record(input: TokenStream) -> TokenStream {
    with_crate(parse_macro_input!(input), parse_quote!(::polyshm::slots))
}

fn with_crate(input: DeriveInput, krate: Path) -> TokenStream {
    expand::expand(input, krate)
        .unwrap_or_else(Error::into_compile_error)
        .into()
}
