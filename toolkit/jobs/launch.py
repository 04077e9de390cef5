"""`toolkit launch`: a folder with a recipe, its data and a platform's files, and the command that starts it."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from toolkit.data.sources import local_files
from toolkit.errors import InputError, did_you_mean
from toolkit.files import making_folder, remove
from toolkit.jobs.job import JOB_FILE, MADE_BY, TOKEN, Job, Source
from toolkit.jobs.platforms import PLATFORMS, Platform, hours, rounded
from toolkit.models import is_local
from toolkit.planning.cards import find_card
from toolkit.planning.lengths import UncountedError
from toolkit.planning.plan import Plan, plan_recipe
from toolkit.recipe import LoadedRecipe
from toolkit.recipe.dump import dump
from toolkit.recipe.schema import Recipe, SourceSection
from toolkit.words import counted, money, typed

ROOT = Path(__file__).parents[2]
PINS = "constraints-gpu.txt"
START = 30  # minutes for the machine, the installation, the model's weights and the end
SLACK = 1.5  # times the predicted training
GUESSED = 10_000  # chats of data that nobody has counted
_SECRET = re.compile(r"[A-Za-z_]\w*")
_ADDRESS = re.compile(r"(git\+(https|ssh)://[\w.:@/~%+-]+|https://[\w.:@/~%+-]+\.(whl|zip|tar\.gz))(#[\w.=&/-]+)?")
_REPO = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of `toolkit launch`; `timeout` in hours, `price` in dollars an hour of one card."""

    platform: str
    gpu: str
    gpus: int = 1
    timeout: float | None = None
    price: float | None = None
    repo: str | None = None
    runs: str | None = None
    source: str | None = None
    secrets: Sequence[str] = ()
    out: Path | None = None
    force: bool = False


@dataclass(frozen=True, slots=True)
class Launch:
    """What was written, for whom, and the plan it rests on."""

    folder: Path
    platform: Platform
    job: Job
    plan: Plan
    cut: bool  # training was given a time budget so that it ends before the job does
    guessed: bool = False  # nobody has counted the chats

    def lines(self) -> Iterator[str]:
        job, plan = self.job, self.plan
        yield f"written    {self.folder}: {', '.join(sorted(path.name for path in self.folder.iterdir()))}"
        yield f"machine    {self.platform.title}, {self.platform.accelerator(job.card, job.gpus)}"
        if plan.time is not None:
            most = f", for {money(job.minutes / 60 * plan.price * job.gpus)}" if plan.price is not None else ""
            cost = f", {money(plan.cost)}" if plan.cost is not None else ", its price is not known here: --price"
            work = "training and export" if plan.time.export else "training"
            minutes = counted(round(plan.time.total / 60), "minute") if plan.time.total >= 60 else "under a minute"
            yield f"predicted  {minutes} of {work}{cost} (toolkit plan)"
            if self.guessed:
                told = f"for {GUESSED:,} chats, a guess: nobody has counted those of the hub's data here"
                yield f"           {told}; `{typed('data', 'build')}` does, or set train.max_steps or --timeout"
            yield f"ends       after {hours(job.minutes)} at the latest{most}"
        if self.cut:
            yield "budget     train.max_minutes is set so that training ends before the job is ended"
        yield f"kept       {job.runs}: the run folder, from which the same command goes on"
        if job.secrets:
            yield f"secrets    {', '.join(job.secrets)}, by name: their values stay where you have them"
        first, *others = self.platform.commands(job, self.folder)
        yield f"next       {first}"
        yield from (f"           {command}" for command in others)


