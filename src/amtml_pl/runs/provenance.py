"""By which code and packages something was made."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from amtml_pl.runs.record import GitState


def versions(*others: str) -> dict[str, str]:
    """The versions of Python, of the packages that decide a result, and of others."""
    packages = ("amtml-pl", "torch", "torchvision", "pytorch-lightning", "timm", "numpy", *others)
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def git_state() -> GitState | None:
    """Commit of the checkout that the package is run from and whether it has changes; None outside of one."""
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
