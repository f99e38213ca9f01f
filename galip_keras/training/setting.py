"""What is known of a setting besides its name, type and default."""

from __future__ import annotations

import dataclasses
import math
from typing import Any


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is known of a field besides its name, type and default.

    Attributes:
        help: string. What the setting does.
        least: number. The least value that is allowed, or None.
        above: number. What the value must be greater than, or None.
        most: number. The greatest value that is allowed, or None.
        choices: tuple of strings. The only values that are allowed, or empty.
        unit: string. What stands for a value in a help text, or empty.
        unset: string. What None stands for, or empty.
        is_fixed: bool. Whether a resumed run must have the value it began with.
    """

    help: str
    least: float | None = None
    above: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()
    unit: str = ""
    unset: str = ""
    is_fixed: bool = False

    @property
    def is_bounded(self) -> bool:
        """Whether the values are numbers that have a least one."""
        return self.least is not None or self.above is not None

    def check(self, name: str, value: Any) -> None:
        """Raise a ValueError where a value is not allowed."""
        if value is None:
            return
        if self.choices:
            values = {value} if isinstance(value, str) else set(value)
            if not values <= set(self.choices):
                raise ValueError(f"{name} must be one of {', '.join(self.choices)}")
        elif self.is_bounded and not abs(value) < math.inf:
            raise ValueError(f"{name} must be finite, not {value}")
        elif self.least is not None and value < self.least:
            raise ValueError(f"{name} must be at least {self.least}, not {value}")
        elif self.above is not None and value <= self.above:
            raise ValueError(f"{name} must be more than {self.above}, not {value}")
        if self.most is not None and value > self.most:
            raise ValueError(f"{name} must be at most {self.most}, not {value}")


def setting(default: Any, help: str, *, unset: str = "", **details: Any) -> Any:
    """A field of a dataclass that is a setting.

    Args:
        default: the value of the field, or `dataclasses.MISSING` if it is required.
        help: string. As for `Setting`.
        unset: string. As for `Setting`.
        **details: the other attributes of `Setting`.

    Returns:
        A `dataclasses.Field` with the `Setting` in its metadata.
    """
    metadata = {"setting": Setting(help, unset=unset, **details)}
    return dataclasses.field(default=default, metadata=metadata)
