"""Every text that a person may read, one per line: `python -m tests.user_strings [KIND ...]`.

Kinds are message, docstring, comment and document. `--random N` prints N of them drawn at random,
and `--seed` others: give these to a fresh reader, who must find no stilted sentence.
"""

import argparse
import ast
import io
import random
import re
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

ROOT = Path(__file__).parents[1]
CODE = ("pipeline", "launch", "data", "tests")
DOCUMENTS = ("*.md", "docs/*.md", "configs/**/*.yaml", "Dockerfile", "Makefile")
LEAST_WORDS = 3
"""Shorter strings are names, formats and keys."""

Kind = Literal["message", "docstring", "comment", "document"]


@dataclass(frozen=True, slots=True)
class Text:
    """A text and its place."""

    kind: Kind
    file: Path
    line: int
    words: str

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line}: {self.words}"


def all_texts() -> list[Text]:
    """Return the texts of the code, its documents and its recipes, in the order of files."""
    code = (file for folder in CODE for file in sorted((ROOT / folder).rglob("*.py")))
    documents = (file for pattern in DOCUMENTS for file in sorted(ROOT.glob(pattern)))
    found = [text for file in code for text in texts_of_code(file)]
    found += [text for file in documents for text in texts_of_document(file)]
    return [text for text in found if len(re.findall(r"[A-Za-z]{2,}", text.words)) >= LEAST_WORDS]


def texts_of_code(file: Path) -> Iterator[Text]:
    """Yield the messages, docstrings and comments of a Python file."""
    source = file.read_text()
    tree = ast.parse(source)
    docstrings = {id(each.value) for each in ast.walk(tree) if isinstance(each, ast.Expr)}
    inner = {id(part) for each in ast.walk(tree) for part in _parts(each)}
    for node in ast.walk(tree):
        if id(node) in inner or not isinstance(node, ast.Constant | ast.JoinedStr):
            continue
        if words := _words(node):
            kind: Kind = "docstring" if id(node) in docstrings else "message"
            yield Text(kind, file, node.lineno, words)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield Text("comment", file, token.start[0], token.string.lstrip("# "))


def texts_of_document(file: Path) -> Iterator[Text]:
    """Yield the paragraphs of a document; of a recipe or a build file, its comments."""
    is_prose, start, lines = file.suffix == ".md", 1, list[str]()
    for number, line in enumerate([*file.read_text().splitlines(), ""], start=1):
        words = line.strip() if is_prose else line.partition("#")[2].strip()
        if words:
            lines.append(words)
            continue
        if lines:
            yield Text("document", file, start, " ".join(lines))
        start, lines = number + 1, []


def _parts(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.JoinedStr):
        yield from (part for part in ast.walk(node) if part is not node)


def _words(node: ast.Constant | ast.JoinedStr) -> str:
    """Return the text of a string, on one line; of an f-string, with its expressions in braces."""
    if isinstance(node, ast.JoinedStr):
        parts = (
            str(part.value) if isinstance(part, ast.Constant) else _expression(part)
            for part in node.values
        )
        return " ".join("".join(parts).split())
    return " ".join(node.value.split()) if isinstance(node.value, str) else ""


def _expression(part: ast.expr) -> str:
    return f"{{{ast.unparse(part.value)}}}" if isinstance(part, ast.FormattedValue) else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the texts; return 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(get_args(Kind)))
    parser.add_argument("--random", type=int, metavar="N", help="print N of them")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default 0)")
    options = parser.parse_args(arguments)
    found = [text for text in all_texts() if text.kind in (options.kinds or get_args(Kind))]
    if options.random:
        found = random.Random(options.seed).sample(found, options.random)
    print("\n".join(map(str, found)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
