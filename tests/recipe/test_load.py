"""Loading: every problem at once, each with its place, what was found and what was wanted."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from toolkit.errors import Problem, RecipeError
from toolkit.recipe import LoadedRecipe, Recipe, load

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    monkeypatch.chdir(tmp_path)

    def write(text: str, name: str = "x.toml") -> Path:
        Path(name).write_text(text, encoding="utf-8")
        return Path(name)

    return write


def problems(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load(path, overrides)
    assert caught.value.exit_code == 2
    return [str(problem) for problem in caught.value.problems]


def test_a_recipe_and_where_its_values_stand(write: Write) -> None:
    write("[lora]\nr = 8\n[[data.sources]]\nsource = 'chats.jsonl'\n")
    loaded = load(Path("x.toml"), ["lora.lora_alpha=64"])
    assert isinstance(loaded, LoadedRecipe)
    assert (loaded.name, loaded.files) == ("x", (Path("x.toml"),))
    assert (loaded.recipe.lora.r, loaded.recipe.lora.lora_alpha) == (8, 64)
    assert loaded.where("lora.r") == "x.toml:2"
    assert loaded.where("data.sources.0.source") == "x.toml:4"
    assert loaded.where("lora.lora_alpha") == "--set lora.lora_alpha=64"
    assert loaded.where("lora.bias") == "x.toml:1", "a default stands where its table does"
    assert loaded.where("train.seed") == "x.toml"


def test_an_empty_file_is_the_default_recipe(write: Write) -> None:
    assert load(write("")).recipe == Recipe()


def test_byte_order_mark_and_crlf(write: Write) -> None:
    Path("x.toml").write_bytes(b"\xef\xbb\xbf[lora]\r\nr = 4\r\nrr = 5\r\n")
    assert problems(Path("x.toml"))[0].startswith("x.toml:3: lora.rr: unknown key")


def test_types_of_files_as_llama_cpp_writes_them(write: Write) -> None:
    assert load(write("[export]\ngguf = ['Q4_K_M', 'f16']")).recipe.export.gguf == ["q4_k_m", "f16"]
    assert load(write("[export]\ngguf = ['Q8_0', ' q8_0', 'q8_0']")).recipe.export.gguf == ["q8_0"]


def test_integers_do_for_numbers(write: Write) -> None:
    recipe = load(write("[lora]\nlora_alpha = 32\n[train]\nnum_train_epochs = 3\n")).recipe
    assert (recipe.lora.lora_alpha, recipe.train.num_train_epochs) == (32.0, 3.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[lora]\nlora_dropuot = 0.1", "x.toml:2: lora.lora_dropuot: unknown key, did you mean lora_dropout?"),
        ("[trian]\nseed = 1", "x.toml:1: trian: unknown section, did you mean train?"),
        ("[train]\nr = 8", "x.toml:2: train.r: unknown key; r belongs to [lora]"),
        ("[train]\neval_steps = 8", "x.toml:2: train.eval_steps: unknown key; eval_steps belongs to [eval]"),
        ("[data]\nsize = 8", "x.toml:2: data.size: unknown key; size belongs to [[data.sources]] or [[eval.sources]]"),
        ("learning_rate = 1", "x.toml:1: learning_rate: unknown key; learning_rate belongs to [train]"),
        ("[train]\nlr = 1", "x.toml:2: train.lr: unknown key, did you mean learning_rate?"),
        ("[train]\nlora_rank = 1", "x.toml:2: train.lora_rank: unknown key, did you mean lora.r?"),
        ("[train]\nwibble = 1", "x.toml:2: train.wibble: unknown key, wanted one of engine, learning_rate, "),
        (
            "[lora]\nr = '16'",
            'x.toml:2: lora.r: found "16", wanted a whole number above 0 and of at most 65,536, write 16 without',
        ),
        ("[lora]\nr = 1.5", "x.toml:2: lora.r: found 1.5, wanted a whole number above 0"),
        ("[lora]\nr = true", "x.toml:2: lora.r: found true, wanted a whole number above 0"),
        ("[lora]\nr = 0", "x.toml:2: lora.r: found 0, wanted a whole number above 0"),
        ("[lora]\nlora_alpha = nan", "x.toml:2: lora.lora_alpha: found nan, wanted a number above 0"),
        (
            "[lora]\nlora_dropout = 1",
            "x.toml:2: lora.lora_dropout: found 1, wanted a number of at least 0.0 and below 1.0",
        ),
        (
            "[lora]\ntarget_modules = ['q', 3]",
            "x.toml:2: lora.target_modules.1: found 3, wanted lora.target_modules to be ",
        ),
        ("[model]\ndtype = 'bf16'", 'found "bf16", wanted one of auto, bfloat16, float16, float32'),
        ("[model]\ndtype = 'bfloat'", "wanted one of auto, bfloat16, float16, float32, did you mean bfloat16?"),
        ("[model]\nrevision = 12", 'x.toml:2: model.revision: found 12, wanted text, write "12" in quotes'),
        ("[model]\nname = ''", 'x.toml:2: model.name: found "", wanted text that is not empty'),
        ("[model]\nrevision = 2024-01-02", "x.toml:2: model.revision: found the date or time 2024-01-02, wanted text"),
        ("[train]\nbf16 = 'yes'", 'x.toml:2: train.bf16: found "yes", wanted true or false or "auto"'),
        ("[train]\nfp16 = 'True'", 'found "True", wanted true or false, write true without quotes'),
        ("[train]\nreport_to = 'wandb'", 'found "wandb", wanted a list of words out of tensorboard, wandb, trackio'),
        (
            "[train]\nreport_to = ['wandbb']",
            'found "wandbb", wanted train.report_to to be a list of words out of tensorbo',
        ),
        ("train = 3", "x.toml:1: train: found 3, wanted a table"),
        ('model = "Qwen/Qwen3-1.7B"', 'found "Qwen/Qwen3-1.7B", wanted a table, did you mean model.name?'),
        ('data = "x.jsonl"', 'found "x.jsonl", wanted a table, did you mean data.sources.0.source?'),
        ('export = "q8_0"', 'found "q8_0", wanted a table, did you mean export.gguf?'),
        ("[data]\nsources = []", "x.toml:2: data.sources: found an empty list, wanted one or more tables"),
        (
            "[data]\nsources = ['a.jsonl']",
            'x.toml:2: data.sources.0: found "a.jsonl", wanted a table of settings (source, ',
        ),
        ("[[data.sources]]\nlimit = 3", "x.toml:1: data.sources.0.source: missing, wanted text that is not empty"),
        (
            "[data.sources]\nsource = 'x'",
            "found a table, wanted one or more tables, write its head in double brackets: [[data.sources]]",
        ),
        (
            "[train]\noptim = 'adamw'",
            'found "adamw", wanted one of adamw_torch_fused, adamw_torch, adamw_8bit, paged_ad',
        ),
        ("[train]\noptim = 'adamw'", ", did you mean adamw_torch_fused?"),
        (
            "[export]\ngguf = ['q4_0']",
            "x.toml:2: export.gguf.0: q4_0 is no GGUF type that can be written, wanted one of",
        ),
        ("[export]\ngguf = ['q4_0']", ", did you mean q4_k_m?"),
        ("[export]\ngguf = ['iq4_xs']", ", did you mean q4_k_m?"),
        ("a = b", 'x.toml:1: not valid TOML: invalid value at column 5: text needs quotes, as "b"'),
        ("\na = True", "x.toml:2: not valid TOML: invalid value at column 5: write true"),
        ("[a]\nb = 1\n[a]\n", "x.toml:3: not valid TOML: this table is given twice"),
        ("[a]\nb = 1\nb = 2", "x.toml:3: not valid TOML: this key is given twice"),
        ("a = [1,\n2\n", "x.toml:2: not valid TOML: unclosed array"),
        ('a = "x\n', "x.toml:1: not valid TOML: this text has no closing quote"),
        ("a =\n", "x.toml:1: not valid TOML: invalid value"),
    ],
)
def test_one_problem(write: Write, text: str, message: str) -> None:
    found = problems(write(text))
    assert len(found) == 1
    assert message in found[0]
    assert found[0].startswith("x.toml:")


def test_all_problems_at_once_and_in_order(write: Write) -> None:
    text = """
