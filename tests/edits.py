"""Edits of Python modules that are matched as code, not as text: layout and comments do not count.

A corpus is a text file of cases. Each is a name with fields, and blocks like those of a diff:

    ## zero_grad once | 1.7 | set to zero once
    @ classification_train.train_epoch
    - optimizer.zero_grad()
    @ classification_train.train_epoch
      model.train()
    + optimizer.zero_grad()

- `@` names a module, or a class or function in it. The code of the lines with `-` or a blank occurs
  there exactly once, and is replaced by that of the lines with `+` or a blank. It is one expression
  or whole statements beside each other.
- X, Y and Z stand for any expression, and a body `...` for any statements.
- With `+` alone, what `@` names is replaced as a whole; a block without lines removes it.
- `use FOLDER` puts the modules of that folder, beside the corpus, in the place of the reference's.

An edit that does not apply any more raises EditError, in one line.
"""

import ast
import copy
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

HOLES = ("X", "Y", "Z")
IGNORED = ("ctx", "kind", "type_comment")  # fields of a node that say nothing about the code
DEFINITIONS = (ast.ClassDef, ast.FunctionDef)
PREFIXES = ("- ", "+ ", "  ")


class EditError(ValueError):
    """The corpus and the code that it changes do not fit (any more)."""


class Edit(NamedTuple):
    """One block: where it applies, the code that is looked for, and what stands there instead."""

    where: str
    old: str = ""
    new: str = ""


class Case(NamedTuple):
    """One submission that differs from the reference."""

    name: str
    fields: list[str]  # what the header says after the name
    folder: Path | None  # of whole modules
    edits: list[Edit]


class Place(NamedTuple):
    """Where a pattern was found: nodes in a list, or the one node of a field."""

    parent: ast.AST
    field: str
    span: slice | None
    found: dict[str, Any]  # what the holes stand for


def read_corpus(path: Path) -> list[Case]:
    """The cases of a corpus file, in its order. Raises EditError for a line of no known kind."""
    cases: list[Case] = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        kind, _, rest = line.partition(" ")
        if kind == "##":
            name, *fields = (field.strip() for field in rest.split(" | "))
            cases.append(Case(name, fields, None, []))
        elif kind == "use":
            cases[-1] = cases[-1]._replace(folder=path.parent / rest)
        elif kind == "@":
            cases[-1].edits.append(Edit(rest))
        elif line.startswith(PREFIXES) or line in ("-", "+"):
            edit, code = cases[-1].edits[-1], f"{line[2:]}\n"
            old = edit.old + code * (line[0] != "+")
            cases[-1].edits[-1] = edit._replace(old=old, new=edit.new + code * (line[0] != "-"))
        elif line and not line.startswith("# "):
            raise EditError(f"{path.name}, line {number}: no header, @, use or line of a diff")
    return cases


def write_submission(case: Case, reference: Path, modules: tuple[str, ...], target: Path) -> Path:
    """Write the reference's modules with the changes of `case` into the new folder `target`."""
    if case.folder and not case.folder.is_dir():
        raise EditError(f"{case.name}: there is no folder {case.folder}")
    target.mkdir()
    for file in modules:
        source, module = reference / file, file.removesuffix(".py")
        if case.folder and (case.folder / file).exists():
            source = case.folder / file
        edits = [edit for edit in case.edits if edit.where.split(".")[0] == module]
        text = source.read_text()
        if Edit(module) in edits:
            continue
        if edits:
            text = apply_edits(text, edits)
        (target / file).write_text(text)
    known = {file.removesuffix(".py") for file in modules}
    for edit in case.edits:
        if edit.where.split(".")[0] not in known:
            raise EditError(f"{case.name}: there is no module for {edit.where}")
    return target