def launch(loaded: LoadedRecipe, asked: Asked) -> Launch:
    """Write the folder. Raises `InputError` for what the platform can't do and for what would fail there."""
    platform = PLATFORMS.get(asked.platform)
    if platform is None:
        known = ", ".join(PLATFORMS)
        raise InputError(f"{asked.platform}: no such platform{did_you_mean(asked.platform, PLATFORMS)}; known: {known}")
    if asked.gpu == "cpu":
        raise InputError(f"--gpu cpu: a job is for a card, as t4; `toolkit run {loaded.path}` trains here")
    card = find_card(asked.gpu)
    platform.accelerator(card, asked.gpus)
    if asked.repo is not None and not _REPO.fullmatch(asked.repo):
        raise InputError(f"--repo {asked.repo}: wanted a model repository of the hub, as YOUR-NAME/{loaded.name}")
    secrets = tuple(dict.fromkeys([*asked.secrets, *([TOKEN] if asked.repo else [])]))
    for name in secrets:
        if not _SECRET.fullmatch(name):
            raise InputError("--secret: wanted the name of an environment variable, as HF_TOKEN; never a value")
    source = find_source(asked.source, platform)
    runs = platform.runs(asked.runs, asked.repo)
    recipe = loaded.recipe
    if is_local(recipe.model.name):
        raise InputError(f"model.name: {recipe.model.name} is a folder here; a job takes a model of the hub")
    price = asked.price
    if price is None and (machine := platform.price(card, asked.gpus)) is not None:
        price = machine / asked.gpus
    try:
        plan, guessed = plan_recipe(loaded, gpu=card.name, price=price, gpus=asked.gpus), False
    except UncountedError:  # which the job can count, and this machine need not
        plan, guessed = plan_recipe(_of_so_many(loaded), gpu=card.name, price=price, gpus=asked.gpus), True
    if not plan.fits:
        raise InputError(
            f"the recipe does not fit on {card.title}: toolkit plan {loaded.path} --gpu {card.name} says why"
        )
    minutes, recipe, cut = _timed(recipe, plan, platform, asked.timeout, guessed=guessed)
    name = re.sub(r"[^\w.-]+", "-", loaded.name).strip("-.") or "run"  # it goes into scripts, paths and YAML
    job = Job(name, card, asked.gpus, minutes, runs, asked.repo, secrets, source, _pins())
    folder = asked.out or Path("jobs") / f"{name}-{platform.name}"
    _check_free(folder, asked.force)
    try:
        _write(folder, job, platform, recipe)
    except OSError as error:
        raise InputError(f"{folder}: can't be made: {error.strerror}; name another with --out") from None
    return Launch(folder, platform, job, plan, cut, guessed)


def _of_so_many(loaded: LoadedRecipe) -> LoadedRecipe:
    """The recipe with as many updates as `GUESSED` chats give."""
    recipe = loaded.recipe
    steps = math.ceil(GUESSED * recipe.train.num_train_epochs / recipe.chats_per_update)
    train = recipe.train.model_copy(update={"max_steps": steps})
    return replace(loaded, recipe=recipe.model_copy(update={"train": train}))


def _check_free(folder: Path, force: bool) -> None:
    """Raise `InputError` where something is in the way: only a job's folder is ever written over."""
    if not folder.exists():
        return
    script = folder / JOB_FILE
    made_here = script.is_file() and MADE_BY in script.read_text(encoding="utf-8", errors="replace")
    if not made_here and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"{folder}: exists already, and is not a job's folder; --out names another")
    if not force:
        raise InputError(f"{folder}: exists already; --force writes it anew, --out names another")


def find_source(asked: str | None, platform: Platform) -> Source:
    """Where the job gets the toolkit: as asked, else this checkout's own address at its commit, else this folder."""
    folder = Path(asked or "")
    if asked and not folder.is_dir():
        address = f"git+{asked}" if asked.startswith("https://") and asked.endswith(".git") else asked
        if not _ADDRESS.fullmatch(address):
            wanted = "git+https://ADDRESS@REVISION, the https:// address of a .whl, .zip or .tar.gz, or a folder"
            raise InputError(f"--source {asked}: wanted {wanted}")
        return Source(address)
    folder = folder if asked else ROOT
    if not asked and (address := _origin()):
        return Source(address)
    if not platform.takes_folder:
        raise InputError(
            f"--source: wanted where {platform.title} can get the toolkit from, as git+https://ADDRESS@REVISION; "
            "this checkout has no public one"
        )
    if not (folder / "pyproject.toml").is_file():
        raise InputError(
            f"--source {folder}: no pyproject.toml in it; wanted git+https://ADDRESS@REVISION or a checkout"
        )
    return Source(folder=str(folder.resolve()))


