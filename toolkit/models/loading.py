"""The language model in a folder, also where the folder holds more: of a model of text and images its text part.

Such a model's weights are named as part of a whole. Its text part is loaded by transformers' class for it alone, under
the names that it would have alone, so that everything else takes it for what it is.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from toolkit import trusted
from toolkit.errors import ModelError
from toolkit.models.families import FAMILIES, text_part

_NAMES = {
    r"^(?:model\.)?language_model\.(?:model\.)?lm_head\.": "lm_head.",
    r"^(?:model\.)?language_model\.(?:model\.)?": "model.",
}
"""Of weights of a text part, by what stands before them in a whole: `model.language_model.` where transformers 5 wrote
it, or `language_model.model.` before."""


def text_name(name: str) -> str:
    """The name that a weight has where its text part is all there is."""
    for before, after in _NAMES.items():
        name = re.sub(before, after, name)
    return name


def load_model(folder: Path, **options: Any) -> Any:
    """`toolkit.trusted.load_model` of a folder's language model alone. `options` go to `from_pretrained`.

    Raises `ModelError` for a model that has none that can be loaded.
    """
    trusted.check_folder(folder, weights=True)
    config = trusted.read_config(folder / "config.json")
    if text_part(config) is config:
        try:
            return trusted.load_model(folder, **options)
        except ValueError as error:
            if "Unrecognized configuration class" not in str(error):
                raise
            known = ", ".join(sorted(kind for family in FAMILIES.values() for kind in family.whole_types))
            raise ModelError(
                f"model.name: {folder}: transformers has no causal language model for {config.get('model_type')}; of "
                f"models with more than text, the text part of {known} can be trained: take one, or a text model"
            ) from None
    from transformers.utils import logging  # seconds to import

    level = logging.get_verbosity()
    logging.set_verbosity_error()  # its table of weights that are left out
    try:
        return trusted.load_model(folder, **{"config": load_config(folder), "key_mapping": _NAMES, **options})
    finally:
        logging.set_verbosity(level)


def load_config(folder: Path) -> Any:
    """`toolkit.trusted.load_config` of a folder's language model alone. Raises `ModelError` for an unknown type."""
    trusted.check_folder(folder)
    config = trusted.read_config(folder / "config.json")
    text = text_part(config)
    if text is config:
        return trusted.load_config(folder)
    from transformers import CONFIG_MAPPING, AutoConfig  # seconds to import

    if text["model_type"] not in CONFIG_MAPPING:
        kind = text["model_type"] or "none"
        raise ModelError(f"{folder / 'config.json'}: text_config.model_type = {kind}, which transformers does not know")
    settings = {key: value for key, value in text.items() if key != "model_type"}
    with trusted.config_told(folder):
        return AutoConfig.for_model(text["model_type"], **settings)
