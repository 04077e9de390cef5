# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["colab"]
# # Fine-tune a model on your own chats, on Colab's T4
#
# Choose **Runtime > Change runtime type > T4 GPU**, fill in the settings, then **Runtime > Run all**. Everything that
# took time is kept on your Drive. After a disconnect, **Run all** again: what is there is used, and training goes on
# from its last checkpoint.

# %% [markdown] tags=["kaggle"]
# # Fine-tune a model on your own chats, on Kaggle's T4
#
# Under **Session options** choose the accelerator **GPU T4 x2** and turn **Internet** on. Add your chats under
# **Add Input**, fill in the settings, then **Run All**, or **Save Version** to have it run without you. To go on in
# another session, add this notebook's own output as an input: its runs are copied, and training goes on from the last
# checkpoint.

# %% [markdown]
# **What has been shown.** Every cell was executed from top to bottom, first and after a stop, on a CPU with a tiny
# model; there the install cell installed nothing, and Drive, upload and download were stand-ins. The commands
# themselves ran on an H200. **Nothing in this notebook has run on a T4, on Colab or on Kaggle yet**: times are
# predictions.

# %% tags=["parameters", "colab"]
REPOSITORY = "URL-OF-THIS-REPOSITORY"
MODEL = "Qwen/Qwen3-1.7B"  # a hub id or a folder
DATA = ""  # a file of chats (docs/data-formats.md); "" asks you to upload one
HOME = "/content/drive/MyDrive/toolkit"  # recipe, data, checkpoints and adapter
MINUTES = 150  # of training: as many updates as fit; a free session may end after some hours
QUESTION = "What can you do for me?"  # asked of the trained model
GPUS = 1
INSTALL = True

# %% tags=["parameters", "kaggle"]
REPOSITORY = "URL-OF-THIS-REPOSITORY"
MODEL = "Qwen/Qwen3-1.7B"  # a hub id or a folder
DATA = ""  # a file of chats (docs/data-formats.md); "" takes the one that was added as an input
HOME = "/kaggle/working/toolkit"  # recipe, data, checkpoints and adapter
INPUT = "/kaggle/input"
MINUTES = 420  # of training: as many updates as fit; a session ends after 12 hours
QUESTION = "What can you do for me?"  # asked of the trained model
GPUS = 1  # 2 trains on both T4: shown on two H200, not yet on two T4
INSTALL = True

# %% [markdown]
# ## Install
#
# The image's torch stays: it fits the image's CUDA, and another would be gigabytes. pip stops rather than replace it.

# %%
import html
import shutil
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from IPython.display import HTML, display


def run(*words):
    """Run a command and show what it says as it comes. Stops the notebook where it fails; a stop is passed on once."""
    words = [str(word) for word in words]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(words, start_new_session=True, **streams) as process:
        try:
            for line in process.stdout:
                print(line, end="", flush=True)
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            print(process.stdout.read(), end="")
            raise
    if process.returncode:
        raise RuntimeError(f"{' '.join(words)}: exit code {process.returncode}, see above")


def toolkit(*words):
    run(sys.executable, "-u", "-m", "toolkit", *words)


if INSTALL:
    source, image = Path("toolkit-source"), Path("image.txt")
    if not source.is_dir():
        run("git", "clone", "--depth", "1", REPOSITORY, source)
    kept = ["torch", "torchvision", "triton", "numpy"]
    image.write_text("".join(f"{name}=={metadata.version(name)}\n" for name in kept))
    pins = ["-c", image, "-c", source / "constraints-colab.txt"]
    run(sys.executable, "-m", "pip", "install", "-q", *pins, "-e", f"{source}[gpu,gguf,serve]")

# %% [markdown]
# ## What this machine has
#
# Look for the card under **GPU**, and for `unsloth  can run` under **engines**. What is missing is named with the
# command for it.

# %%
toolkit("doctor")

# %% [markdown] tags=["colab"]
# ## Your Drive
#
# Colab's machine is gone after a disconnect, and all that was on it; your Drive is not.

# %% tags=["colab"]
from google.colab import drive, files