def _origin() -> str:
    """git+https://ADDRESS@COMMIT of this checkout, where it has such an address and that commit was pushed to it."""

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *words], capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    if shutil.which("git") is None or not (address := git("remote", "get-url", "origin")).startswith("https://"):
        return ""
    commit = git("rev-parse", "HEAD")
    pushed = bool(commit and git("branch", "--remotes", "--contains", commit))
    return f"git+{address}@{commit}" if pushed else ""


def _pins() -> tuple[str, ...]:
    """The tested versions; none where the package was installed without its constraints file."""
    file = ROOT / PINS
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return tuple(line for line in lines if line and not line.startswith("#"))


def _timed(
    recipe: Recipe, plan: Plan, platform: Platform, timeout: float | None, *, guessed: bool
) -> tuple[int, Recipe, bool]:
    """(minutes after which the job is ended, the recipe, whether it was given a time budget for that, as it is where
    the time is `guessed`)."""
    training = plan.time.total / 60 if plan.time is not None else None
    if timeout is None and training is None:
        raise InputError(f"--timeout HOURS: the speed of {plan.card.title} is not known, so it has to be said")
    minutes = round(60 * timeout) if timeout is not None else rounded(SLACK * (training or 0.0) + START)
    most = platform.longest and 60 * platform.longest
    if most and minutes > most:
        if timeout is not None:
            raise InputError(f"--timeout {timeout:g}: a job of {platform.title} runs {platform.longest} hours at most")
        minutes = most
    if minutes <= START:
        raise InputError(f"--timeout {minutes / 60:g}: too short: installing alone may take {counted(START, 'minute')}")
    export = SLACK * plan.time.export / 60 if plan.time is not None else 0.0
    left, limit = max(1.0, minutes - START - export), recipe.train.max_minutes
    fits = training is not None and not guessed and SLACK * training <= left + export
    enough = fits if limit is None else limit <= left
    if enough:
        return minutes, recipe, False
    train = recipe.train.model_copy(update={"max_minutes": round(left, 1)})
    return minutes, recipe.model_copy(update={"train": train}), True


def _write(folder: Path, job: Job, platform: Platform, recipe: Recipe) -> None:
    """The folder, whole or not at all."""
    with making_folder(folder) as work:
        recipe = _taken_along(recipe, work)
        for name, text in {JOB_FILE: job.script(), "recipe.toml": dump(recipe), **platform.files(job)}.items():
            (work / name).write_text(text, encoding="utf-8")
        work.chmod(0o755)
        remove(folder)
        work.rename(folder)


def _taken_along(recipe: Recipe, work: Path) -> Recipe:
    """The recipe over copies of its local data files."""

    def moved(source: SourceSection) -> SourceSection:
        files = local_files(source.place)
        if files is None:
            return source
        place = work / "data"
        origin = Path(source.place).expanduser()
        name = origin.resolve().name
        number = 1
        while (place / name).exists():
            number += 1
            name = f"{number}-{origin.resolve().name}"
        (place / name if origin.is_dir() else place).mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copyfile(file, place / name / file.name if origin.is_dir() else place / name)
        return source.model_copy(update={"source": (there := f"data/{name}")}).read_at(there)

    data = recipe.data.model_copy(update={"sources": [moved(one) for one in recipe.data.sources]})
    held_out = recipe.eval.model_copy(update={"sources": [moved(one) for one in recipe.eval.sources]})
    return recipe.model_copy(update={"data": data, "eval": held_out})
