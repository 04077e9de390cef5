"""The user's mailbox."""

from __future__ import annotations

from datetime import timedelta
from random import Random
from typing import Any

from toolkit.world.language import Said
from toolkit.world.lexicon import address, email_of, person, words
from toolkit.world.spec import ToolFailure, Unsuitable, array, boolean, chain, only, optional, part, string, tool
from toolkit.world.world import World


@part("mail")
def build(r: Random, w: World) -> dict[str, Any]:
    inbox: list[dict[str, Any]] = []
    for number in range(r.randint(9, 13)):
        name = person(r)
        kind = r.choice(("", "update", "question", "reminder"))
        inbox.append(
            {
                "id": f"m{300 + number * 7 + r.randrange(6)}",
                "from": email_of(r, name),
                "subject": f"{r.choice(('Re: ', '', '', 'Fwd: '))}{r.choice(words('topic'))} {kind}".strip(),
                "date": (w.today - timedelta(days=r.randint(0, 20))).isoformat(),
                "body": " ".join(r.sample(words("sentence"), 2)),
                "unread": r.random() < 0.4,
                "labels": [],
            }
        )
    drafts = [
        {
            "id": f"d{10 + n * 3 + r.randrange(3)}",
            "to": address(r),
            "subject": r.choice(words("topic")),
            "body": r.choice(words("sentence")),
        }
        for n in range(3)
    ]
    return {"inbox": inbox, "drafts": drafts, "sent": [], "archive": []}


def _find(rows: list[dict[str, Any]], key: str, what: str) -> dict[str, Any]:
    for row in rows:
        if row["id"] == key:
            return row
    raise ToolFailure(f"no {what} with id {key}")


def _check_address(value: str) -> None:
    name, at, host = value.partition("@")
    if not (name and at and "." in host) or " " in value:
        raise ToolFailure(f"not an e-mail address: {value}")


def _slots(r: Random, w: World) -> dict[str, Any]:
    mail = r.choice(w["mail"]["inbox"])
    topic = r.choice(words("topic"))
    subject = r.choice(
        (
            topic.capitalize(),
            f"About the {topic}",
            f"{topic.capitalize()} for {r.choice(words('weekday'))}",
            f"Question on the {topic}",
        )
    )
    body = " ".join(r.sample(words("sentence"), r.choice((1, 1, 2))))
    word = r.choice([word for word in mail["subject"].split() if len(word) > 4] or ["invoice"])
    return {
        "mail_id": mail["id"],
        "draft_id": r.choice(w["mail"]["drafts"])["id"],
        "to": address(r),
        "cc": [address(r) for _ in range(r.choice((1, 1, 2)))],
        "subject": Said(subject, f'"{subject}"'),
        "body": Said(body, f'"{body}"'),
        "query": Said(word, f'"{word}"'),
        "sender": mail["from"],
        "label": r.choice(("work", "family", "bills", "travel", "receipts", "later", "club")),
    }


def _missing(r: Random, w: World) -> dict[str, Any]:
    return {"mail_id": f"m{r.randint(600, 999)}", "draft_id": f"d{r.randint(60, 99)}"}


_MAIL_ID = string("Id of the mail, as in m321.")
_TO = string("E-mail address of the recipient.")
_BRIEF = ("id", "from", "subject", "date")


@tool(
    "mail",
    "Search the inbox for mails whose subject or text contains a word.",
    sample=_slots,
    near=("mails_from",),
    params={
        "query": string("Word or words to look for."),
        "unread_only": optional(boolean("Only mails not read yet; false if left out.")),
    },
)
def search_mail(w: World, query: str, unread_only: bool = False) -> Any:
    rows = [
        {key: mail[key] for key in _BRIEF}
        for mail in w["mail"]["inbox"]
        if query.lower() in f"{mail['subject']} {mail['body']}".lower() and (mail["unread"] or not unread_only)
    ]
    return {"mails": rows[:5], "total": len(rows)}


@tool(
    "mail",
    "List the mails in the inbox from one sender.",
    sample=_slots,
    near=("search_mail",),
    params={"sender": string("E-mail address of the sender.")},
)
def mails_from(w: World, sender: str) -> Any:
    rows = [{key: mail[key] for key in _BRIEF} for mail in w["mail"]["inbox"] if mail["from"] == sender]
    return {"mails": rows}


@tool(
    "mail",
    "Read one mail in full and mark it as read.",
    sample=_slots,
    bad=_missing,
    near=("search_mail",),
    params={"mail_id": _MAIL_ID},
)
def read_mail(w: World, mail_id: str) -> Any:
    mail = _find(w["mail"]["inbox"], mail_id, "mail")
    mail["unread"] = False
    return {key: mail[key] for key in (*_BRIEF, "body")}


