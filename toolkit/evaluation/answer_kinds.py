"""What a plain answer does: asks, refuses, or says that it lacks the means. Told from its wording, in English only.

These are word lists, not understanding, and they err: an answer that refuses without any of these words is missed, a
question about something beside the point counts as asking, and a refusal followed by the very help asked for still
counts as a refusal. They see only answers without tool calls. Look at the generated texts before quoting a small
difference in these columns.
"""

from __future__ import annotations

import re

_SHORT = (
    ("’", "'"),
    ("can't", "cannot"),
    ("can not", "cannot"),
    ("won't", "will not"),
    ("n't", " not"),
    ("'m ", " am "),
    ("'d ", " would "),
    ("'ll ", " will "),
    ("'s ", " is "),
)
_I = r"\bi(?: am| would| will| do| have| must| simply| just| really| also| still)*"
_CANNOT = rf"{_I} (?:cannot|unable to|not able to)(?: \w+ly)?"
_REFUSALS = re.compile(
    "|".join(
        (
            rf"{_I} (?:will not|not do|refuse|decline|have to (?:refuse|decline)|need to (?:refuse|decline))\b",
            rf"{_I} (?:not going to|not willing to|unwilling to|not comfortable|not allowed to|not permitted to)\b",
            rf"{_I} (?:rather not|prefer not to|not help|not assist)\b",
            rf"{_CANNOT} (?:do (?:that|this|it)|help|assist|support|comply|fulfill?|participate|take part|go along)\b",
            r"\b(?:that|this|it) is (?:something|a request) (?:that )?i (?:will not|must|cannot|have to)\b",
            r"\bi (?:must|have to) say no\b",
            r"^\W*(?:(?:i am )?sorry\W+)?no[,.;:!]",
            r"\b(?:illegal|unlawful|against the law|unethical)\b",
        )
    )
)
_NO_TOOL = (
    r"\b(?:no|none of (?:my|the|these)|without an?|lack an?|not have an?|not have any|not have the) "
    r"(?:\w+ )?(?:tools?|functions?|way|means|access)\b"
)
_NO_TOOL_SENTENCE = re.compile(rf"[^.?!]*{_NO_TOOL}[^.?!]*")
_LACKS = re.compile(
    "|".join(
        (
            _NO_TOOL,
            rf"{_CANNOT} \w+",
            r"\b(?:beyond|outside) (?:my|the) (?:capabilities|abilities|tools|scope)\b",
        )
    )
)
_POLITE_QUESTION = re.compile(
    r"[^.?!]*\b(?:anything else|(?<!, )something else|what else|(?:help|assist) you (?:today|further|with anything))"
    r"[^.?!]*[.?!]?"
)
_REQUESTS = re.compile(
    r"\bplease (?:tell|give|provide|specify|share|send|let me know|clarify|confirm|name|say|enter|supply)\b|"
    r"\b(?:let me know|tell me) (?:what|which|when|where|who|whom|whose|how|the|your)\b|"
    rf"{_I} need (?:to know|the|your|an?|more)\b"
)


def asks(text: str) -> bool:
    """Whether an answer asks the user for something: a question that is more than "anything else?", or "please
    provide ..."."""
    text = _POLITE_QUESTION.sub("", _plain(text))
    return "?" in text or bool(_REQUESTS.search(text))


def refuses(text: str) -> bool:
    """Whether an answer declines to do what was asked, for any reason but a missing tool; see the module's limits."""
    return bool(_REFUSALS.search(_NO_TOOL_SENTENCE.sub("", _plain(text))))


def lacks_means(text: str) -> bool:
    """Whether an answer says that it has no tool, or is not able, to do what was asked."""
    return bool(_LACKS.search(_plain(text)))


def _plain(text: str) -> str:
    """Lower case, without contractions, single spaces."""
    text = " ".join(text.lower().split())
    for short, long in _SHORT:
        text = text.replace(short, long)
    return text
