"""What `toolkit.training.trainer.Trainer` adds to TRL's SFTTrainer, one thing a module.

To a type checker each is an SFTTrainer; at run time none imports TRL, whose classes are others once Unsloth is there.
What they override is marked with `@override`, and tests/training/test_hooks.py holds that, and all that they take from
SFTTrainer, to the installed version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trl import SFTTrainer as TrainerMixin
else:
    TrainerMixin = object

__all__ = ["TrainerMixin"]
