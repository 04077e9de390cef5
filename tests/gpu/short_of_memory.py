"""toolkit's command line, which has so many bytes of the card from this update on.

python -m tests.gpu.short_of_memory BYTES UPDATE run RECIPE ...
"""

from __future__ import annotations

import sys
from typing import Any


def cap(allowed: int, update: int) -> None:
    """Leave `allowed` bytes of the card to this process as soon as `update` begins."""
    import torch

    from toolkit.training.mixins.packed_batches import PackedBatches

    usual = PackedBatches.training_step

    def training_step(self: Any, *arguments: Any) -> Any:
        if self.state.global_step + 1 >= update:
            torch.cuda.empty_cache()
            torch.cuda.set_per_process_memory_fraction(allowed / torch.cuda.mem_get_info()[1])
            setattr(PackedBatches, "training_step", usual)  # noqa: B010
        return usual(self, *arguments)

    setattr(PackedBatches, "training_step", training_step)  # noqa: B010 - mypy takes no assignment


if __name__ == "__main__":
    from toolkit.commands.main import main

    cap(int(sys.argv.pop(1)), int(sys.argv.pop(1)))
    main()
