"""Record the versions of code and packages."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from amtml_pl.runs.record import GitState


def versions(*others: str) -> dict[str, str]:
    """Return the versions of Python, of packages that influence results, and of others."""
    packages = ("amtml-pl", "torch", "torchvision", "pytorch-lightning", "timm", "numpy", *others)
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def git_state() -> GitState | None:
    """Return commit and changes of the package's checkout; None outside a checkout."""
    here = Path(__file__).resolve().parent.parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here), *arguments]  # the checkout of the package, not the user's folder
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()  # noqa: S603

    try:
        if not (Path(git("rev-parse", "--show-toplevel")) / "src" / "amtml_pl").samefile(here):
            return None
        return GitState(commit=git("rev-parse", "HEAD"), changed=bool(git("status", "--porcelain")))
    except (OSError, subprocess.SubprocessError):
        return None
