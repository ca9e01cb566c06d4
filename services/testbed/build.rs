//! The compiler's version, for the report: figures belong to a build.

fn main() {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let version = std::process::Command::new(rustc).arg("--version").output();
    let version = version.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    println!("cargo::rustc-env=TESTBED_RUSTC={version}");
    println!("cargo::rerun-if-changed=build.rs");
}
