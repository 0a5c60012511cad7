"""Every logger gets the run's name, tags, configuration, curves and results, and no logger loses a fit."""

import csv
import importlib.util
import logging
import os
import sys

import pytest
import yaml
from logging_servers import logging_server, mlflow_answer, wandb_answer
from pytorch_lightning.loggers import CSVLogger

from amtml_pl.config.paths import config_directory
from amtml_pl.errors import UserError
from amtml_pl.runs.folder import RunFolder
from amtml_pl.training.preflight import check_parts
from amtml_pl.training.settings import settings_of
from own_callbacks import FailingLogger
from tiny_runs import WATCHED_CE, at_step, failing, trained

pytestmark = pytest.mark.slow

LABELS = ("experiment=digits", "method=ce", *WATCHED_CE)
CHOICES = {file.stem for file in (config_directory() / "logger").glob("*.yaml")}
WITH_EXTRA = {"wandb", "mlflow", "trackio"}
CURVES = {"val/acc", "val/loss", "train/acc", "loss/ce", "loss/total", "lr"}
RESULTS = {"test/acc", "test/acc_last", "val/acc_last", "best/val/acc"}


@pytest.fixture(autouse=True)
def no_accounts(monkeypatch, tmp_path):
    """Remove the developer's accounts and servers."""
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_PROJECT", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb config"))
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    if "wandb" in sys.modules:  # it reads the environment once in a process
        sys.modules["wandb"].teardown()


@pytest.fixture
def fit(configure, tmp_path):
    """Return a function that trains a run in a folder of the test."""

    def go(*overrides, name="method-ce-12345678", **asked):
        folder = RunFolder(tmp_path / name)
        return trained(configure(*LABELS, *overrides), folder, **asked), folder

    return go


def test_the_choices_are_those_that_this_file_tests():
    assert {"tensorboard", "csv", *WITH_EXTRA} == CHOICES


def test_csv_is_the_logger_of_lightning_in_the_run_folder(fit):
    record, folder = fit("logger=[csv]", "callbacks=[lr_monitor]")
    [file] = folder.path.glob("csv/version_0/metrics.csv")
    rows = [*csv.DictReader(file.open())]
    assert {*rows[0]} >= {*CURVES, *RESULTS, "epoch", "step", "lr-SGD/student"}
    assert [row["epoch"] for row in rows if row["loss/ce"]] == ["0", "1"]
    assert float(rows[-1]["test/acc"]) == pytest.approx(record.metrics["test/acc"])
    assert yaml.safe_load((file.parent / "hparams.yaml").read_text())["seed"] == 0


def wandb_files(folder):
    return sorted(folder.path.glob("wandb/offline-run-*/run-*.wandb"))


def test_wandb_writes_offline_without_a_key_and_each_job_is_a_run_of_its_own(fit, capsys):
    import wandb

    for name in ("first-1", "second-2"):
        _, folder = fit("logger=[wandb]", name=name)
        assert wandb.run is None
        [file] = wandb_files(folder)
        assert file.stem == f"run-{name}"
        content = file.read_bytes()
        for word in (*CURVES, *RESULTS, "experiment=digits", "seed=0", "trainer/global_step"):
            assert word.encode() in content, word
    said = capsys.readouterr().out
    assert said.count("logger.wandb writes offline: the API key is missing") == 2
    assert "wandb sync" in said