[lora]
r = -1
lora_dropuot = 0.1
[[data.sources]]
limit = -1
[train]
engine = "unslot"
fp16 = true
bf16 = true
max_steps = 0
[export]
gguf = ["q9"]
"""
    found = problems(write(text), "train.lerning_rate=1", "eval.holdout=-1", "nothing")
    lines = [line.split(": ")[0] for line in found]
    places = [3, 4, 5, 6, 8, 9, 11, 13]
    sets = ["--set eval.holdout=-1", "--set train.lerning_rate=1", "--set nothing"]
    assert lines == [f"x.toml:{line}" for line in places] + sets


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.lerning_rate=1", "unknown key, did you mean learning_rate?"),
        ("trian.seed=1", "trian: unknown section, did you mean train?"),
        ("train={lr = 1}", "train.lr: unknown key, did you mean learning_rate?"),
        ("train.learning_rate=fast", 'found "fast", wanted a number above 0 and below 1'),
        ("train.learning_rate", "wanted KEY=VALUE, as in --set train.learning_rate=1e-4"),
        ("train..seed=1", "wanted KEY=VALUE, as in --set train.learning_rate=1e-4"),
        ("lora.r.x=1", "lora.r is a single value, it holds no x"),
        ("data.sources.1.size=1", "data.sources has 1 item, counted from 0; there is no 1"),
        ("data.sources.size=1", "data.sources is a list, wanted a number after it, as data.sources.0"),
        ("lora.target_modules=[q_proj", "[q_proj is not closed or not valid TOML"),
        ("train.fp16=True", 'found "True", wanted true or false, write true without quotes'),
    ],
)
def test_overrides_name_themselves(write: Write, override: str, message: str) -> None:
    found = problems(write("[lora]\nr = 8\n"), override)
    assert len(found) == 1
    assert found[0].startswith(f"--set {override}: {message}")


def test_overrides_set_values(write: Write) -> None:
    path = write("[[data.sources]]\nsource = 'a.jsonl'\n[[data.sources]]\nsource = 'b.jsonl'\n")
    recipe = load(
        path,
        [
            *("train.learning_rate=1e-4", "model.name=Qwen/Qwen3-0.6B", "model.revision='1234'", "train.bf16=auto"),
            *('lora.target_modules=["q_proj", "v_proj"]', "data.sources.1.limit=5", "train.seed=1", "train.seed=2"),
            *("model.revision=2024-01-02", "eval={holdout = 0.1, generate = 3}", "train.num_train_epochs = 2"),
        ],
    ).recipe
    assert recipe.train.learning_rate == 1e-4
    assert recipe.model.name == "Qwen/Qwen3-0.6B"
    assert recipe.model.revision == "2024-01-02"
    assert recipe.lora.target_modules == ["q_proj", "v_proj"]
    assert [(s.source, s.limit) for s in recipe.data.sources] == [("a.jsonl", None), ("b.jsonl", 5)]
    assert (recipe.train.seed, recipe.train.num_train_epochs, recipe.eval.holdout) == (2, 2, 0.1)


def test_an_override_reaches_into_the_default_source(write: Write) -> None:
    source = load(write(""), ["data.sources.0.size=400"]).recipe.data.sources[0]
    assert (source.source, source.size) == ("builtin:tools", 400)


def test_extends_merges_tables_and_replaces_lists(write: Write) -> None:
    Path("base").mkdir()
    write(
        "[lora]\nr = 8\nbias = 'all'\n[[data.sources]]\nsource = 'a'\n[[data.sources]]\nsource = 'b'\n", "base/one.toml"
    )
    write("extends = 'base/one.toml'\n[lora]\nr = 4\n[train]\nseed = 1\n", "two.toml")
    write("extends = './two.toml'\n[train]\nseed = 2\n[[data.sources]]\nsource = 'c'\n")
    loaded = load(Path("x.toml"))
    assert loaded.recipe.lora.r == 4
    assert loaded.recipe.lora.bias == "all"
    assert loaded.recipe.train.seed == 2
    assert [source.source for source in loaded.recipe.data.sources] == ["c"]
    assert loaded.files == (Path("x.toml"), Path("two.toml"), Path("base/one.toml"))
    assert loaded.where("lora.bias") == "base/one.toml:3"
    assert loaded.where("lora.r") == "two.toml:3"
    assert loaded.where("data.sources.0.source") == "x.toml:5"
    assert loaded.where("data.sources.1.source") == "x.toml:4", "the replaced list leaves no places behind"


def test_problems_are_placed_in_the_file_that_holds_them(write: Write) -> None:
    write("[lora]\nrr = 8\n[train]\nfp16 = true\n", "base.toml")
    write("extends = 'base.toml'\n\n[train]\nbf16 = true\nsed = 3\n")
    found = problems(Path("x.toml"))
    assert [line.split(": ")[0] for line in found] == ["base.toml:2", "base.toml:4", "x.toml:5"]
    assert "x.toml:4" in found[1], "a contradiction names the other key's line too"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends = 'x.toml'", "x.toml:1: extends: goes in a circle: x.toml -> x.toml"),
        ("\nextends = 'y.toml'", "y.toml:1: extends: goes in a circle: x.toml -> y.toml -> x.toml"),
        ("extends = 'z.toml'", "x.toml:1: extends: no file z.toml, wanted a recipe"),
        ("extends = ['y.toml']", "x.toml:1: extends: wanted the path of one other recipe"),
        ("extends = 'bad.toml'", "bad.toml:2: not valid TOML"),
    ],
)
def test_extends_goes_wrong(write: Write, text: str, message: str) -> None:
    write("extends = 'x.toml'", "y.toml")
    write("\na = ", "bad.toml")
    assert problems(write(text))[0].startswith(message)


def test_missing_files(write: Write) -> None:
    Path("recipes").mkdir()
    write("", "recipes/tools.toml")
    assert problems(Path("recipes/tols.toml")) == ["no file recipes/tols.toml, did you mean recipes/tools.toml?"]
    assert problems(Path("tools")) == ["no file tools, did you mean recipes/tools.toml?"]
    assert problems(Path("recipes")) == ["recipes is a folder, did you mean recipes/tools.toml?"]
    Path("latin.toml").write_bytes(b"[lora]\n# caf\xe9\n")
    assert problems(Path("latin.toml")) == ["latin.toml:2: not UTF-8 text; save the recipe as UTF-8"]


def test_sources_are_relative_to_the_recipe_that_names_them(write: Write, tmp_path: Path) -> None:
    for folder in ("a", "b", "a/inside"):
        (tmp_path / folder).mkdir()
    for file in ("here.jsonl", "a/beside.jsonl", "a/here-too.jsonl", "here-too.jsonl", "b/inside.jsonl"):
        (tmp_path / file).write_text("")

    def sources(*names: str) -> str:
        return "".join(f"[[data.sources]]\nsource = '{name}'\n" for name in names)

    write(sources("beside.jsonl", "here-too.jsonl", "here.jsonl", "none.jsonl", "builtin:tools", "inside"), "a/x.toml")
    loaded = load(Path("a/x.toml"))
    found = [source.source for source in loaded.recipe.data.sources]
    assert found == ["a/beside.jsonl", "a/here-too.jsonl", "here.jsonl", "none.jsonl", "builtin:tools", "a/inside"]
    assert loaded.notes == ("a/x.toml:6: here.jsonl is read from the working folder, as a has none",)
    write("extends = '../a/x.toml'\n[[eval.sources]]\nsource = 'inside.jsonl'\n", "b/y.toml")
    both = load(Path("b/y.toml"))
    assert [source.source for source in both.recipe.data.sources] == found
    assert both.recipe.eval.sources[0].source == "b/inside.jsonl"
    # what is typed on the command line is relative to where it is typed
    typed = load(Path("a/x.toml"), ["data.sources.0.source=beside.jsonl"])
    assert typed.recipe.data.sources[0].source == "beside.jsonl"
    odd = tmp_path / os.fsdecode(b"\xff")
    odd.mkdir()
    (odd / "beside.jsonl").write_text("")
    (odd / "x.toml").write_text(sources("beside.jsonl"))
    with pytest.raises(RecipeError, match=r"a name that is not UTF-8; rename the folder"):
        load(odd / "x.toml")
    whole = load(tmp_path / "a" / "x.toml")
    assert whole.recipe.data.sources[0].source == str(tmp_path / "a" / "beside.jsonl")


def test_a_model_beside_the_recipe_is_pointed_out(write: Write, tmp_path: Path) -> None:
    (tmp_path / "a" / "qw").mkdir(parents=True)
    (tmp_path / "a" / "qw" / "config.json").write_text("{}")
    for name, told in (("./qw", "; a model's folder is named from the working folder: ./a/qw"), ("./other", "")):
        write(f"[model]\nname = '{name}'\n", "a/x.toml")
        problem = load(Path("a/x.toml")).place(Problem("", f"model.name: {name} has no config.json"))
        assert str(problem) == f"a/x.toml:2: model.name: {name} has no config.json{told}"
