//! Writes a FOCUS export of 2,000 made-up charges to stdout, for validators that we did not write
//! (`tests/peers/focus/validate`).

#[path = "../tests/focus/sample.rs"]
mod sample;

use std::io::Write;

use bursar_ledger::focus::FocusWriter;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut export = FocusWriter::new(std::io::stdout().lock(), sample::account())?;
    for charge in sample::charges(2_000) {
        charge.with(|charge| export.write(charge))?;
    }
    export.finish()?.flush()?;
    Ok(())
}
