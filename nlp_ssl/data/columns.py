"""What can be read as rows, and which of its columns hold the texts, the labels and the splits."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from nlp_ssl.data.cleaning import clean_name
from nlp_ssl.data.markers import stripped
from nlp_ssl.errors import DataError, nearest, shown_all

TEXT_COLUMNS = (
    "text",
    "sentence",
    "review",
    "content",
    "tweet",
    "document",
    "body",
    "message",
    "comment",
    "description",
)
LABEL_COLUMNS = ("label", "labels", "class", "category", "target", "sentiment")
SPLIT_NAMES = {
    "training": "train",
    "val": "dev",
    "valid": "dev",
    "validation": "dev",
    "testing": "test",
    "unlabelled": "unlabeled",
    "unsup": "unlabeled",
    "unsupervised": "unlabeled",
}

Row = tuple[int, tuple[object, ...]]


@dataclass(frozen=True)
class SourcePart:
    """One readable piece of a source, such as a file.

    Attributes:
        place: what messages call it.
        columns: names of its columns; the same one may stand there twice.
        rows: for names of columns a stream of (row number, their values).
        split: the split of all its rows; None where they say it themselves, or there is none.
        has_names: whether one can ask for a column by name; lines of plain text have none.
        classes: the class names of columns that hold their numbers.
    """

    place: str
    columns: Sequence[str]
    rows: Callable[[Sequence[str]], Iterator[Row]]
    split: str | None = None
    has_names: bool = True
    classes: Mapping[str, list[str]] = field(default_factory=dict)

    def read(self, names: Sequence[str]) -> Iterator[Row]:
        """The values of the named columns, row by row.

        Raises:
            DataError: there are two columns of one of these names.
        """
        for name in names:
            if self.columns.count(name) > 1:
                raise DataError(109, f"{self.place}: column {name!r} occurs more than once: rename one of them")
        return self.rows(names)


def memory_part(columns: Mapping[str, Sequence[object]], place: str) -> SourcePart:
    """Columns in memory, by name."""

    def rows(names: Sequence[str]) -> Iterator[Row]:
        yield from enumerate(zip(*(columns[name] for name in names), strict=True), 1)

    return SourcePart(place, list(columns), rows)


def matching_columns(part: SourcePart, asked: str | None, usual: Sequence[str]) -> list[str]:
    """The columns that may hold what is wanted, best first; a column asked for by name must be there."""
    if asked is None:
        by_name: dict[str, str] = {}
        for column in part.columns:  # of several that differ in case or spaces the exact one, else the first
            name = stripped(column).lower()
            by_name[name] = column if column == name else by_name.get(name, column)
        return [by_name[name] for name in usual if name in by_name]
    if not (columns := column_named(part, asked)):
        raise DataError(
            108, f"{part.place}: no column {asked!r} among {shown_all(part.columns)}.{nearest(asked, part.columns)}"
        )
    return columns


def column_named(part: SourcePart, name: str) -> list[str]:
    """The column of this name, whatever surrounds it; nothing where there is none."""
    same = [column for column in part.columns if stripped(column) == stripped(name)]
    return [name] if name in part.columns else same[:1]


def text_columns(part: SourcePart, asked: str | None) -> list[str]:
    """The columns that may hold the texts, best first.

    Raises:
        DataError: there is none.
    """
    columns = matching_columns(part, asked if part.has_names else None, TEXT_COLUMNS)
    if not columns:
        raise DataError(
            108, f"{part.place}: no text column among {shown_all(part.columns)}: name it with --text-column"
        )
    return columns


def second_text_column(part: SourcePart, asked: str, text: str) -> str:
    """The column of the second texts.

    Raises:
        DataError: it is missing, or that of the first texts.
    """
    (column,) = matching_columns(part, asked, ())
    if column == text:
        raise DataError(149, f"{part.place}: {text!r} holds both texts of a pair: name two columns, --text-column too")
    return column


def candidate_label_columns(part: SourcePart, asked: str | None, usual: Sequence[str]) -> list[list[str]]:
    """The columns that may hold the labels, best first; names with commas between them are a column for each label."""
    if asked is None:
        candidates = []
        for name in (stripped(name).lower() for name in usual):
            several = name.split(",")
            columns = matching_columns(part, None, [name]) or matching_columns(part, None, several)
            if len(columns) in (1, len(several)):
                candidates.append(columns)
        return candidates
    each = [] if column_named(part, asked) else [column_named(part, name) for name in asked.split(",")]
    if len(each) > 1 and all(each):
        return [[column for columns in each for column in columns]]
    return [matching_columns(part, asked, ())]


def declared_classes(part: SourcePart, label: str | None) -> list[str]:
    """The class names of a label column as its rows will have them, in the order of their numbers.

    Raises:
        DataError: one is blank, or two of them would be one.
    """
    names = []
    for number, name in enumerate(part.classes.get(label or "", ())):
        if (cleaned := clean_name(name)) is None:
            raise DataError(136, f"{part.place}: class name {number} is blank: give it a name")
        names.append(cleaned)
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise DataError(136, f"{part.place}: two of its class names read {twice[0]!r}: rename one")
    return names


def split_name(value: object) -> str:
    """The one name of a split: "Validation" -> "dev", missing -> "train"."""
    name = "train" if value is None else str(value).strip().lower()
    return SPLIT_NAMES.get(name, name)
