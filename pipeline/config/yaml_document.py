"""YAML as plain data that remembers where each key and value was written.

Scalars follow YAML 1.2, as in editors: `1e-4` is a number and `off` is a word. PyYAML alone reads
YAML 1.1, where they are a word and false. Aliases are refused: a recipe writes each value out.
"""

import re
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from yaml import SafeLoader
from yaml.error import Mark, MarkedYAMLError
from yaml.events import AliasEvent, Event
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.reader import ReaderError

from pipeline.config.renamed import former_name, present_name
from pipeline.system.secrets import hide_secrets

Data: TypeAlias = "dict[str, Data] | list[Data] | str | int | float | bool | None"
Loc = tuple[str | int, ...]
"""The keys and list positions that lead to a value."""

COMMAND_LINE = "command line: "
DEEPEST = 20
TAG = "tag:yaml.org,2002:"
NUMBERS = {f"{TAG}int", f"{TAG}float"}
SCALARS = {f"{TAG}null", f"{TAG}bool", f"{TAG}str", *NUMBERS}
INTEGER = re.compile(r"[-+]?[0-9]+$|0o[0-7]+$|0x[0-9a-fA-F]+$")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$")
HALF_CHARACTER = re.compile("[\ud800-\udfff]")
"""Half of a surrogate pair, which an escape can produce: it is not text."""
AS_WRITTEN: Loc = ("env",)
"""The mapping in which numbers stay text, exactly as written: 1.10 and 08."""


@dataclass(frozen=True, slots=True)
class Place:
    """A line and column (from 1) of a file, or an override on the command line (line 0)."""

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
        name = dotted(self.loc)
        named = not name or self.place.source.startswith(f"{COMMAND_LINE}{name}=")
        return f"{self.place}: {self.text}" if named else f"{self.place}: {name}: {self.text}"


