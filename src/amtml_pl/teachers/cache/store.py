"""The files of one teacher's tensor for one split: manifest, records and shards.

```
<root>/<teacher>/<tensor>-<split>-<hash>/
    manifest.json                        the fingerprint of the numbers, shape, rows per shard
    view-0001.json                       the shards of view 1: rows, bytes, sha256
    view-0001.statistics.json            sums over the view's rows, if a run has needed them: `statistics.py`
    view-0001.00000.safetensors          rows 0, 1, …: `values`, for int8 `scale`, and the `pixels`' checksums
    used_by/<hash>.json                  which runs refer to it
```

A shard is written under a temporary name, renamed, and then added to its view's record; only a recorded shard
exists. The files hold no time, host or user, so that an interrupted and repeated build leaves the same files
as an uninterrupted one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock
from jaxtyping import Int64
from safetensors.torch import save
from torch import Tensor

from amtml_pl.errors import UserError
from amtml_pl.system.files import digest_of_file, short_digest, write_bytes, write_text
from amtml_pl.system.records import as_json, write_record
from amtml_pl.teachers.cache.catalogue import (
    FORMAT,
    LOCKS,
    MANIFEST,
    ExaminedTeacher,
    StoreManifest,
    Use,
    differing_fields,
    lock_name,
    path_part,
    read_store_manifest,
    recorded_views,
)
from amtml_pl.teachers.cache.storage import Storage
from amtml_pl.teachers.cache.view import ShardRecord, StoredView, ViewRecord, rebuild_fix, recorded_shards
from amtml_pl.types import SplitName

SHARD_ROWS = 4096


@dataclass(frozen=True)
class TensorStore:
    """The stored rows of one tensor, some of which may be missing."""

    root: Path
    teacher: str
    tensor: str  # ``logits`` or a tap
    split: SplitName
    rows: int  # N of the split
    causes: Mapping[str, Any]  # of the numbers, as JSON, see `fingerprint`
    storage: Storage
    shard_rows: int = SHARD_ROWS  # of a new folder; an existing one keeps its own
    _begun: list[StoreManifest] = field(default_factory=list, compare=False, repr=False)

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """All causes of the stored numbers; another one means another folder.

        ``format`` and ``storage`` come from here; ``data``, ``split``, ``augment``, ``cache`` and ``tensor``
        from `amtml_pl.training.run_cache.teacher_stores`; ``teacher`` from
        `amtml_pl.training.selected_teacher.SelectedTeacher.identity`. `StoreManifest` stores it.
        """
        own = {"format": FORMAT, "storage": self.storage, **self.causes}
        plain: dict[str, Any] = json.loads(json.dumps(own))  # as it will be read back
        return plain

    @cached_property
    def folder(self) -> Path:
        """The folder of the store, named by the fingerprint."""
        digest = short_digest(json.dumps(self.fingerprint, sort_keys=True), digits=12)
        return self.root / path_part(self.teacher) / f"{path_part(self.tensor)}-{self.split}-{digest}"

    @classmethod
    def from_folder(cls, folder: Path) -> TensorStore:
        """Return the store in a folder; a wrong or damaged manifest is a UserError."""
        about = read_store_manifest(folder)
        names = about.teacher, about.tensor, about.split
        store = cls(folder.parents[1], *names, about.rows, about.fingerprint, about.storage, about.shard_rows)
        if store.folder != folder or store.manifest() != about:
            what = f"The manifest in {folder} belongs to another cache folder. The folder was probably moved."
            raise UserError(what, fix=rebuild_fix(folder))
        return store

    def manifest(self) -> StoreManifest | None:
        """Return the manifest, None before the store is begun; a wrong one is a UserError."""
        if not self._begun and (self.folder / MANIFEST).exists():
            manifest = read_store_manifest(self.folder)
            own = self._own()
            if wrong := differing_fields(manifest.model_dump(include={*own}), own):
                listed = "; ".join(f"{key}: got {there}, expected {here}" for key, there, here in wrong)
                what = f"The file {self.folder / MANIFEST} does not match its folder ({listed})."
                raise UserError(what, fix=rebuild_fix(self.folder))
            self._begun.append(manifest)
        return self._begun[0] if self._begun else None

    def begin(
        self, shape: tuple[int, ...], facts: ExaminedTeacher, built_with: Mapping[str, bool | int | str]
    ) -> None:
        """Write the manifest if there is none; of several processes only the first one writes."""
        manifest = StoreManifest(
            **self._own(), shape=shape, shard_rows=self.shard_rows, facts=facts, built_with=dict(built_with)
        )
        locks = self.root / LOCKS
        locks.mkdir(parents=True, exist_ok=True)
        with FileLock(locks / f"{lock_name(self.folder)}-manifest.lock"):
            if self.manifest() is None:
                write_record(self.folder / MANIFEST, manifest)

    @property
    def shape(self) -> tuple[int, ...] | None:
        """The shape of a row; None before the store is begun."""
        manifest = self.manifest()
        return None if manifest is None else manifest.shape

    def shards(self) -> list[int]:
        """Return the numbers of a view's shards."""
        return list(range(-(-self.rows // self._rows_per_shard())))

    def rows_of(self, number: int) -> range:
        """Return the rows of a shard."""
        first = number * self._rows_per_shard()
        return range(first, min(first + self._rows_per_shard(), self.rows))

    def missing(self, view: int) -> list[int]:
        """Return the shards that a view lacks, all without a manifest; read none of them."""
        recorded = {} if self.manifest() is None else self.record(view)
        return [n for n in self.shards() if n not in recorded or not self.shard_file(view, n).exists()]

    def is_complete(self, view: int) -> bool:
        """Return True if every shard of a view exists."""
        return not self.missing(view)

    def views(self) -> list[int]:
        """Return the complete views."""
        return [view for view in recorded_views(self.folder) if self.is_complete(view)]

    def write(
        self, view: int, number: int, tensors: Mapping[str, Tensor], pixels: Int64[Tensor, " R"]
    ) -> None:
        """Publish a shard, then add it to its view's record; an OSError leaves nothing."""
        file, rows = self.shard_file(view, number), self.rows_of(number)
        content = save({**{k: v.contiguous() for k, v in tensors.items()}, "pixels": pixels})
        write_bytes(file, content)
        sha256 = hashlib.sha256(content).hexdigest()
        entry = ShardRecord(file=file.name, rows=(rows.start, rows.stop), bytes=len(content), sha256=sha256)
        entries = {**self.record(view), number: entry}
        record = ViewRecord(view=view, shards=tuple(entries[number] for number in sorted(entries)))
        write_record(self.record_file(view), record)

    def verify(self, view: int) -> None:
        """Compare every shard of a view with its checksum; a difference is a UserError."""
        for number, entry in self.record(view).items():
            file = self.shard_file(view, number)
            if not file.exists():  # a missing shard is built again
                continue
            try:
                size, found = file.stat().st_size, digest_of_file(file)
            except OSError as error:
                what = f"The cache file {file} cannot be read ({error.strerror})."
                raise UserError(what, fix=rebuild_fix(file)) from error
            if size != entry.bytes or found != entry.sha256:
                raise UserError(
                    f"The checksum of {file} is wrong (got {size:,} bytes with SHA-256 {found[:16]}…, "
                    f"expected {entry.bytes:,} bytes with {entry.sha256[:16]}…).",
                    fix=rebuild_fix(file),
                )

    def open(self, view: int) -> StoredView:
        """Return a view's rows, mapped; missing shards are a UserError."""
        if missing := self.missing(view):
            fix = "run python -m amtml_pl.cache action=build with the overrides of the run"
            raise UserError(
                f"View {view} in {self.folder} is incomplete (missing shards: {missing[:5]}).", fix=fix
            )
        files = [self.shard_file(view, number) for number in self.shards()]
        return StoredView(tuple(files), self._rows_per_shard())

    def record(self, view: int) -> dict[int, ShardRecord]:
        """Return the recorded shards of a view by number; a damaged record is a UserError."""
        shards = {n: (self.shard_file(view, n).name, self.rows_of(n)) for n in self.shards()}
        return recorded_shards(self.record_file(view), view, shards)

    def note_use(self, run: Path | None, command: str) -> None:
        """Record that a run refers to the store; skip a folder that cannot be written."""
        place = "" if run is None else str(run.resolve())
        text = as_json(Use(run=place, command=command))
        file = self.folder / "used_by" / f"{short_digest(place or command, digits=12)}.json"
        with suppress(OSError):
            if not file.exists() or file.read_bytes() != text.encode():
                write_text(file, text)

    def shard_file(self, view: int, number: int) -> Path:
        """Return the path of a shard."""
        return self.folder / f"view-{view:04d}.{number:05d}.safetensors"

    def record_file(self, view: int) -> Path:
        """Return the path of a view's record."""
        return self.folder / f"view-{view:04d}.json"

    def _own(self) -> dict[str, Any]:
        """Return the fields that this store's manifest must have."""
        own = {"teacher": self.teacher, "tensor": self.tensor, "split": self.split, "rows": self.rows}
        return {**own, "storage": self.storage, "fingerprint": self.fingerprint}

    def _rows_per_shard(self) -> int:
        manifest = self.manifest()
        return self.shard_rows if manifest is None else manifest.shard_rows
