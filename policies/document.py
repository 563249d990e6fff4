"""A YAML document that remembers where everything stands, so that an error can name its line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import yaml

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_NODES = 200_000


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a policy file.

    Args:
        line: Line in the file, from 1.
        where: The field in dotted form; empty for the whole file.
        message: What is wrong and what would be right.
    """

    line: int
    where: str
    message: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.where}: {self.message}" if self.where else f"line {self.line}: {self.message}"


class PolicyFileError(Exception):
    """A policy file that cannot be put in force.

    Args:
        source: How the file is called.
        problems: All that is wrong with it, in the order of its lines.
    """

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = tuple(sorted(problems, key=lambda problem: problem.line))
        super().__init__("\n".join(f"{source}, {problem}" for problem in self.problems))


Path = tuple[str | int, ...]


class Document:
    """A parsed YAML mapping.

    Args:
        content: The file's bytes.
        source: How the file is called.

    Attributes:
        data: What it says, in plain Python values.

    Raises:
        PolicyFileError: It is not UTF-8, not YAML, not a mapping, too large, or names a key twice.
    """

    def __init__(self, content: bytes, source: str) -> None:
        self._source = source
        if len(content) > MAX_BYTES:
            raise PolicyFileError(source, [Problem(1, "", f"larger than {MAX_BYTES} bytes")])
        try:
            text = content.decode()
            bomb = _bomb(text)
            if bomb is not None:
                raise PolicyFileError(source, [bomb])
            root = yaml.compose(text, Loader=yaml.CSafeLoader)
            self.data = yaml.load(text, Loader=yaml.CSafeLoader)
        except UnicodeDecodeError as error:
            line = content[: error.start].count(b"\n") + 1
            raise PolicyFileError(source, [Problem(line, "", "not UTF-8 text")]) from error
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = min(mark.line + 1 if mark else 1, max(1, len(content.splitlines())))
            raise PolicyFileError(source, [Problem(line, "", f"not YAML: {error.problem or error.context}")]) from error
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise PolicyFileError(source, [Problem(1, "", f"not YAML: {error}")]) from error
        if not isinstance(root, yaml.MappingNode):
            raise PolicyFileError(source, [Problem(1, "", "empty, or not a mapping of sections")])
        self._root = root
        repeated = list(_repeated_keys(root, (), set()))
        if repeated:
            raise PolicyFileError(source, repeated)

    def problem(self, path: Path, message: str) -> Problem:
        """A problem at the field that `path` leads to, or at the nearest thing above it that exists."""
        node: yaml.Node = self._root
        line = 0
        for step in path:
            child = _child(node, step)
            if child is None:
                break
            line, node = child
        return Problem(line + 1, dotted(path), message)

    def error(self, problems: Sequence[Problem]) -> PolicyFileError:
        """The error that reports these problems."""
        return PolicyFileError(self._source, problems)


def _bomb(text: str) -> Problem | None:
    """What would take too much memory or stack to read: deep nesting, or aliases that multiply."""
    scale = _Scale()
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        objection = scale.weigh(event)
        if objection:
            mark = event.start_mark
            return Problem(mark.line + 1 if mark else 1, "", objection)
    return None


class _Scale:
    """Weighs a document event by event, which needs neither its memory nor its stack.

    An anchor weighs as much as everything under it, aliases spelt out.
    """

    def __init__(self) -> None:
        self._total = 0
        self._anchors: dict[str, int] = {}
        self._open: list[tuple[str | None, int]] = []

    def weigh(self, event: yaml.Event) -> str | None:
        """Adds an event. Returns what is too much, or None."""
        if isinstance(event, yaml.AliasEvent):
            if any(event.anchor == anchor for anchor, _ in self._open):
                return f"alias *{event.anchor} stands within what it stands for"
            self._total += self._anchors.get(event.anchor or "", 0)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._open.append((event.anchor, self._total))
            self._total += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = self._open.pop()
            if anchor is not None:
                self._anchors[anchor] = self._total - before
        elif isinstance(event, yaml.ScalarEvent):
            self._total += 1
            if event.anchor is not None:
                self._anchors[event.anchor] = 1
        if len(self._open) > MAX_DEPTH:
            return f"nested more than {MAX_DEPTH} deep"
        return f"more than {MAX_NODES} values, aliases spelt out" if self._total > MAX_NODES else None


def dotted(path: Path) -> str:
    """A path as people write it: `routes[0].policy`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def _child(node: yaml.Node, step: str | int) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(step):
                return key.start_mark.line, value
    elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step].start_mark.line, node.value[step]
    return None


def _repeated_keys(node: yaml.Node, path: Path, seen_nodes: set[int]) -> list[Problem]:
    if id(node) in seen_nodes:
        return []
    seen_nodes.add(id(node))
    problems: list[Problem] = []
    if isinstance(node, yaml.MappingNode):
        first_lines: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            name = str(key.value)
            if name in first_lines and name != "<<":
                problems.append(Problem(line, dotted((*path, name)), f"stands in line {first_lines[name]} already"))
            first_lines.setdefault(name, line)
            problems += _repeated_keys(value, (*path, name), seen_nodes)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            problems += _repeated_keys(value, (*path, index), seen_nodes)
    return problems
