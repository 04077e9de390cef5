"""All chats of the longest recipe: what goes wrong in one of 100,000 ends its table, and shorter tests miss it.

It takes as long as the chats take to make, a minute or two; where there are more than two cores, several make them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.data.sources import load_chats
from toolkit.hardware import usable_cores
from toolkit.recipe import load

RECIPE = Path(__file__).parents[2] / "recipes" / "smollm2.toml"


@pytest.mark.endurance
def test_all_chats_of_the_recipe_are_made_and_no_user_text_comes_twice() -> None:
    sources = load(RECIPE).recipe.data.sources
    made, texts = 0, set[str]()
    for chat in load_chats(sources, workers=usable_cores()):
        made += 1
        assert chat.turns[-1].role == "assistant" and chat.turns[-1].content, chat.where
        for text in (turn.content.casefold() for turn in chat.turns if turn.role == "user"):
            assert text not in texts, chat.where
            texts.add(text)
    assert made == sum(source.size for source in sources) > 200_000
