"""The labels of rows as they stream in: a name, a list, or 0 and 1 for each class; markers of unlabeled rows."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from nlp_ssl.data.cleaning import clean_name
from nlp_ssl.data.columns import SourcePart, declared_classes
from nlp_ssl.data.label_sets import (
    Flags,
    LabelSet,
    bare,
    check_class_names,
    column_flags,
    is_list,
    label_set,
    list_flags,
    may_be_flags,
    of_flags,
    one_of_flags,
)
from nlp_ssl.data.markers import Markers, stripped
from nlp_ssl.errors import DataError, shown_all


@dataclass(frozen=True)
class RowLabels:
    """The labels of all rows [N].

    Attributes:
        single: class names, None where a row has no label; None as a whole without labels, or where rows have several.
        sets: the labels of rows that have several; None as a whole otherwise.
        markers: what marks rows as unlabeled; None as a whole without any.
        column: the label column, or the columns with commas between them; None where there is none.
        classes: class names that were given or declared; None without.
        notes: on markers, and on names that look like them.
    """

    single: list[str | None] | None
    sets: list[LabelSet | None] | None
    markers: list[str | None] | None
    column: str | None
    classes: tuple[str, ...] | None
    notes: tuple[str, ...]


class LabelReader:
    """Reads the labels of one row after the other, and in the end decides what only the whole column can say.

    Args:
        markers: what marks rows as unlabeled.
        separator: between the labels of a cell, where rows may have several.
        lists: whether cells may be lists of labels.
        class_names: of the columns or lists of 0 and 1.

    Raises:
        ConfigError: the class names cannot be such.
    """

    def __init__(
        self,
        markers: Markers,
        *,
        separator: str | None = None,
        lists: bool = False,
        class_names: Sequence[str] | None = None,
    ) -> None:
        self.rule, self.markers = markers, markers.names
        self.separator, self.lists = separator, lists
        self.class_names = check_class_names(class_names, clean_name)
        self.rows = 0
        self.labels: list[str | None] = []
        self.sets: list[LabelSet | None] = []  # empty, or one for each row
        self.marked: dict[int, str] = {}  # by row
        self.names: Counter[str] = Counter()
        self.declared: dict[str, None] = {}  # class names of the parts
        self.column: str | None = None
        self.flag_columns: list[str] = []  # where each label has a column of its own
        self.undecided: dict[int, tuple[str, Flags]] = {}  # place and list of a row: flags, or the names "0" and "1"
        self.has_name_lists = False  # there are lists that must be names
        self.has_word_flags = False  # there are lists of the words 0 and 1 that say of nothing
        self.has_singles = False

    def begin(self, part: SourcePart, columns: list[str]) -> list[str]:
        """The label columns of a part in the order in which their cells are to be given.

        Raises:
            DataError: its class names, or the columns of 0 and 1, are not usable.
        """
        if columns and self.column is None:
            self.column = ",".join(map(stripped, columns))
        self.declared |= dict.fromkeys(name for column in columns for name in declared_classes(part, column))
        self.flag_columns = self._align_flag_columns(part.place, columns) if len(columns) > 1 else []
        return self.flag_columns or columns

    def add(self, value: object, place: str) -> None:
        """Reads the label of the next row: a cell, the cells of all its columns, or None where nothing is known.

        Raises:
            DataError: it is no label.
        """
        try:
            self._keep(self._label_of(value, place))
        except TypeError as error:
            raise DataError(115, f"{place}: {error}: give each text one label") from None
        except ValueError as error:
            raise DataError(197, f"{place}: {error}") from None
        self.rows += 1

    def finish(self, source: str) -> RowLabels:
        """The labels of all rows.

        Raises:
            DataError: -1 may be a class, or labels are rows of 0 and 1 whose names are unknown.
        """
        self._decide(source)
        self.rule.check(source, self.marked.values(), self.names)
        classes = self.class_names or tuple(self.declared) or None
        known = {*self.declared, *(self.class_names or ())}
        multilabel = self.separator is not None or bool(self.sets)
        return RowLabels(
            single=self.labels if self.column is not None and not multilabel else None,
            sets=self._pad_sets() if self.column is not None and multilabel else None,
            markers=[self.marked.get(row) for row in range(self.rows)] if self.marked else None,
            column=self.column,
            classes=classes,
            notes=tuple(self.rule.notes(Counter(self.marked.values()), self.names, known)),
        )

    def _align_flag_columns(self, place: str, columns: list[str]) -> list[str]:
        """Columns that each hold 0 and 1 for a label of their own, in the order of the class names, perhaps their own.

        Raises:
            DataError: some of them are called as other classes are, so that their places tell nothing.
        """
        names = check_class_names(columns, clean_name) or ()
        if self.class_names is None:
            self.class_names = names
        if set(names) == set(self.class_names):
            return [columns[names.index(name)] for name in self.class_names]
        if set(names) & set(self.class_names) or len(names) != len(self.class_names):
            raise DataError(
                126,
                f"{place}: columns {shown_all(columns)} for the labels {shown_all(self.class_names)}: "
                "name a column for each label",
            )
        return columns

    def _label_of(self, value: object, place: str) -> str | LabelSet | None:
        """The label, or the labels, of a row; None where nothing is known of it."""
        if value is None:
            return None
        multilabel = self.lists or self.separator is not None
        if self.flag_columns:
            cells = cast("Sequence[object]", value)
            return self._flagged(column_flags(cells, self.flag_columns, clean_name), multilabel)
        if (flags := list_flags(value)) is not None:
            if multilabel and (self.class_names is None or {"0", "1"} <= set(self.class_names)):
                self.undecided[self.rows] = place, flags
                return ()
            if self.class_names is not None:
                return self._flagged(flags, multilabel)
        if multilabel and is_list(value):
            names = label_set(list(cast("Sequence[object]", value)), clean_name)
            says_nothing = may_be_flags(names) and self.class_names is None and not self.declared
            self.has_word_flags |= says_nothing
            self.has_name_lists |= not says_nothing
            return self._unless_marked(names)
        name = clean_name(value)
        if self.separator is not None and name is not None:
            self.has_name_lists = True
            parts = name.split(self.separator)
            return self._unless_marked(label_set([part for part in parts if stripped(part)], clean_name))
        return None if name is None or self._is_marker(name) else name

    def _flagged(self, flags: Flags, multilabel: bool) -> str | LabelSet | None:
        """The class names that numbers 0 and 1 say apply; None where nothing is known."""
        names = self.class_names or ()
        if len(flags) != len(names):
            raise ValueError(f"{len(flags)} numbers 0 and 1, where there are {len(names)} class names")
        if max(flags) < 0:
            return None
        return of_flags(flags, names) if multilabel else one_of_flags(flags, names)

    def _decide(self, source: str) -> None:
        """Settles for the column as a whole whether lists of 0 and 1 are flags, or name the classes "0" and "1".

        Raises:
            DataError: they are flags that do not say of what, or they are both.
        """
        lists = [flags for _, flags in self.undecided.values()]
        widths = {len(flags) for flags in lists}
        if self.class_names is None:
            no_names = any(len(set(flags)) < len(flags) or min(flags) < 0 for flags in lists)
            alike = len(widths | {2} if self.has_word_flags else widths) == 1
            if no_names or (alike and not self.has_name_lists):
                raise DataError(
                    125,
                    f"{source}: labels are rows of 0 and 1 that do not say of what: give --class-names (in Python "
                    "class_names=), or write the names of the labels that apply",
                )
        are_flags = self.class_names is not None and widths == {len(self.class_names)} and not self.has_name_lists
        for row, (place, flags) in self.undecided.items():
            try:
                names = self._flagged(flags, True) if are_flags else self._unless_marked(label_set(flags, clean_name))
            except ValueError as error:
                raise DataError(197, f"{place}: {error}") from None
            self.sets[row] = cast("LabelSet | None", names)
            self.names.update(map(bare, self.sets[row] or ()))

    def _unless_marked(self, names: LabelSet) -> LabelSet | None:
        """The labels of a row; None where a marker says that they are not known.

        Raises:
            ValueError: it stands beside labels.
        """
        if len(names) == 1 and self._is_marker(names[0]):
            return None
        marker = next((name for name in map(bare, names) if name in self.markers - self.declared.keys()), None)
        if marker is not None:
            raise ValueError(f"{marker!r} marks an unlabeled row and stands beside labels: take it or them out")
        return names

    def _is_marker(self, name: str) -> bool:
        """Whether the row to come is marked as unlabeled, which is noted."""
        sure = name not in self.declared or name == self.rule.other or self.rule.minus_one_decided
        marked = name in self.markers and sure
        if marked:
            self.marked[self.rows] = name
        return marked

    def _keep(self, label: str | LabelSet | None) -> None:
        if isinstance(label, tuple):
            if self.has_singles:
                raise ValueError("a list of labels, where rows before have a single one: make all of them lists")
            self.names.update(map(bare, label))
            self._pad_sets().append(label)
        elif label is not None:
            if self.sets:
                raise ValueError(f"the single label {label!r}, where rows before have lists: make all of them lists")
            self.has_singles = True
            self.names[label] += 1
        self.labels.append(label if isinstance(label, str) else None)

    def _pad_sets(self) -> list[LabelSet | None]:
        """The label sets, None for the rows since the last one that had some."""
        self.sets += [None] * (self.rows - len(self.sets))
        return self.sets
