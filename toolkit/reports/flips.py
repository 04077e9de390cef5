"""Chats that one evaluation has right and another wrong, and those that stay wrong, for a page."""

from __future__ import annotations

from dataclasses import dataclass

from toolkit.evaluation.results import Comparison, Evaluation, Row, in_turn


@dataclass(frozen=True, slots=True)
class Flip:
    """A chat that flipped: what it is counted under, what the user said, and (name, text) of all that is shown."""

    kind: str
    user: str
    texts: list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Flipped:
    """Chats that flipped from one evaluation to another one. sentence: how many did, and how likely that is by
    chance; more_gained, more_lost: how many are not listed."""

    sentence: str
    gained: list[Flip]
    lost: list[Flip]
    more_gained: int = 0
    more_lost: int = 0


def flipped(first: Evaluation, second: Evaluation, names: tuple[str, str], most: int) -> Flipped | None:
    """The chats that both evaluations asked for the same answer and that only one has right, at most `most` each way.

    `names` are the two evaluations'. None where they have no such chat in common.
    """
    known = {row.key for row in first.rows}
    if not any(row.key in known for row in second.rows):
        return None
    same = [
        (before, after)
        for before, after in Comparison.of(first, second).pairs
        if (before.kind, before.expected_calls) == (after.kind, after.expected_calls)
    ]
    if not same:
        return None
    comparison = Comparison(same)
    paired = comparison.paired()
    gained, lost = (_listed(comparison, names, way) for way in (True, False))
    return Flipped(
        f"{paired.gained} of {paired.n} became right, {paired.lost} became wrong (exact McNemar test: "
        f"p = {paired.p_value:.2g}).",
        gained[:most],
        lost[:most],
        max(0, len(gained) - most),
        max(0, len(lost) - most),
    )


def still_wrong(before: Evaluation | None, after: Evaluation, most: int) -> tuple[str, list[Flip], int]:
    """What the wrong answers are called, the first `most` of them with what is wrong, and how many more there are.

    Those that were right in `before`, which `flipped` lists, are left out.
    """
    right = {row.key for row in before.rows if row.correct} if before is not None else set()
    earlier = {row.key: row for row in before.rows} if before is not None else {}
    rows = in_turn((row for row in after.rows if not row.correct and row.key not in right), lambda row: row.kind)
    title = f"{'Wrong' if before is None else 'Still wrong'}: {len(rows):,} of {len(after.rows):,}"
    return title, [_wrong(row, earlier.get(row.key)) for row in rows[:most]], max(0, len(rows) - most)


def _wrong(row: Row, before: Row | None) -> Flip:
    texts = [("where", row.where), ("user", row.user), ("expected", row.expected)]
    texts += [("before", before.generated)] if before is not None else []
    texts += [("answered", row.generated)]
    texts += [("why", "; ".join(row.problems))] if row.problems else []
    return Flip(row.kind, row.user, texts)


def _listed(comparison: Comparison, names: tuple[str, str], gained: bool) -> list[Flip]:
    return [
        Flip(
            after.kind,
            after.user,
            [
                ("where", after.where),
                ("user", after.user),
                ("expected", after.expected),
                (names[0], before.generated),
                (names[1], after.generated),
            ],
        )
        for before, after in comparison.flips(gained)
    ]
