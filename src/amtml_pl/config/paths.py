"""Find the configuration's own files, in a checkout or a wheel."""

from __future__ import annotations

from pathlib import Path


def config_directory() -> Path:
    """Return the folder of YAML files: inside the package, or the checkout's ``conf/``."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"