class Document:
    """Plain data read from YAML, the place of each key and value, and the faults found on the way.

    A key that is given twice and a value that cannot be read are faults, and reading continues;
    after a syntax error the data is missing.
    """

    def __init__(self, text: str, file: str) -> None:
        self.faults: list[Fault] = []
        self.keys: dict[Loc, Place] = {}
        self.values: dict[Loc, Place] = {}
        self.overridden: dict[Loc, list[str]] = {}
        """Each override, under its present name, and the name that was written."""
        node = self._compose(text, file)
        self.data: Data = self._convert(node, ()) if node else None

    def override(self, argument: str) -> None:
        """Set one value from `a.b=YAML`, making mappings on the way as needed.

        A duration replaces the file's in the other unit: train.steps=9 unsets train.epochs.
        """
        place = Place(COMMAND_LINE + show(argument))
        key, _, text = argument.partition("=")
        path, written = tuple[str, ...](), key.strip().split(".")
        for name in written:
            path = (*path, present_name(path, name))
        if not all(written) or "=" not in argument:
            self.fault(place, (), "is not KEY=VALUE, such as train.epochs=90")
        elif not text.strip():
            self.fault(place, (), f"has no value; to unset it write {key}=null")
        elif self.overridden.setdefault(path, written) != written:
            self._given_twice(place, path, 0)
        elif node := self._compose(text, place.source):
            self._set(path, node, place)

    def overrides_within(self, loc: Loc) -> list[str]:
        """Return the overrides that set something in the mapping at `loc`."""
        places = (place for inner, place in self.values.items() if inner[: len(loc)] == loc)
        sources = dict.fromkeys(place.source for place in places if not place.line)
        return [source.removeprefix(COMMAND_LINE) for source in sources]

    def mapping_at(self, loc: Loc) -> dict[str, Data]:
        """Return the mapping at `loc`; an empty one if something else is there."""
        found = self.data
        for key in loc:
            found = found.get(str(key)) if isinstance(found, dict) else None
        return found if isinstance(found, dict) else {}

    def is_from_file(self, loc: Loc) -> bool:
        """Whether the key at `loc` was written in the file, not on the command line."""
        return loc in self.keys and self.keys[loc].line > 0

    def keys_from_command_line(self) -> list[str]:
        """Return the keys that overrides have set, dotted, in the order of the command."""
        order = [loc for path in self.overridden for loc in self.values if loc[: len(path)] == path]
        return list(dict.fromkeys(dotted(loc) for loc in order))

    def remove(self, loc: Loc) -> None:
        """Remove a key and its value."""
        del self.mapping_at(loc[:-1])[str(loc[-1])]
        self._forget(loc)

    def fault(self, place: Place, loc: Loc, text: str) -> None:
        self.faults.append(Fault(place, loc, text))

    def _compose(self, text: str, source: str) -> Node | None:
        try:
            node = _Loader(text, source).get_single_node()
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            assert mark is not None, "PyYAML places every syntax error"
            self.fault(_place(mark), (), _syntax(error))
            return None
        if node is None:
            self.fault(_place(Mark(source, 0, 0, 0, None, 0)), (), "is empty; write a value")
        return node

    def _convert(self, node: Node, loc: Loc) -> Data:
        place = self.values[loc] = _place(node.start_mark)
        self.keys.setdefault(loc, place)  # list items and the document itself have no key
        match node:
            case MappingNode(tag="tag:yaml.org,2002:map"):
                return self._mapping(node, loc)
            case SequenceNode(tag="tag:yaml.org,2002:seq"):
                return [self._convert(item, (*loc, i)) for i, item in enumerate(node.value)]
            case ScalarNode() if node.tag in NUMBERS and loc[:-1] == AS_WRITTEN:
                return str(node.value)
            case ScalarNode() if node.tag in SCALARS:
                try:
                    return _scalar(node.tag, node.value)
                except (ValueError, KeyError):
                    kind = node.tag.removeprefix(TAG)
                    self.fault(place, loc, f"cannot be read as {kind}: {show(node.value)}")
            case _:
                self.fault(place, loc, f"tag {show(node.tag)} is not supported here; remove it")
        return None

    def _mapping(self, node: MappingNode, loc: Loc) -> Data:
        mapping: dict[str, Data] = {}
        for key, value in node.value:
            place = _place(key.start_mark)
            if not isinstance(key, ScalarNode) or HALF_CHARACTER.search(key.value):
                self.fault(place, loc, "a key must be a plain word")
                continue
            name = present_name(loc, str(key.value))
            if name in mapping:
                self._given_twice(place, (*loc, name), self.keys[*loc, name].line)
                continue
            self.keys[*loc, name] = place
            mapping[name] = self._convert(value, (*loc, name))
        return mapping

    def _given_twice(self, place: Place, loc: Loc, line: int) -> None:
        first = f" (first on line {line})" if line else ""
        former = former_name(loc[:-1], str(loc[-1]))
        hint = f" ({former} is its former name)" if former else ""
        self.fault(place, loc, f"given twice{first}; remove one{hint}")

    def _set(self, path: tuple[str, ...], node: Node, place: Place) -> None:
        assert isinstance(self.data, dict), "only a mapping takes overrides"
        holder = self.data
        for depth, name in enumerate(path[:-1], start=1):
            inner = holder.get(name)
            if inner is None:
                inner = holder[name] = {}
                self.keys[path[:depth]] = self.values[path[:depth]] = place
            if not isinstance(inner, dict):
                whole = dotted(path[:depth])
                self.fault(place, (), f"{whole} is not a mapping; set all of it: {whole}=...")
                return
            holder = inner
        self._forget(path)
        self.keys[path] = place
        value = holder[path[-1]] = self._convert(node, path)
        twin = (*path[:-1], _other_unit(path[-1]))
        if value is not None and twin in self.keys and self.keys[twin].line:
            self.remove(twin)

    def _forget(self, loc: Loc) -> None:
        for places in (self.keys, self.values):
            for inner in [known for known in places if known[: len(loc)] == loc]:
                del places[inner]


