"""Protocols: which of the predicted classes published tables report, in which columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fcnseg.errors import InputError
from fcnseg.label_spaces import get_label_space
from fcnseg.labels import LabelSpace


@dataclass(frozen=True)
class Protocol:
    """How a table of results is made from the predictions of one network.

    Attributes:
        name: what it is called.
        source: where it is published.
        predicted: name of the label space that is predicted, and labelled, in which errors count.
        columns: for each mean IoU of the table, such as "mIoU" and "mIoU*", the names of the classes that it is the
            mean of. The first column is what the other scores are over too.

    Raises:
        InputError: for an unknown label space, a column without classes, or a class that is not predicted.
    """

    name: str
    source: str
    predicted: str
    columns: Mapping[str, Sequence[str]]

    def __post_init__(self) -> None:
        space = get_label_space(self.predicted)
        if not isinstance(self.columns, Mapping) or not self.columns:
            raise InputError(f"protocol {self.name}: expected columns such as {{mIoU: [road, sidewalk]}}")
        for column, classes in self.columns.items():
            if isinstance(classes, str) or not classes:
                raise InputError(f"protocol {self.name}, {column}: expected a list of class names")
            if unknown := [name for name in classes if name not in space.classes]:
                expected = ", ".join(space.classes)
                raise InputError(
                    f"protocol {self.name}, {column}: no class {unknown[0]!r}; expected some of {expected}"
                )

    def reported(self, space: LabelSpace) -> dict[str, tuple[int, ...]]:
        """The indices of each column's classes in a label space, which must have those that are predicted.

        Raises:
            InputError: when it has others.
        """
        expected = get_label_space(self.predicted)
        if space.classes != expected.classes:
            raise InputError(
                f"protocol {self.name}: scores predictions of the {expected.num_classes} classes of {self.predicted}; "
                f"the data has {space.num_classes}: {', '.join(space.classes)}"
            )
        return {
            str(column): tuple(space.classes.index(name) for name in classes)
            for column, classes in self.columns.items()
        }
