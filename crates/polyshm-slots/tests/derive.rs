//! Derived records: what is generated, that it means the same as the schema's
//! text, and that typed and dynamic access to one segment agree.
//!
//! The whole file is compiled as a careful user's crate would be.
#![cfg(all(not(loom), feature = "derive", feature = "testing"))]
#![deny(missing_docs, missing_debug_implementations, unused)]

use polyshm_slots::{
    ArrayValue, Dynamic, Field, FieldInput, FieldType, FieldValue, FixedField, Options, Record,
    Schema, SlotStore, Source, Status, TypedRecord, Update, Value, ValueError, Values, WriteError,
    testing::HeapSegment,
};

/// Everything that a record can have.
#[derive(Record, Clone, Debug, Default, PartialEq)]
pub struct Everything {
    /// In degrees Celsius.
    pub temperature: f64,
    /// How it went.
    #[record("str[32]")]
    pub status_msg: String,
    #[record("uint8[480,640,3]")]
    image: Vec<u8>,
    pub(crate) calibration: [[f32; 3]; 3],
    #[record(name = "type")]
    kind: i32,
    #[record("str[8]", name = "id")]
    serial: String,
    mask: Box<[[bool; 2]; 3]>,
    r#final: bool,
    #[record("int64[2,2]")]
    counts: [[i64; 2]; 2],
    #[record("float64[0]")]
    nothing: Vec<f64>,
}

const EVERYTHING: &str = "temperature: float, status_msg: str[32], image: uint8[480,640,3], \
                          calibration: float32[3,3], type: int, id: str[8], mask: bool[3,2], \
                          final: bool, counts: int64[2,2], nothing: float64[0]";

fn everything() -> Everything {
    Everything {
        temperature: -40.5,
        status_msg: "grün".into(),
        image: (0..=250).cycle().take(480 * 640 * 3).collect(),
        calibration: [[1.0, 0.0, 0.5], [0.0, 1.0, 0.25], [0.0, 0.0, 1.0]],
        kind: -7,
        serial: "A-17".into(),
        mask: Box::new([[true, false], [false, true], [true, true]]),
        r#final: true,
        counts: [[1, -2], [i64::MAX, i64::MIN]],
        nothing: Vec::new(),
    }
}

fn heap<R: TypedRecord>(options: Options) -> HeapSegment {
    HeapSegment::new(R::schema(), 1, options).unwrap()
}

fn store<R: TypedRecord>() -> SlotStore<R> {
    heap::<R>(Options::new()).store(Options::new()).unwrap()
}

/// All fields, complete.
fn complete(fields: &EverythingFields) -> Option<Everything> {
    Some(Everything {
        temperature: *fields.temperature.valid()?,
        status_msg: fields.status_msg.valid()?.clone(),
        image: fields.image.valid()?.clone(),
        calibration: *fields.calibration.valid()?,
        kind: *fields.kind.valid()?,
        serial: fields.serial.valid()?.clone(),
        mask: fields.mask.valid()?.clone(),
        r#final: *fields.r#final.valid()?,
        counts: *fields.counts.valid()?,
        nothing: fields.nothing.valid()?.clone(),
    })
}

#[test]
fn the_schema_is_that_of_the_text() {
    let parsed: Schema = EVERYTHING.parse().unwrap();
    assert_eq!(*Everything::schema(), parsed);
    assert_eq!(Everything::schema().to_string(), EVERYTHING);
    assert!(std::ptr::eq(Everything::schema(), Everything::schema()));
}

#[test]
fn a_whole_record_is_written_and_read() {
    let mut store = store::<Everything>();
    let fresh = store.try_read().unwrap();
    assert!(fresh.temperature.is_unwritten() && fresh.nothing.is_unwritten());
    assert_eq!(fresh.image.len(), 480 * 640 * 3);
    assert_eq!(complete(&fresh), None);

    let record = everything();
    store.write(&record).unwrap();
    let read = store.try_read().unwrap();
    assert_eq!(complete(&read).as_ref(), Some(&record));
    assert!(read.mask.is_modified() && read.mask.is_changed());

    // By value, and again.
    let mut other = everything();
    other.status_msg = "anders".into();
    other.image.fill(1);
    store.write(other.clone()).unwrap();
    assert_eq!(complete(&store.try_read().unwrap()), Some(other));
}

