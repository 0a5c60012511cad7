"""Export the student of a finished run for other runtimes: ``python -m amtml_pl.export run=FOLDER``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape

from amtml_pl.config.command import CommandJob, command
from amtml_pl.config.command_keys import EXPORT
from amtml_pl.system.console import console
from amtml_pl.training.summary import override

if TYPE_CHECKING:
    from amtml_pl.results.export.export import Exported


@command("export", multirun=False)
def main(job: CommandJob) -> None:
    """Write the student under a temporary name, check the file, then rename it."""
    with job.reporting():
        print_export(export(job))


def export(job: CommandJob) -> Exported:
    """Export the student that the job names."""
    options = job.options(EXPORT)
    from amtml_pl.results.export.export import export_student
    from amtml_pl.results.run import load_run

    run, chosen = load_run(options["run"], **options["paths"]), (options["checkpoint"], options["format"])
    return export_student(run, *chosen, command=job.typed(), out=options["out"])


def print_export(exported: Exported) -> None:
    """Print the results of the checks and measurements, and the command that uses the file."""
    entry, images, file = exported.entry, exported.images, str(exported.file)
    parity, speed = entry.parity, entry.latency
    if images.missing:
        console.print(escape(f"  random images replaced the validation images: {images.missing}"))
    console.print(
        f"  largest logit difference {parity.max_abs_logit_difference:.2g}; the same class on "
        f"{parity.same_class:.4f} of {images}"
    )
    before, after = (f"{form.ms_per_image:.3g} ms" for form in (speed.before, speed.after))
    console.print(
        f"  latency of one image: {before} before the export, {after} after it "
        f"({escape(speed.cpu)}, {speed.threads} threads)"
    )
    console.print(f"  size {entry.bytes:,} bytes")
    if exported.unrecorded:
        console.print(f"  the run's export.json has no entry for the file: {escape(exported.unrecorded)}")
    console.print(f"Written to {escape(file)}")
    console.print(escape(f"  python -m amtml_pl.predict {override('model', exported.file)} images=FOLDER"))


if __name__ == "__main__":
    main()
