"""Free memory of an accelerator, and what may stay in it during a run."""

from __future__ import annotations

import torch

SHARE_OF_FREE_MEMORY = 0.5


def free_memory(device: torch.device) -> int | None:
    """Return an accelerator's free bytes; None for the CPU, and where they are unknown."""
    if device.type != "cuda":
        return None
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by torch, for reuse
    return int(torch.cuda.mem_get_info(device)[0]) + kept


def fits_on_device(size: int, device: torch.device) -> bool:
    """Return True if ``size`` bytes are at most half of an accelerator's free memory."""
    free = free_memory(device)
    return free is not None and size <= SHARE_OF_FREE_MEMORY * free
