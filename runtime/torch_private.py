"""Every private torch name that the runtime uses, with the torch versions it was seen in."""

from __future__ import annotations

from torch._C import (
    _from_dlpack as from_capsule,  # 2.11-2.13: what torch.utils.dlpack.from_dlpack ends in
)

__all__ = ["from_capsule"]
