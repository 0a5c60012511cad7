"""Statistics of a hint are those of its stored rows, and depend on the views alone."""

import io
import json
from dataclasses import replace

import pytest
import torch
from rich.console import Console
from tiny_cache import built, stores
from tiny_store import ROWS, SHAPE, a_store, write
from tiny_store import built as built_store

from amtml_pl.errors import UserError
from amtml_pl.models.hint_statistics import HintStatistics
from amtml_pl.teachers.cache.statistics import (
    NUMBERS_AT_ONCE,
    run_statistics,
    statistics_file,
    summed,
    view_statistics,
)
from amtml_pl.teachers.cache.trust import verify_checksums
from records import EXAMINED
from storages import Storages


def rows_of(store, view):
    return store.open(view).whole().double().movedim(1, -1).flatten(0, -2)


def assert_same(first, second):
    assert first.count == second.count
    assert torch.equal(first.total, second.total)
    assert torch.equal(first.products, second.products)


@pytest.mark.parametrize("storage", ["float32", "float16", "int8"])
def test_they_are_exact_over_the_stored_rows_of_all_views_and_positions(tmp_path, storage):
    store = built_store(tmp_path, storage=storage)
    found = run_statistics(store, [1, 2])
    rows = torch.cat([rows_of(store, view) for view in (1, 2)])
    assert found.count == len(rows) == 2 * ROWS * SHAPE[1] * SHAPE[2]
    torch.testing.assert_close(found.mean, rows.mean(dim=0))
    torch.testing.assert_close(found.covariance, torch.cov(rows.T, correction=0))


@pytest.mark.parametrize(("shape", "rows"), [((64, 64, 64), 16), ((4, 8, 8), 2**14)])
def test_the_memory_does_not_depend_on_the_size_of_the_maps(tmp_path, shape, rows):
    store = a_store(tmp_path, storage="float16", rows=rows, shard_rows=rows)
    store.begin(shape, EXAMINED, {"batch_size": 4})
    store.write(1, 0, {"values": torch.ones(rows, *shape).half()}, torch.zeros(rows, dtype=torch.int64))
    with Storages() as made:
        summed(store, 1, ("a",))
    [shard] = store.open(1).shards  # mapped: no memory of the process
    del made.bytes[shard["values"].untyped_storage().data_ptr()]
    assert made.largest() == 8 * NUMBERS_AT_ONCE < 8 * shard["values"].numel()


def test_maps_are_copied_once_to_be_summed():
    maps = torch.ones(8, 64, 4, 4)
    with Storages() as made:
        HintStatistics.of(maps)
    assert [size for size in made.bytes.values() if size >= 8 * maps.numel()] == [8 * maps.numel()]


def test_a_view_is_summed_once_and_then_read_to_the_bit(tmp_path, monkeypatch):
    store = built_store(tmp_path)
    first = view_statistics(store, 1)
    written = statistics_file(store, 1).read_bytes()
    monkeypatch.setattr("amtml_pl.teachers.cache.statistics.summed", lambda *_: pytest.fail("summed again"))
    assert_same(view_statistics(store, 1), first)
    assert statistics_file(store, 1).read_bytes() == written


def test_a_runs_statistics_do_not_depend_on_who_built_which_view_when(tmp_path):
    one, other = built_store(tmp_path / "one"), a_store(tmp_path / "other")
    together = run_statistics(one, [1, 2])
    other = built_store(tmp_path / "other", views=(2,))
    run_statistics(other, [2])
    write(other, 1, [4, 0, 2])  # an interrupted build
    write(other, 1, [1, 3])
    write(other, 3)
    run_statistics(other, [3])  # of a run with other views
    assert_same(run_statistics(other, [1, 2]), together)


def test_another_content_of_a_shard_is_summed_anew(tmp_path):
    store = built_store(tmp_path)
    before = view_statistics(store, 1)
    rows = store.rows_of(0)
    store.write(1, 0, {"values": torch.zeros(len(rows), *SHAPE)}, torch.zeros(len(rows), dtype=torch.int64))
    after = view_statistics(store, 1)
    torch.testing.assert_close(after.mean, rows_of(store, 1).mean(dim=0))
    assert not torch.equal(after.total, before.total)


def test_an_incomplete_view_has_no_statistics(tmp_path):
    store = built_store(tmp_path)
    store.shard_file(1, 2).unlink()
    with pytest.raises(UserError, match=r"View 1 .* is incomplete"):
        run_statistics(store, [1, 2])


def test_a_changed_file_is_damage_that_every_run_with_the_term_finds_and_no_other(tmp_path):
    teacher = replace(stores(tmp_path), summed=("conv",))
    built(tmp_path, [teacher], [1])
    file = statistics_file(teacher.hints["conv"], 1)
    changed = json.loads(file.read_text())
    changed["count"] += 1
    file.write_text(json.dumps(changed))
    console = Console(file=io.StringIO())
    for read in (
        lambda: verify_checksums([teacher], [1], console), lambda: view_statistics(teacher.hints["conv"], 1)
    ):  # fmt: skip
        with pytest.raises(UserError, match="the digest does not match") as refused:
            read()
        assert f"rm '{file}'" in refused.value.fix
    verify_checksums([replace(teacher, summed=())], [1], console)


def test_a_build_collects_those_that_are_wanted_and_no_others(tmp_path):
    teacher = stores(tmp_path, taps=("conv", "act"))
    built(tmp_path, [replace(teacher, summed=("act",))], [1, 2])
    assert [statistics_file(teacher.hints["act"], view).exists() for view in (1, 2)] == [True, True]
    assert not statistics_file(teacher.hints["conv"], 1).exists()