def apply_edits(text: str, edits: list[Edit]) -> str:
    """The module `text` with all edits made, one after the other. Raises EditError."""
    tree = ast.parse(text)
    for edit in edits:
        path = edit.where.split(".")[1:]
        if not path and not edit.old:
            return edit.new  # a whole module, which need not even be Python
        old, new = (ast.parse(textwrap.dedent(code)).body for code in (edit.old, edit.new))
        scope, parent = _definition(tree, path, edit.where)
        if not old:
            index = parent.body.index(scope)
            parent.body[index : index + 1] = new
            continue
        places = list(_statements(scope, old)) or list(_expressions(scope, old))
        if len(places) != 1:
            code = " / ".join(line.strip() for line in edit.old.splitlines())
            raise EditError(f"in {edit.where} there is not one, but {len(places)} of: {code}")
        _replace(places[0], new)
    return ast.unparse(ast.fix_missing_locations(tree)) + "\n"


def _definition(tree: ast.Module, path: list[str], where: str) -> tuple[Any, Any]:
    """The class or function that a dotted path names, and what it is defined in."""
    node: Any = tree
    parent: Any = tree
    for name in path:
        parent = node
        named = [n for n in node.body if isinstance(n, DEFINITIONS) and n.name == name]
        if len(named) != 1:
            raise EditError(f"there is not one, but {len(named)} of: {where}")
        node = named[0]
    return node, parent


def _is_any_body(nodes: Any) -> bool:
    one = nodes[0] if len(nodes) == 1 else None
    return isinstance(one, ast.Expr) and ast.dump(one.value) == ast.dump(ast.Constant(...))


def _matches(pattern: Any, node: Any, found: dict[str, Any]) -> bool:
    """Whether the code is the same, but for the holes of the pattern, which go to `found`."""
    if isinstance(pattern, ast.Name) and pattern.id in HOLES:
        if not isinstance(node, ast.expr):
            return False
        known = found.setdefault(pattern.id, node)
        return ast.dump(known) == ast.dump(node)
    if type(pattern) is not type(node):
        return False
    if isinstance(pattern, ast.AST):
        fields = [field for field in pattern._fields if field not in IGNORED]
        return all(_matches(getattr(pattern, f), getattr(node, f), found) for f in fields)
    if isinstance(pattern, list):
        if _is_any_body(pattern):
            found["..."] = node
            return True
        same = len(pattern) == len(node)
        return same and all(_matches(p, n, found) for p, n in zip(pattern, node, strict=True))
    return bool(pattern == node)


def _statements(scope: ast.AST, pattern: list[ast.stmt]) -> Iterator[Place]:
    for node in ast.walk(scope):
        for field, value in ast.iter_fields(node):
            for start in range(len(value) if isinstance(value, list) else 0):
                found: dict[str, Any] = {}
                span = slice(start, start + len(pattern))
                if _matches(pattern, value[span], found):
                    yield Place(node, field, span, found)


def _expressions(scope: ast.AST, pattern: list[ast.stmt]) -> Iterator[Place]:
    if len(pattern) != 1 or not isinstance(pattern[0], ast.Expr):
        return
    for node in ast.walk(scope):
        for field, value in ast.iter_fields(node):
            for index, part in enumerate(value if isinstance(value, list) else [value]):
                found: dict[str, Any] = {}
                if _matches(pattern[0].value, part, found):
                    span = slice(index, index + 1) if isinstance(value, list) else None
                    yield Place(node, field, span, found)


class _FillHoles(ast.NodeTransformer):
    def __init__(self, found: dict[str, Any]):
        self.found = found

    def visit_Name(self, node: ast.Name) -> ast.AST:
        found: ast.AST = self.found.get(node.id, node)
        return copy.deepcopy(found)

    def visit_Expr(self, node: ast.Expr) -> Any:
        if "..." in self.found and _is_any_body([node]):
            return self.found["..."]
        return self.generic_visit(node)


def _replace(place: Place, new: list[ast.stmt]) -> None:
    filled = _FillHoles(place.found).visit(ast.Module(new, [])).body
    if place.span is None:
        (statement,) = filled
        setattr(place.parent, place.field, statement.value)
        return
    nodes: list[ast.AST] = getattr(place.parent, place.field)
    is_statement = isinstance(nodes[place.span][0], ast.stmt)
    nodes[place.span] = filled if is_statement else [statement.value for statement in filled]
    if is_statement and not nodes:
        nodes.append(ast.Pass())