def test_a_resumed_run_continues_the_same_run_of_wandb(fit, monkeypatch):
    with monkeypatch.context() as patched:
        at_step(patched, 5, failing(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            fit("logger=[wandb]")
    _, folder = fit("logger=[wandb]")
    assert {file.stem for file in wandb_files(folder)} == {"run-method-ce-12345678"}
    assert len(wandb_files(folder)) == 2


def test_a_wandb_server_that_does_not_answer_makes_the_run_offline(fit, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    record, folder = fit("logger=[wandb]")
    assert record.status == "completed"
    assert wandb_files(folder)
    assert "writes offline: http://127.0.0.1:9 cannot be reached" in capsys.readouterr().out


def test_a_wandb_server_that_stops_in_the_middle_costs_one_warning(fit, monkeypatch, caplog):
    monkeypatch.setattr("amtml_pl.training.loggers.wandb.UPLOAD", 2.0)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    with logging_server(wandb_answer) as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        at_step(monkeypatch, 5, lambda _: server.stop())
        with caplog.at_level(logging.WARNING, "amtml_pl"):
            record, folder = fit("logger=[wandb]")
    assert b"method=ce" in server.received or b"seed=0" in server.received
    assert record.status == "completed"
    assert caplog.text.count("logger.wandb has lost its server") == 1
    [file] = folder.path.glob("wandb/run-*/run-*.wandb")
    assert b"test/acc" in file.read_bytes()


@pytest.fixture
def stored(tmp_path):
    """Return a function that returns the runs of the local database."""

    def runs():
        from mlflow.tracking import MlflowClient

        client = MlflowClient(f"sqlite:///{tmp_path}/outputs/mlflow.db")
        experiment = client.get_experiment_by_name("digits")
        return client, client.search_runs([experiment.experiment_id])

    return runs


def test_a_resumed_run_continues_the_same_run_of_mlflow(fit, stored, monkeypatch):
    with monkeypatch.context() as patched:
        at_step(patched, 5, failing(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            fit("logger=[mlflow]")
    record, _ = fit("logger=[mlflow]")
    assert "MLFLOW_TRACKING_URI" not in os.environ  # which processes started later would inherit
    client, [run] = stored()
    assert (run.info.run_name, run.info.status) == ("method-ce-12345678", "FINISHED")
    assert {"experiment": "digits", "seed": "0"}.items() <= run.data.tags.items()
    assert run.data.params["optimizer/lr"] == "0.05"
    assert {*CURVES, *RESULTS} <= {*run.data.metrics}
    assert run.data.metrics["test/acc"] == pytest.approx(record.metrics["test/acc"])
    epochs = [point.step for point in client.get_metric_history(run.info.run_id, "loss/ce")]
    assert epochs == [4, 8]


def test_an_mlflow_server_that_stops_in_the_middle_costs_one_warning(fit, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with logging_server(mlflow_answer) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
        at_step(monkeypatch, 5, lambda _: server.stop())
        with caplog.at_level(logging.WARNING, "amtml_pl"):
            record, folder = fit("logger=[mlflow,csv]")
    assert b"loss/ce" in server.received
    assert record.status == "completed"
    assert [each.getMessage()[:33] for each in caplog.records].count("logger.mlflow has lost its server") == 1
    assert len(folder.metrics_file.read_text().splitlines()) == 3


def test_an_mlflow_server_that_is_not_there_costs_one_warning(fit, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with caplog.at_level(logging.WARNING, "amtml_pl"):
        assert fit("logger=[mlflow]")[0].status == "completed"
    assert caplog.text.count("has lost its server") == 1


@pytest.mark.parametrize("uri", ["file:/my/mlruns", "file:///my/mlruns/", "/my/mlruns"])
def test_a_folder_that_mlflow_does_not_accept_is_refused_before_the_run(configure, monkeypatch, uri):
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    settings = settings_of(configure(*LABELS, "logger=[mlflow]", f"logger.mlflow.tracking_uri={uri}"))
    with pytest.raises(
        UserError,
        match=r"is a folder.*\nFix: \"logger.mlflow.tracking_uri='sqlite:////my/mlruns/mlflow.db'\"$",
    ):
        check_parts(settings)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    check_parts(settings)


@pytest.mark.skipif(importlib.util.find_spec("trackio") is None, reason="the extra trackio is not installed")
def test_trackio_gets_curves_and_results_of_one_resumed_run(fit, monkeypatch):
    with monkeypatch.context() as patched:
        at_step(patched, 5, failing(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            fit("logger=[trackio]")
    fit("logger=[trackio]")
    from trackio import SQLiteStorage

    assert SQLiteStorage.get_runs("amtml_pl") == ["method-ce-12345678"]
    logs = SQLiteStorage.get_logs("amtml_pl", "method-ce-12345678")
    assert {*CURVES, *RESULTS} <= {name for log in logs for name in log}
    assert [log["step"] for log in logs if "loss/ce" in log] == [4, 8]


@pytest.mark.parametrize("name", sorted(WITH_EXTRA))
def test_a_missing_package_is_one_message_before_anything_is_made(configure, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        UserError, match=rf"'{name}' is not installed.\nFix: pip install 'amtml-pl\[{name}\]'"
    ):
        check_parts(settings_of(configure(*LABELS, f"logger=[{name}]")))


def test_the_run_of_a_logger_is_finished_if_the_next_logger_cannot_begin(fit, monkeypatch):
    ended = []
    monkeypatch.setenv("AMTML_TARGETS", "own_callbacks.FailingLogger")
    monkeypatch.setattr(CSVLogger, "finish", ended.append, raising=False)
    monkeypatch.setattr(FailingLogger, "log_hyperparams", lambda *_: open(""))  # noqa: SIM115, PTH123
    own = ("logger=[csv]", "+logger.own._target_=own_callbacks.FailingLogger")
    with pytest.raises(UserError, match=r"logger.own raised FileNotFoundError"):
        fit(*own)
    assert set(ended) == {1}  # of both loggers


def test_a_logger_that_raises_ends_the_fit_resumable(fit, monkeypatch):
    monkeypatch.setenv("AMTML_TARGETS", "own_callbacks.FailingLogger")
    own = ("logger=[csv]", "logger.csv._target_=own_callbacks.FailingLogger")
    with pytest.raises(
        UserError, match=r"^logger.csv raised KeyError in log_metrics: 'my column'. After a cor"
    ):
        fit(*own)
    record, folder = fit("logger=[]")
    assert record.status == "completed"
    assert len(folder.metrics_file.read_text().splitlines()) == 3
