"""A build leaves the same files after every interruption, computes each row once, and reports errors."""

import gc
import io
import itertools
import json
import os
import re
import resource
import shutil
import signal
import tempfile
import time
import weakref
from pathlib import Path

import pytest
import torch
from rich.console import Console
from tiny_cache import AUGMENT, NOBODY, ROWS, K, Process, built, network, split, stores, times, tree
from torch import nn

from amtml_pl.errors import UserError
from amtml_pl.models.taps import TappedNetwork
from amtml_pl.teachers.cache.compute import BuildOptions
from amtml_pl.teachers.cache.statistics import view_statistics
from amtml_pl.teachers.live import Teacher
from rounding import assert_rounded_alike

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")


@pytest.fixture
def place():
    """A folder that other users may enter, which pytest's are not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def whole(tmp_path):
    """The files of a build of two views in one go."""
    root = tmp_path / "whole"
    built(root, [stores(root)], [1, 2])
    return tree(root)


def watched(seen, seed=0, *, taps=("conv",), before=lambda images: None):
    """Return a loader of a network that calls ``before`` and appends the size of each batch."""

    def load():
        made = network(seed, taps)

        def note(_, args):
            before(args[0])
            seen.append(len(args[0]))

        made.register_forward_pre_hook(note)
        return made

    return load


def killed_at(count):
    """Return a function that kills its process at the given call."""
    calls = itertools.count(1)

    def call(*_):
        if next(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)

    return call


# ---- what is stored


def test_each_row_is_computed_once_for_all_tensors(tmp_path):
    seen = []
    teacher = stores(tmp_path, taps=("conv", "act"), load=watched(seen, taps=("conv", "act")))
    result = built(tmp_path, [teacher], [1, 2])
    assert result.teacher_passes == {"big": 2 * ROWS}
    assert sum(seen) == 2 * ROWS + 1  # one image alone for the shapes
    assert result.seconds > 0


def test_a_complete_cache_loads_no_teacher_and_writes_nothing(tmp_path):
    built(tmp_path, [stores(tmp_path)], [1, 2])
    before = times(tmp_path)
    result = built(tmp_path, [stores(tmp_path, load=lambda: pytest.fail("loaded"))], [2, 1])
    assert not any(result.teacher_passes.values())
    assert times(tmp_path) == before


def test_a_new_hint_builds_only_itself(tmp_path):
    built(tmp_path, [stores(tmp_path)], [1, 2])
    before = times(tmp_path)
    result = built(tmp_path, [stores(tmp_path, taps=("conv", "act"))], [1, 2])
    assert result.teacher_passes == {"big": 2 * ROWS}
    after = times(tmp_path)
    assert {name: after[name] for name in before} == before
    added = set(after) - set(before)
    assert added
    assert all("/act-" in name for name in added)


@pytest.mark.numbers
def test_a_hint_is_whole_where_its_shards_are_longer_than_those_of_the_logits(tmp_path):
    built(tmp_path, [stores(tmp_path, taps=())], [1])
    later = stores(tmp_path, shard_rows=16)
    built(tmp_path, [later], [1])
    images, index = split(), torch.arange(ROWS)
    given = Teacher("big", network(0))(AUGMENT(images.stored.images[images.rows], index, 1)).features["conv"]
    torch.testing.assert_close(later.hints["conv"].open(1).rows(index).float(), given, rtol=1e-3, atol=1e-5)


def test_one_teacher_is_in_memory_at_a_time(tmp_path, request):
    gc.collect()
    gc.disable()  # reference counts alone free anything
    request.addfinalizer(gc.enable)
    networks = []

    def load(seed):
        def made():
            assert all(reference() is None for reference in networks)
            networks.append(weakref.ref(new := network(seed)))
            return new

        return made

    built(tmp_path, [stores(tmp_path, f"t{m}", seed=m, load=load(m)) for m in range(3)], [1])
    assert len(networks) == 3


# ---- interruption


@pytest.mark.parametrize("passes", [2, 9])
def test_a_build_killed_while_it_computes_leaves_the_files_of_one_go(tmp_path, whole, passes):
    root, kill = tmp_path / "killed", killed_at(passes)
    child = Process(lambda: built(root, [stores(root, load=watched([], before=kill))], [1, 2]))
    assert child.answer() is None
    assert child.process.exitcode == -signal.SIGKILL
    assert tree(root) != whole
    output = io.StringIO()
    built(root, [stores(root)], [1, 2], console=Console(file=output))
    assert tree(root) == whole
    assert "Waiting" not in output.getvalue()  # the lock of a killed process does not count


@pytest.mark.parametrize(("kind", "files"), [(".safetensors", 12), (".json", 14)])
def test_a_build_killed_before_a_rename_leaves_the_files_of_one_go(tmp_path, whole, kind, files):
    def work():
        replace, kill = Path.replace, killed_at(count)

        def renamed(self, target):
            if target.suffix == kind:
                kill()
            return replace(self, target)

        Path.replace = renamed
        return built(root, [stores(root)], [1, 2])

    for count in range(1, files + 2, 3):
        root = tmp_path / str(count)
        assert (Process(work).answer() is None) == (count <= files)
        built(root, [stores(root)], [1, 2])
        assert whole.items() <= tree(root).items(), count
        assert kind == ".json" or tree(root) == whole, count


# ---- several processes


def slow_build(root, views):
    output = io.StringIO()
    load = watched([], before=lambda _: time.sleep(0.03))
    result = built(root, [stores(root, load=load)], views, console=Console(file=output, width=300))
    return json.dumps([result.teacher_passes["big"], output.getvalue().count("Waiting for another process")])


def test_two_builders_share_the_work_and_leave_the_files_of_one(tmp_path):
    views, root = [1, 2, 3, 4], tmp_path / "two"
    children = [Process(lambda: slow_build(root, views)) for _ in range(2)]
    answers = [json.loads(child.answer()) for child in children]
    passes = [computed for computed, _ in answers]
    assert sum(passes) == len(views) * ROWS
    assert all(passes)
    alone = tmp_path / "one"
    built(alone, [stores(alone)], views)
    assert tree(root) == tree(alone)


def test_a_builder_with_nothing_to_share_waits_and_reports_it_once(tmp_path):
    children = [Process(lambda: slow_build(tmp_path, [1])) for _ in range(2)]
    assert sorted(json.loads(child.answer()) for child in children) == [[0, 1], [ROWS, 0]]


# ---- what stops a build


class SpoilsWhite(nn.Module):
    """Logits that are ``value`` for a white image."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, images):
        logits = images.mean(dim=(2, 3)) @ torch.ones(3, K, device=images.device)
        white = (images > 1.99).flatten(1).all(dim=1)
        return torch.where(white[:, None], self.value, logits)