class _Loader(SafeLoader):
    """PyYAML up to its tree of nodes, which still knows its places."""

    depth = 0

    def __init__(self, text: str, source: str) -> None:
        try:
            super().__init__(text)
        except ReaderError as error:
            lines = text[: error.position].split("\n")
            mark = Mark(source, 0, len(lines) - 1, len(lines[-1]), None, 0)
            problem = f"character {show(text[error.position])} is not allowed"
            raise MarkedYAMLError(problem=problem, problem_mark=mark) from None
        self.name = source

    def get_single_node(self) -> Node | None:
        try:
            return super().get_single_node()
        except (ValueError, OverflowError):  # PyYAML trusts numbers in \U and %YAML
            mark = cast("Mark", self.get_mark())
            problem = "a number is out of range"
            raise MarkedYAMLError(problem=problem, problem_mark=mark) from None

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        event = cast("Event", self.peek_event())
        problem = "nested too deeply" if self.depth > DEEPEST else None
        if isinstance(event, AliasEvent):
            problem = "aliases are not allowed, write the value out"
        if problem:
            raise MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


_Loader.yaml_implicit_resolvers = {}  # YAML 1.1's rules; those of 1.2, chapter 10.3, follow
_Loader.add_implicit_resolver(f"{TAG}null", re.compile(r"(null|Null|NULL|~|)$"), [*"nN~", ""])
_Loader.add_implicit_resolver(
    f"{TAG}bool", re.compile(r"(true|True|TRUE|false|False|FALSE)$"), [*"tTfF"]
)
_Loader.add_implicit_resolver(f"{TAG}int", INTEGER, [*"-+0123456789"])
_Loader.add_implicit_resolver(f"{TAG}float", FLOAT, [*"-+.0123456789"])


def _place(mark: Mark) -> Place:
    """Return the place of a mark of PyYAML's, which counts lines and columns from 0."""
    if mark.name.startswith(COMMAND_LINE):
        return Place(mark.name)
    return Place(mark.name, mark.line + 1, mark.column + 1)


def _scalar(tag: str, word: str) -> Data:
    """Return the value of a scalar; raises `ValueError` or `KeyError` if its tag does not fit."""
    match tag.removeprefix(TAG):
        case "null":
            return None
        case "bool":
            return {"true": True, "false": False}[word.lower()]
        case "int":
            return int(word, 0 if word[:2] in {"0o", "0x"} else 10)
        case "float":
            return float(word)
        case _ if HALF_CHARACTER.search(word):
            raise ValueError("half a character")
        case _:
            return word


def dotted(loc: Loc) -> str:
    """Return `('train', 'epochs')` as a person writes it: train.epochs."""
    return ".".join(str(e) if re.fullmatch(r"[\w-]+", str(e)) else repr(e) for e in loc)


def show(word: str, longest: int = 120) -> str:
    """Return `word` on one line in printable characters, without passwords, shortened if long."""
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in hide_secrets(word))
    return line if len(line) <= longest else f"{line[:longest]}..."


def _other_unit(name: str) -> str:
    """Return the name of the same duration in the other unit: warmup_steps for warmup_epochs."""
    other = {"epochs": "steps", "steps": "epochs"}
    return re.sub(r"(epochs|steps)\Z", lambda unit: other[unit[0]], name)


def _syntax(error: MarkedYAMLError) -> str:
    problem = show(error.problem or "cannot be parsed")
    start = error.context_mark
    begun = f" that starts on line {start.line + 1}" if start and error.problem_mark else ""
    context = f"{show(error.context)}{begun}, " if error.context else ""
    remedy = "; indent with spaces, not tabs" if "'\\t'" in problem else ""
    return f"not YAML: {context}{problem}{remedy}"