#[test]
fn a_partial_write_lists_just_its_fields() {
    let mut store = store::<Everything>();
    store.write(everything()).unwrap();
    let note = String::from("partial");
    let image = vec![3; 480 * 640 * 3];
    store
        .write(
            Everything::update()
                .temperature(1.0)
                .status_msg(&note)
                .image(&image),
        )
        .unwrap();
    let read = store.try_read().unwrap();
    let expected = Everything {
        temperature: 1.0,
        status_msg: note,
        image,
        ..everything()
    };
    assert_eq!(complete(&read), Some(expected));
    let modified = [
        read.temperature.is_modified(),
        read.status_msg.is_modified(),
        read.image.is_modified(),
        read.calibration.is_modified(),
        read.kind.is_modified(),
        read.serial.is_modified(),
        read.mask.is_modified(),
        read.r#final.is_modified(),
        read.counts.is_modified(),
        read.nothing.is_modified(),
    ];
    assert_eq!(modified, std::array::from_fn(|field| field < 3));

    // No field at all: nothing is modified any more.
    store.write(Everything::update()).unwrap();
    assert!(!store.try_read().unwrap().temperature.is_modified());
}

#[test]
fn every_field_has_its_own_call() {
    let record = everything();
    let mut store = store::<Everything>();
    let update = EverythingUpdate::new()
        .temperature(record.temperature)
        .status_msg(&record.status_msg)
        .image(&record.image)
        .calibration(&record.calibration)
        .kind(record.kind)
        .serial(&record.serial)
        .mask(&record.mask)
        .r#final(record.r#final)
        .counts(&record.counts)
        .nothing(&record.nothing);
    store.write(&update).unwrap();
    assert_eq!(complete(&store.try_read().unwrap()).as_ref(), Some(&record));
    // A later call for a field replaces the earlier one.
    store.write(update.clone().kind(5)).unwrap();
    assert_eq!(*store.try_read().unwrap().kind, 5);
    assert!(format!("{update:?}").contains("-40.5"));
}

#[test]
fn what_does_not_fit_is_truncated() {
    let mut store = store::<Everything>();
    store
        .write(
            Everything::update()
                .serial("123456789")
                .image(&[9; 100])
                .nothing(&[1.0]),
        )
        .unwrap();
    let read = store.try_read().unwrap();
    assert!(read.serial.is_truncated() && read.serial.valid().is_none());
    assert_eq!(**read.serial, *"12345678");
    assert!(read.image.is_truncated());
    assert_eq!(read.image[..101], [&[9; 100][..], &[0]].concat());
    assert!(read.nothing.is_truncated());
}