drive.mount("/content/drive")
home = Path(HOME)
home.mkdir(parents=True, exist_ok=True)

# %% [markdown] tags=["kaggle"]
# ## Where an earlier session stopped
#
# Copied from this notebook's earlier output, where that was added as an input.

# %% tags=["kaggle"]
home = Path(HOME)
earlier = sorted(Path(INPUT).rglob("toolkit/runs"))
if earlier and not home.exists():
    shutil.copytree(earlier[-1].parent, home)
    print("copied", earlier[-1].parent)
home.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## Your data
#
# Looked at once: `init` says what it found and writes a recipe with a word on each setting. Change the recipe in the
# file browser, and run the cells below again.

# %% tags=["colab"]
recipe = home / "mine.toml"
if not recipe.exists():
    if not DATA:
        DATA = next(iter(files.upload()), "")
    data = home / Path(DATA).name
    if Path(DATA).resolve() != data.resolve():
        shutil.copyfile(DATA, data)
    toolkit("init", data, "--model", MODEL, "--out", recipe)
print(recipe.read_text())

# %% tags=["kaggle"]
recipe = home / "mine.toml"
if not recipe.exists():
    kinds = {".jsonl", ".json", ".csv", ".parquet", ".gz", ".zst"}
    found = [DATA] if DATA else sorted(str(file) for file in Path(INPUT).rglob("*") if file.suffix in kinds)
    if len(found) != 1:
        raise RuntimeError(f"DATA: wanted the name of one of these, or one file under {INPUT}: {found[:10]}")
    data = home / Path(found[0]).name
    shutil.copyfile(found[0], data)
    toolkit("init", data, "--model", MODEL, "--out", recipe)
print(recipe.read_text())

# %% [markdown]
# ## Check, and see what the model will see
#
# Bad rows with file and line; then two chats as text. Only what stands between the marks is trained.

# %%
toolkit("data", "check", recipe)
toolkit("data", "preview", recipe, "-n", 2)

# %% [markdown]
# ## Memory and time, before anything is loaded

# %%
budget = ["--set", f"train.max_minutes={MINUTES}", "--set", "train.save_steps=25"]
toolkit("plan", recipe, "--gpus", GPUS, *budget)

# %% [markdown]
# ## Train
#
# The first updates are timed, and the rest fitted to the minutes. A checkpoint is written every 25 updates. Run this
# cell again after a disconnect: it goes on from the last one.

# %%
trained = home / "runs" / "mine"
if (trained / "summary.json").exists():
    print(trained, "is done: rename it to train again")
elif any(trained.glob("checkpoints/checkpoint-*")):
    toolkit("run", recipe, "--resume", trained, "--gpus", GPUS, *budget)
else:
    if trained.exists():  # stopped before its first checkpoint
        trained.rename(trained.with_name(f"stopped-{trained.stat().st_mtime:.0f}"))
    toolkit("run", recipe, "--out", trained, "--gpus", GPUS, *budget)

# %% [markdown]
# ## Did it work?

# %%
toolkit("report", trained)
page = html.escape((trained / "report.html").read_text())
display(HTML(f'<iframe srcdoc="{page}" style="width: 100%; height: 800px; border: 0"></iframe>'))

# %% [markdown]
# ## Ask it
#
# It is offered the tools that it was trained with.

# %%
toolkit("chat", trained, "--once", QUESTION, "--max-new-tokens", 128)

# %% [markdown]
# ## Take it with you
#
# One GGUF for llama.cpp, Ollama and LM Studio, compared with the model that was trained, and its Modelfile.

# %%
export = Path("export")
toolkit("export", trained, "--gguf", "q8_0", "--no-merged", "--out", export, "--force")

# %% tags=["colab"]
for file in (*export.glob("*.gguf"), export / "Modelfile"):
    files.download(str(file))

# %% tags=["kaggle"]
for file in (*export.glob("*.gguf"), export / "Modelfile"):
    shutil.copy(file, home)
    print(home / file.name)  # under Output, where it can be downloaded

# %% [markdown]
# Then on your own machine: `ollama create mine -f Modelfile`, or `llama-server -m mine-Q8_0.gguf --jinja`.
