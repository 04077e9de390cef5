"""Values for the arguments and results of invented tools: much that has to be copied to the letter."""

from __future__ import annotations

import base64
import tomllib
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from random import Random
from typing import TYPE_CHECKING, Any

from toolkit.world.language import Said, day, moment
from toolkit.world.lexicon import city, person, words

if TYPE_CHECKING:
    from toolkit.world.world import World

_CONSONANTS = "BCDFGHJKLMNPQRSTVWXZ"
_ACCENTED = (
    "Zoë Østergård",
    "Łukasz Wójcik",
    "Søren Bjørk",
    "Renée Lévêque",
    "Jürgen Groß",
    "Íñigo Núñez",
    "Chloë O'Hara",
    "Séamus D'Arcy",
    "Jean-Luc van den Broek",
    "Mary-Ann McAllister",
    "ana lucía de la Cruz",
    "J. R. Whitcombe",
    "Dr. Okonkwo",
    "Ngozi Eze-Bello",
)


@cache
def tables() -> dict[str, Any]:
    """The file of what invented tools are about."""
    return tomllib.loads(files(__package__).joinpath("invented.toml").read_text(encoding="utf-8"))


@cache
def kind_of(attribute: str) -> str:
    """The kind of an attribute's values; `choice NAME` for one of a list."""
    if attribute in tables()["choices"]:
        return f"choice {attribute}"
    return next(kind for kind, names in tables()["attributes"].items() if attribute in names.split())


def choices(attribute: str) -> tuple[str, ...]:
    return tuple(tables()["choices"][attribute].split(", "))


def value(kind: str, r: Random, w: World) -> Any:
    """A value of the kind, or a `Said` where it is said in other words."""
    name, _, rest = kind.partition(" ")
    if name == "choice":
        return r.choice(choices(rest))
    if name == "among":
        return _as_said(r.choice(rest.split("|")), r)
    if name == "id":
        return identifier(rest, r)
    return _KINDS[name](r, w)


def schema(kind: str) -> dict[str, Any]:
    """The JSON schema of the kind's values, without a description."""
    name, _, rest = kind.partition(" ")
    if name == "choice":
        return {"type": "string", "enum": list(choices(rest))}
    if name == "among":
        return {"type": "string", "enum": rest.split("|")}
    if name == "id":
        return {"type": "integer" if rest == "number" else "string"}
    if name == "words":
        return {"type": "array", "items": {"type": "string"}}
    return {"type": {"count": "integer", "measure": "number", "money": "number"}.get(name, "string")}


ID_STYLES = ("number", "prefix", "hex", "slash", "mixed", "padded")


def identifier(style: str, r: Random) -> Any:
    letters = "".join(r.choice(_CONSONANTS) for _ in range(2))
    if style == "number":
        return r.randint(2, 99999)
    if style == "prefix":
        return f"{letters}{r.choice(('', '-', '_'))}{r.randint(10, 9999)}"
    if style == "hex":
        return f"{r.getrandbits(32):08x}"
    if style == "slash":
        return f"{r.randint(1, 40)}/{letters}/{r.randint(1, 99)}"
    if style == "mixed":
        return "".join(r.choice(_CONSONANTS + _CONSONANTS.lower() + "2345678") for _ in range(r.randint(4, 7)))
    return f"{r.randint(0, 9999):05d}-{letters[0].lower()}"


def _code(r: Random, w: World) -> Any:
    style = r.random()
    if style < 0.25:
        return base64.b64encode(_plain(r).encode()).decode()
    if style < 0.35:
        return f"v{r.randint(0, 9)}.{r.randint(0, 20)}.{r.randint(0, 9)}{r.choice(('', '', '-rc1', 'b2'))}"
    return identifier(r.choice(ID_STYLES[1:]), r)


def _plain(r: Random) -> str:
    return f"{r.choice(words('word'))}{r.choice('-_. ')}{r.choice((str(r.randint(1, 999)), r.choice(words('word'))))}"


