"""A cache serves the teachers' outputs for every batch, order, device and process."""

import pickle
from dataclasses import replace

import pytest
import torch
from tiny_cache import AUGMENT, OPTIONS, batch, built, network, split, stores

from amtml_pl.data.module import PackedDataModule
from amtml_pl.data.packing import PackedDataset
from amtml_pl.errors import UserError
from amtml_pl.teachers.cache.serve import CachedTeachers
from amtml_pl.teachers.cache.trust import compare_outputs
from amtml_pl.teachers.live import LiveTeachers, Teacher

pytestmark = pytest.mark.numbers

ROWS, SHARD_ROWS, VIEWS = 300, 64, (1, 2)
NAMES = ("small", "big")  # not the order of their stores


def never():
    pytest.fail("a cached run loads no teacher")


def teachers(root, load=never):
    sizes = {"rows": ROWS, "shard_rows": SHARD_ROWS, "load": load}
    return [
        stores(root, "big", seed=1, taps=("conv", "pool"), **sizes),
        stores(root, "small", seed=2, taps=("act",), hints="int8", **sizes),
    ]


@pytest.fixture(scope="module")
def images():
    return split(ROWS)


@pytest.fixture(scope="module")
def root(tmp_path_factory, images):
    root = tmp_path_factory.mktemp("served")
    options = type(OPTIONS)(batch_size=50, device="cpu", channels_last=True)
    built(root, teachers(root, load=None), VIEWS, images=images, options=options)
    return root


def source(root, placement="auto"):
    return CachedTeachers(NAMES, teachers(root), VIEWS, placement).to("cpu")


def assert_same(first, second):
    assert first.names == second.names
    assert torch.equal(first.logits, second.logits)
    assert first.hints.keys() == second.hints.keys()
    for name, hint in first.hints.items():
        assert torch.equal(hint, second.hints[name])


def rows_of(outputs, chosen):
    return outputs.map(lambda tensor: tensor[chosen])


def shuffled(seed=0):
    return torch.randperm(ROWS, generator=torch.Generator().manual_seed(seed))


def test_a_cache_gives_what_live_teachers_give_to_rounding(root, images):
    networks = {"small": network(2, ("act",)), "big": network(1, ("conv", "pool"))}
    live = LiveTeachers([Teacher(name, made) for name, made in networks.items()])
    for view in VIEWS:
        wanted = batch(images, shuffled()[:128], view)
        given, expected = source(root)(wanted), live(wanted)
        assert given.names == expected.names == NAMES
        assert given.logits.dtype == torch.float16
        torch.testing.assert_close(given.logits.float(), expected.logits, rtol=1e-3, atol=1e-4)
        assert torch.equal(given.logits.argmax(dim=2), expected.logits.argmax(dim=2))
        assert given.hints.keys() == expected.hints.keys()
        for name, hint in expected.hints.items():
            tolerance = 1e-3 if name.startswith("big") else hint.abs().max().item() / 254 * 1.01
            torch.testing.assert_close(given.hints[name].float(), hint, rtol=1e-3, atol=tolerance)


@pytest.mark.parametrize("placement", ["mapped", "resident"])
@pytest.mark.parametrize("size", [1, 64, 128])
def test_a_sample_has_the_same_outputs_in_batches_of_any_size_and_order(root, images, placement, size):
    served, everything = source(root, placement), source(root)(batch(images, torch.arange(ROWS), 2))
    twice = torch.tensor([250, 3, 250, 0, 3])
    for index in (*torch.split(shuffled(size)[:256], size)[:8], twice):
        assert_same(served(batch(images, index, 2)), rows_of(everything, index))


def test_outputs_that_came_with_the_batch_are_returned_unchanged(root, images):
    wanted = batch(images, shuffled()[:64], 1)
    attached = source(root).read(wanted)
    carrying = batch(images, wanted.index, 1, teachers=attached)
    unconnected = CachedTeachers(NAMES)  # it need not read
    assert unconnected(carrying) is attached
    assert_same(unconnected(carrying), source(root)(wanted))


def test_resident_outputs_are_gathered_without_reading_the_disk_again(root, images, monkeypatch):
    resident, wanted = source(root, "resident"), batch(images, shuffled()[:64], 1)
    expected = resident(wanted)
    monkeypatch.setattr(CachedTeachers, "stored", lambda *_: pytest.fail("the disk was read again"))
    assert_same(resident(wanted), expected)
    with pytest.raises(pytest.fail.Exception):
        resident(batch(images, wanted.index, 2))


def test_views_on_another_device_are_dropped(root, images):
    resident, wanted = source(root, "resident"), batch(images, shuffled()[:64], 1)
    expected = resident(wanted)
    assert resident.to("cpu").resident
    resident.to("meta")  # a second device that every machine has
    assert resident.resident == {}
    assert_same(resident.to("cpu")(wanted), expected)


