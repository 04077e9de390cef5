"""Grammars (llama.cpp's GBNF) that hold a call to the tools on offer, and with `tool_choice` make an answer one.

They hold the call format's own writing, names of tools, of their arguments and of values to choose from, and else JSON
in general. Nothing more of a client's schema goes in: schemas can be made so that turning them into a grammar, or
decoding by it, never ends.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

MOST_CHOICES = 64  # names of arguments of a tool, and values of an argument
MOST_CHARACTERS = 50_000  # of a grammar with names of arguments

_JSON = r"""
think ::= "<think>" ( [^<] | "<" [^/] )* "</think>" [\n]*
object ::= "{" space ( pair ( "," space pair )* )? "}"
pair ::= string ":" space value
value ::= ( object | array | string | number | "true" | "false" | "null" ) space
array ::= "[" space ( value ( "," space value )* )? "]"
string ::= "\"" ( [^"\\\x00-\x1f] | "\\" ( ["\\/bfnrt] | "u" [0-9a-fA-F]{4} ) )* "\"" space
integer ::= "-"? ( "0" | [1-9] [0-9]{0,15} ) space
number ::= "-"? ( "0" | [1-9] [0-9]{0,15} ) ( "." [0-9]{1,15} )? ( [eE] [-+]? [0-9]{1,3} )?
space ::= " "?
"""
_TAGGED = ('"<tool_call>\\n{\\"name\\": " ', ' ", \\"arguments\\": " ', ' "}\\n</tool_call>"')
_RPC = '"{\\"jsonrpc\\": \\"2.0\\", \\"id\\": " id ", \\"method\\": \\"tools/call\\", \\"params\\": {\\"name\\": " '
# what stands before a call's name, between it and the arguments, and after them
_CALLS = {
    "native": _TAGGED,
    "hermes": _TAGGED,
    "llama": ('"{\\"name\\": " ', ' ", \\"parameters\\": " ', ' "}"'),
    "json": ('"{\\"tool\\": " ', ' ", \\"arguments\\": " ', ' "}"'),
    "jsonrpc": (_RPC, ' ", \\"arguments\\": " ', ' "}}"'),
}
_PLAIN = {
    "string": "string",
    "boolean": '( "true" | "false" ) space',
    "integer": "integer",
    "number": "number space",
    "object": "object space",
    "array": "array space",
}
# what nothing but a call begins with
BEGINNINGS = {
    **dict.fromkeys(("native", "hermes"), "<tool_call>"),
    "llama": '{"name": ',
    "json": '{"tool": ',
    "jsonrpc": '{"jsonrpc": ',
}


def call_grammar(
    tools: Sequence[dict[str, Any]],
    call_format: str,
    *,
    parallel: bool,
    thinks: bool = False,
    begun: bool = False,
) -> str:
    """A grammar for one call, or with `parallel` one or more, of `tools`.

    `thinks` lets a thought lead. `begun`: it takes over where a call begins, within a list where the format has one.
    """
    calls = 'call ( "\\n" call )*' if parallel else "call"
    if call_format == "jsonrpc":
        listed = 'call ( ", " call )*' if parallel else "call"
        calls = f'{listed} "]"?' if begun else f'( call | "[" {listed} "]" )' if parallel else "call"
    root = f"root ::= {'think? ' if thinks else ''}{calls}\nid ::= [1-9] [0-9]?"
    made = "\n".join([root, *_calls(tools, call_format, named=True)])
    if len(made) > MOST_CHARACTERS:
        made = "\n".join([root, *_calls(tools, call_format, named=False)])
    return made + _JSON


def _calls(tools: Sequence[dict[str, Any]], call_format: str, named: bool) -> list[str]:
    """The rules for calls. `named`: with the names of arguments."""
    before, between, after = _CALLS[call_format]
    rules = ["call ::= " + " | ".join(f"call{index}" for index in range(len(tools)))]
    for index, tool in enumerate(tools):
        pairs = _pairs(tool["function"].get("parameters")) if named else ""
        arguments = f"object{index}" if pairs else "object"
        rules.append(f"call{index} ::= {before}{_json(tool['function']['name'])}{between}{arguments}{after}")
        if pairs:
            most = len(tool["function"]["parameters"]["properties"]) - 1  # any order, but not one name for ever
            more = f'( "," space pair{index} ){{0,{most}}}' if most else ""
            rules.append(f'{arguments} ::= "{{" space ( pair{index} {more} )? "}}"')
            rules.append(f"pair{index} ::= {pairs}")
    return rules


def _pairs(schema: Any) -> str:
    """What an argument may be: its name and a value. Empty where the schema does not list all names plainly."""
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict) or not 0 < len(properties) <= MOST_CHOICES:
        return ""
    if schema.get("additionalProperties") or "patternProperties" in schema:
        return ""
    return " | ".join(f'{_json(name)} space ":" space {_value(value)}' for name, value in properties.items())


def _value(schema: Any) -> str:
    if not isinstance(schema, dict):
        return "value"
    choices = schema.get("enum")
    if not isinstance(choices, list) or not 0 < len(choices) <= MOST_CHOICES:
        kind = schema.get("type")
        return _PLAIN.get(kind, "value") if isinstance(kind, str) else "value"
    if not all(isinstance(choice, (str, int, bool)) or choice is None for choice in choices):
        return "value"
    return f"( {' | '.join(_json(choice) for choice in choices)} ) space"


def _json(value: Any) -> str:
    """A GBNF literal that writes `value` as JSON."""
    return _literal(json.dumps(value, ensure_ascii=False))


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
