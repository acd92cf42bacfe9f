//! From the struct to the code that is generated.

use crate::{
    annotation::{Annotation, MAX_SEGMENT},
    attributes::{FieldAttributes, RecordAttributes, of_field},
    types,
};
use proc_macro2::{Literal, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use std::collections::HashMap;
use syn::{
    Attribute, Data, DeriveInput, Error, Fields, Ident, Path, Result, Type, Visibility,
    ext::IdentExt as _, spanned::Spanned as _,
};

/// The most fields of a record.
const MAX_FIELDS: usize = u16::MAX as usize;

/// A field of the struct.
struct Field {
    ident: Ident,
    vis: Visibility,
    ty: Type,
    docs: Vec<Attribute>,
    /// in the schema
    name: String,
    /// what the schema says of it, unless the type alone does
    annotation: Option<(proc_macro2::Span, Annotation)>,
}

/// The generated code. `krate` is where the record's crate is found unless the
/// struct says otherwise.
pub(crate) fn expand(input: DeriveInput, krate: Path) -> Result<TokenStream> {
    let attributes = RecordAttributes::read(&input.attrs)?;
    let fields = read_fields(&input)?;
    let krate = attributes.krate.unwrap_or(krate);
    let bare = input.ident.unraw();
    let names = Names {
        fields: attributes
            .fields
            .unwrap_or_else(|| format_ident!("{bare}Fields", span = input.ident.span())),
        update: attributes
            .update
            .unwrap_or_else(|| format_ident!("{bare}Update", span = input.ident.span())),
        record: input.ident,
        vis: input.vis,
    };
    let record = record_impls(&krate, &names, &fields);
    let read = fields_struct(&krate, &names, &fields);
    let update = update_struct(&krate, &names, &fields);
    Ok(quote!(#read #update #record))
}

struct Names {
    record: Ident,
    fields: Ident,
    update: Ident,
    vis: Visibility,
}

fn read_fields(input: &DeriveInput) -> Result<Vec<Field>> {
    let what = match &input.data {
        Data::Struct(_) => "",
        Data::Enum(_) => "an enum",
        Data::Union(_) => "a union",
    };
    let Data::Struct(data) = &input.data else {
        return Err(Error::new_spanned(
            &input.ident,
            format!("{what} is no record: use a struct with named fields"),
        ));
    };
    if !input.generics.params.is_empty() {
        return Err(Error::new_spanned(
            &input.generics,
            "a record has no parameters: its fields have the types and sizes that its readers \
             expect, so write a struct for each",
        ));
    }
    if let Some(clause) = &input.generics.where_clause {
        return Err(Error::new_spanned(clause, "a record has no where clause"));
    }
    let named = match &data.fields {
        Fields::Named(named) => named.named.iter().collect(),
        Fields::Unit => Vec::new(),
        Fields::Unnamed(unnamed) => {
            return Err(Error::new_spanned(
                unnamed,
                "the fields of a record have names: struct Sensor { temperature: f64 }",
            ));
        }
    };
    if named.len() > MAX_FIELDS {
        return Err(Error::new_spanned(
            &input.ident,
            format!("a record has at most {MAX_FIELDS} fields"),
        ));
    }

    let mut errors: Option<Error> = None;
    let mut report = |error: Error| match &mut errors {
        Some(errors) => errors.combine(error),
        None => errors = Some(error),
    };
    let mut fields = Vec::new();
    let mut taken: HashMap<String, String> = HashMap::new();
    let mut total = 0_u64;
    for field in named {
        match read_field(field) {
            Ok(field) => {
                let rust = field.ident.to_string();
                if let Some(other) = taken.insert(field.name.clone(), rust.clone()) {
                    let clash = Error::new(
                        field.ident.span(),
                        format!(
                            "the field `{other}` is named {:?} too: each name may occur once",
                            field.name
                        ),
                    );
                    report(of_field(&rust, &clash));
                }
                let size = match &field.annotation {
                    Some((_, annotation)) => annotation.size().ok(),
                    None => types::size(&field.ty),
                };
                let before = total;
                total = total.saturating_add(size.unwrap_or(0));
                if total > MAX_SEGMENT && before <= MAX_SEGMENT {
                    let large = Error::new(
                        field.ident.span(),
                        format!(
                            "with it the record takes more than {MAX_SEGMENT} bytes, the limit"
                        ),
                    );
                    report(of_field(&rust, &large));
                }
                fields.push(field);
            }
            Err(error) => report(error),
        }
    }
    match errors {
        None => Ok(fields),
        Some(errors) => Err(errors),
    }
}

fn read_field(field: &syn::Field) -> Result<Field> {
    let ident = field
        .ident
        .clone()
        .ok_or_else(|| Error::new_spanned(field, "the fields of a record have names"))?;
    let rust = ident.unraw().to_string();
    let attributes = FieldAttributes::read(&field.attrs, &rust)?;
    let refuse = |at: proc_macro2::Span, why: String| of_field(&rust, &Error::new(at, why));
    if let Some(why) = types::refuse(&field.ty) {
        return Err(refuse(field.ty.span(), why));
    }
    if attributes.annotation.is_none()
        && let Some(why) = types::needs(&field.ty)
    {
        return Err(refuse(field.ty.span(), why));
    }
    if rust == "new" {
        return Err(refuse(
            ident.span(),
            "the update type has a function of that name: use another, and \
             #[record(name = \"new\")]"
                .into(),
        ));
    }
    Ok(Field {
        vis: field.vis.clone(),
        ty: field.ty.clone(),
        docs: field
            .attrs
            .iter()
            .filter(|attribute| attribute.path().is_ident("doc"))
            .cloned()
            .collect(),
        name: attributes.name.map_or(rust, |name| name.value()),
        annotation: attributes
            .annotation
            .map(|(literal, annotation)| (literal.span(), annotation)),
        ident,
    })
}

/// The expression of the field's type in the schema.
fn field_type(krate: &Path, field: &Field) -> TokenStream {
    match &field.annotation {
        None => {
            let ty = &field.ty;
            quote_spanned!(ty.span()=> <#ty as #krate::FixedField>::field_type())
        }
        Some((_, annotation)) => match annotation {
            Annotation::Float => quote!(#krate::FieldType::Float),
            Annotation::Int => quote!(#krate::FieldType::Int),
            Annotation::Bool => quote!(#krate::FieldType::Bool),
            Annotation::Text { max_chars } => {
                let max_chars = Literal::u64_unsuffixed(*max_chars);
                quote!(#krate::FieldType::Text { max_chars: #max_chars })
            }
            Annotation::Array { dtype, shape } => {
                let dtype = format_ident!("{}", dtype.variant);
                let shape = shape.iter().map(|size| Literal::u64_unsuffixed(*size));
                quote! {
                    #krate::FieldType::Array {
                        dtype: #krate::Dtype::#dtype,
                        shape: ::std::vec![#(#shape),*],
                    }
                }
            }
        },
    }
}

/// Refuses an annotation that the Rust type cannot have.
fn check(krate: &Path, field: &Field) -> Option<TokenStream> {
    let (span, annotation) = field.annotation.as_ref()?;
    let allows = match annotation {
        Annotation::Float => quote!(allows_float()),
        Annotation::Int => quote!(allows_int()),
        Annotation::Bool => quote!(allows_bool()),
        Annotation::Text { .. } => quote!(allows_text()),
        Annotation::Array { dtype, shape } => {
            let dtype = format_ident!("{}", dtype.variant);
            let shape = shape.iter().map(|size| Literal::u64_unsuffixed(*size));
            quote!(allows_array(#krate::Dtype::#dtype, &[#(#shape),*]))
        }
    };
    let ty = &field.ty;
    let message = format!(
        "field `{}`: the type {} cannot hold {annotation:}",
        field.ident.unraw(),
        types::spelled(ty),
    );
    // A message is no format here, and what it says may have braces.
    let message = message.replace('{', "{{").replace('}', "}}");
    let form = quote_spanned!(ty.span()=> <#ty as #krate::DeclaredField>::FORM);
    Some(quote_spanned!(*span=> const _: () = ::core::assert!(#form.#allows, #message);))
}

fn record_impls(krate: &Path, names: &Names, fields: &[Field]) -> TokenStream {
    let Names {
        record,
        fields: read,
        ..
    } = names;
    let count = fields.len();
    let index: Vec<_> = (0..count).map(Literal::usize_unsuffixed).collect();
    let ident: Vec<_> = fields.iter().map(|field| &field.ident).collect();
    let name = fields.iter().map(|field| &field.name);
    let types = fields.iter().map(|field| field_type(krate, field));
    let checks = fields.iter().filter_map(|field| check(krate, field));
    let broken = format!("record `{record}`: {{}}");
    let update = whole_update(krate, record, fields);
    quote! {
        const _: () = {
            #(#checks)*

            #[automatically_derived]
            impl #krate::Record for #record {
                type Fields = #read;

                fn empty(schema: &#krate::Schema) -> #read {
                    let _ = schema;
                    #read {
                        #(#ident: #krate::Field::empty(&schema.fields()[#index].ty),)*
                    }
                }

                #[inline]
                fn load(fields: &mut #read, from: &#krate::Source<'_>) {
                    let _ = (&fields, from);
                    #(#krate::Field::load(&mut fields.#ident, #index, from);)*
                }

                #[inline]
                fn count(fields: &mut #read, from: &#krate::Source<'_>) {
                    let _ = (&fields, from);
                    #(#krate::Field::count(&mut fields.#ident, #index, from);)*
                }
            }

            #[automatically_derived]
            impl #krate::TypedRecord for #record {
                fn schema() -> &'static #krate::Schema {
                    static SCHEMA: ::std::sync::LazyLock<#krate::Schema> =
                        ::std::sync::LazyLock::new(|| {
                            let fields: [#krate::FieldSpec; #count] = [
                                #(#krate::FieldSpec::new(#name, #types),)*
                            ];
                            match #krate::Schema::new(fields) {
                                ::core::result::Result::Ok(schema) => schema,
                                ::core::result::Result::Err(error) => {
                                    ::core::panic!(#broken, error)
                                }
                            }
                        });
                    &SCHEMA
                }
            }

            #update
        };
    }
}

/// A record is an update of all its fields.
fn whole_update(krate: &Path, record: &Ident, fields: &[Field]) -> TokenStream {
    let index: Vec<_> = (0..fields.len()).map(Literal::usize_unsuffixed).collect();
    let ident: Vec<_> = fields.iter().map(|field| &field.ident).collect();
    let ty: Vec<_> = fields.iter().map(|field| &field.ty).collect();
    quote! {
        #[automatically_derived]
        impl #krate::Update<#record> for #record {
            #[inline]
            fn prepare(
                &self,
                draft: &mut #krate::Draft<'_>,
            ) -> ::core::result::Result<(), #krate::ValueError> {
                let _ = &draft;
                #(
                    #krate::FieldInput::prepare(
                        &#krate::FieldValue::input(&self.#ident),
                        #index,
                        draft,
                    )?;
                )*
                ::core::result::Result::Ok(())
            }

            #[inline]
            fn large(&self, _: &#krate::Schema, field: usize) -> &[u8] {
                match field {
                    #(
                        #index => #krate::FieldInput::large(
                            &#krate::FieldValue::input(&self.#ident),
                        ),
                    )*
                    _ => &[],
                }
            }

            #[inline]
            fn is_whole(&self) -> bool {
                true #(
                    && <<#ty as #krate::FieldValue>::Input<'static>
                        as #krate::FieldInput<'static>>::WHOLE
                )*
            }

            #[inline]
            fn fill(&self, into: &mut #krate::Filler<'_>) {
                let _ = &into;
                #(
                    #krate::FieldInput::fill(
                        &#krate::FieldValue::input(&self.#ident),
                        into,
                    );
                )*
            }
        }
    }
}

/// The field's own documentation, or a line that names it.
fn docs(field: &Field) -> TokenStream {
    if field.docs.is_empty() {
        let line = format!("The field `{}`.", field.name);
        return quote!(#[doc = #line]);
    }
    let docs = &field.docs;
    quote!(#(#docs)*)
}

fn fields_struct(krate: &Path, names: &Names, fields: &[Field]) -> TokenStream {
    let Names {
        record,
        fields: read,
        vis,
        ..
    } = names;
    let members = fields.iter().map(|field| {
        let Field { ident, vis, ty, .. } = field;
        let docs = docs(field);
        let ty = quote_spanned!(ty.span()=> #krate::Field<#ty>);
        quote!(#docs #vis #ident: #ty)
    });
    let line = format!("What a read of [`{record}`] gives: each field with its status.");
    quote! {
        #[doc = #line]
        #[derive(::core::clone::Clone, ::core::fmt::Debug)]
        #[allow(non_snake_case)]
        #vis struct #read {
            #(#members,)*
        }
    }
}

fn update_struct(krate: &Path, names: &Names, fields: &[Field]) -> TokenStream {
    let Names {
        record,
        update,
        vis,
        ..
    } = names;
    let ident: Vec<_> = fields.iter().map(|field| &field.ident).collect();
    let index: Vec<_> = (0..fields.len()).map(Literal::usize_unsuffixed).collect();
    let input: Vec<_> = fields
        .iter()
        .map(|field| {
            let ty = &field.ty;
            types::input(ty).unwrap_or_else(
                || quote_spanned!(ty.span()=> <#ty as #krate::FieldValue>::Input<'a>),
            )
        })
        .collect();
    let setters = fields.iter().zip(&input).map(|(field, input)| {
        let Field { ident, vis, .. } = field;
        let line = format!("Lists the field `{}`.", field.name);
        quote! {
            #[doc = #line]
            #[inline]
            #[must_use]
            #vis fn #ident(mut self, value: #input) -> Self {
                self.#ident = ::core::option::Option::Some(value);
                self
            }
        }
    });
    let line = format!("Values for some fields of [`{record}`], to be written.");
    let start = "A write of no field yet: each call of a field's name lists it with a value.";
    quote! {
        #[doc = #line]
        #[derive(::core::clone::Clone, ::core::fmt::Debug, ::core::default::Default)]
        #[allow(dead_code, non_snake_case)]
        #vis struct #update<'a> {
            #(#ident: ::core::option::Option<#input>,)*
            // Scalars alone would leave the lifetime unused.
            __borrowed: ::core::marker::PhantomData<&'a ()>,
        }

        #[allow(dead_code, non_snake_case)]
        #[automatically_derived]
        impl<'a> #update<'a> {
            #[doc = #start]
            #[must_use]
            #vis fn new() -> Self {
                ::core::default::Default::default()
            }

            #(#setters)*
        }

        #[allow(dead_code)]
        #[automatically_derived]
        impl #record {
            #[doc = #start]
            #[must_use]
            #vis fn update<'a>() -> #update<'a> {
                ::core::default::Default::default()
            }
        }

        #[automatically_derived]
        impl #krate::Update<#record> for #update<'_> {
            #[inline]
            fn prepare(
                &self,
                draft: &mut #krate::Draft<'_>,
            ) -> ::core::result::Result<(), #krate::ValueError> {
                let _ = &draft;
                #(
                    if let ::core::option::Option::Some(value) = &self.#ident {
                        #krate::FieldInput::prepare(value, #index, draft)?;
                    }
                )*
                ::core::result::Result::Ok(())
            }

            #[inline]
            fn large(&self, _: &#krate::Schema, field: usize) -> &[u8] {
                match field {
                    #(
                        #index => match &self.#ident {
                            ::core::option::Option::Some(value) => {
                                #krate::FieldInput::large(value)
                            }
                            ::core::option::Option::None => &[],
                        },
                    )*
                    _ => &[],
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use syn::parse_quote;

    /// What the expansion says.
    fn error(input: &str) -> String {
        let error = expanded(input).unwrap_err();
        let all: Vec<_> = error.into_iter().map(|error| error.to_string()).collect();
        all.join("\n")
    }

    fn expanded(input: &str) -> Result<String> {
        let input = syn::parse_str(input).unwrap();
        expand(input, parse_quote!(::polyshm_slots)).map(|tokens| tokens.to_string())
    }

    /// With this one field.
    fn field_error(field: &str) -> String {
        error(&format!(
            "struct Sensor {{ good: f64, {field}, last: i32 }}"
        ))
    }

    #[test]
    fn what_is_no_struct_with_named_fields_is_refused() {
        for (input, why) in [
            ("enum Sensor { A, B }", "an enum is no record"),
            ("union Sensor { a: f64, b: i32 }", "a union is no record"),
            ("struct Sensor(f64);", "the fields of a record have names"),
            ("struct Sensor<T> { a: T }", "a record has no parameters"),
            (
                "struct Sensor<'a> { a: &'a str }",
                "a record has no parameters",
            ),
            (
                "struct Sensor<const N: usize> { a: [f32; N] }",
                "a record has no parameters",
            ),
            (
                "struct Sensor where f64: Copy { a: f64 }",
                "a record has no where clause",
            ),
        ] {
            let error = error(input);
            assert!(error.contains(why), "{input}: {error}");
        }
    }

    #[test]
    fn records_without_fields_are_fine() {
        for input in ["struct Empty;", "struct Empty {}"] {
            let code = expanded(input).unwrap();
            assert!(code.contains("struct EmptyFields"), "{code}");
        }
    }

    #[test]
    fn types_that_no_field_has_are_named_with_what_is_allowed() {
        for (ty, why) in [
            (
                "u32",
                "u32 is no type of a field: use i32, or an array, [u32; 1]",
            ),
            ("u8", "use i32, or an array, [u8; 1]"),
            ("i64", "use i32, or an array, [i64; 1]"),
            ("usize", "use i32, or an array, [u64; 1]"),
            ("i128", "use i32, or an array, [i64; 1]"),
            ("f32", "use f64, or an array, [f32; 1]"),
            ("char", "use String, #[record(\"str[1]\")]"),
            ("Option<f64>", "Option<f64> is no type of a field: use f64"),
            ("&'static str", "&'static str is a reference"),
            (
                "(f64, f64)",
                "(f64, f64) is no type of a field: allowed are f64, i32, bool",
            ),
            (
                "fn() -> f64",
                "is no type of a field: allowed are f64, i32, bool",
            ),
            (
                "[usize; 3]",
                "usize is no element of an array: allowed are f32, f64, i8",
            ),
            ("[[String; 3]; 2]", "String is no element of an array"),
            ("[(f32, f32); 3]", "(f32, f32) is no element of an array"),
            ("Box<[char; 3]>", "char is no element of an array"),
            ("Box<f64>", "only arrays are boxed"),
            ("Box<str>", "only arrays are boxed"),
            ("Vec<usize>", "usize is no element of an array"),
            ("Vec<Vec<f32>>", "Vec<f32> is no element of an array"),
            ("Vec<[f32; 3]>", "use the element itself, and the shape"),
        ] {
            for annotation in ["", "#[record(\"uint32[1]\")]"] {
                let error = field_error(&format!("{annotation} count: {ty}"));
                assert!(error.contains("field `count`: "), "{ty}: {error}");
                assert!(error.contains(why), "{ty}: {error}");
            }
        }
    }

    #[test]
    fn types_that_need_an_annotation_are_told_so() {
        for (ty, why) in [
            ("String", "String needs its length: #[record(\"str[32]\")]"),
            ("std::string::String", "String needs its length"),
            (
                "Vec<f32>",
                "Vec<f32> needs its shape: #[record(\"float32[480,640,3]\")]",
            ),
            (
                "ndarray::Array1<bool>",
                "ndarray::Array1<bool> needs its shape: #[record(\"bool[480]\")]",
            ),
            ("Array2<u8>", "#[record(\"uint8[480,640]\")]"),
            ("Array3<u16>", "#[record(\"uint16[480,640,3]\")]"),
            ("ArrayD<u8>", "needs its shape"),
            ("Array<i64, Ix2>", "#[record(\"int64["),
        ] {
            let error = field_error(&format!("status_msg: {ty}"));
            assert!(error.contains("field `status_msg`: "), "{ty}: {error}");
            assert!(error.contains(why), "{ty}: {error}");
            let code = expanded(&format!(
                "struct Sensor {{ #[record(\"float32[3]\")] status_msg: {ty} }}"
            ));
            assert!(code.is_ok(), "{ty}: {code:?}");
        }
    }

    #[test]
    fn attributes_are_refused_with_the_field_and_what_is_allowed() {
        for (attributes, why) in [
            ("#[record(\"str[0]\")]", "has no room for a character"),
            ("#[record(\"str[32]junk\")]", "write \"str[32]\""),
            ("#[record(\"float16[4]\")]", "allowed are float, int, bool"),
            (
                "#[record(\"uint8[480, 640, 3]\")]",
                "write \"uint8[480,640,3]\"",
            ),
            (
                "#[record(\"uint8[4294967296,4294967296]\")]",
                "is too large",
            ),
            (
                "#[record(size = 3)]",
                "size is unknown: allowed on a field are",
            ),
            (
                "#[record(crate = x)]",
                "crate is unknown: allowed on a field are",
            ),
            ("#[record(3)]", "allowed on a field are its annotation"),
            ("#[record(name = type)]", "expected string literal"),
            ("#[record(name)]", "expected `=`"),
            ("#[record(name = \"\")]", "\"\" is no name of a field"),
            ("#[record(name = \"3d\")]", "\"3d\" is no name of a field"),
            ("#[record(name = \"a b\")]", "\"a b\" is no name of a field"),
            ("#[record(name = \"a-b\")]", "\"a-b\" is no name of a field"),
            (
                "#[record(\"str[3]\", \"str[4]\")]",
                "the annotation is given twice",
            ),
            (
                "#[record(\"str[3]\")] #[record(\"str[4]\")]",
                "the annotation is given twice",
            ),
            (
                "#[record(name = \"a\", name = \"b\")]",
                "name is given twice",
            ),
            ("#[record(\"str[3]\" name = \"a\")]", "expected `,`"),
            ("#[record]", "expected attribute arguments"),
            ("#[record = \"str[3]\"]", "expected `(`"),
        ] {
            let error = field_error(&format!("{attributes} status_msg: String"));
            assert!(
                error.contains("field `status_msg`: "),
                "{attributes}: {error}"
            );
            assert!(error.contains(why), "{attributes}: {error}");
        }
        let long = format!("#[record(name = \"{}\")] kind: i32", "x".repeat(256));
        let error = field_error(&long);
        assert!(
            error.contains("field `kind`: the name has 256 bytes"),
            "{error}"
        );
        assert!(
            expanded(&format!(
                "struct Sensor {{ {} }}",
                long.replacen('x', "", 1)
            ))
            .is_ok()
        );
    }

    #[test]
    fn attributes_of_the_struct_are_checked() {
        for (attributes, why) in [
            ("#[record(\"str[3]\")]", "allowed on a struct are"),
            (
                "#[record(name = \"a\")]",
                "name is unknown: allowed on a struct are",
            ),
            ("#[record(crate = \"polyshm\")]", "expected ident"),
            ("#[record(fields = A, fields = B)]", "fields is given twice"),
        ] {
            let error = error(&format!("{attributes} struct Sensor {{ a: f64 }}"));
            assert!(error.contains(why), "{attributes}: {error}");
        }
        let code = expanded(
            "#[record(crate = my::slots, fields = Seen)] #[record(update = Change)] \
             struct Sensor { a: f64 }",
        )
        .unwrap();
        assert!(
            code.contains("impl my :: slots :: Record for Sensor"),
            "{code}"
        );
        assert!(code.contains("struct Seen "), "{code}");
        assert!(code.contains("struct Change <"), "{code}");
        assert!(!code.contains("polyshm_slots"), "{code}");
    }

    #[test]
    fn names_occur_once() {
        let error = field_error("#[record(name = \"last\")] first: i32");
        assert!(
            error.contains("field `last`: the field `first` is named \"last\" too"),
            "{error}"
        );
        // A raw identifier is the name without its mark.
        let error = field_error("r#type: i32, #[record(name = \"type\")] kind: i32");
        assert!(error.contains("field `kind`: "), "{error}");
        assert!(field_error("new: f64").contains("field `new`: the update type"));
    }

    #[test]
    fn the_whole_record_has_a_largest_size() {
        let half = "Box<[[u8; 549755813888]; 1]>";
        let record = |more: &str| format!("struct Sensor {{ a: {half}, {more} b: {half} }}");
        assert!(expanded(&record("")).is_ok());
        let error = error(&record("c: bool,"));
        assert_eq!(
            error,
            "field `b`: with it the record takes more than 1099511627776 bytes, the limit"
        );
    }

    #[test]
    fn every_wrong_field_is_reported_at_once() {
        let error =
            error("struct Sensor { a: u32, b: f64, c: String, #[record(\"int[3]\")] d: i32 }");
        let lines: Vec<_> = error.lines().collect();
        assert_eq!(lines.len(), 3, "{error}");
        for (line, field) in lines.iter().zip(["a", "c", "d"]) {
            assert!(line.starts_with(&format!("field `{field}`: ")), "{line}");
        }
    }
}