@tool(
    "mail",
    "Send a mail at once.",
    sample=_slots,
    near=("save_draft", "reply_to_mail"),
    params={
        "to": _TO,
        "subject": string("Subject line."),
        "body": string("Text of the mail."),
        "cc": optional(array("Addresses that get a copy.")),
    },
)
def send_mail(w: World, to: str, subject: str, body: str, cc: list[str] | None = None) -> Any:
    for value in (to, *(cc or ())):
        _check_address(value)
    mail = {"id": f"s{len(w['mail']['sent']) + 1}", "to": to, "subject": subject, "body": body, "cc": cc or []}
    w["mail"]["sent"].append(mail)
    return {"sent": mail["id"], "to": to, "subject": subject}


@tool(
    "mail",
    "Reply to a mail in the inbox. The subject and the recipient are taken from that mail.",
    sample=_slots,
    bad=_missing,
    near=("send_mail", "save_draft"),
    params={"mail_id": _MAIL_ID, "body": string("Text of the reply.")},
)
def reply_to_mail(w: World, mail_id: str, body: str) -> Any:
    mail = _find(w["mail"]["inbox"], mail_id, "mail")
    return send_mail(w, mail["from"], f"Re: {mail['subject'].removeprefix('Re: ')}", body)


@tool(
    "mail",
    "Save a mail as a draft without sending it.",
    sample=_slots,
    near=("send_mail",),
    params={"to": _TO, "subject": string("Subject line."), "body": string("Text of the mail.")},
)
def save_draft(w: World, to: str, subject: str, body: str) -> Any:
    _check_address(to)
    number = max((int(row["id"][1:]) for row in w["mail"]["drafts"]), default=9) + 1
    w["mail"]["drafts"].append({"id": f"d{number}", "to": to, "subject": subject, "body": body})
    return {"draft": f"d{number}", "to": to, "subject": subject}


@tool(
    "mail",
    "Delete one of the user's drafts.",
    sample=_slots,
    bad=_missing,
    near=(),
    params={"draft_id": string("Id of the draft, as in d12.")},
)
def delete_draft(w: World, draft_id: str) -> Any:
    draft = _find(w["mail"]["drafts"], draft_id, "draft")
    w["mail"]["drafts"].remove(draft)
    return {"deleted": draft_id, "subject": draft["subject"], "drafts_left": len(w["mail"]["drafts"])}


@tool(
    "mail",
    "Move a mail from the inbox to the archive.",
    sample=_slots,
    held_out=True,
    near=(),
    params={"mail_id": _MAIL_ID},
)
def archive_mail(w: World, mail_id: str) -> Any:
    mail = _find(w["mail"]["inbox"], mail_id, "mail")
    w["mail"]["inbox"].remove(mail)
    w["mail"]["archive"].append(mail)
    return {"archived": mail_id, "subject": mail["subject"]}


@tool(
    "mail",
    "Put a label on a mail in the inbox.",
    sample=_slots,
    held_out=True,
    near=(),
    params={"mail_id": _MAIL_ID, "label": string("The label.")},
)
def label_mail(w: World, mail_id: str, label: str) -> Any:
    mail = _find(w["mail"]["inbox"], mail_id, "mail")
    if label not in mail["labels"]:
        mail["labels"].append(label)
    return {"mail": mail_id, "subject": mail["subject"], "labels": mail["labels"]}


def _unique_sender(r: Random, w: World) -> dict[str, Any]:
    senders = [mail["from"] for mail in w["mail"]["inbox"]]
    alone = [sender for sender in senders if senders.count(sender) == 1]
    found = {f"_{key}": value for key, value in _slots(r, w).items()}
    return {**found, "_sender": r.choice(alone)}


@chain("mail", "mails_from", "read_mail", sample=_unique_sender)
def read_from_sender(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    mail = only(do("mails_from", sender=s["_sender"])["mails"])
    return do("read_mail", mail_id=mail["id"])


@chain("mail", "mails_from", "reply_to_mail", sample=_unique_sender)
def reply_to_sender(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    mail = only(do("mails_from", sender=s["_sender"])["mails"])
    return {**mail, **do("reply_to_mail", mail_id=mail["id"], body=s["_body"])}


@chain("mail", "search_mail", "read_mail", sample=_unique_sender)
def search_and_read(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    mails = do("search_mail", query=s["_query"])["mails"]
    if len(mails) != 1:
        raise Unsuitable("several mails")
    return do("read_mail", mail_id=mails[0]["id"])


@chain("mail", "search_mail", "read_mail", "reply_to_mail", sample=_unique_sender)
def search_read_reply(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    mails = do("search_mail", query=s["_query"])["mails"]
    if len(mails) != 1:
        raise Unsuitable("several mails")
    mail = do("read_mail", mail_id=mails[0]["id"])
    return {**mail, **do("reply_to_mail", mail_id=mail["id"], body=s["_body"])}
