"""Export the student of a finished run for other runtimes: ``python -m amtml_pl.export run=FOLDER``."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from rich.markup import escape

from amtml_pl.config.command import CommandJob, command
from amtml_pl.config.command_keys import EXPORT
from amtml_pl.config.overrides import hydra_literal
from amtml_pl.system.console import console

if TYPE_CHECKING:
    from amtml_pl.results.export.parity import ParityImages
    from amtml_pl.results.export.record import ExportRecord


@command("export", multirun=False)
def main(job: CommandJob) -> None:
    """Write the student under a temporary name, check the file, then rename it."""
    with job.reporting():
        options = job.options(EXPORT)
        from amtml_pl.results.export.export import Export
        from amtml_pl.results.run import load_run

        finished = load_run(options["run"], **options["paths"])
        chosen = {key: options[key] for key in ("int8", "int8_drop", "out")}
        export = Export(finished, options["checkpoint"], options["format"], **chosen)
        print_export(*export.write(job.typed()))
        if export.unrecorded:
            console.print(f"  no entry in the run's export.json: {escape(export.unrecorded)}")
        trust = " trust=true" if export.kind.unsafe else ""
        console.print(f"Written to {escape(str(export.file))}")
        model = shlex.quote(f"model={hydra_literal(str(export.file))}")
        console.print(escape(f"  python -m amtml_pl.predict {model} images=FOLDER{trust}"))


def print_export(entry: ExportRecord, shown: ParityImages) -> None:
    """Print the results of the checks and measurements."""
    if shown.lacking:
        console.print(escape(f"  random images stand in for real ones: {shown.lacking}"))
    parity, speed = entry.parity, entry.latency
    console.print(
        f"  max |Δlogit| {parity.max_abs_logit_difference:.2g}, the same class on "
        f"{parity.same_class:.4f} of {shown}"
    )
    if entry.precision == "int8" and (accuracy := parity.val_acc):
        console.print(f"  accuracy on them {accuracy.before:.4f}, in int8 {accuracy.after:.4f}")
    before, after = (f"{form.ms_per_image:.3g} ms" for form in (speed.before, speed.after))
    console.print(
        f"  latency of one image {before} as checkpoint, {after} as exported "
        f"({escape(speed.cpu)}, {speed.threads} threads)"
    )
    console.print(f"  size {entry.bytes:,} bytes")


if __name__ == "__main__":
    main()
