"""Where the images of a run are kept; a CPU that tells its free memory stands in for an accelerator."""

import logging

import pytest
import torch

from amtml_pl.data import placement
from amtml_pl.data.augment import CropFlip, Cutout
from amtml_pl.data.color_jitter import ColorJitter
from amtml_pl.errors import UserError
from amtml_pl.system import device_memory
from recorded_batches import PACKED, Recorder, module, trainer

CPU = torch.device("cpu")
SIZE = sum(split.images.nbytes for split in PACKED.splits.values())


@pytest.fixture
def free(monkeypatch):
    """Return a function that makes the CPU an accelerator with so many free bytes."""

    def made(number):
        for place in (placement, device_memory):
            monkeypatch.setattr(place, "free_memory", lambda _: number)

    return made


def same(first, second):
    """Compare batches to the bit, wherever their tensors are."""
    return all(
        torch.equal(getattr(a, name).cpu(), getattr(b, name).cpu())
        for a, b in zip(first, second, strict=True)
        for name in ("images", "labels", "index")
    )


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_images_stay_in_memory_without_an_accelerator_and_without_a_line(device, caplog):
    data = module(device=device)
    data.images.to(CPU)
    assert not data.images.moved
    assert not caplog.messages


@pytest.mark.parametrize("missing", [0, 1])
def test_images_of_all_splits_move_once_where_they_leave_half_of_the_free_memory(free, missing):
    free(2 * SIZE - missing)
    data = module()
    data.images.to(CPU)
    assert len(data.images.moved) == (0 if missing else 2)  # val is a part of the packed train split


def test_the_place_is_decided_once_for_a_device(free):
    data = module()
    for number in (10**9, 0):  # none is left when the images have moved
        free(number)
        data.images.to(CPU)
        assert data.images.moved


@pytest.mark.parametrize(
    ("memory", "arguments", "why"),
    [(10**9, {"num_workers": 2}, "data.num_workers=2 reads them in other processes"),
     (SIZE, {}, "more than half of the .* GB that are free")],
)  # fmt: skip
def test_what_keeps_the_images_in_memory_is_one_line_or_if_asked_for_an_error(
    free, caplog, memory, arguments, why
):
    free(memory)
    with caplog.at_level(logging.WARNING):
        module(**arguments).images.to(CPU)
    [line] = caplog.messages
    assert "The images stay in the CPU's memory" in line
    with pytest.raises(UserError, match=f"data.device=device is impossible: .*{why}") as refused:
        module(device="device", **arguments).images.to(CPU)
    assert refused.value.fix == "data.device=auto"


def test_a_run_on_the_cpu_cannot_keep_images_on_a_device():
    with pytest.raises(UserError, match="trains on the device cpu"):
        module(device="device").images.to(CPU)


@pytest.mark.parametrize("words", [["data.num_workers=2"], []])
def test_an_impossible_device_is_found_before_anything_is_trained(mistake, words):
    message = mistake("experiment=digits", "data.device=device", *words)
    assert "data.device=device: the run does not train on a CUDA device" in message
    assert ("data.num_workers=2: data.device=device needs 0" in message) == bool(words)


def test_a_fit_has_the_same_batches_from_the_memory_of_the_device(free, tmp_path):
    def seen(data):
        learner = Recorder()
        trainer(tmp_path, 2).fit(learner, datamodule=data)
        return learner.seen

    in_memory = seen(module())
    free(10**9)
    data = module(device="device")
    assert seen(data) == in_memory
    assert data.images.moved


@pytest.mark.gpu
@pytest.mark.parametrize("mixup", [0.0, 0.4])
def test_batches_of_a_gpu_equal_those_of_the_cpu_to_the_bit(mixup):
    operations = [CropFlip(padding=1), ColorJitter(0.4, 0.4, 0.4, 0.1), Cutout(3)]
    on_cpu, on_gpu = (module(operations=operations, device=at, mixup=mixup) for at in ("cpu", "auto"))
    on_gpu.images.to(torch.device("cuda"))
    [first, *_] = on_gpu.train_batches(1)
    assert first.images.is_cuda
    for epoch in range(3):
        assert same(on_gpu.train_batches(epoch), on_cpu.train_batches(epoch))
    for split in ("val", "test"):
        assert same(on_gpu.eval_batches(on_gpu.split(split)), on_cpu.eval_batches(on_cpu.split(split)))