def spoiled(root, value, logits="float16"):
    """A build whose sample 13, in its second shard, is white."""
    images = split()
    images.stored.images[images.rows[13]] = 255

    def load():
        return TappedNetwork(SpoilsWhite(value), mean=[0.0] * 3, std=[0.5] * 3)

    teacher = stores(root, taps=(), logits=logits, load=load)
    built(root, [teacher], [0], images=images)
    return teacher


def test_an_output_that_is_not_finite_is_refused_with_its_sample(tmp_path):
    with pytest.raises(UserError, match=r"'logits' of teacher 'big'.*nan for sample 13 in view 0") as refused:
        spoiled(tmp_path, float("nan"))
    assert "correct network weights" in refused.value.fix
    assert len(stores(tmp_path, taps=()).logits.missing(0)) == 2  # the first shard is kept


def test_an_output_beyond_float16_is_refused_and_float32_holds_it(tmp_path):
    with pytest.raises(UserError, match=r"float16 .*100000.* for sample 13 ") as refused:
        spoiled(tmp_path, 1e5)
    assert "cache.logits=float32" in refused.value.fix
    kept = spoiled(tmp_path, 1e5, "float32").logits.open(0).rows(torch.tensor([13]))
    assert kept.tolist() == [[1e5] * K]


def test_a_full_disk_is_reported_and_complete_shards_are_kept(tmp_path, whole):
    root = tmp_path / "full"

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # less than a shard of the hint
        return built(root, [stores(root)], [1, 2])

    text = Process(limited).answer()
    assert text.startswith("UserError: The disk is full")
    assert "set paths.cache" in text
    assert str(root) in text
    files = tree(root)
    assert files.items() <= {**whole, **{n: c for n, c in files.items() if n.endswith(".json")}}.items()
    assert not [name for name in files if Path(name).name.startswith(".")]
    built(root, [stores(root)], [1, 2])
    assert tree(root) == whole


