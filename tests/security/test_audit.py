"""The audit of the dependencies fails for a finding; an unreachable database is reported, and passes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

AUDIT = Path(__file__).parents[2] / ".ci" / "audit"
SOUND = {"name": "torch", "version": "2.14.1", "vulns": []}
SKIPPED = {"name": "amtml-pl", "skip_reason": "distribution marked as editable"}
UNKNOWN = {"name": "torch", "skip_reason": "Dependency not found on PyPI and could not be audited"}
VULNERABLE = {
    "name": "pillow", "version": "1.0",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1", "2.0"], "aliases": [], "description": "x"}],
}  # fmt: skip


@pytest.fixture
def audit(out):
    """Return a function that runs the script with a pip-audit of prescribed output."""

    def run(stdout="", stderr="", status=0, installed=True):
        (out / "stdout").write_text(stdout)
        (out / "stderr").write_text(stderr)
        program = out / "pip-audit"
        acts = f'echo "$@" > {out}/arguments\ncat {out}/stdout\ncat {out}/stderr >&2\nexit {status}\n'
        program.write_text(f"#!/bin/sh\n{acts}")
        program.chmod(0o755 if installed else 0o644)
        path = f"{out}{os.pathsep}/usr/bin{os.pathsep}/bin"
        return subprocess.run(
            [sys.executable, AUDIT], env={"PATH": path}, capture_output=True, text=True, check=False
        )

    return run


def report(*packages):
    return json.dumps({"dependencies": list(packages), "fixes": []})


def test_an_audit_without_a_finding_passes_with_the_number_of_packages(audit, out):
    done = audit(report(SOUND, SKIPPED))
    assert done.returncode == 0
    assert done.stdout == "audit: no known vulnerability in 1 packages; not known to the database: amtml-pl\n"
    assert "--timeout 5" in (out / "arguments").read_text()


def test_a_finding_fails_with_its_name_and_the_fixed_versions(audit):
    done = audit(report(SOUND, VULNERABLE), "Read timed out", 1)
    assert done.returncode == 1
    assert "pillow 1.0: PYSEC-1, fixed in 1.1, 2.0" in done.stderr


@pytest.mark.parametrize(
    ("stdout", "stderr", "reason"),
    [("", "Traceback\ngaierror: Temporary failure in name resolution", "cannot be reached (gaierror:"),
     ("", "requests.exceptions.ReadTimeout: Read timed out.", "cannot be reached (requests."),
     (report(UNKNOWN, SKIPPED), "", "it knows none of the 2 packages")],
)  # fmt: skip
def test_a_missing_database_is_reported_and_passes(audit, stdout, stderr, reason):
    done = audit(stdout, stderr, int(not stdout))
    assert done.returncode == 0
    assert "NOT DONE" in done.stdout
    assert reason in done.stdout


@pytest.mark.parametrize(("stdout", "status"), [("", 2), ("not json", 1), ('{"other": 1}', 0)])
def test_an_audit_that_cannot_be_parsed_fails(audit, stdout, status):
    done = audit(stdout, "error: unrecognized arguments: --local", status)
    assert done.returncode == 1
    assert f"pip-audit ended with status {status}" in done.stderr


def test_a_missing_pip_audit_fails_with_the_command_that_installs_it(audit):
    done = audit(installed=False)
    assert done.returncode == 1
    assert "pip-audit is not installed\nFix: make setup" in done.stderr
