"""The trainers for several processes, on a machine without a GPU."""

import pytest
import torch
from pytorch_lightning.plugins.layer_sync import TorchSyncBatchNorm

from amtml_pl.config.build import build_object
from amtml_pl.config.checks import check
from amtml_pl.errors import UserError
from amtml_pl.system import ranks
from amtml_pl.system.launch import processes_wanted
from amtml_pl.training.assemble import student_network
from amtml_pl.training.execution import EAGER
from amtml_pl.training.settings import settings_of


def test_batch_norm_sees_the_whole_batch_on_several_gpus(configure):
    config = configure("experiment=digits", "method=ce", "trainer=ddp", "trainer.accelerator=cpu")
    config.trainer.devices = 1
    made = build_object(config.trainer, partial=True)(strategy="ddp")
    assert isinstance(made.strategy._layer_sync, TorchSyncBatchNorm)
    synchronised = made.strategy._layer_sync.apply(student_network(settings_of(config), [], EAGER))
    kinds = [type(module) for module in synchronised.modules()]
    assert torch.nn.SyncBatchNorm in kinds
    assert torch.nn.BatchNorm2d not in kinds


@pytest.mark.parametrize(("trainer", "synchronised"), [("slurm", True), ("auto", None), ("ddp_cpu", None)])
def test_batch_norm_is_synchronised_under_slurm_and_not_elsewhere(configure, trainer, synchronised):
    made = configure("experiment=digits", "method=ce", f"trainer={trainer}").trainer
    assert made.get("sync_batchnorm") is synchronised


def test_the_trainer_takes_tasks_and_machines_from_slurm(configure, monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "8")
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "4")
    trainer = configure("experiment=cifar100_amtml", "trainer=slurm").trainer
    assert (trainer.devices, trainer.num_nodes) == (8, 4)


def slurm(monkeypatch, **variables):
    for name, value in variables.items():
        monkeypatch.setenv(f"SLURM_{name}", value)


def test_a_task_of_slurm_knows_its_rank_and_a_single_process_does_not(monkeypatch):
    slurm(monkeypatch, STEP_ID="0", PROCID="5", LOCALID="1", NTASKS="8")
    assert not [name for name in ranks.single_process_environment() if name.startswith("SLURM")]
    assert "PATH" in ranks.single_process_environment()
    assert (ranks.rank(), ranks.local_rank(), ranks.world_size(), ranks.is_rank_zero()) == (5, 1, 8, False)


@pytest.mark.parametrize(("tasks", "here"), [("4", 4), ("8(x2)", 8), ("2,1", 1)])
def test_a_task_of_slurm_counts_the_tasks_of_its_machine(monkeypatch, tasks, here):
    slurm(monkeypatch, STEP_ID="0", NTASKS="16", STEP_TASKS_PER_NODE=tasks)
    assert ranks.local_world_size() == here


def test_a_batch_script_of_slurm_is_one_process(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "8")  # of the allocation; only srun starts them, and names a step
    assert (ranks.rank(), ranks.world_size()) == (0, 1)


def test_a_process_of_torchrun_knows_its_rank(monkeypatch):
    for name, value in {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert (ranks.rank(), ranks.local_rank(), ranks.world_size()) == (3, 1, 4)
    assert not {"RANK", "WORLD_SIZE"} & set(ranks.single_process_environment())
    assert processes_wanted(2, 2, "cpu") == 1  # they are running already
    with pytest.raises(UserError, match=r"number of processes does not fit .*got 4, 2 of(.|\n)*devices=2"):
        processes_wanted(3, 1, "cpu")


def test_processes_are_started_unless_a_launcher_has_done_it():
    assert processes_wanted(1, 1, "cpu") == 1
    assert processes_wanted(2, 1, "cpu") == 2
    assert processes_wanted("auto", 1, "auto") == 1  # there is no GPU here
    with pytest.raises(UserError, match=r"trainer.num_nodes=2 needs processes on every machine \(got 1"):
        processes_wanted(2, 2, "cpu")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.batch_size=129"], r"batch_size=129: the 2 processes .*e.g. 130"),
        (["data.mixup=0.2"], "data.mixup=0.2: mixup needs the whole batch .expected 0 with 2 processes"),
        (["+trainer.strategy=fsdp"], "trainer.strategy=fsdp: several processes always use DDP"),
    ],
)
def test_a_batch_that_processes_cannot_share_is_refused(configure, overrides, message):
    with pytest.raises(UserError, match=message):
        check(configure("experiment=digits", "method=ce", "trainer=ddp_cpu", *overrides))
