"""Limits of the system end a command with one message, status 2 and the command that raises them."""

import errno
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
import threading

import pytest

from amtml_pl.errors import UserError
from amtml_pl.system.files import write_bytes
from amtml_pl.system.limits import refuse_few_threads, refused_by_system

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's limits")
TRAIN = ("experiment=digits", "method=ce", "trainer=cpu", "trainer.max_epochs=1", "doctor=false")


def limited(monkeypatch, number, most):
    """Make a limit look as if a shell had set it, without its effects."""
    real = resource.getrlimit
    monkeypatch.setattr(
        resource, "getrlimit", lambda wanted: (most, most) if wanted == number else real(wanted)
    )


@pytest.mark.parametrize(
    ("number", "error", "fix"),
    [
        (resource.RLIMIT_FSIZE, OSError(errno.EFBIG, "File too large", "best.ckpt"), "ulimit -f unlimited"),
        (resource.RLIMIT_FSIZE, FileNotFoundError(2, "No usable temporary directory found"), "ulimit -f"),
        (resource.RLIMIT_NOFILE, OSError(errno.EMFILE, "Too many open files"), "ulimit -n 7108"),
        (resource.RLIMIT_NPROC, BlockingIOError(errno.EAGAIN, "Resource unavailable"), "ulimit -u 7108"),
        (resource.RLIMIT_NPROC, RuntimeError("can't start new thread"), "ulimit -u 7108"),
        (resource.RLIMIT_AS, MemoryError(), "ulimit -v unlimited"),
        (resource.RLIMIT_AS, RuntimeError("std::bad_alloc"), "ulimit -v unlimited"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_a_limit_is_named_with_its_value_and_the_command_that_raises_it(monkeypatch, number, error, fix):
    limited(monkeypatch, number, 1777)
    message = refused_by_system(error)
    assert re.search(r"The limit on .+ is 1,777.* \(ulimit -[fnuv]\)\.", message.what)
    assert message.fix.startswith(fix)


def test_a_users_error_caused_by_a_limit_keeps_its_message_and_gets_the_command(monkeypatch):
    limited(monkeypatch, resource.RLIMIT_FSIZE, 1777)
    error = UserError("The checkpoint cannot be written.", fix="free some space")
    error.__cause__ = OSError(errno.EFBIG, "")
    message = refused_by_system(error)
    assert message.what.startswith("The checkpoint cannot be written. The limit on the size of a file is 1,7")
    assert message.fix.startswith("ulimit -f unlimited")


def test_mistakes_and_defects_are_not_refusals_by_the_system():
    assert refused_by_system(UserError("seed=-1: expected 0 or more")) is None
    assert refused_by_system(RuntimeError("expected 3 channels")) is None
    assert refused_by_system(FileNotFoundError(errno.ENOENT, "No such file", "a.pt")) is None


@pytest.mark.parametrize(
    ("error", "what", "fix"),
    [
        (FileNotFoundError(2, "No file", "a.pt"), "a.pt cannot be read or written: No file.", "name a file"),
        (FileNotFoundError(2, "No usable temporary directory in []"), "directory in []", "export TMPDIR="),
        (OSError(errno.ENOSPC, "No space", b"/runs/x"), "/runs/x cannot be read or written: No space.", ""),
    ],
    ids=["missing", "temporary", "bytes"],
)
def test_an_unusable_file_is_named_with_a_fix(error, what, fix):
    message = refused_by_system(error, any_file=True)
    assert what in message.what
    assert fix in str(message.fix)


@linux_only
def test_a_write_that_fails_names_its_file_and_leaves_the_old_one(tmp_path):
    file = tmp_path / "doctor.json"
    write_bytes(file, b"old")
    code = (
        "import resource, sys; from pathlib import Path; from amtml_pl.system.files import write_bytes\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
        "try: write_bytes(Path(sys.argv[1]), bytes(11))\n"
        "except OSError as error: print(error.filename)"
    )
    ended = subprocess.run([sys.executable, "-c", code, file], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == str(file)
    assert [*tmp_path.iterdir()] == [file]
    assert file.read_bytes() == b"old"


def test_too_few_threads_for_the_libraries_are_a_users_error(monkeypatch):
    def refused(_thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", refused)
    limited(monkeypatch, resource.RLIMIT_NPROC, 1777)
    with pytest.raises(UserError, match=r"cannot start them.*-u.*\n.*ulimit -u 7108.*OMP_NUM_THREADS=1"):
        refuse_few_threads()


def test_a_limit_that_is_high_is_not_blamed_for_a_refused_thread(monkeypatch):
    limited(monkeypatch, resource.RLIMIT_NPROC, 96_365)
    message = refused_by_system(RuntimeError("can't start new thread"))
    assert "ulimit" not in str(message)
    assert "limit of the container" in message.fix


def test_a_full_pipe_and_a_mistake_after_a_refusal_are_not_limits(monkeypatch):
    limited(monkeypatch, resource.RLIMIT_NPROC, 1777)
    assert refused_by_system(BlockingIOError(errno.EAGAIN, "write could not complete", 10)) is None
    mistake = UserError("seed=-1: expected 0 or more", fix="seed=1")
    mistake.__context__ = BlockingIOError(errno.EAGAIN, "Resource unavailable")
    assert refused_by_system(mistake) is None


def test_the_threads_of_the_check_end():
    before = threading.active_count()
    refuse_few_threads()
    assert threading.active_count() == before


@pytest.fixture
def typed(tmp_path, shared):
    """Return the status and output of a command under a limit, or in an environment."""

    def made(command, *words, before="true", through="", **environment):
        paths = (f"paths.data={shared}/data", f"paths.teachers={shared}/teachers")
        places = () if command == "report" else paths
        line = shlex.join([sys.executable, "-m", f"amtml_pl.{command}", *words, *places])
        clean = {key: value for key, value in os.environ.items() if not key.startswith("AMTML_")}
        ended = subprocess.run(
            ["bash", "-c", f"{before} && exec {through} {line}"], cwd=tmp_path, env={**clean, **environment},  # noqa: S607
            capture_output=True, text=True, errors="replace", check=False,
        )  # fmt: skip
        assert "Traceback" not in ended.stdout + ended.stderr
        return ended.returncode, ended.stdout + ended.stderr

    return made


@linux_only
@pytest.mark.slow
def test_a_run_with_little_memory_completes_or_ends_with_a_message(typed):
    status, output = typed("train", *TRAIN, before="ulimit -v 3000000")
    assert status in (0, 2)  # the need for memory depends on torch's version and the libraries that it maps
    assert ("ulimit -v unlimited" in output) == (status == 2)


@linux_only
@pytest.mark.slow
def test_a_disk_that_is_full_when_the_doctor_writes_is_named_once(typed, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user, or container, may not mount a tmpfs")
    try:
        (disk / "others").write_bytes(bytes(4096))
        status, output = typed("doctor", "experiment=digits", "method=ce", f"paths.outputs={disk}")
        left = [path for path in disk.rglob("*") if path.is_file()]
    finally:
        subprocess.run(["umount", str(disk)], check=True)  # noqa: S607
    assert status == 2
    assert output.count("error:") == 1
    assert "doctor.json cannot be read or written: No space left on device." in output
    assert left == [disk / "others"]


MEMORY = "The limit on memory is 2,048,000,000 bytes (ulimit -v)."


@linux_only
@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "limit", "message"),
    [("train", "-v 2000000", MEMORY), ("cache", "-v 2000000", MEMORY),
     ("train", "-f 50", "Fix: ulimit -f unlimited"), ("train", "-n 8", "Fix: ulimit -n 4096"),
     ("train seeed=3", "-v 12000000", "The command line has 1 mistake:")],
)  # fmt: skip
def test_a_limit_is_named_by_a_command_and_a_mistake_within_it_is_one(typed, command, limit, message):
    name, *words = command.split()
    status, output = typed(name, *TRAIN[:2], *words, before=f"ulimit {limit}")
    assert status == 2
    assert output.count("error:") == 1
    assert message in output


@linux_only
@pytest.mark.slow
def test_a_limit_on_processes_is_named_by_a_run(typed):
    other = "setpriv --reuid=12345 --clear-groups --inh-caps=+dac_override --ambient-caps=+dac_override"
    if os.getuid():
        status, output = typed("train", *TRAIN, before="ulimit -u 1")
    elif subprocess.run([*shlex.split(other), "true"], capture_output=True, check=False).returncode:
        pytest.skip("no such limit binds this user, who may not become another one")
    else:
        status, output = typed("train", *TRAIN, through=f"{other} prlimit --nproc=1")
    assert status == 2
    assert "ulimit -u 4096" in output


@pytest.mark.slow
def test_an_ascii_locale_writes_to_folders_with_other_letters(typed, tmp_path):
    folder = tmp_path / "überprüft"
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    status, output = typed("train", *TRAIN, AMTML_OUTPUTS=str(folder), **ascii_only)
    assert status == 0, output
    assert [*folder.glob("runs/digits/*/events.out.tfevents.*")]


def test_a_folder_whose_name_is_not_text_is_refused(typed, tmp_path):
    status, output = typed("train", *TRAIN, before=f"export AMTML_OUTPUTS=$'{tmp_path}/a\\xff'")
    assert status == 2
    assert rf"{tmp_path}/a\xff/runs" in output
    assert "is not UTF-8 text" in output
    assert "set paths.outputs to a folder" in output


CAUGHT_IN_GENERATED_CODE = """
import os, signal, sys
from amtml_pl.system.signals import prepare_to_end
try:
    exec("import os, signal; os.kill(os.getpid(), signal.SIGINT)")
except KeyboardInterrupt:
    prepare_to_end()
    os.kill(os.getpid(), signal.SIGINT)
    sys.exit(130)
"""


def test_the_status_after_two_ctrl_c_in_generated_code_is_130():
    ended = subprocess.run([sys.executable, "-c", CAUGHT_IN_GENERATED_CODE], capture_output=True, check=False)
    assert (ended.returncode, ended.stderr) == (130, b"")


EARLY = """
import os, sys, time
from amtml_pl.config.command import start
met, number = sys.argv.pop(1), int(sys.argv.pop(1))
def run():
    os.kill(os.getpid(), number)
    time.sleep(10)
def interrupted_import():
    try:
        run()
    except BaseException as error:
        raise RecursionError("while numpy was imported") from error
start({"itself": run, "an import": interrupted_import}[met])
"""


@pytest.mark.parametrize(
    ("met", "number", "status"), [("itself", signal.SIGTERM, 75), ("an import", signal.SIGINT, 130)]
)
def test_a_signal_before_the_job_begins_has_the_status_of_one_within_it(met, number, status):
    line = shlex.join([sys.executable, "-c", EARLY, met, str(int(number))])
    limited = ["bash", "-c", f"ulimit -v 12000000 && exec {line}"]
    ended = subprocess.run(limited, capture_output=True, check=False)
    assert (ended.returncode, ended.stderr) == (status, b"")