/// The bytes of both ways are the same, and each reads the other's.
#[test]
fn typed_and_dynamic_access_agree() {
    let record = everything();
    let schema: Schema = EVERYTHING.parse().unwrap();
    let array = |shape: &[usize], bytes: &[u8], of: &str| {
        let ty: FieldType = of.parse().unwrap();
        let FieldType::Array { dtype, .. } = ty else {
            panic!("{of}");
        };
        ArrayValue::new(dtype, shape.to_vec(), bytes.to_vec()).unwrap()
    };
    let floats: Vec<u8> = record
        .calibration
        .as_flattened()
        .iter()
        .flat_map(|float| float.to_le_bytes())
        .collect();
    let counts: Vec<u8> = record
        .counts
        .as_flattened()
        .iter()
        .flat_map(|count| count.to_le_bytes())
        .collect();
    let values = Values::new()
        .with("temperature", record.temperature)
        .with("status_msg", &*record.status_msg)
        .with("image", array(&[480, 640, 3], &record.image, "uint8[1]"))
        .with("calibration", array(&[3, 3], &floats, "float32[1]"))
        .with("type", record.kind)
        .with("id", &*record.serial)
        .with("mask", array(&[3, 2], &[1, 0, 0, 1, 1, 1], "bool[1]"))
        .with("final", record.r#final)
        .with("counts", array(&[2, 2], &counts, "int64[1]"))
        .with("nothing", array(&[0], &[], "float64[1]"));

    let options = Options::new().trailer(false);
    let typed = heap::<Everything>(options);
    let dynamic = HeapSegment::new(&schema, 1, options).unwrap();
    let mut by_type = typed.store::<Everything>(Options::new()).unwrap();
    let mut by_name = dynamic
        .store_dynamic(Some(&schema), Options::new())
        .unwrap();
    by_type.write(&record).unwrap();
    by_name.write(&values).unwrap();
    assert!(typed.image() == dynamic.image(), "the same bytes");

    let mut crossed = dynamic.store::<Everything>(Options::new()).unwrap();
    assert_eq!(
        complete(&crossed.try_read().unwrap()).as_ref(),
        Some(&record)
    );
    let mut named = typed.store_dynamic(Some(&schema), Options::new()).unwrap();
    let read = named.try_read().unwrap();
    for (name, value) in values.iter() {
        assert_eq!(
            read.get(name).unwrap().valid().as_ref(),
            Some(value),
            "{name}"
        );
    }

    // Values by name into a typed store, large ones too.
    let image = vec![5; 480 * 640 * 3];
    let some = Values::new()
        .with("image", array(&[480, 640, 3], &image, "uint8[1]"))
        .with("type", 11);
    by_type.write(&some).unwrap();
    let read = by_type.try_read().unwrap();
    assert_eq!((*read.kind, &**read.image), (11, &*image));
    let error = by_type.write(Values::new().with("kind", 11)).unwrap_err();
    let WriteError::Value { source, .. } = error else {
        panic!("{error}");
    };
    assert!(matches!(source, ValueError::UnknownField { field, .. } if field == "kind"));
}

/// Reading again does not allocate what it has.
#[test]
fn reading_into_keeps_the_memory() {
    let mut store = store::<Everything>();
    let mut record = everything();
    store.write(&record).unwrap();
    let mut snapshot = store.try_read().unwrap();
    let places = |fields: &EverythingFields| {
        (
            fields.image.as_ptr(),
            fields.status_msg.as_ptr(),
            std::ptr::from_ref(&**fields.mask),
        )
    };
    let before = places(&snapshot);
    for step in 0..3 {
        record.status_msg.pop();
        record.image.fill(step);
        store.write(&record).unwrap();
        store
            .read_into(&mut snapshot, std::time::Duration::ZERO)
            .unwrap();
        assert_eq!(complete(&snapshot).as_ref(), Some(&record));
        assert_eq!(places(&snapshot), before);
    }
}

#[test]
fn more_than_eight_fields_have_a_status_each() {
    macro_rules! wide {
        ($($field:ident)*) => {
            #[derive(Record, Default)]
            struct Wide { $($field: i32,)* }

            fn statuses(fields: &WideFields) -> Vec<Status> {
                vec![$(fields.$field.status()),*]
            }

            /// One after the other.
            fn write_each(store: &mut SlotStore<Wide>, mut then: impl FnMut(&mut SlotStore<Wide>)) {
                $(
                    store.write(Wide::update().$field(1)).unwrap();
                    then(store);
                )*
            }
        };
    }
    wide!(a b c d e f g h i j k l m n o p q r);
    let mut store = store::<Wide>();
    let mut written = 0;
    let mut after_each = |store: &mut SlotStore<Wide>| {
        written += 1;
        let found = statuses(&store.try_read().unwrap());
        assert_eq!(found.len(), 18);
        for (field, status) in found.into_iter().enumerate() {
            assert_eq!(
                status.is_unwritten(),
                field >= written,
                "field {field} of {written}"
            );
            assert_eq!(
                status.is_modified(),
                field + 1 == written,
                "field {field} of {written}"
            );
        }
    };
    write_each(&mut store, &mut after_each);
    assert_eq!(written, 18);
    store.write(Wide::default()).unwrap();
    let found = statuses(&store.try_read().unwrap());
    assert!(
        found
            .iter()
            .all(|status| status.is_valid() && status.is_modified())
    );
}

#[test]
fn records_without_fields() {
    #[derive(Record)]
    struct Empty {}

    #[derive(Record)]
    struct Unit;

    assert!(Empty::schema().is_empty() && Unit::schema().is_empty());
    let mut store = store::<Empty>();
    store.write(Empty {}).unwrap();
    store.write(Empty::update()).unwrap();
    assert_eq!(store.try_read().unwrap().number(), 2);
    let mut store = self::store::<Unit>();
    assert_eq!(store.write(Unit).unwrap(), 1);
    assert!(store.try_read().is_some());
}

#[test]
fn the_names_can_be_chosen() {
    #[derive(Record)]
    #[record(fields = Seen, update = Change)]
    struct Chosen {
        a: f64,
    }

    let mut store = store::<Chosen>();
    store.write(Change::new().a(2.0)).unwrap();
    let seen: Seen = store.try_read().unwrap().into_fields();
    assert_eq!(seen.a.valid(), Some(&2.0));
    let copy = seen.clone();
    assert!(format!("{copy:?}").contains("2.0"));
    store.write(Chosen { a: 3.0 }).unwrap();
}

#[test]
fn generated_items_are_as_visible_as_their_fields() {
    mod inner {
        /// In a module.
        #[derive(Debug, polyshm_slots::Record)]
        pub(super) struct Inner {
            pub(super) seen: i32,
            hidden: i32,
        }

        pub(super) fn hidden(fields: &InnerFields) -> i32 {
            *fields.hidden
        }

        pub(super) fn hide(update: InnerUpdate<'_>) -> InnerUpdate<'_> {
            update.hidden(8)
        }
    }

    let mut store = store::<inner::Inner>();
    store
        .write(inner::hide(inner::Inner::update().seen(7)))
        .unwrap();
    let read = store.try_read().unwrap();
    assert_eq!((*read.seen, inner::hidden(&read)), (7, 8));
}

/// A crate of another name, as the facade is.
mod renamed {
    pub(crate) mod slots {
        pub(crate) use polyshm_slots::*;
    }
}

#[test]
fn the_crate_can_have_another_name() {
    #[derive(Record)]
    #[record(crate = crate::renamed::slots)]
    struct Elsewhere {
        a: f64,
        #[record("bool[2]")]
        b: Vec<bool>,
    }

    assert_eq!(Elsewhere::schema().to_string(), "a: float, b: bool[2]");
    let mut store = store::<Elsewhere>();
    store
        .write(Elsewhere {
            a: 1.0,
            b: vec![true; 2],
        })
        .unwrap();
    store.write(Elsewhere::update().b(&[false])).unwrap();
    assert!(store.try_read().unwrap().b.is_truncated());
}

/// Whatever a user's module has by the names that generated code could mean.
mod crowded {
    #![allow(dead_code, non_snake_case)]

    pub(crate) struct Option;
    pub(crate) struct Result;
    pub(crate) struct Ok;
    pub(crate) struct Some;
    pub(crate) struct None;
    pub(crate) struct Default;
    pub(crate) struct Clone;
    pub(crate) struct Vec;
    pub(crate) struct Schema;
    pub(crate) struct Field;
    pub(crate) struct Record;
    pub(crate) struct Update;
    pub(crate) struct Draft;
    pub(crate) struct PhantomData;
    pub(crate) mod std {}
    pub(crate) mod core {}
    pub(crate) mod polyshm_slots {}

    #[derive(::polyshm_slots::Record)]
    pub(crate) struct Crowded {
        pub(crate) field: f64,
        #[record("uint8[3]")]
        pub(crate) draft: ::std::vec::Vec<u8>,
        #[record("str[3]")]
        pub(crate) schema: ::std::string::String,
        pub(crate) from: bool,
        pub(crate) value: f64,
        pub(crate) fields: f64,
        pub(crate) update: f64,
        pub(crate) prepare: f64,
        pub(crate) large: f64,
        pub(crate) load: f64,
        pub(crate) empty: f64,
        pub(crate) input: f64,
        pub(crate) clone: f64,
        pub(crate) default: f64,
        pub(crate) SCHEMA: f64,
    }
}

#[test]
fn names_do_not_clash() {
    use crowded::{Crowded, CrowdedUpdate};

    let mut store = store::<Crowded>();
    let update = CrowdedUpdate::new()
        .field(1.0)
        .draft(&[1, 2, 3])
        .schema("abc")
        .from(true)
        .update(2.0)
        .prepare(3.0)
        .large(4.0)
        .clone(5.0)
        .SCHEMA(6.0);
    store.write(update).unwrap();
    let read = store.try_read().unwrap();
    assert_eq!((**read.schema).len() + read.draft.len(), 6);
    assert_eq!((*read.prepare).to_bits(), 3.0_f64.to_bits());
    assert_eq!((*read.SCHEMA).to_bits(), 6.0_f64.to_bits());
}

/// Types of a program's own stand for fields as well.
mod own {
    use polyshm_slots::{DeclaredField, Draft, Form};

    use super::*;

    /// A float.
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub(crate) struct Celsius(pub(crate) f64);

    impl FieldValue for Celsius {
        type Input<'a> = Self;

        fn input(&self) -> Self {
            *self
        }

        fn empty(ty: &FieldType) -> Self {
            Self(f64::empty(ty))
        }

        fn load(&mut self, field: usize, from: &Source<'_>) -> bool {
            self.0.load(field, from)
        }
    }

    impl FixedField for Celsius {
        fn field_type() -> FieldType {
            FieldType::Float
        }
    }

    impl FieldInput<'_> for Celsius {
        fn prepare(&self, field: usize, draft: &mut Draft<'_>) -> Result<(), ValueError> {
            self.0.prepare(field, draft)
        }
    }

    /// Text of which only the case matters not.
    #[derive(Clone, Debug, PartialEq)]
    pub(crate) struct Upper(pub(crate) String);

    impl FieldValue for Upper {
        type Input<'a> = &'a str;

        fn input(&self) -> &str {
            &self.0
        }

        fn empty(ty: &FieldType) -> Self {
            Self(String::empty(ty))
        }

        fn load(&mut self, field: usize, from: &Source<'_>) -> bool {
            let damaged = self.0.load(field, from);
            self.0.make_ascii_uppercase();
            damaged
        }
    }

    impl DeclaredField for Upper {
        const FORM: Form = Form::Text;
    }

    #[derive(Record)]
    pub(crate) struct Own {
        pub(crate) outside: Celsius,
        #[record("str[4]")]
        pub(crate) word: Upper,
    }
}

#[test]
fn types_of_a_program_are_fields_too() {
    use own::{Celsius, Own, Upper};

    assert_eq!(Own::schema().to_string(), "outside: float, word: str[4]");
    let mut store = store::<Own>();
    store
        .write(Own::update().outside(Celsius(1.5)).word("abcd"))
        .unwrap();
    let read = store.try_read().unwrap();
    assert_eq!(read.outside.valid(), Some(&Celsius(1.5)));
    assert_eq!(read.word.valid(), Some(&Upper("ABCD".into())));
    let record = Own {
        outside: Celsius(-1.0),
        word: Upper("xyz".into()),
    };
    store.write(&record).unwrap();
    assert_eq!(*store.try_read().unwrap().outside, record.outside);
}

/// Lengths that only the compiler knows.
#[test]
fn constants_as_lengths() {
    const ROWS: usize = 3;

    #[derive(Record)]
    struct Sized {
        grid: [[u16; ROWS * 2]; ROWS],
        #[record("int8[3,6]")]
        other: Box<[[i8; 2 * ROWS]; ROWS]>,
    }

    assert_eq!(
        Sized::schema().to_string(),
        "grid: uint16[3,6], other: int8[3,6]"
    );
    let mut store = store::<Sized>();
    let mut grid = [[0; 6]; 3];
    grid[2][5] = 9;
    store
        .write(Sized {
            grid,
            other: Box::new([[1; 6]; 3]),
        })
        .unwrap();
    let read = store.try_read().unwrap();
    assert_eq!((*read.grid, **read.other), (grid, [[1; 6]; 3]));
}

/// The annotation's type and the Rust type agree for each element type, in each
/// of its forms.
#[test]
fn every_element_type() {
    macro_rules! check {
        ($($rust:ident $text:literal $value:expr;)*) => {$({
            #[derive(Record)]
            struct Each {
                nested: [[$rust; 2]; 2],
                boxed: Box<[$rust; 2]>,
                #[record($text)]
                vector: Vec<$rust>,
            }

            let name = $text.split('[').next().unwrap();
            let text = format!("nested: {name}[2,2], boxed: {name}[2], vector: {name}[3]");
            assert_eq!(Each::schema().to_string(), text);
            let value: $rust = $value;
            let zero = <$rust>::default();
            let mut store = store::<Each>();
            let record = Each {
                nested: [[value, zero], [zero, value]],
                boxed: Box::new([zero, value]),
                vector: vec![value, value, zero],
            };
            store.write(&record).unwrap();
            let read = store.try_read().unwrap();
            assert_eq!(read.nested.valid(), Some(&record.nested));
            assert_eq!(read.boxed.valid(), Some(&record.boxed));
            assert_eq!(read.vector.valid(), Some(&record.vector));
        })*};
    }
    check! {
        f32 "float32[3]" 1.5;
        f64 "float64[3]" -1e300;
        i8 "int8[3]" i8::MIN;
        i16 "int16[3]" i16::MIN;
        i32 "int32[3]" i32::MIN;
        i64 "int64[3]" i64::MIN;
        u8 "uint8[3]" u8::MAX;
        u16 "uint16[3]" u16::MAX;
        u32 "uint32[3]" u32::MAX;
        u64 "uint64[3]" u64::MAX;
        bool "bool[3]" true;
    }
}

#[test]
fn statuses_of_a_field() {
    let field = Field::with_status(1, Status::from_bits(Status::MODIFIED | Status::TRUNCATED));
    assert!(field.is_modified() && field.is_truncated() && field.valid().is_none());
    assert_eq!(*field, 1);
}

/// An update is an object too, for writers that choose at run time.
#[test]
fn updates_as_objects() {
    let record = everything();
    let updates: [Box<dyn Update<Everything>>; 3] = [
        Box::new(record.clone()),
        Box::new(Everything::update().kind(1)),
        Box::new(Values::new().with("type", Value::from(2))),
    ];
    let mut store = store::<Everything>();
    for (update, kind) in updates.iter().zip([record.kind, 1, 2]) {
        store.write(&**update).unwrap();
        assert_eq!(*store.try_read().unwrap().kind, kind);
    }
    let mut dynamic: SlotStore<Dynamic> = heap::<Everything>(Options::new())
        .store_dynamic(None, Options::new())
        .unwrap();
    assert_eq!(*dynamic.schema(), *Everything::schema());
    dynamic.write(Values::new().with("final", true)).unwrap();
}

#[cfg(feature = "ndarray")]
mod arrays {
    use super::*;
    use ndarray::{Array, Array1, Array3, ArrayD, Ix2, ShapeBuilder as _};

    #[derive(Record, Debug, PartialEq)]
    struct Arrays {
        #[record("uint8[48,64,3]")]
        image: Array3<u8>,
        #[record("bool[4]")]
        flags: Array1<bool>,
        #[record("float32[2,3]")]
        grid: Array<f32, Ix2>,
        #[record("int16[2,1,2]")]
        any: ArrayD<i16>,
    }

    fn arrays() -> Arrays {
        Arrays {
            image: Array3::from_shape_fn((48, 64, 3), |(y, x, c)| {
                ((7 * y + 3 * x + c) % 256) as u8
            }),
            flags: vec![true, false, false, true].into(),
            grid: Array::from_shape_fn((2, 3), |(y, x)| (3 * y + x) as f32),
            any: ArrayD::from_shape_vec(vec![2, 1, 2], vec![1, -2, 3, -4]).unwrap(),
        }
    }

    fn complete(fields: ArraysFields) -> Arrays {
        assert!(fields.image.is_valid() && fields.flags.is_valid());
        assert!(fields.grid.is_valid() && fields.any.is_valid());
        Arrays {
            image: fields.image.into_value(),
            flags: fields.flags.into_value(),
            grid: fields.grid.into_value(),
            any: fields.any.into_value(),
        }
    }

    #[test]
    fn whole_records() {
        assert_eq!(
            Arrays::schema().to_string(),
            "image: uint8[48,64,3], flags: bool[4], grid: float32[2,3], any: int16[2,1,2]"
        );
        let mut store = store::<Arrays>();
        store.write(arrays()).unwrap();
        assert_eq!(complete(store.try_read().unwrap().into_fields()), arrays());
        // By columns.
        let mut turned = arrays();
        turned.image = Array3::zeros((48, 64, 3).f());
        turned.image.assign(&arrays().image);
        turned.grid = Array::zeros((2, 3).f());
        turned.grid.assign(&arrays().grid);
        store.write(&turned).unwrap();
        assert_eq!(complete(store.try_read().unwrap().into_fields()), arrays());
    }

    #[test]
    fn partial_writes_take_arrays_and_views() {
        let all = arrays();
        let mut store = store::<Arrays>();
        store
            .write(Arrays::update().image(&all.image).flags(&all.flags.view()))
            .unwrap();
        let read = store.try_read().unwrap();
        assert_eq!(read.image.valid(), Some(&all.image));
        assert_eq!(read.flags.valid(), Some(&all.flags));
        assert!(read.grid.is_unwritten());
        let turned = all.image.view().reversed_axes();
        store.write(Arrays::update().image(&turned)).unwrap();
        let read = store.try_read().unwrap();
        assert!(read.image.is_truncated());
        assert!(read.image.iter().eq(turned.iter()));
    }
}
