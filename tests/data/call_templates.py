"""Chat templates that write calls as models' own do: the documented form of each, in a plain frame."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from tests.tiny import make_tokenizer

_FRAME = """\
{%- if tools %}{{ '<|im_start|>system\\n' + (tools | tojson) + '<|im_end|>\\n' }}{% endif %}
{%- for m in messages %}
{{- '<|im_start|>' + m.role + '\\n' + m.content }}
{%- if m.tool_calls %}@CALLS@{% endif %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

_LLAMA = """{%- set c = m.tool_calls[0].function %}
{{- '{"name": "' + c.name + '", "parameters": ' + (c.arguments | tojson) + '}' }}"""

_MISTRAL = """{{- '[TOOL_CALLS][' }}{%- for c in m.tool_calls %}
{{- (c.function | tojson)[:-1] + ', "id": "' + c.id + '"}' }}{%- if not loop.last %}{{ ', ' }}{% endif %}
{%- endfor %}{{- ']' }}"""

_MISTRAL_ARGS = """{%- for c in m.tool_calls %}
{{- '[TOOL_CALLS]' + c.function.name + '[ARGS]' + (c.function.arguments | tojson) }}{%- endfor %}"""

_TOOL_CALL = """{{- '<|tool_call|>[' }}{%- for c in m.tool_calls %}
{{- c.function | tojson }}{%- if not loop.last %}{{ ', ' }}{% endif %}{%- endfor %}{{- ']<|/tool_call|>' }}"""

_LFM = """{{- '<|tool_call_start|>[' }}{%- for c in m.tool_calls %}{{- c.function.name + '(' }}
{%- for k, v in c.function.arguments.items() %}{{- k + '=' }}
{%- if v is string %}{{- "'" + v + "'" }}{%- elif v is mapping %}{{- v | tojson }}
{%- else %}{{- v | string }}{%- endif %}
{%- if not loop.last %}{{ ', ' }}{% endif %}{%- endfor %}{{- ')' }}{%- if not loop.last %}{{ ', ' }}{% endif %}
{%- endfor %}{{- ']<|tool_call_end|>' }}"""

_OLMO = """{{- '<function_calls>' }}{%- for c in m.tool_calls %}{{- c.function.name + '(' }}
{%- for k, v in c.function.arguments.items() %}{{- k + '=' + (v | tojson) }}
{%- if not loop.last %}{{ ', ' }}{% endif %}{%- endfor %}{{- ')' }}{%- if not loop.last %}{{ '\\n' }}{% endif %}
{%- endfor %}{{- '</function_calls>' }}"""

_XML = """{%- for c in m.tool_calls %}{{- '\\n<tool_call>\\n<function=' + c.function.name + '>\\n' }}
{%- for k, v in c.function.arguments.items() %}{{- '<parameter=' + k + '>\\n' }}
{{- v | tojson | safe if v is mapping or (v is sequence and v is not string) else v | string }}
{{- '\\n</parameter>\\n' }}
{%- endfor %}{{- '</function>\\n</tool_call>' }}{%- endfor %}"""

_GEMMA = """{%- macro value(v) %}
{%- if v is string %}{{- '<escape>' + v + '<escape>' }}
{%- elif v is boolean %}{{- 'true' if v else 'false' }}
{%- elif v is none %}{{- 'null' }}
{%- elif v is mapping %}{{- '{' }}{%- for k, x in v.items() %}{{- k + ':' + value(x) }}
{%- if not loop.last %}{{ ',' }}{% endif %}{%- endfor %}{{- '}' }}
{%- elif v is sequence %}{{- '[' }}{%- for x in v %}{{- value(x) }}{%- if not loop.last %}{{ ',' }}{% endif %}
{%- endfor %}{{- ']' }}
{%- else %}{{- v | string }}{%- endif %}{%- endmacro %}
{%- for c in m.tool_calls %}{{- '<start_function_call>call:' + c.function.name + value(c.function.arguments) }}
{{- '<end_function_call>' }}{%- endfor %}"""

CALLS = {
    "llama": _LLAMA,
    "mistral": _MISTRAL,
    "mistral with [ARGS]": _MISTRAL_ARGS,
    "tool_call": _TOOL_CALL,
    "lfm": _LFM,
    "olmo": _OLMO,
    "xml": _XML,
    "gemma": _GEMMA,
}
"""How calls are written, by the call format that reads them; what follows a blank tells two of one format apart."""

# As Mistral-Nemo's: nothing opens an answer, tools and the system text stand before the last user's text alone, the
# latter only where nothing follows it, and calls have to have ids.
MISTRAL = """\
{%- if messages[0].role == 'system' %}{% set system = messages[0].content %}{% set messages = messages[1:] %}{% endif %}
{%- set users = messages | selectattr('role', 'equalto', 'user') | list %}
{%- for m in messages %}
{%- if m.role == 'user' %}
{%- if tools and m == users[-1] %}{{ '[AVAILABLE_TOOLS]' + (tools | tojson) + '[/AVAILABLE_TOOLS]' }}{% endif %}
{{- '[INST]' + (system + '\\n\\n' if loop.last and system is defined else '') + m.content + '[/INST]' }}
{%- elif m.tool_calls %}
{{- '[TOOL_CALLS][' }}{%- for c in m.tool_calls %}
{%- if c.id is not defined or c.id | length != 9 %}{{ raise_exception('ids of length 9!') }}{% endif %}
{{- (c.function | tojson)[:-1] + ', "id": "' + c.id + '"}' }}{%- if not loop.last %}{{ ', ' }}{% endif %}
{%- endfor %}{{- ']<|im_end|>' }}
{%- elif m.role == 'assistant' %}{{ m.content + '<|im_end|>' }}
{%- elif m.role == 'tool' %}
{%- if m.tool_call_id | default('') | length != 9 %}{{ raise_exception('ids of length 9!') }}{% endif %}
{{- '[TOOL_RESULTS]{"content": ' + m.content + ', "call_id": "' + m.tool_call_id + '"}[/TOOL_RESULTS]' }}
{%- endif %}
{%- endfor %}"""

# As Qwen3.5's: an answer after the last question has a thought, empty or not, which the prompt opens.
THINKING = (
    _FRAME.replace(
        "{{- '<|im_start|>' + m.role + '\\n' + m.content }}",
        "{%- set asked = messages | map(attribute='role') | list %}"
        "{{- '<|im_start|>' + m.role + '\\n' }}"
        "{%- if m.role == 'assistant' and 'user' not in asked[loop.index0:] %}"
        "{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
        "{{- m.content }}",
    )
    .replace("assistant\\n' }}{% endif %}", "assistant\\n<think>\\n' }}{% endif %}")
    .replace("@CALLS@", _XML)
)

# As FunctionGemma's: calls are closed by what opens their results, behind which the answer goes on in the same turn.
OPEN_CALLS = """\
{%- if tools %}{{ '<|im_start|>developer\\n' + (tools | tojson) + '<|im_end|>\\n' }}{% endif %}
{%- set ns = namespace(after='') %}
{%- for m in messages %}
{%- if m.role == 'tool' %}
{{- '' if ns.after == 'call' else '<start_function_response>' }}
{{- 'response:' + m.content + '<end_function_response>' }}
{%- set ns.after = 'result' %}
{%- else %}
{%- if ns.after != 'result' %}{{ '<|im_start|>' + m.role + '\\n' }}{% endif %}
{{- m.content }}
{%- if m.tool_calls %}@CALLS@{{ '<start_function_response>' }}{% else %}{{ '<|im_end|>\\n' }}{% endif %}
{%- set ns.after = 'call' if m.tool_calls else '' %}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt and ns.after == '' %}
{{- '<|im_start|>assistant\\n' }}{% endif %}""".replace("@CALLS@", _GEMMA)


def frame(name: str) -> str:
    """The template that writes calls as `CALLS[name]`."""
    return _FRAME.replace("@CALLS@", CALLS[name])


@lru_cache
def tokenizer(name: str) -> Any:
    """A small tokenizer with the template that writes calls as `CALLS[name]`, or a template itself."""
    from tokenizers import AddedToken

    template = frame(name) if name in CALLS else name
    made = make_tokenizer(["What is the weather in Oslo? It rains."] * 20, template, vocab_size=400)
    names = ("INST", "TOOL_CALLS", "AVAILABLE_TOOLS", "TOOL_RESULTS")
    marks = [f"[{slash}{name}]" for name in names for slash in ("", "/")]
    marks += ["<start_function_response>", "<end_function_response>"]
    made.add_special_tokens({"additional_special_tokens": [AddedToken(mark, special=True) for mark in marks]})
    return made
