"""Count the code and the words in it, and refuse what is above the limits.

Each row `words FOLDER LIMIT CODE` of the file named by the first argument limits the docstring lines for 100 lines of
code, and the lines of code.
A line of code has a token that is neither docstring nor comment, also in SQL. A string that stands alone after an
assignment is a docstring. Texts that users see, in the OpenAPI document or in `--help`, don't count. With --files, the
files with the most docstrings are listed.
"""

import ast
import io
import sys
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
MOST_PRIVATE_EXPLAINED: Final = 25
MOST_COMMENTS: Final = 8
MOST_WORDS: Final = 70
_SHOWN_BY: Final = {"router", "admin_router", "click", "command", "group"}
_NOT_CODE: Final = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Words:
    """The counts of a file or folder, and what is refused in it."""

    code: int = 0
    docstrings: int = 0
    comments: int = 0
    private: int = 0
    private_explained: int = 0
    refused: list[str] = field(default_factory=list)

    def __add__(self, other: "Words") -> "Words":
        return Words(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))

    def for_100(self, lines: int) -> float:
        """Return how many of these lines there are for 100 lines of code."""
        return 100 * lines / max(1, self.code)


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _docstrings(tree: ast.Module, shown: set[str]) -> Iterator[ast.stmt]:
    """Yield the docstrings that users don't see."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if not isinstance(body, list) or (isinstance(node, ast.ClassDef) and node.name in shown):
            continue
        if isinstance(node, Function) and any(_names(each) & _SHOWN_BY for each in node.decorator_list):
            continue
        is_owner = isinstance(node, ast.Module | ast.ClassDef | Function)
        for before, each in zip([None, *body], body, strict=False):
            if _is_text(each) and (is_owner if before is None else isinstance(before, ast.Assign | ast.AnnAssign)):
                yield each


def _names(node: ast.AST) -> set[str]:
    return {
        each.id if isinstance(each, ast.Name) else each.attr
        for each in ast.walk(node)
        if isinstance(each, ast.Name | ast.Attribute)
    }


def _models(trees: Iterable[ast.Module]) -> set[str]:
    """Return the names of the models in the OpenAPI document. A table's row is none of them."""
    bases = {
        each.name: {name for base in each.bases for name in _names(base)}
        for tree in trees
        for each in ast.walk(tree)
        if isinstance(each, ast.ClassDef) and not each.keywords
    }
    models = {"BaseModel"}
    while more := {name for name, of in bases.items() if of & models} - models:
        models |= more
    return models


def words_of(path: Path, tree: ast.Module, shown: set[str]) -> Words:
    """Count a file. `shown` names the models that users see."""
    text = path.read_text()
    docstrings = {line for each in _docstrings(tree, shown) for line in range(each.lineno, (each.end_lineno or 0) + 1)}
    texts = {
        line
        for each in ast.walk(tree)
        if isinstance(each, ast.Expr) and _is_text(each)
        for line in range(each.lineno, (each.end_lineno or 0) + 1)
    }
    code: set[int] = set()
    comments: dict[int, str] = {}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            comments[token.start[0]] = token.string
        elif token.type not in _NOT_CODE:
            code.update(range(token.start[0], token.end[0] + 1))
    of_sql = code & {n for n, line in enumerate(text.splitlines(), 1) if line.lstrip().startswith("-- ")}
    code -= texts | of_sql
    alone = {line: comment for line, comment in comments.items() if line not in code}
    private = [
        each
        for each in ast.walk(tree)
        if isinstance(each, Function) and each.name.startswith("_") and not each.name.startswith("__")
    ]
    explained = [each for each in private if ast.get_docstring(each) is not None]
    where = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    refused = [
        f"{where}:{each.lineno}: {each.name} is private, so nobody outside decides by its `Raises:`"
        for each in explained
        if "Raises:" in (ast.get_docstring(each) or "")
    ]
    words = 0
    for line in sorted(alone):
        words = len(alone[line].split()) + (words if line - 1 in alone else 0)
        if words > MOST_WORDS and line + 1 not in alone:
            refused.append(f"{where}:{line}: ends a comment of {words} words. Put each reason beside its line")
    return Words(len(code), len(docstrings), len(alone) + len(of_sql), len(private), len(explained), refused)


def main() -> int:
    """Run the script, and return its exit status."""
    limits, *options = sys.argv[1:]
    rows = [line.split() for line in Path(limits).read_text().splitlines() if line.startswith("words ")]
    status = 0
    for _, folder, limit, most_code in rows:
        trees = {path: ast.parse(path.read_text()) for path in sorted((ROOT / folder).rglob("*.py"))}
        shown = _models(trees.values())
        each_file = {path: words_of(path, tree, shown) for path, tree in trees.items()}
        if "--files" in options:
            for path in sorted(trees, key=lambda path: -each_file[path].docstrings)[:25]:
                shown_path = path.relative_to(ROOT)
                sys.stdout.write(
                    f"{each_file[path].docstrings} docstring lines, {each_file[path].code} of code: {shown_path}\n"
                )
            continue
        found = sum(each_file.values(), Words())
        refused = found.refused
        for name, value, most in (
            ("lines of code", found.code, int(most_code)),
            ("lines of docstrings for 100 of code", found.for_100(found.docstrings), int(limit)),
            ("lines of comments for 100 of code", found.for_100(found.comments), MOST_COMMENTS),
            (
                "% of the private functions have a docstring",
                100 * found.private_explained / max(1, found.private),
                MOST_PRIVATE_EXPLAINED,
            ),
        ):
            if value > most:
                refused.append(f"{folder}: {value:,.1f} {name}, at most {most}")
        sys.stdout.writelines(f"{line}\n" for line in refused)
        status |= bool(refused)
    return status


if __name__ == "__main__":
    sys.exit(main())
