"""Objects that a model returns, where their classes are not at hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Record(dict[str, Any]):
    """The fields of an object, by name: `record["logits"]`, `record.logits`, and `record[0]`.

    `class_name` is that of the object which the model returned. As in the outputs of transformers'
    models, a field that is None has an attribute, but is neither an item nor counted.
    """

    def __init__(self, class_name: str, fields: Mapping[str, Any]) -> None:
        super().__init__({name: value for name, value in fields.items() if value is not None})
        self.class_name = class_name
        self._fields = dict(fields)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - a field
        fields: dict[str, Any] = self.__dict__.get("_fields", {})
        if name not in fields:
            known = ", ".join(fields)
            raise AttributeError(f"{self.__dict__.get('class_name')} has no {name!r}, but {known}")
        return fields[name]

    def __getitem__(self, key: str | int | slice) -> Any:  # noqa: ANN401 - a field
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def to_tuple(self) -> tuple[Any, ...]:
        """The fields that are not None."""
        return tuple(self.values())

    def __repr__(self) -> str:
        return f"{self.class_name}({', '.join(f'{k}={v!r}' for k, v in self._fields.items())})"
