"""What `toolkit serve` says when a model is there."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Any

from tests.inference.serve.test_bounds import BODY, ask
from tests.inference.serve.test_serving import ended, lines_until_curl, started
from tests.inference.test_which_gguf import several
from tests.tiny import ADD
from toolkit.data.seen import SeenTools
from toolkit.inference.serve.command import _tools_line
from toolkit.inference.tools import Toolbox, choose_tools


def test_which_tools_the_model_knows_and_who_offers_them(tmp_path: Path) -> None:
    nobody = Toolbox()
    assert _tools_line(None, nobody).startswith("what it was trained with is not known; clients send theirs")
    assert _tools_line(SeenTools(tmp_path, (), 0), nobody).startswith("trained with none; ")
    one = SeenTools(tmp_path / "tools.json", (ADD,), 1)
    assert _tools_line(one, nobody).startswith("trained with add; ")
    light = choose_tools("builtin:set_light")
    many = SeenTools(tmp_path / "tools.json", tuple(choose_tools("builtin:home").schemas), 3000)
    line = _tools_line(many, light)
    assert (
        f"and 2,994 more ({tmp_path}/tools.json); clients that send none get set_light (of builtin:set_light)" in line
    )


def test_a_key_default_tools_and_a_failed_verification(exported: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "export"))
    (folder / "tools.json").write_text('{"tools": [], "distinct": 0, "cut": false}')
    export = folder / "export.json"
    export.write_text(export.read_text().replace('"unverified"', '"failed"'))
    words = ["--tools", "builtin:set_light", "--api-key", "a key of our own", "--context", "9000"]
    with started(str(folder), *words) as (port, server):
        serving, short, note, tools, strange, curl = lines_until_curl(server.stdout)
        assert "2,048 tokens a chat" in serving and "--context 9000: the model was made for 2048 tokens" in short
        assert note.startswith("note    FAILED its verification, so it is not shown to be the trained model")
        assert tools.startswith("tools   trained with none; clients that send none get set_light")
        assert strange.startswith("note    not seen in training") and "Bearer $TOOLKIT_API_KEY" in curl
        assert ask(port, body=BODY)[0] == 401
        some: tuple[dict[str, Any], ...] = ({"tools": []}, {})
        plain, offered = (
            ask(port, body={**BODY, "max_tokens": 1, **more}, Authorization="Bearer a key of our own") for more in some
        )
        assert plain[0] == offered[0] == 200
        assert offered[2]["usage"]["prompt_tokens"] > plain[2]["usage"]["prompt_tokens"] + 20
        assert ended(server, signal.SIGTERM) == (0, "stopped\n", "")


def test_which_of_several_files_is_served(exported: Path, tmp_path: Path) -> None:
    export = several(exported, tmp_path / "run" / "export", "F16", "Q8_0", "Q4_K_M")
    with started(str(export.path.parent)) as (_, server):
        file, serving, *_ = lines_until_curl(server.stdout)
        assert file.startswith("file    tiny-Q8_0.gguf is taken of 3 GGUF files; to take another, name it: ")
        assert file.endswith(f" serve {export.path}/tiny-Q4_K_M.gguf\n") and "serving tiny-Q8_0.gguf at" in serving
