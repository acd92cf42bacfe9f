//! Functions that a peer may call by items (section 9.3).

use std::{
    any::Any,
    collections::BTreeMap,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use polyshm_wire::eshm::{FunctionCall, Item, Scalar, Value};

type Function = Arc<dyn Fn(&[Scalar]) -> Result<Scalar, String> + Send + Sync>;

/// Named functions, and what answers the calls in a message with them.
///
/// A peer sends an item with a [`FunctionCall`] whose result is empty. The
/// other side lets [`process`](Self::process) fill the results of a message and
/// sends it back; the arguments stay in it. There is no error in an answer:
/// what failed has a text that begins with `ERROR: ` as its result, as in the
/// C++ reference.
///
/// ```
/// use polyshm_eshm::FunctionRegistry;
/// use polyshm_wire::eshm::{FunctionCall, Item, Scalar, Value};
///
/// let mut functions = FunctionRegistry::with_builtins();
/// functions.register("half", |args| match args {
///     [Scalar::Real(value)] => Ok(Scalar::Real(value / 2.0)),
///     _ => Err("half requires 1 real".into()),
/// });
///
/// let mut items = [
///     Item::new("a", FunctionCall::new("add").with_arg(10).with_arg(32)),
///     Item::new("b", FunctionCall::new("half").with_arg(5.0)),
///     Item::new("c", FunctionCall::new("half").with_arg("five")),
/// ];
/// assert_eq!(functions.process(&mut items), 3);
/// let results = items.map(|item| match item.value {
///     Value::FunctionCall(call) => call.result,
///     _ => None,
/// });
/// assert_eq!(results[0], Some(Scalar::Integer(42)));
/// assert_eq!(results[1], Some(Scalar::Real(2.5)));
/// assert_eq!(results[2], Some(Scalar::String("ERROR: half requires 1 real".into())));
/// ```
#[derive(Clone, Default)]
pub struct FunctionRegistry {
    functions: BTreeMap<String, Function>,
}

impl FunctionRegistry {
    /// Without any function.
    pub fn new() -> Self {
        Self::default()
    }

    /// With the six functions that the reference has built in, and its answers
    /// (section 9.3).
    ///
    /// | name | arguments | result |
    /// |---|---|---|
    /// | `add` | two integers or two reals | the sum |
    /// | `multiply` | two integers or two reals | the product |
    /// | `getImageInfo` | any | `1920x1080x3` |
    /// | `resizeImage` | any | `Image resized successfully` |
    /// | `setParameter` | two | true |
    /// | `getStatus` | any | `OK` |
    ///
    /// Integers wrap around in two's complement where the result does not fit 64
    /// bits; in the reference that is undefined.
    pub fn with_builtins() -> Self {
        let mut registry = Self::new();
        registry.register("add", |args| {
            arithmetic("add", args, i64::wrapping_add, |a, b| a + b)
        });
        registry.register("multiply", |args| {
            arithmetic("multiply", args, i64::wrapping_mul, |a, b| a * b)
        });
        registry.register("getImageInfo", |_| Ok("1920x1080x3".into()));
        registry.register("resizeImage", |_| Ok("Image resized successfully".into()));
        registry.register("setParameter", |args| {
            two("setParameter", args)?;
            Ok(true.into())
        });
        registry.register("getStatus", |_| Ok("OK".into()));
        registry
    }

    /// Adds a function; `true` when it took the place of another one.
    ///
    /// It gets the arguments as the peer sent them, of any number and kind, and
    /// should refuse what it does not understand: the text of an `Err` reaches
    /// the peer behind `ERROR: `.
    pub fn register(
        &mut self,
        name: impl Into<String>,
        function: impl Fn(&[Scalar]) -> Result<Scalar, String> + Send + Sync + 'static,
    ) -> bool {
        let function: Function = Arc::new(function);
        self.functions.insert(name.into(), function).is_some()
    }

    /// Removes a function; `false` when there was none of that name.
    pub fn unregister(&mut self, name: &str) -> bool {
        self.functions.remove(name).is_some()
    }

    /// The names of all functions, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.functions.keys().map(String::as_str)
    }

    /// Runs one call and gives its result. A result that `call` already has is
    /// not looked at.
    ///
    /// A missing function, an `Err` and a panic become a text that begins with
    /// `ERROR: `. After a panic, which the panic hook has reported as ever, the
    /// function stays registered.
    pub fn call(&self, call: &FunctionCall) -> Scalar {
        let Some(function) = self.functions.get(&call.name) else {
            return error(&format!("Function not found: {}", call.name));
        };
        // Unwind safe for us: the registry has nothing that the function could
        // leave half done. What the function shares with others is its own.
        match catch_unwind(AssertUnwindSafe(|| function(&call.args))) {
            Ok(Ok(result)) => result,
            Ok(Err(text)) => error(&text),
            Err(payload) => {
                let text = format!("{} panicked: {}", call.name, panic_text(&*payload));
                // A payload may panic when it is dropped, too.
                if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
                    std::mem::forget(second);
                }
                error(&text)
            }
        }
    }

    /// Fills the result of every function call among `items`, whether it had
    /// one or not, and tells how many there were. The arguments and the other
    /// items stay as they are.
    pub fn process(&self, items: &mut [Item]) -> usize {
        let mut count = 0;
        for item in items {
            if let Value::FunctionCall(call) = &mut item.value {
                call.result = Some(self.call(call));
                count += 1;
            }
        }
        count
    }
}

