"""One git repository."""

from __future__ import annotations

from datetime import timedelta
from random import Random
from typing import Any

from toolkit.world.language import Said, small
from toolkit.world.lexicon import person, words
from toolkit.world.spec import ToolFailure, Unsuitable, chain, integer, only, optional, part, string, tool
from toolkit.world.world import World

_VERBS = ("Fix", "Add", "Remove", "Rename", "Speed up", "Document", "Test", "Simplify")
_THINGS = (
    "login form",
    "date parser",
    "retry logic",
    "cache key",
    "user table",
    "error page",
    "search index",
    "upload limit",
    "config loader",
    "price rounding",
    "mail queue",
    "access check",
)
_SOURCES = (
    "src/app.py",
    "src/auth.py",
    "src/models.py",
    "src/routes.py",
    "tests/test_auth.py",
    "README.md",
    "docs/setup.md",
    "src/cache.py",
    "src/mailer.py",
    "scripts/deploy.sh",
    "src/search.py",
    "Makefile",
)


def _message(r: Random) -> str:
    return f"{r.choice(_VERBS)} {r.choice(_THINGS)}"


def _branch(r: Random) -> str:
    return f"{r.choice(('feature', 'fix', 'chore', 'docs'))}/{r.choice(_THINGS).replace(' ', '-')}-{r.randint(2, 999)}"


@part("git")
def build(r: Random, w: World) -> dict[str, Any]:
    commits = [
        {
            "hash": f"{r.getrandbits(28):07x}",
            "author": person(r),
            "date": (w.today - timedelta(days=n)).isoformat(),
            "message": _message(r),
            "file": r.choice(_SOURCES),
        }
        for n in range(8)
    ]
    branches = ["main", *(_branch(r) for _ in range(3))]
    changed = r.sample(_SOURCES, r.randint(1, 4))
    return {
        "branch": r.choice(branches),
        "branches": sorted(branches),
        "commits": commits,
        "changed": {path: {"added": r.randint(1, 40), "removed": r.randint(0, 20)} for path in sorted(changed)},
        "tags": {f"v0.{r.randint(1, 9)}.0": commits[-1]["hash"]},
        "stash": [],
    }


def _slots(r: Random, w: World) -> dict[str, Any]:
    state = w["git"]
    message = f"{_message(r)} {r.choice(('again', 'for good', 'on startup', 'in tests', 'for guests', 'on mobile'))}"
    others = [name for name in state["branches"] if name != state["branch"]]
    return {
        "limit": small(r, 2, 6),
        "path": r.choice(list(state["changed"])),
        "message": Said(message, f'"{message}"'),
        "name": _branch(r),
        "branch": r.choice(others),
        "commit": r.choice(state["commits"])["hash"],
        "tag": f"v{r.randint(1, 9)}.{r.randint(0, 20)}.{r.randint(0, 9)}",
        "file": r.choice(state["commits"])["file"],
    }


def _spare_branch(r: Random, w: World) -> dict[str, Any]:
    state = w["git"]
    return {"branch": r.choice([name for name in state["branches"] if name not in ("main", state["branch"])])}


def _bad(r: Random, w: World) -> dict[str, Any]:
    return {
        "branch": f"fix/{r.choice(words('project'))}-{r.randint(1000, 9999)}",
        "commit": f"{r.getrandbits(28):07x}",
        "name": r.choice(w["git"]["branches"]),
        "path": f"src/{r.choice(words('project'))}.py",
    }


@tool(
    "git",
    "Show the current branch and which files have changes that are not committed.",
    sample=_slots,
    near=("git_diff",),
)
def git_status(w: World) -> Any:
    return {"branch": w["git"]["branch"], "changed": list(w["git"]["changed"])}


@tool(
    "git",
    "List the latest commits of the current branch, newest first.",
    sample=_slots,
    near=("show_commit",),
    params={"limit": integer("How many commits.", 1, 50)},
)
def git_log(w: World, limit: int) -> Any:
    return {
        "commits": [{key: row[key] for key in ("hash", "author", "message")} for row in w["git"]["commits"][:limit]]
    }


@tool(
    "git",
    "Show one commit: author, date, message and the file it changed.",
    sample=_slots,
    bad=_bad,
    near=("git_log",),
    params={"commit": string("The commit's short hash.")},
)
def show_commit(w: World, commit: str) -> Any:
    for row in w["git"]["commits"]:
        if row["hash"] == commit:
            return dict(row)
    raise ToolFailure(f"unknown commit {commit}")


@tool(
    "git",
    "Count the added and removed lines of a file that has uncommitted changes.",
    sample=_slots,
    bad=_bad,
    near=("git_status",),
    params={"path": string("Path of the file in the repository.")},
)
def git_diff(w: World, path: str) -> Any:
    if path not in w["git"]["changed"]:
        raise ToolFailure(f"no changes in {path}")
    return {"path": path, **w["git"]["changed"][path]}


