"""What help, docstrings and docs show of a method: its fields from their annotations, the rest from its docstring."""

import dataclasses
import re
import textwrap
import types
from collections.abc import Mapping
from dataclasses import dataclass
from inspect import cleandoc
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from nlp_ssl.utils.ranges import Range, field_types

C = TypeVar("C", bound=type[Any])
_WIDTH = 116  # of a docstring's lines, which stand four columns in
_NO_LIMIT = 1e6  # a range that goes this far is there against slips alone
_HEADING = re.compile(r"^(Loss|Args|Differs from [^:\n]+|Example):[ ]*\n?", re.MULTILINE)
_FIRST_LINE = re.compile(r"(?P<title>[^(]+) \((?P<reference>.+?)\): (?P<summary>.+)")


@dataclass(frozen=True)
class FieldInfo:
    """A field of a dataclass of settings."""

    name: str
    type: str  # "float", "int", "bool", "str" or as it is annotated
    default: Any  # dataclasses.MISSING where there is none
    image_default: Any  # equal to `default` where images have no other
    range: tuple[float, float] | None
    choices: tuple[str, ...]  # all values of a field that takes one of a few words
    sentence: str  # empty where the annotation has none

    def line(self) -> str:
        """The field as it stands below `Args:`."""
        about = " or ".join(filter(None, [", ".join(self.choices[:-1]), *self.choices[-1:]])) or self.type
        if self.range is not None:
            low, high = self.range
            about += f" of at least {low:g}" if high >= _NO_LIMIT else f" in [{low:g}, {high:g}]"
        if self.default is not dataclasses.MISSING:
            about += f", default {self.default}"
        if self.image_default != self.default:
            about += f", for images {self.image_default}"
        return f"{self.name} ({about}): {self.sentence}"


@dataclass(frozen=True)
class MethodInfo:
    """A method as help and docs show it; parts that its docstring does not have are empty."""

    name: str  # in the registry
    class_name: str
    title: str
    summary: str
    reference: str  # authors year, arXiv id
    loss: str
    fields: tuple[FieldInfo, ...]
    differences: str  # from the paper
    example: str  # lines of Python


def describe_fields(cls: type[Any], images: Mapping[str, Any] | None = None) -> tuple[FieldInfo, ...]:
    """The fields of a dataclass, with the sentence and the range that their annotations hold.

    Args:
        cls: the dataclass.
        images: defaults that suit images better.
    """
    hints = field_types(cls)
    infos = []
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        kind, *notes = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        limits = next((note for note in notes if isinstance(note, Range)), None)
        infos.append(
            FieldInfo(
                name=field.name,
                type=_type_name(kind),
                default=default,
                image_default=(images or {}).get(field.name, default),
                range=None if limits is None else (limits.low, limits.high),
                choices=tuple(map(str, get_args(kind))) if get_origin(kind) is Literal else (),
                sentence=next((note for note in notes if isinstance(note, str)), ""),
            )
        )
    return tuple(infos)


def describe_method(cls: type[Any]) -> MethodInfo:
    """A method or a method in rounds, taken apart."""
    first, sections = _sections(cls)
    parts = _FIRST_LINE.fullmatch(first)
    return MethodInfo(
        name=cls.name,
        class_name=cls.__name__,
        title=parts["title"] if parts else cls.__name__,
        summary=parts["summary"] if parts else first,
        reference=parts["reference"] if parts else "",
        loss=_joined(sections.get("Loss", "")),
        fields=describe_fields(cls, cls.images),
        differences=_joined(next((text for title, text in sections.items() if title.startswith("Differs")), "")),
        example=textwrap.dedent(sections.get("Example", "")).strip(),
    )


def documented(cls: C, images: Mapping[str, Any] | None = None) -> C:
    """Class decorator for a dataclass: its docstring lists all fields below `Args:`, before differences and example.

    The sentence of a field is written once, in its annotation. A docstring that has its own `Args:` stays as it is.

    Args:
        cls: the dataclass.
        images: defaults that suit images better.
    """
    doc = cleandoc(cls.__doc__ or "")
    headings = {match[1]: match.start() for match in _HEADING.finditer(doc)}
    if "Args" in headings:
        return cls
    infos = describe_fields(cls, images)
    lines = [textwrap.fill(info.line(), _WIDTH, initial_indent=" " * 4, subsequent_indent=" " * 8) for info in infos]
    after = min((at for title, at in headings.items() if title != "Loss"), default=len(doc))
    parts = [doc[:after].rstrip(), "\n".join(["Args:", *lines]) if lines else "", doc[after:]]
    cls.__doc__ = "\n\n".join(filter(None, parts))
    return cls


def _sections(cls: type[Any]) -> tuple[str, dict[str, str]]:
    """The first paragraph of a docstring, and the text below each of its headings."""
    before, *rest = _HEADING.split(cleandoc(cls.__doc__ or ""))
    return before.split("\n\n")[0].replace("\n", " "), dict(zip(rest[::2], rest[1::2], strict=True))


def _joined(text: str) -> str:
    """Each paragraph on one line."""
    return "\n".join(" ".join(paragraph.split()) for paragraph in text.strip().split("\n\n"))


def _type_name(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "str"
    if get_origin(kind) in (types.UnionType, Union) or not isinstance(kind, type):
        return str(kind)
    return kind.__name__