def test_a_disk_that_is_too_small_is_refused_before_the_teacher_computes(tmp_path, monkeypatch):
    usage, seen = shutil.disk_usage(tmp_path), []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=64_000))
    with pytest.raises(
        UserError, match=r"too little space .*\d.*kB free, expected \d.*kB: big \d.*kB"
    ) as refused:
        built(tmp_path, [stores(tmp_path, hints="float32", load=watched(seen))], range(1, 41))
    assert sum(seen) == 1
    for option in ("paths.cache", "hint_pool=1", "cache.hints=int8"):
        assert option in refused.value.fix


@as_root
def test_a_folder_of_another_user_is_refused_by_name(place):
    text = Process(lambda: built(place, [stores(place)], [1]), uid=NOBODY).answer()
    assert text.startswith("UserError: The missing teacher outputs cannot be written to the cache")
    assert f"({place}" in text
    assert "set paths.cache" in text
    assert tree(place) == {}


@as_root
def test_a_complete_cache_serves_a_user_who_may_not_write(place):
    built(place, [stores(place)], [1, 2])
    before = times(place)

    def use():
        teacher = stores(place, load=lambda: pytest.fail("loaded"))
        result = built(place, [teacher], [1, 2])
        teacher.logits.note_use(Path("/run"), "train")
        rows = len(teacher.logits.open(2).rows(torch.arange(ROWS)))
        return sum(result.teacher_passes.values()), rows, view_statistics(teacher.hints["conv"], 2).count

    assert Process(use, uid=NOBODY).answer() == f"(0, {ROWS}, {ROWS * 9})"
    assert times(place) == before


def test_a_line_has_the_teacher_its_views_its_images_and_their_rate(tmp_path):
    output = io.StringIO()
    built(tmp_path, [stores(tmp_path)], [2, 3], console=Console(file=output, width=200))
    line = rf"Outputs of teacher big computed for views 2 to 3: {2 * ROWS} images at [\d,]+ images/s"
    assert re.search(line, output.getvalue())


@pytest.mark.numbers
@pytest.mark.slow
def test_a_compiled_teacher_gives_the_same_outputs(tmp_path):
    options = {"plain": BuildOptions(device="cpu"), "compiled": BuildOptions(device="cpu", compile=True)}
    found = {}
    for name, chosen in options.items():
        teacher = stores(tmp_path / name, logits="float32", hints="float32")
        built(tmp_path / name, [teacher], [1], options=chosen)
        found[name] = {tensor: store.open(1).whole() for tensor, store in teacher.stores.items()}
    for tensor, values in found["plain"].items():
        assert_rounded_alike(found["compiled"][tensor], values, products=27, layers=2)


@pytest.mark.parametrize(("offset", "warnings"), [(0.0, 0), (500.0, 1)])
def test_logits_with_a_large_common_offset_in_float16_give_one_warning(tmp_path, caplog, offset, warnings):
    def load():
        made = network()
        made.network.fc.bias.data += offset
        return made

    built(tmp_path / "half", [stores(tmp_path / "half", load=load)], [1, 2])
    found = [record.getMessage() for record in caplog.records]
    assert len(found) == warnings
    assert all(
        re.search(r"teacher big in float16 .* by [\d.]+ % on average.*cache.logits=float32", each)
        for each in found
    )
    built(tmp_path / "whole", [stores(tmp_path / "whole", load=load, logits="float32")], [1])
    assert len(caplog.records) == warnings
