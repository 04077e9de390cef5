"""Make colab.ipynb and kaggle.ipynb from finetune.py: python notebooks/make.py

A cell tagged `colab` or `kaggle` is in that notebook alone.
"""

from __future__ import annotations

from pathlib import Path

import jupytext
import nbformat

HERE = Path(__file__).parent
PLACES = ("colab", "kaggle")
PARAMETERS = "parameters"


def notebook(place: str) -> nbformat.NotebookNode:
    """The notebook for a place, without outputs. Ids of cells are numbers, so that it comes out the same again."""
    made = jupytext.read(HERE / "finetune.py")
    others = set(PLACES) - {place}
    made.cells = [cell for cell in made.cells if not others & set(cell.metadata.get("tags", ()))]
    for number, cell in enumerate(made.cells):
        kept = [tag for tag in cell.metadata.get("tags", ()) if tag == PARAMETERS]
        cell.metadata = nbformat.from_dict({"tags": kept} if kept else {})
        cell.id = f"cell-{number}"
    made.metadata = nbformat.from_dict({"kernelspec": made.metadata.kernelspec})
    if place == "colab":
        made.metadata.update({"accelerator": "GPU", "colab": {"gpuType": "T4", "provenance": []}})
    made.nbformat, made.nbformat_minor = 4, 5
    return made


def text(place: str) -> str:
    return str(nbformat.writes(notebook(place))) + "\n"


if __name__ == "__main__":
    for place in PLACES:
        (HERE / f"{place}.ipynb").write_text(text(place), encoding="utf-8")
