//! The one binary, `milena`: its subcommands are the ways to start a broker and to look into its files.

fn main() -> anyhow::Result<()> {
    anyhow::bail!("milena start is not built yet")
}
