"""Cards by the names that people and drivers use."""

from __future__ import annotations

import pytest

from toolkit.errors import InputError
from toolkit.planning.cards import CARDS, find_card, parse_smi


@pytest.mark.parametrize(
    ("name", "card"),
    [
        *((name, name) for name in CARDS),
        *[("T4", "t4"), ("Tesla T4", "t4"), ("a100", "a100-40"), ("A100-80GB", "a100-80"), ("NVIDIA H200", "h200")],
        *[("4090", "rtx4090"), ("RTX 4090", "rtx4090"), ("rtx-3060", "rtx3060"), ("v100-32gb", "v100-32")],
    ],
)
def test_names(name: str, card: str) -> None:
    assert find_card(name).name == card


def test_unknown_cards() -> None:
    with pytest.raises(InputError) as caught:
        find_card("rtx4091")
    assert "--gpu rtx4091: unknown card, did you mean rtx4090?; known are t4, l4, " in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("line", "card"),
    [
        ("Tesla T4, 15360, 7.5, 550.54", "t4"),
        ("NVIDIA L4, 23034, 8.9, 550.54", "l4"),
        ("NVIDIA A10G, 23028, 8.6, 550.54", "a10g"),
        ("NVIDIA A100-SXM4-40GB, 40960, 8.0, 550.54", "a100-40"),
        ("NVIDIA A100 80GB PCIe, 81920, 8.0, 550.54", "a100-80"),
        ("NVIDIA H100 80GB HBM3, 81559, 9.0, 550.54", "h100"),
        ("NVIDIA H200, 143771, 9.0, 570.1", "h200"),
        ("NVIDIA GeForce RTX 4090, 24564, 8.9, 560.35", "rtx4090"),
        ("Tesla V100-SXM2-32GB, 32768, 7.0, 535.1", "v100-32"),
        ("Tesla P100-PCIE-16GB, 16384, 6.0, 535.1", "p100"),
    ],
)
def test_what_nvidia_smi_says(line: str, card: str) -> None:
    (gpu,) = parse_smi(line)
    assert gpu.card.name == card


def test_a_card_that_is_not_known() -> None:
    (gpu,) = parse_smi("NVIDIA GeForce GTX 1650, 4096, 7.5, 535.1\nno devices were found\n")
    assert (gpu.card.name, gpu.card.half, gpu.card.capability) == ("NVIDIA GeForce GTX 1650", None, (7, 5))
    assert 3.5 < gpu.card.gib < 4.0
