"""Grammars (llama.cpp's GBNF) that make an answer a call, for `tool_choice` "required" or a named tool.

They hold the call format's own writing, the names of the tools and JSON in general. Nothing of a client's schema goes
in but names: schemas can be made so that turning them into a grammar, or decoding by it, never ends.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from toolkit.data.template import CallFormat

_JSON = r"""
think ::= "<think>" ( [^<] | "<" [^/] )* "</think>" [\n]*
object ::= "{" space ( pair ( "," space pair )* )? "}"
pair ::= string ":" space value
value ::= ( object | array | string | number | "true" | "false" | "null" ) space
array ::= "[" space ( value ( "," space value )* )? "]"
string ::= "\"" ( [^"\\\x00-\x1f] | "\\" ( ["\\/bfnrt] | "u" [0-9a-fA-F]{4} ) )* "\"" space
number ::= "-"? ( "0" | [1-9] [0-9]{0,15} ) ( "." [0-9]{1,15} )? ( [eE] [-+]? [0-9]{1,3} )?
space ::= " "?
"""
_CALLS = {
    "native": 'call ::= "<tool_call>\\n{\\"name\\": " name ", \\"arguments\\": " object "}\\n</tool_call>"',
    "hermes": 'call ::= "<tool_call>\\n{\\"name\\": " name ", \\"arguments\\": " object "}\\n</tool_call>"',
    "json": 'call ::= "{\\"tool\\": " name ", \\"arguments\\": " object "}"',
    "jsonrpc": 'call ::= "{\\"jsonrpc\\": \\"2.0\\", \\"id\\": " id ", \\"method\\": \\"tools/call\\", \\"params\\": '
    '{\\"name\\": " name ", \\"arguments\\": " object "}}"\nid ::= [1-9] [0-9]?',
}


def call_grammar(names: Sequence[str], call_format: CallFormat, *, parallel: bool, thinks: bool = False) -> str:
    """A grammar for one call, or with `parallel` one or more, of the tools `names`; `thinks` lets a thought lead."""
    written = " | ".join(_literal(json.dumps(name, ensure_ascii=False)) for name in names)
    several = {"jsonrpc": '( call | "[" call ( ", " call )* "]" )'}.get(call_format, 'call ( "\\n" call )*')
    calls = several if parallel else "call"
    return f"root ::= {'think? ' if thinks else ''}{calls}\n{_CALLS[call_format]}\nname ::= {written}{_JSON}"


def _literal(text: str) -> str:
    """A text as a GBNF literal."""
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character.isascii() and character.isprintable():
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x80 else (f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
