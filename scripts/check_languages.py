"""What is wrong with the Chinese of texts: of commands and settings, of titles, and of the pages."""

import ast
import errno
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from string import Formatter

import click

from wxauth.server.cli import MODULES
from wxauth.server.core.terminal import catalogue

SOURCE = Path(__file__).parents[1] / "src/wxauth"
CHINESE = re.compile("[\u4e00-\u9fff：、。，（]")
WORDS = re.compile(r"[A-Za-z]{2,} [a-z{]|\} [a-z]")
SECOND = {"Fault", "WrongClient", "good", "note", "bad", "checked", "_form"}
MAKERS = {"Text", "say", "Failed", "WrongCall", *SECOND}
"""What makes a `Text` of a template, besides the subclasses of `TextError`; some of their second argument."""
SPOKEN = ("cli/", "core/setting", "core/claims.py", "core/resources.py", "core/migrations.py", "moving/", "dev/run.py")
"""The rooms whose refusals a terminal shows."""
BARE = {"ValueError", "UsageError", "BadParameter", "ClickException"}
RULE = "must "
"""How the rules of fields begin, which are data beside them."""
OF_NAMES = ("words ", "pydantic ")
"""How entries begin whose key is no text."""
ENTRY = re.compile(r"^  '?([\w. -]+)'?: \[(.*?)\],$", re.MULTILINE | re.DOTALL)
PAIR = re.compile(r"""\s*('(?:[^'\\]|\\.)*'|"[^"]*"),\s*('(?:[^'\\]|\\.)*'|"[^"]*"),?\s*""")


def holes(text: str) -> set[str]:
    """The names of the holes in a template."""
    return {name.partition(".")[0] for _, name, *_ in Formatter().parse(text) if name}


def constants(node: ast.AST) -> Iterator[str]:
    """The texts that this expression may be."""
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.IfExp():
            yield from constants(node.body)
            yield from constants(node.orelse)


def wrong_in_python(path: Path, tree: ast.Module, makers: set[str]) -> Iterator[str]:
    """What is wrong in this file."""
    is_spoken = str(path.relative_to(SOURCE)).removeprefix("server/").startswith(SPOKEN)
    assigned: defaultdict[str, list[str]] = defaultdict(list)
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                assigned[ast.unparse(target)] += constants(node.value)
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str(text)) if is_spoken and text.startswith(RULE) and text not in catalogue():
                yield f"{path.name}:{node.lineno}: no Chinese for {text!r}"
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func).rpartition(".")[2]
        place = f"{path.name}:{node.lineno}"
        arguments = node.args[name in SECOND :]
        given = [text for each in arguments for text in (*constants(each), *assigned.get(ast.unparse(each), ()))]
        if name in makers:
            yield from (
                f"{place}: no Chinese for {text!r}" for text in given if WORDS.search(text) and text not in catalogue()
            )
            yield from (
                f"{place}: {name} must have a template with holes"
                for each in arguments
                if isinstance(each, ast.JoinedStr)
            )
        elif name == "Title" and len(given) == 2 and holes(given[0]) != holes(given[1]):
            yield f"{place}: other holes in Chinese: {given[0]!r}"
        elif (
            is_spoken
            and name in BARE
            and (any(map(WORDS.search, given)) or isinstance((*node.args, None)[0], ast.JoinedStr))
        ):
            yield f"{place}: {name} must be a WrongValue or a WrongCall, which have Chinese"


def wrong_in_catalogue(trees: Iterable[ast.Module]) -> Iterator[str]:
    """The entries that none of these files uses, or whose Chinese has other holes."""
    used = {node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    used |= {os.strerror(number) for number in errno.errorcode}
    names = "|".join(name for names in MODULES.values() for name in names)
    commands = re.compile(rf"(wxauth|({names})( [\w-]+)*)( --[\w-]+)?|--\w+")
    for english, chinese in catalogue().items():
        if not CHINESE.search(chinese):
            yield f"terminal.zh.txt: no Chinese: {english}"
        if english.startswith(OF_NAMES) or commands.fullmatch(english):
            continue
        if holes(english) != holes(chinese):
            yield f"terminal.zh.txt: other holes in Chinese: {english}"
        if english not in used:
            yield f"terminal.zh.txt: nothing uses {english}"


def wrong_in_pages() -> Iterator[str]:
    """What is wrong in the texts of the pages' scripts."""
    for path in SOURCE.rglob("texts.js"):
        for name, texts in ENTRY.findall(path.read_text("utf-8")):
            pair = PAIR.fullmatch(re.sub(r"' \+\s*'", "", texts))
            if pair is None or holes(pair[1]) != holes(pair[2]):
                yield f"{path.parent.parent.name}/texts.js: {name} must be ['English', '中文'] with the same holes"


def wrong_languages() -> Iterator[str]:
    """All that is wrong."""
    trees = {path: ast.parse(path.read_text("utf-8")) for path in SOURCE.rglob("*.py")}
    classes = [node for tree in trees.values() for node in tree.body if isinstance(node, ast.ClassDef)]
    makers = {*MAKERS, "TextError"}
    for _ in range(3):  # subclasses of subclasses
        makers |= {each.name for each in classes if makers & set(map(ast.unparse, each.bases))}
    for path, tree in trees.items():
        yield from wrong_in_python(path, tree, makers - {"InvalidSettings"})
    of_click = (ast.parse(path.read_text("utf-8")) for path in Path(str(click.__file__)).parent.glob("*.py"))
    yield from wrong_in_catalogue([*trees.values(), *of_click])
    yield from wrong_in_pages()