def _text(r: Random, w: World) -> Any:
    style = r.random()
    if style < 0.4:
        text = r.choice(words(r.choice(("sentence", "line"))))
    elif style < 0.6:
        text = f"{r.choice(words('topic'))} {r.choice(('for', 'vs.', '&', '/'))} {r.choice(words('company'))}"
    elif style < 0.8:
        text = " ".join(r.choice((str.title, str.upper, str.lower))(r.choice(words("word"))) for _ in range(3))
    else:
        text = f"{r.choice(words('task'))} ({r.randint(2, 40)}{r.choice(('x', '%', ' h', ' pcs'))})"
    quote = "'" if "'" not in text and r.random() < 0.15 else '"'
    return Said(text, f"{quote}{text}{quote}")


def _person(r: Random, w: World) -> Any:
    return r.choice(_ACCENTED) if r.random() < 0.2 else person(r)


def _email(r: Random, w: World) -> Any:
    first, last = person(r).split()
    local = r.choice((f"{first}.{last}", f"{first[0]}{last}{r.randint(1, 99)}", f"{last}_{first}", f"{first}+{last}"))
    return f"{local if r.random() < 0.2 else local.lower()}@{r.choice(('', 'eu.', 'mx1.'))}{r.choice(words('domain'))}"


def _path(r: Random, w: World) -> Any:
    root = r.choice(("/srv", "/mnt/share", "/var/lib", "~", "data", "/opt/App"))
    name = f"{r.choice(words('stem'))}{r.choice(('', '_v2', '-FINAL', f'.{r.randint(2019, 2027)}'))}"
    return f"{root}/{r.choice(words('project'))}/{name}.{r.choice(('csv', 'PDF', 'tar.gz', 'json', 'wav'))}"


def _url(r: Random, w: World) -> Any:
    query = r.choice(("", f"?id={r.randint(1, 999)}", "#top", "?q=a&lang=en"))
    return f"https://{r.choice(words('host'))}/{r.choice(words('word'))}/{r.randint(1, 400)}{query}"


def _money(r: Random, w: World) -> Any:
    return r.choice((r.randint(5, 9000), round(r.uniform(1, 5000), 2), r.randrange(50, 5000, 50)))


def _measure(r: Random, w: World) -> Any:
    return r.choice((r.randint(1, 500), round(r.uniform(0.1, 900), 1), round(r.uniform(0.01, 9), 2)))


def _words(r: Random, w: World) -> Any:
    return r.sample(words(r.choice(("word", "product", "color"))), r.choice((2, 2, 3, 4)))


def _everyday(r: Random, w: World) -> Any:
    return _as_said(r.choice(_everyday_words()), r)


def _as_said(text: str, r: Random) -> Any:
    """An everyday word as a user writes it: now and then in quotation marks."""
    return Said(text, f'"{text}"') if r.random() < 0.15 else text


def some_words(r: Random) -> str:
    """A kind, `among A|B|C`, of values that are one of a few everyday words, which no other chat has together: what is
    on offer has to be read and copied, not known by heart."""
    return f"among {'|'.join(r.sample(_everyday_words(), r.randint(3, 6)))}"


def is_everyday(kind: str) -> bool:
    """Whether values of the kind read like any other word of a sentence."""
    return kind.partition(" ")[0] in ("everyday", "among")


@cache
def _everyday_words() -> tuple[str, ...]:
    return tuple(tables()["everyday"].replace("\n", " ").strip().split(", "))


_KINDS: dict[str, Callable[[Random, World], Any]] = {
    "count": lambda r, w: r.randint(1, r.choice((9, 60, 900))),
    "measure": _measure,
    "money": _money,
    "person": _person,
    "city": lambda r, w: city(r),
    "code": _code,
    "text": _text,
    "date": lambda r, w: day(r, w.today, 1, 90),
    "time": lambda r, w: moment(r),
    "email": _email,
    "path": _path,
    "url": _url,
    "host": lambda r, w: f"{r.choice(words('word'))}.{r.choice(words('domain'))}",
    "words": _words,
    "everyday": _everyday,
}
