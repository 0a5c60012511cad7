"""Damaged or malicious checkpoints and weights are read unchanged, or rejected."""

import io
import zipfile

import pytest
import pytorch_lightning as pl
import torch
from canary import at_most, flipped, outcome
from hypothesis import given
from hypothesis import strategies as st
from nested import FUZZ, nested
from torch import nn

from amtml_pl.errors import UserError
from amtml_pl.system.checkpoint_file import LightningCheckpoint, read_checkpoint
from amtml_pl.teachers.weights import load_weights

FIELDS = [str(field.validation_alias or name) for name, field in LightningCheckpoint.model_fields.items()]


class Small(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.network = nn.Linear(4, 3)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the bytes of a checkpoint that Lightning wrote."""
    folder = tmp_path_factory.mktemp("fit")
    torch.manual_seed(0)
    trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", default_root_dir=folder)
    trainer.strategy.connect(Small())
    trainer.save_checkpoint(folder / "last.ckpt")
    return (folder / "last.ckpt").read_bytes()


@pytest.fixture
def file(hostile):
    return hostile / "last.ckpt"


def same(first, second):
    if isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


def content_of(whole):
    return torch.load(io.BytesIO(whole), weights_only=True)


def saved(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def test_a_whole_checkpoint_and_one_of_weights_alone_are_read(whole, file):
    file.write_bytes(whole)
    assert same(read_checkpoint(file, Small().state_dict()), content_of(whole))
    resumable = ("optimizer_states", "lr_schedulers", "loops", "callbacks")
    file.write_bytes(saved({key: value for key, value in content_of(whole).items() if key not in resumable}))
    assert "state_dict" in read_checkpoint(file, Small().state_dict())


@pytest.mark.parametrize("zipped", [True, False])
def test_a_payload_in_a_checkpoint_is_never_run(whole, file, payload, zipped):
    content = {**content_of(whole), "loops": {"x": payload}}
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        UserError, match=r"(?s)last.ckpt .*cannot be read.*No code in the file was executed.*force=true"
    ):
        read_checkpoint(file)


@FUZZ
@given(bit=st.integers(0, 2**40))
def test_a_flipped_bit_is_detected(whole, file, bit):
    file.write_bytes(flipped(whole, bit))
    found = outcome(read_checkpoint, file)
    assert isinstance(found, UserError) or same(found, content_of(whole))


def test_every_bit_of_the_weights_is_covered_by_a_checksum(whole, file):
    weight = content_of(whole)["state_dict"]["network.weight"].numpy().tobytes()
    place = whole.index(weight)
    for byte in range(place, place + len(weight)):
        file.write_bytes(flipped(whole, 8 * byte + 3))
        with pytest.raises(UserError, match=r"the checksum of .* is wrong"):
            read_checkpoint(file)


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_truncated_checkpoint_is_rejected(whole, file, share):
    file.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UserError, match=r"last.ckpt \([\d,]+ bytes\) cannot be read"):
        read_checkpoint(file)


def test_a_compressed_checkpoint_is_rejected_before_it_is_unpacked(whole, file):
    archive = zipfile.ZipFile(io.BytesIO(whole))
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as bomb:
        for member in archive.infolist():
            large = member.filename.endswith("data/0")
            bomb.writestr(member.filename, b"\0" * (50 << 20) if large else archive.read(member))
    with at_most(megabytes=5), pytest.raises(UserError, match=r"is compressed, which torch.save never does"):
        read_checkpoint(file)


PLAIN = nested("x")
TENSORS = st.builds(
    lambda shape, dtype: torch.zeros(shape, dtype=dtype),
    st.lists(st.integers(0, 4), max_size=3),
    st.sampled_from([torch.float32, torch.float16, torch.int64, torch.bool, torch.complex64]),
)


@FUZZ
@given(key=st.sampled_from(FIELDS), value=PLAIN | TENSORS)
def test_a_checkpoint_with_any_value_in_a_field_is_read_or_rejected(whole, file, key, value):
    file.write_bytes(saved({**content_of(whole), key: value}))
    found = outcome(read_checkpoint, file, Small().state_dict())
    if not isinstance(found, UserError):
        assert key != "state_dict"
        assert type(found["epoch"]) is int
        assert type(found["global_step"]) is int


def network():
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))


KEYS = [*network().state_dict(), "state_dict", "model", "other"]


@FUZZ
@given(
    state=st.dictionaries(st.sampled_from(KEYS), TENSORS | PLAIN, max_size=8),
    key=st.none() | st.sampled_from(["state_dict", "model", "a.b", "."]),
)
def test_a_network_loads_all_weights_of_a_file_or_none(hostile, state, key):
    file = hostile / "teacher.pt"
    file.write_bytes(saved(state))
    made = network()
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    if isinstance(outcome(lambda: load_weights(made, file, key=key)), UserError):
        assert same(dict(made.state_dict()), before)
