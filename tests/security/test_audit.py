"""The audit of the dependencies: a finding fails; a database that cannot be reached is said, and passes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

AUDIT = Path(__file__).parents[2] / ".ci" / "audit"
SOUND = {"name": "torch", "version": "2.14.1", "vulns": []}
SKIPPED = {"name": "amtml-pl", "skip_reason": "distribution marked as editable"}
VULNERABLE = {
    "name": "pillow", "version": "1.0",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1", "2.0"], "aliases": [], "description": "x"}],
}  # fmt: skip


@pytest.fixture
def audit(out):
    """Runs the script with a pip-audit that says what it is told to; what it was asked is kept."""

    def run(stdout="", stderr="", status=0, installed=True):
        (out / "said").write_text(stdout)
        (out / "complained").write_text(stderr)
        program = out / "pip-audit"
        acts = f'echo "$@" > {out}/asked\ncat {out}/said\ncat {out}/complained >&2\nexit {status}\n'
        program.write_text(f"#!/bin/sh\n{acts}")
        program.chmod(0o755 if installed else 0o644)
        places = f"{out}{os.pathsep}/usr/bin{os.pathsep}/bin"
        kept = {"capture_output": True, "text": True, "check": False}
        return subprocess.run([sys.executable, AUDIT], env={"PATH": places}, **kept)

    return run


def report(*packages):
    return json.dumps({"dependencies": list(packages), "fixes": []})


def test_without_a_finding_it_passes_and_says_of_how_many_packages(audit, out):
    done = audit(report(SOUND, SKIPPED))
    assert done.returncode == 0
    assert done.stdout == "audit: no known vulnerability in 1 packages; not known to the database: amtml-pl\n"
    assert "--timeout 5" in (out / "asked").read_text()


@pytest.mark.parametrize(("complaint", "status"), [("Found 1 known vulnerability", 0), ("Read timed out", 1)])
def test_a_finding_fails_with_its_name_and_the_versions_that_mend_it(audit, complaint, status):
    done = audit(report(SOUND, VULNERABLE), complaint, status)
    assert done.returncode == 1
    assert "pillow 1.0: PYSEC-1, mended in 1.1, 2.0" in done.stderr


@pytest.mark.parametrize(
    "complaint",
    ["Could not connect to PyPI's vulnerability feed", "gaierror: Temporary failure in name resolution",
     "requests.exceptions.ReadTimeout: Read timed out. (read timeout=5)"],
)  # fmt: skip
def test_a_database_that_cannot_be_reached_is_said_and_passes(audit, complaint):
    done = audit("", f"Traceback\n{complaint}", 1)
    assert done.returncode == 0
    assert f"audit: NOT DONE, the database of vulnerabilities cannot be reached ({complaint})" in done.stdout


def test_a_database_that_knows_nothing_is_no_proof_of_anything(audit):
    """A mirror of packages answers in the database's place, that it has never heard of any of them."""
    unknown = {"name": "torch", "skip_reason": "Dependency not found on PyPI and could not be audited"}
    done = audit(report(unknown, SKIPPED))
    assert done.returncode == 0
    assert re.search("NOT DONE.*it knows none of the 2 packages", done.stdout)


@pytest.mark.parametrize(
    ("stdout", "stderr", "status"),
    [("", "error: unrecognized arguments: --local", 2), ("not json", "KeyError: 'x'", 1),
     ('{"other": 1}', "", 0)],
)  # fmt: skip
def test_an_audit_that_cannot_be_parsed_fails(audit, stdout, stderr, status):
    done = audit(stdout, stderr, status)
    assert done.returncode == 1
    assert f"pip-audit ended with status {status}" in done.stderr


def test_without_pip_audit_it_fails_and_says_how_to_install_it(audit):
    done = audit(installed=False)
    assert done.returncode == 1
    assert "pip-audit is not installed\nTo fix it: make setup" in done.stderr


def test_ci_audits():
    root = AUDIT.parents[1]
    assert "make audit" in (root / ".ci" / "run").read_text()
    assert ".ci/audit" in (root / "Makefile").read_text()
