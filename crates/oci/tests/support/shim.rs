//! What the real binary does when it is called as the shim: nothing before, nothing after.

fn main() -> std::process::ExitCode {
    coracle_oci::shim_main()
}
