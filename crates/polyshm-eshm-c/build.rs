//! Gives the library the name by which programs that were linked against the
//! reference look for it.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    match env::var("CARGO_CFG_TARGET_OS").as_deref() {
        Ok("linux") => {
            println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libeshm.so.1");
            // The heartbeat thread runs this code while an endpoint is open:
            // `dlclose` must not take it away.
            println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
            if env::var("PROFILE").as_deref() == Ok("release") {
                // The standard library's, nine times the size of the rest.
                println!("cargo::rustc-cdylib-link-arg=-Wl,--strip-debug");
            }
        }
        Ok("macos") => {
            println!("cargo::rustc-cdylib-link-arg=-Wl,-install_name,@rpath/libeshm.1.dylib");
        }
        _ => {}
    }
}