def decoded_bytes(root):
    """Return the bytes of all views, int8 hints as float32."""
    outputs = source(root)(batch(split(ROWS), torch.arange(ROWS), 1))
    tensors = [outputs.logits, *outputs.hints.values()]
    return len(VIEWS) * sum(tensor.nbytes for tensor in tensors)


@pytest.mark.parametrize("missing", [0, 1])
def test_views_move_to_cuda_where_they_leave_half_of_its_free_memory(root, monkeypatch, missing):
    free = 2 * decoded_bytes(root) - missing
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, 2 * free))
    assert source(root).to("cuda").is_resident == (missing == 0)


def test_where_the_views_are_kept_is_decided_once_for_a_device(root, monkeypatch):
    free = [10**9, 0]  # none is left when the views have moved
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free.pop(0), 10**9))
    served = source(root).to("cuda")
    assert [served.is_resident, served.is_resident] == [True, True]
    assert not served.to("cpu").is_resident
    assert not served.to("cuda").is_resident


class Reader:
    """The reader of a run's loader, for existing views."""

    def __init__(self, served):
        self.served = served

    def provide(self, view):
        pass

    def in_loader(self):
        return self.served.read


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_loader_brings_each_sample_its_own_outputs(root, tmp_path, num_workers):
    images = split(ROWS)
    packed = PackedDataset(tmp_path, "digest", tuple("abcd"), {"train": images.stored, "val": images.stored})
    served = source(root)
    data = PackedDataModule(
        packed, order_seed=5, augment=AUGMENT, batch_size=128, train_size=ROWS, num_workers=num_workers,
        teachers=Reader(served),
    )  # fmt: skip
    data._splits["train"] = images  # the rows that the stores were built from
    everything = source(root)(batch(images, torch.arange(ROWS), 2))
    met = []
    for loaded in data.train_batches(1):
        assert_same(served(loaded), loaded.teachers)
        assert_same(loaded.teachers, rows_of(everything, loaded.index))
        assert torch.equal(loaded.images, batch(images, loaded.index, 2).images)
        met.append(loaded.index)
    assert sorted(torch.cat(met).tolist()) == list(range(ROWS))


def test_only_the_latest_view_is_open(root, images):
    served, index = source(root), torch.arange(4)
    for view in (1, 2, 1):
        served(batch(images, index, view))
        assert served.opened is not None
        assert served.opened[0] == view


@pytest.mark.parametrize("placement", ["mapped", "resident"])
def test_a_copy_for_another_process_holds_no_rows_and_serves_the_same(root, images, placement):
    served, wanted = source(root, placement), batch(images, shuffled()[:64], 1)
    expected = served(wanted)
    content = pickle.dumps(served)
    assert len(content) < 20_000  # the rows of a view are ten times that
    copy = pickle.loads(content)  # noqa: S301
    assert_same(copy(wanted), expected)
    assert_same(served(wanted), expected)
    with pytest.raises(RuntimeError, match="cannot load teachers"):
        copy.teachers[0].load()


def test_a_view_that_was_not_built_is_refused(root, images):
    with pytest.raises(UserError, match=r"View 9 in .* is incomplete") as refused:
        source(root)(batch(images, torch.arange(3), 9))
    assert "action=build" in refused.value.fix


def test_another_split_never_gets_rows_of_the_training_split(root, images):
    with pytest.raises(RuntimeError, match="'val'"):
        source(root)(replace(batch(images, torch.arange(3), 1), split="val"))


KNOWN = [None, 0, 3, None]  # the outputs of four classes


def specialist(root, change=lambda logits: None):
    """Return the stores of a teacher that knows two of the four classes."""

    def load():
        made = network(1)
        made.network.fc.register_forward_hook(lambda module, images, logits: change(logits))
        return Teacher("big", made, KNOWN)

    return replace(stores(root, "big", seed=1), load=load)


def test_classes_that_a_teacher_does_not_know_survive_half_precision(tmp_path):
    few, teacher = split(), specialist(tmp_path)
    built(tmp_path, [teacher], [1])
    served = CachedTeachers(("big",), [teacher], [1])(batch(few, torch.arange(5), 1)).logits
    live = LiveTeachers([teacher.load()])(batch(few, torch.arange(5), 1)).logits
    assert served.dtype == torch.float16
    assert torch.equal(served == -torch.inf, torch.tensor([True, False, False, True]).expand(5, 1, 4))
    torch.testing.assert_close(served.float(), live, rtol=1e-3, atol=1e-3)
    assert compare_outputs(teacher, few, AUGMENT, [1], 5, OPTIONS)["logits"] < 2e-3


def test_an_infinite_logit_of_a_known_class_is_refused_and_one_of_an_unknown_class_is_not(tmp_path):
    def broken(output):
        return lambda logits: logits.index_fill(1, torch.tensor([output]), -torch.inf)

    built(tmp_path / "unknown", [specialist(tmp_path / "unknown", broken(1))], [1])
    with pytest.raises(UserError, match=r"cannot be stored as float16 \(got inf"):
        built(tmp_path / "known", [specialist(tmp_path / "known", broken(3))], [1])
