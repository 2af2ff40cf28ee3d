"""The keys of what is printed and answered as JSON, and their types, are as they were promised.

`python tests/docs/test_json_keys.py` writes json_keys.txt anew, with what is promised from the next release on. A key
that goes, or that means something else, needs another number in the name of its schema.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import zmesh
from zmesh.jobs import JobStatus
from zmesh.operate.json_form import JsonForm, _fields

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "json_keys.txt"
MADE_BY = {"tables": "_checked"}
"""Functions whose tables are spread under another name."""
SCHEMA = re.compile(r"zmesh\.[\w-]+/\d+\Z")


def promised() -> list[str]:
    """A line for each key: of the dataclasses that are shown, with its type, and of what commands print."""
    kinds = [kind for name in zmesh.__all__ if isinstance(kind := getattr(zmesh, name), type)]
    shown = [kind for kind in kinds if issubclass(kind, JsonForm)]
    found = {f"{kind.__name__}.{key}: {_type(hint)}" for kind in shown for _, key, hint, _ in _fields(kind)}
    found |= {f"zmesh.job/1 {name}" for name in JobStatus._fields}
    for file in sorted((ROOT / "cli").glob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        found |= {f"{schema} {key}" for schema, call in _records(tree) for key in _keys(call, tree)}
    return sorted(found)


def _type(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else re.sub(r"[a-z_]+\.(?=\w)", "", str(hint))


def _records(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    """The calls that make a line of JSON, each with its schema."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            if isinstance(node.args[0].value, str) and SCHEMA.match(node.args[0].value):
                yield node.args[0].value, node


def _keys(call: ast.Call, tree: ast.Module) -> Iterator[str]:
    """The keywords of a call, and what is spread into it from tables and functions of its module."""
    for keyword in call.keywords:
        if keyword.arg is not None:
            yield keyword.arg
            continue
        names = {MADE_BY.get(node.id, node.id) for node in ast.walk(keyword.value) if isinstance(node, ast.Name)}
        yield from _literal_keys(keyword.value)
        near = list(_assigned(names, (*tree.body, *ast.walk(_function_around(call, tree)))))
        yield from near or _assigned(names, ast.walk(tree))


def _assigned(names: set[str], nodes: Iterable[ast.AST]) -> Iterator[str]:
    """The keys of the tables that are given these names, or that functions of these names return."""
    if names:
        for node in nodes:
            if isinstance(node, ast.FunctionDef) and node.name in names:
                for each in ast.walk(node):
                    if isinstance(each, ast.Return) and each.value is not None:
                        yield from _literal_keys(each.value)
            elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign) and node.value is not None:
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                if any(isinstance(target, ast.Name) and target.id in names for target in targets):
                    yield from _literal_keys(node.value)


def _function_around(call: ast.Call, tree: ast.Module) -> ast.AST:
    return next(
        (
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and call in ast.walk(node)
        ),
        tree,
    )


def _literal_keys(value: ast.AST) -> Iterator[str]:
    for node in ast.walk(value):
        if isinstance(node, ast.Dict):
            yield from (key.value for key in node.keys if isinstance(key, ast.Constant) and isinstance(key.value, str))


def test_no_key_of_json_is_gone_or_has_another_type() -> None:
    known, found = GOLDEN.read_text(encoding="utf-8").splitlines(), promised()
    gone = [line for line in known if line not in found]
    assert gone == [], (
        "programs read these keys (docs/compatibility.md): keep them, or give the schema another number, such as "
        "zmesh.status/2, say so in CHANGELOG.md, and run: python tests/docs/test_json_keys.py"
    )


def test_every_schema_of_the_command_line_has_keys_that_are_promised() -> None:
    known = {line.partition(" ")[0] for line in GOLDEN.read_text(encoding="utf-8").splitlines()}
    printed = set()
    for file in (ROOT / "cli").glob("*.py"):
        for schema, call in _records(ast.parse(file.read_text(encoding="utf-8"))):
            if any(keyword.arg is not None or "to_json" not in ast.unparse(keyword.value) for keyword in call.keywords):
                printed.add(schema)
    assert printed - known == set(), "run: python tests/docs/test_json_keys.py"


if __name__ == "__main__":
    GOLDEN.write_text("\n".join(promised()) + "\n", encoding="utf-8")
