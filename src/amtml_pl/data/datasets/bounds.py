"""What an archive may hold: an archive of a few kilobytes can claim, or really give, terabytes."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from amtml_pl.errors import UserError

# Far above those of CIFAR, CINIC-10 and Tiny ImageNet: images hardly shrink, the largest member (CIFAR-100's
# training pickle) has 155 MB, and the most members (CINIC-10's) are 270,000.
EXPANSION = 5
SMALL_BYTES = 64 << 20
MEMBER_BYTES = 1 << 30
MEMBERS = 500_000


class BoundedGzip(io.RawIOBase):
    """The unpacked bytes of a gzip file, from first to last, up to a bound.

    Args:
        file: opened by the caller, who closes it.
        archive: where it lies, for messages.
    """

    def __init__(self, file: gzip.GzipFile, archive: Path) -> None:
        super().__init__()
        self._file, self._archive = file, archive
        self._left = most_bytes(archive)

    def read(self, size: int = -1) -> bytes:
        """Up to ``size`` bytes.

        Raises:
            UserError: if the file has given more than its size may expand to.
        """
        content = self._file.read(size)
        self._left -= len(content)
        if self._left < 0:
            raise too_large(self._archive, f"unpacks to more than {most_bytes(self._archive):,} bytes")
        return content

    def check_end(self) -> None:
        """Reads what is left, so that gzip compares its checksum."""
        while self.read(1 << 20):
            pass


def most_bytes(archive: Path) -> int:
    """What an archive may unpack to, together."""
    return SMALL_BYTES + EXPANSION * archive.stat().st_size


def check_members(archive: Path, members: Iterable[tuple[str, int]]) -> None:
    """Refuses names that lead out of a folder, and sizes out of proportion, before anything is read.

    Nothing is ever written under these names; but an archive that has them was made to do harm.

    Args:
        archive: where it lies.
        members: the name and the claimed size of each; taken one after the other, no further than a refusal.

    Raises:
        UserError: at the first member that is not acceptable, or if they are too many or together too large.
    """
    total = 0
    for number, (name, size) in enumerate(members, start=1):
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\0" in name:
            raise UserError(
                f"The archive {archive} has a member {name!r:.120}, which leads out of its folder. "
                "It was refused, and nothing of it was unpacked.",
                fix=f"delete {archive}, and take the official archive",
            )
        if not 0 <= size <= MEMBER_BYTES:
            raise too_large(archive, f"claims {size:,} bytes for {name!r:.120}")
        total += size
        if total > most_bytes(archive):
            raise too_large(archive, f"unpacks to more than {most_bytes(archive):,} bytes")
        if number > MEMBERS:
            raise too_large(archive, f"has more than {MEMBERS:,} members")


def too_large(archive: Path, what: str) -> UserError:
    """What to say of an archive that would fill the memory."""
    return UserError(
        f"The archive {archive} ({archive.stat().st_size:,} bytes) {what}. No data set does; it was refused.",
        fix=f"delete {archive}, and take the official archive",
    )