impl fmt::Debug for FunctionRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

fn error(text: &str) -> Scalar {
    Scalar::String(format!("ERROR: {text}"))
}

fn panic_text(payload: &(dyn Any + Send)) -> &str {
    if let Some(text) = payload.downcast_ref::<&str>() {
        text
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text
    } else {
        "for a reason that is not text"
    }
}

fn two<'a>(name: &str, args: &'a [Scalar]) -> Result<&'a [Scalar; 2], String> {
    args.try_into()
        .map_err(|_| format!("{name} requires 2 arguments"))
}

fn arithmetic(
    name: &str,
    args: &[Scalar],
    integers: fn(i64, i64) -> i64,
    reals: fn(f64, f64) -> f64,
) -> Result<Scalar, String> {
    match two(name, args)? {
        [Scalar::Integer(a), Scalar::Integer(b)] => Ok(Scalar::Integer(integers(*a, *b))),
        [Scalar::Real(a), Scalar::Real(b)] => Ok(Scalar::Real(reals(*a, *b))),
        _ => Err(format!("{name} requires two integers or two reals")),
    }
}

#[cfg(test)]
mod tests {
    use polyshm_wire::eshm::{Event, ItemDialect, decode, encode};

    use super::*;

    fn text(result: &Scalar) -> &str {
        match result {
            Scalar::String(text) => text,
            other => panic!("{other:?}"),
        }
    }

    /// `func_add_request` and `func_add_response` of the reference's messages.
    #[test]
    fn a_request_becomes_the_response_of_the_reference() {
        let frame = |outer: u8, call: u8, inner: u8, result: &[u8]| {
            let mut bytes = vec![0x30, 0x84, 0, 0, 0, outer];
            bytes.extend([0x30, 0x84, 0, 0, 0, 3, 2, 1, 6]);
            bytes.extend([0x30, 0x84, 0, 0, 0, 7, 12, 5]);
            bytes.extend(b"func1");
            bytes.extend([0x30, 0x84, 0, 0, 0, call, 0x30, 0x84, 0, 0, 0, inner]);
            bytes.extend(b"\x0c\x03add");
            bytes.extend(result);
            bytes.extend([0x30, 0x84, 0, 0, 0, 6, 2, 1, 10, 2, 1, 32]);
            bytes
        };
        let request = frame(0x35, 0x19, 0x13, &[5, 0]);
        let response = frame(0x36, 0x1a, 0x14, &[2, 1, 42]);
        let mut items = decode(&request).unwrap();
        assert_eq!(FunctionRegistry::with_builtins().process(&mut items), 1);
        assert_eq!(encode(&items, ItemDialect::Native).unwrap(), response);
    }

