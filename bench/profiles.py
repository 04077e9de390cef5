"""What the machine is taken for: itself, or a smaller card whose memory and number formats are imposed on this one."""

from __future__ import annotations

from dataclasses import dataclass

from toolkit.errors import InputError
from toolkit.planning.cards import Card, find_card


@dataclass(frozen=True, slots=True)
class Profile:
    """`card` is None for this machine as it is. Imposing a card caps torch's memory at what torch sees on the real one.

    `flash`: flash attention may be used. `overrides` are `--set` values over the recipe. `env` is set for each worker.
    """

    name: str
    card: Card | None = None
    flash: bool = True
    overrides: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()

    @property
    def cap(self) -> int | None:
        """Bytes that torch may take; None: all there are."""
        return self.card.memory if self.card else None


THIS = Profile("this")
AMPERE = (8, 0)  # the first with bfloat16 and flash attention


def find_profile(name: str, here: Card | None = None) -> Profile:
    """`this`, or any card that `toolkit plan --gpu` knows, as `t4`.

    Where `here`, the card in this machine, is the one asked for, nothing has to be imposed but the precision.
    Raises `InputError` for an unknown name.
    """
    if name == "this":
        return THIS
    try:
        card = find_card(name)
    except InputError as error:
        raise InputError(str(error).replace("--gpu", "--profile", 1).replace("and cpu", "and this")) from None
    old = card.capability < AMPERE
    overrides = ("train.fp16=true", "train.bf16=false") if old else ()
    # Unsloth 2026.10.9 compiles blocks where torch can; its compiled kernels need bf16-era cards
    env = (("UNSLOTH_BLOCK_COMPILE", "0"),) if old else ()
    return Profile(card.name, None if here == card else card, flash=not old, overrides=overrides, env=env)
