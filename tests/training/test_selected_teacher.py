"""A teacher's weights come from an address or a completed run, and nothing else is trained for it."""

import hashlib
import io

import pytest
import torch

from amtml_pl.config.checks import check
from amtml_pl.errors import UserError
from amtml_pl.models.cifar_resnet import CifarResNet
from amtml_pl.runs.folder import RunFolder
from amtml_pl.runs.identity import run_hash
from amtml_pl.training.plan import plan
from amtml_pl.training.plan_table import refuse_missing
from file_server import serving
from tiny_runs import CE, ready, request

JOB = ("experiment=digits", "method=avg", *CE, "teacher=[resnet8]")
PUBLISHED = ("cifar100_resnet56", "cifar100_vgg13_bn", "cifar100_wrn_40_2_repdistiller")


def saved(network):
    stream = io.BytesIO()
    torch.save({"model": {f"module.{k}": v for k, v in network.state_dict().items()}}, stream)
    return stream.getvalue()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    torch.manual_seed(0)
    with serving(saved(CifarResNet(8, 10))) as server:
        yield server


@pytest.fixture
def job(server, tmp_path):
    """The overrides of a run whose teacher the server has."""
    sha256 = hashlib.sha256(server.content).hexdigest()
    return (
        *JOB, f"teacher.resnet8.weights.url={server.url}/resnet8.pt", f"paths.teachers={tmp_path}/teachers",
        f"teacher.resnet8.weights.sha256='{sha256[:16]}'",
    )  # fmt: skip


def test_a_published_teacher_is_downloaded_once_and_changes_no_run_folder(
    server, job, configure, tmp_path, capsys
):
    config = configure(*job)
    before = run_hash(config)
    first = ready(config, RunFolder(tmp_path / "first"))
    assert f"download from {server.url}" in capsys.readouterr().out.replace("\n", " ")
    assert (tmp_path / "teachers/published/resnet8.pt").read_bytes() == server.content
    server.shutdown()  # from now on there is only the file
    again = ready(config, RunFolder(tmp_path / "again"))
    assert len(server.requests) == 1
    assert run_hash(config) == before
    assert again.facts == first.facts
    assert not again.module.spent.teacher_passes  # the cache is of the same weights
    with pytest.raises(UserError, match="too low"):
        ready(configure(*job, "teacher.resnet8.min_accuracy=0.9"), RunFolder(tmp_path / "gated"))


def test_mirrors_are_no_part_of_a_run_but_the_checksum_is(job, configure):
    mirrored = configure(*job, "teacher.resnet8.weights.mirrors=[https://example.org/folder]")
    other = configure(*job, "teacher.resnet8.weights.sha256='00000000'")
    assert run_hash(mirrored) == run_hash(configure(*job)) != run_hash(other)


def test_prepare_false_names_the_download_and_asks_no_server(server, job, configure, tmp_path):
    with pytest.raises(UserError, match=r"network weights to download from .*resnet8\.pt"):
        ready(configure(*job, "prepare=false"), RunFolder(tmp_path / "run"))
    assert server.requests == []
    assert not (tmp_path / "teachers").exists()


def test_a_download_that_does_not_fit_is_reported_before_anything_is_packed(server, job, configure, tmp_path):
    data = f"paths.data={tmp_path}/data"
    with pytest.raises(UserError, match="does not fit CifarResNet"):
        ready(configure(*job, "teacher.resnet8.network.depth=14", data), RunFolder(tmp_path / "run"))
    assert not (tmp_path / "data").exists()


def test_published_teachers_of_cifar100_need_no_training(configure, tmp_path):
    places = [f"paths.{name}={tmp_path}/{name}" for name in ("data", "teachers", "cache")]
    config = configure(
        "experiment=cifar100_amtml", f"teacher=[{','.join(PUBLISHED)}]", "trainer=cpu", *places
    )
    planned = plan(request(config, RunFolder(tmp_path / "run"), experiment="cifar100_amtml"))
    states = [step.state for step in planned.steps if step.what.startswith("teacher cifar100")]
    assert [state.partition("https")[0] for state in states] == ["network weights to download from "] * 3
    assert not [step for step in planned.steps if "to train" in step.state]
    with pytest.raises(UserError, match=r"cifar100_resnet56-f2eff4c8\.pt"):
        refuse_missing(planned.steps)


def test_the_student_of_a_completed_run_is_a_teacher(moved, configure, tmp_path):
    job = ("experiment=digits", "method=avg", *CE, "teacher=[resnet8_thin]")
    config = configure(*job, f"teacher.resnet8_thin.weights.run={moved}")
    made = ready(config, RunFolder(tmp_path / "run"))
    assert made.prepared.accuracy["resnet8_thin"]["val"] == pytest.approx(
        RunFolder(moved).completed().metrics["val/acc"]
    )
    file = RunFolder(moved).weights_file
    before = run_hash(config)
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    assert run_hash(config) != before
    with pytest.raises(UserError, match=r"student.safetensors .*changed after the run"):
        ready(config, RunFolder(tmp_path / "changed"))
    RunFolder(moved).record_file.unlink()
    RunFolder(moved).last_checkpoint.unlink()
    with pytest.raises(UserError, match="has no completed run"):
        ready(config, RunFolder(tmp_path / "unfinished"))


@pytest.mark.parametrize(
    ("overrides", "printed"),
    [
        (["url=https://example.org/w.pt", "run=somewhere"], r"names several files \(url and run\)"),
        (["sha256='01234567'"], r"weights.sha256 needs teacher.resnet8.weights.url"),
        (
            ["url=https://example.org/w.pt", "sha256=57191229"],
            "expected 8 to 64 hexadecimal digits in quotes",
        ),
        (["url=file:///etc/passwd"], r"expected an http\(s\) address that ends with a file's name"),
        (["url=https://example.org/"], r"expected an http\(s\) address that ends with a file's name"),
        (["url=https://example.org/w.tar", "member=../w.pt"], "expected the name of a file in a tar archive"),
    ],
)
def test_a_wrong_origin_is_one_error(configure, overrides, printed):
    with pytest.raises(UserError, match=printed):
        check(configure(*JOB, *(f"teacher.resnet8.weights.{word}" for word in overrides)))