    /// Each answer that the reference recorded, from its question: as bytes.
    #[test]
    fn recorded_answers() {
        let folder = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../polyshm-wire/tests/vectors/eshm/dh"
        );
        // A package of this crate alone comes without them.
        if !std::path::Path::new(folder).exists() {
            println!("SKIPPED: {folder} is not there");
            return;
        }
        let registry = FunctionRegistry::with_builtins();
        for name in [
            "add_response",
            "notfound_response",
            "add_badargs_response",
            "builtin_add_resp",
            "builtin_multiply_resp",
            "builtin_getImageInfo_resp",
            "builtin_resizeImage_resp",
            "builtin_setParameter_resp",
            "builtin_getStatus_resp",
        ] {
            let answer = std::fs::read(format!("{folder}/cpp_func_{name}.bin")).unwrap();
            let mut items = decode(&answer).unwrap();
            for item in &mut items {
                let Value::FunctionCall(call) = &mut item.value else {
                    panic!("{name}: {item:?}")
                };
                assert!(call.result.take().is_some());
            }
            let question = encode(&items, ItemDialect::Native).unwrap();
            assert_ne!(question, answer, "{name}");
            let mut items = decode(&question).unwrap();
            assert_eq!(registry.process(&mut items), 1, "{name}");
            let found = encode(&items, ItemDialect::Native).unwrap();
            assert_eq!(found, answer, "{name}");
        }
        let request = std::fs::read(format!("{folder}/cpp_func_add_request.bin")).unwrap();
        let response = std::fs::read(format!("{folder}/cpp_func_add_response.bin")).unwrap();
        let mut items = decode(&request).unwrap();
        registry.process(&mut items);
        assert_eq!(encode(&items, ItemDialect::Native).unwrap(), response);
    }

    #[test]
    fn built_in_arithmetic() {
        let registry = FunctionRegistry::with_builtins();
        let run = |name: &str, args: &[Scalar]| {
            registry.call(&FunctionCall {
                name: name.into(),
                result: None,
                args: args.to_vec(),
            })
        };
        let integer = Scalar::Integer;
        assert_eq!(
            run("add", &[integer(i64::MAX), integer(1)]),
            integer(i64::MIN)
        );
        assert_eq!(
            run("multiply", &[integer(i64::MIN), integer(-1)]),
            integer(i64::MIN)
        );
        assert_eq!(
            run("multiply", &[1.5.into(), (-2.0).into()]),
            Scalar::Real(-3.0)
        );
        assert_eq!(
            text(&run("multiply", &[integer(1)])),
            "ERROR: multiply requires 2 arguments"
        );
        assert_eq!(
            text(&run("add", &[integer(1), 1.0.into()])),
            "ERROR: add requires two integers or two reals"
        );
        assert_eq!(
            text(&run("setParameter", &["a".into()])),
            "ERROR: setParameter requires 2 arguments"
        );
        assert_eq!(text(&run("getStatus", &[])), "OK");
        assert_eq!(text(&run("", &[])), "ERROR: Function not found: ");
    }

    #[test]
    fn only_calls_are_touched() {
        let mut registry = FunctionRegistry::new();
        let mut items = [
            Item::new("a", 1),
            Item::new("add", Event::new("add")),
            Item::new("f", FunctionCall::new("f").with_arg("x").with_result(9)),
        ];
        assert!(!registry.register("f", |args| Ok(args[0].clone())));
        assert_eq!(registry.process(&mut items), 1);
        let call = FunctionCall::new("f").with_arg("x").with_result("x");
        assert_eq!(items[2], Item::new("f", call));
        assert_eq!(items[0], Item::new("a", 1));
    }

    #[test]
    fn names_come_and_go() {
        let mut registry = FunctionRegistry::with_builtins();
        let names = [
            "add",
            "getImageInfo",
            "getStatus",
            "multiply",
            "resizeImage",
            "setParameter",
        ];
        assert!(registry.names().eq(names));
        let copy = registry.clone();
        assert!(registry.register("add", |_| Err("no".into())));
        let call = FunctionCall::new("add").with_arg(1).with_arg(2);
        assert_eq!(text(&registry.call(&call)), "ERROR: no");
        assert_eq!(copy.call(&call), Scalar::Integer(3));
        assert!(registry.unregister("add") && !registry.unregister("add"));
        assert_eq!(
            text(&registry.call(&call)),
            "ERROR: Function not found: add"
        );
        assert_eq!(format!("{:?}", FunctionRegistry::new()), "{}");
    }

    #[test]
    fn a_panic_is_an_answer() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("again");
            }
        }
        let mut registry = FunctionRegistry::new();
        registry.register("index", |args| Ok(args[7].clone()));
        registry.register("text", |_| panic!("plainly"));
        registry.register("other", |_| std::panic::panic_any(7_u8));
        registry.register("bomb", |_| std::panic::panic_any(Bomb));
        for _ in 0..2 {
            let run = |name: &str| registry.call(&FunctionCall::new(name));
            assert!(text(&run("index")).starts_with("ERROR: index panicked: index out of bounds"));
            assert_eq!(text(&run("text")), "ERROR: text panicked: plainly");
            for name in ["other", "bomb"] {
                assert_eq!(
                    text(&run(name)),
                    format!("ERROR: {name} panicked: for a reason that is not text")
                );
            }
        }
    }
}