@tool(
    "git",
    "Commit all changed files with a message.",
    sample=_slots,
    near=(),
    params={"message": string("The commit message.")},
)
def git_commit(w: World, message: str) -> Any:
    state = w["git"]
    if not state["changed"]:
        raise ToolFailure("nothing to commit")
    files = list(state["changed"])
    key = f"{w.random('commit', len(state['commits'])).getrandbits(28):07x}"
    row = {"hash": key, "author": w.name, "date": w.today.isoformat(), "message": message, "file": files[0]}
    state["commits"].insert(0, row)
    state["changed"] = {}
    return {"commit": key, "branch": state["branch"], "files": len(files)}


@tool(
    "git",
    "Create a new branch without switching to it.",
    sample=_slots,
    bad=_bad,
    near=("switch_branch",),
    params={"name": string("Name of the new branch.")},
)
def create_branch(w: World, name: str) -> Any:
    if name in w["git"]["branches"]:
        raise ToolFailure(f"branch exists: {name}")
    if not name or " " in name:
        raise ToolFailure(f"not a branch name: {name}")
    w["git"]["branches"] = sorted([*w["git"]["branches"], name])
    return {"created": name, "current": w["git"]["branch"]}


@tool(
    "git",
    "Switch to a branch that exists.",
    sample=_slots,
    bad=_bad,
    near=("create_branch",),
    params={"branch": string("Name of the branch.")},
)
def switch_branch(w: World, branch: str) -> Any:
    if branch not in w["git"]["branches"]:
        raise ToolFailure(f"no branch {branch}; there are: {', '.join(w['git']['branches'])}")
    w["git"]["branch"] = branch
    return {"branch": branch}


@tool(
    "git",
    "Delete a local branch that is not checked out.",
    sample=_spare_branch,
    bad=_bad,
    near=(),
    params={"branch": string("Name of the branch.")},
)
def delete_branch(w: World, branch: str) -> Any:
    if branch not in w["git"]["branches"]:
        raise ToolFailure(f"no branch {branch}")
    if branch == w["git"]["branch"]:
        raise ToolFailure(f"{branch} is checked out")
    w["git"]["branches"].remove(branch)
    return {"deleted": branch, "branches": w["git"]["branches"]}


@tool(
    "git",
    "Put a tag on a commit; on the newest one if no commit is given.",
    sample=_slots,
    held_out=True,
    near=(),
    params={"tag": string("Name of the tag."), "commit": optional(string("Short hash of the commit."))},
)
def create_tag(w: World, tag: str, commit: str | None = None) -> Any:
    target = commit or w["git"]["commits"][0]["hash"]
    show_commit(w, target)
    if tag in w["git"]["tags"]:
        raise ToolFailure(f"tag exists: {tag}")
    w["git"]["tags"][tag] = target
    return {"tag": tag, "commit": target}


@tool(
    "git",
    "Find the commits that changed a file.",
    sample=_slots,
    held_out=True,
    near=("git_log", "show_commit"),
    params={"file": string("Path of the file in the repository.")},
)
def file_history(w: World, file: str) -> Any:
    rows = [row for row in w["git"]["commits"] if row["file"] == file]
    return {"file": file, "commits": [{key: row[key] for key in ("hash", "author", "message")} for row in rows]}


def _chain_slots(r: Random, w: World) -> dict[str, Any]:
    return {**{f"_{key}": value for key, value in _slots(r, w).items()}, "_current": w["git"]["branch"]}


@chain("git", "create_branch", "switch_branch", sample=_chain_slots)
def branch_and_switch(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    do("create_branch", name=s["_name"])
    return do("switch_branch", branch=s["_name"])


@chain("git", "git_log", "show_commit", sample=_chain_slots)
def show_latest(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    return do("show_commit", commit=only(do("git_log", limit=1)["commits"])["hash"])


@chain("git", "git_status", "git_diff", sample=_chain_slots)
def diff_all(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    status = do("git_status")
    rows = do.all(*(("git_diff", {"path": path}) for path in status["changed"]))
    return {"branch": status["branch"], "rows": [f"{row['path']} +{row['added']} -{row['removed']}" for row in rows]}


@chain("git", "create_branch", "switch_branch", "git_commit", sample=_chain_slots)
def branch_switch_commit(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    do("create_branch", name=s["_name"])
    do("switch_branch", branch=s["_name"])
    return do("git_commit", message=s["_message"])


@chain("git", "switch_branch", "delete_branch", sample=_chain_slots)
def delete_current(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    """The branch is checked out, so deleting fails; after a switch it works."""
    if s["_current"] == "main":
        raise Unsuitable("main is checked out")
    failed = do.attempt("delete_branch", branch=s["_current"])
    if "error" not in failed:
        raise Unsuitable("not checked out")
    do("switch_branch", branch="main")
    return do("delete_branch", branch=s["_current"])


@chain("git", "file_history", "create_tag", sample=_chain_slots)
def tag_last_change(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    commits = do("file_history", file=s["_file"])["commits"]
    return {"message": commits[0]["message"], **do("create_tag", tag=s["_tag"], commit=commits[0]["hash"])}
