"""What some tools of the shelf make of a word or number: Roman numerals, Morse code, radio spelling, other bases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from toolkit.world.spec import ToolFailure

_ROMAN = (
    *((1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"), (50, "L"), (40, "XL")),
    *((10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I")),
)
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_CODES = """
.- -... -.-. -.. . ..-. --. .... .. .--- -.- .-.. -- -. --- .--. --.- .-. ... - ..- ...- .-- -..- -.-- --..
----- .---- ..--- ...-- ....- ..... -.... --... ---.. ----.
"""
_CALLS = """
Alfa Bravo Charlie Delta Echo Foxtrot Golf Hotel India Juliett Kilo Lima Mike November Oscar Papa Quebec Romeo Sierra
Tango Uniform Victor Whiskey Xray Yankee Zulu
"""
_MORSE = dict(zip(_LETTERS + "0123456789", _CODES.split(), strict=True))
_NATO = dict(zip(_LETTERS, _CALLS.split(), strict=True))


def _roman(number: int) -> str:
    if not 0 < number < 4000:
        raise ToolFailure("only numbers from 1 to 3999 have a Roman form")
    text = ""
    for value, letters in _ROMAN:
        text += letters * (number // value)
        number %= value
    return text


def _morse(text: str) -> str:
    words = [" ".join(_MORSE[one] for one in word if one in _MORSE) for word in text.lower().split()]
    if not any(words):
        raise ToolFailure("only letters and digits have a Morse code")
    return " / ".join(word for word in words if word)


def _spelled(text: str) -> str:
    return " ".join(_NATO.get(one, one) for one in text.lower() if one != " ")


def _in_base(number: int, base: str) -> str:
    return format(number, {"2": "b", "8": "o", "16": "X"}[base])


_FUNCTIONS: Mapping[str, Callable[..., str]] = {
    "roman": _roman,
    "morse": _morse,
    "spelled": _spelled,
    "in_base": _in_base,
}


def made(text: str, arguments: Mapping[str, Any]) -> str:
    """`FUNCTION PARAM PARAM` applied to a call's arguments."""
    name, *params = text.split()
    return _FUNCTIONS[name](*(arguments[param] for param in params))
