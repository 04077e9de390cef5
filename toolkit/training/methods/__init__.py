"""Methods of training, by name; `base.py` says what one is. Another is a file here and a line in `METHODS`."""

from __future__ import annotations

from toolkit.training.methods.base import Method
from toolkit.training.methods.sft import SFT
from toolkit.training.prepared import Prepared

METHODS: dict[str, type[Method]] = {
    "sft": SFT,
}


def method_of(prepared: Prepared) -> Method:
    """The method that a recipe trains by; as long as there is one, recipes do not name it."""
    return METHODS["sft"](prepared)
