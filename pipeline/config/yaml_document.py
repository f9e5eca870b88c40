"""YAML as plain data that remembers where every key and value of it was written.

Scalars follow YAML 1.2, as in editors: `1e-4` is a number and `off` a word. PyYAML by itself reads
YAML 1.1, to which they are a word and false. Aliases are refused: a recipe says what it means.
"""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from yaml import YAMLError
from yaml.composer import Composer, ComposerError
from yaml.error import MarkedYAMLError
from yaml.events import AliasEvent, Event
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

Data: TypeAlias = "dict[str, Data] | list[Data] | str | int | float | bool | None"
Loc = tuple[str | int, ...]
"""The keys and list positions that lead to a value."""

DEEPEST = 20
TAG = "tag:yaml.org,2002:"
NUMBERS = {f"{TAG}int", f"{TAG}float"}
INTEGER = re.compile(r"[-+]?[0-9]+$|0o[0-7]+$|0x[0-9a-fA-F]+$")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$")


@dataclass(frozen=True, slots=True)
class Place:
    """A line and column (from 1) of a file, or an override of the command line (line 0)."""

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong, where, and what to do about it."""

    place: Place
    loc: Loc
    text: str

    def __str__(self) -> str:
        where = f"{dotted(self.loc)}: " if self.loc else ""
        if self.place.source.startswith(f"{COMMAND_LINE}{dotted(self.loc)}="):
            where = ""  # the override has named it already
        return f"{self.place}: {where}{self.text}"


At = Callable[[int, int], Place]
"""From a line and column of YAML, counted from 0, to what a person should see."""

COMMAND_LINE = "command line: "


class Document:
    """Plain data from YAML, the place of every key and value in it, and the faults met in reading.

    A key that is given twice, or a value that cannot be read, is a fault and does not stop the
    reading; after a fault of syntax there is no data. Numbers in the mappings at `words` stay text.
    """

    def __init__(self, text: str, file: str, words: Collection[Loc] = ()) -> None:
        self.words = words
        self.data: Data = None
        self.keys: dict[Loc, Place] = {}
        self.values: dict[Loc, Place] = {}
        self.faults: list[Fault] = []

        def at(line: int, column: int) -> Place:
            return Place(file, line + 1, column + 1)

        self.values[()] = at(0, 0)
        node = self._compose(text, at)
        if node:
            self.data = self._convert(node, (), at)

    def override(self, argument: str) -> None:
        """Set one value from `a.b=YAML`, making mappings on the way as needed.

        A duration replaces the file's in the other unit: train.steps=9 unsets train.epochs.
        """
        place = Place(COMMAND_LINE + show(argument))
        key, _, text = argument.partition("=")
        path = key.strip().split(".")
        if not all(path) or "=" not in argument:
            self.fault(place, (), "is not KEY=VALUE, such as train.epochs=90")
        elif not text.strip():
            self.fault(place, (), f"has no value; to unset it write {key}=null")
        elif node := self._compose(text, lambda _line, _column: place):
            self._set(path, node, place)

    def overrides_within(self, loc: Loc) -> list[str]:
        """The overrides that had a hand in the mapping at `loc`."""
        sources = (
            place.source
            for inner, place in self.values.items()
            if inner[: len(loc)] == loc and not place.line
        )
        return [source.removeprefix(COMMAND_LINE) for source in dict.fromkeys(sources)]

    def key(self, loc: Loc) -> Place:
        """Where the key of the value at `loc` is; an item of a list and the whole have none."""
        return self.keys.get(loc) or self.values[loc]

    def fault(self, place: Place, loc: Loc, text: str) -> None:
        self.faults.append(Fault(place, loc, text))

    def _compose(self, text: str, at: At) -> Node | None:
        try:
            loader = _Loader(text)
        except ReaderError as error:
            before = text[: error.position]
            place = at(before.count("\n"), len(before) - before.rfind("\n") - 1)
            self.fault(place, (), f"character {show(text[error.position])} is not allowed in YAML")
            return None
        try:
            node = loader.get_single_node()
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            assert mark is not None, "PyYAML places every fault of syntax"
            self.fault(at(mark.line, mark.column), (), _syntax(error))
        except (YAMLError, ValueError, OverflowError):  # PyYAML trusts numbers in \U and %YAML
            self.fault(at(loader.line, loader.column), (), "not YAML: a number is out of range")
        else:
            if node is None:
                self.fault(at(0, 0), (), "is empty; write a value")
            return node
        return None

    def _convert(self, node: Node, loc: Loc, at: At) -> Data:
        place = at(node.start_mark.line, node.start_mark.column)
        self.values[loc] = place
        match node:
            case MappingNode(tag="tag:yaml.org,2002:map"):
                return self._mapping(node, loc, at)
            case SequenceNode(tag="tag:yaml.org,2002:seq"):
                return [self._convert(item, (*loc, i), at) for i, item in enumerate(node.value)]
            case ScalarNode() if node.tag in NUMBERS and loc[:-1] in self.words:
                return str(node.value)
            case ScalarNode() if node.tag in SCALARS:
                try:
                    return SCALARS[node.tag](node.value)
                except (ValueError, KeyError):
                    kind = node.tag.removeprefix(TAG)
                    self.fault(place, loc, f"cannot be read as {kind}: {show(node.value)}")
            case _:
                self.fault(place, loc, f"tag {show(node.tag)} has no meaning here; remove it")
        return None

    def _mapping(self, node: MappingNode, loc: Loc, at: At) -> Data:
        mapping: dict[str, Data] = {}
        for key, value in node.value:
            place = at(key.start_mark.line, key.start_mark.column)
            if not isinstance(key, ScalarNode) or _unwritable(key.value):
                self.fault(place, loc, "a key must be a plain word")
                continue
            name = str(key.value)
            if name in mapping:
                first = self.keys[(*loc, name)]
                line = f" on line {first.line}" if first.line else ""
                self.fault(place, (*loc, name), f"given twice (first{line}); remove one")
                continue
            self.keys[(*loc, name)] = place
            mapping[name] = self._convert(value, (*loc, name), at)
        return mapping

    def _set(self, path: Sequence[str], node: Node, place: Place) -> None:
        holder = self._enter(path[:-1], place)
        if holder is None:
            return
        loc = tuple(path)
        self._forget(loc)
        self.keys[loc] = place
        holder[path[-1]] = value = self._convert(node, loc, lambda _line, _column: place)
        twin = (*loc[:-1], other_unit(path[-1]))
        if value is not None and twin in self.keys and self.keys[twin].line:
            self._forget(twin)
            del holder[twin[-1]]

    def _forget(self, loc: Loc) -> None:
        for places in (self.keys, self.values):
            for inner in [known for known in places if known[: len(loc)] == loc]:
                del places[inner]

    def _enter(self, path: Sequence[str], place: Place) -> dict[str, Data] | None:
        assert isinstance(self.data, dict), "only a mapping takes overrides"
        holder = self.data
        for depth, name in enumerate(path, start=1):
            loc = tuple(path[:depth])
            child = holder.get(name)
            if child is None:
                child = holder[name] = {}
                self.keys[loc] = self.values[loc] = place
            if not isinstance(child, dict):
                whole = dotted(loc)
                self.fault(place, (), f"{whole} is no mapping; set all of it: {whole}=...")
                return None
            holder = child
        return holder


class _Resolver(BaseResolver):
    """Which kind of scalar an unquoted word is (YAML 1.2, chapter 10.3)."""


class _Loader(Reader, Scanner, Parser, Composer, _Resolver):
    """PyYAML up to its tree of nodes, which still knows its places."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        _Resolver.__init__(self)
        self.depth = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        event = cast("Event", self.peek_event())
        if isinstance(event, AliasEvent):
            problem = "aliases are not allowed, write the value out"
            raise ComposerError(None, None, problem, event.start_mark)
        if self.depth > DEEPEST:
            raise ComposerError(None, None, "nested too deeply", event.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


_Resolver.add_implicit_resolver(f"{TAG}null", re.compile(r"(null|Null|NULL|~|)$"), [*"nN~", ""])
_Resolver.add_implicit_resolver(
    f"{TAG}bool", re.compile(r"(true|True|TRUE|false|False|FALSE)$"), [*"tTfF"]
)
_Resolver.add_implicit_resolver(f"{TAG}int", INTEGER, [*"-+0123456789"])
_Resolver.add_implicit_resolver(f"{TAG}float", FLOAT, [*"-+.0123456789"])


def _integer(word: str) -> int:
    return int(word, 0 if word[:2] in {"0o", "0x"} else 10)


def _unwritable(word: str) -> bool:
    """Whether `word` has half of a surrogate pair (from an escape), which is no text."""
    return any("\ud800" <= character <= "\udfff" for character in word)


def _text(word: str) -> str:
    if _unwritable(word):
        raise ValueError("half a surrogate pair")
    return word


SCALARS: dict[str, Callable[[str], Data]] = {
    f"{TAG}null": lambda _: None,
    f"{TAG}bool": lambda word: {"true": True, "false": False}[word.lower()],
    f"{TAG}int": _integer,
    f"{TAG}float": float,
    f"{TAG}str": _text,
}


def dotted(loc: Loc) -> str:
    """`('train', 'epochs')` as a person writes it: train.epochs."""
    return ".".join(str(e) if re.fullmatch(r"[\w-]+", str(e)) else repr(e) for e in loc)


def other_unit(name: str) -> str:
    """The name of the same duration in the other unit: `warmup_steps` for `warmup_epochs`."""
    if name.endswith("epochs"):
        return name.removesuffix("epochs") + "steps"
    return name.removesuffix("steps") + "epochs" if name.endswith("steps") else name


def show(word: str, longest: int = 120) -> str:
    """`word` on one line and in printable characters, cut if it is long."""
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in word)
    return line if len(line) <= longest else f"{line[:longest]}..."


def _syntax(error: MarkedYAMLError) -> str:
    problem = show(error.problem or "cannot be parsed")
    start = error.context_mark
    begun = f" begun on line {start.line + 1}" if start and error.problem_mark else ""
    context = f"{show(error.context)}{begun}, " if error.context else ""
    remedy = "; indent with spaces, not tabs" if "'\\t'" in problem else ""
    return f"not YAML: {context}{problem}{remedy}"
