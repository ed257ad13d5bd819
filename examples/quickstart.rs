//! Placeholder until the training surface exists.

fn main() -> std::io::Result<()> {
    std::fs::create_dir_all("target/quickstart")?;
    std::fs::write("target/quickstart/README", "nothing trained yet\n")
}
