"""How an option is declared: one typed field of a class of options, with all that is known of it.

    class Sizes(Options):
        image_size: Annotated[int | None, Ge(8), Option("Pixels a side.")] = None

The command line, the reader of configuration files, the reference and the schema are made from
these fields. A value that does not fit is an `OptionError`, wherever it came from.
"""

import dataclasses
import functools
import numbers
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from ckptsel.errors import UsageError, did_you_mean
from ckptsel.settings.wording import found, wanted

STRICT = ConfigDict(strict=True, allow_inf_nan=False)
"""A text is no number and true is not 1; what is not finite is no number either."""

T = TypeVar("T", bound="Options")


@dataclass(frozen=True)
class Option:
    """What a field says of its option besides type, bounds and default.

    help: what it does.
    flags: its names on the command line, by default `--` and the field's.
    default: what it comes to where the field's default is None, in words.
    example: a value, where the form of one is not plain.
    repeats: it may be given more than once; a text is then one value, whatever commas it holds.
    """

    help: str
    flags: tuple[str, ...] = ()
    default: str = ""
    example: str = ""
    repeats: bool = False


@dataclass(frozen=True)
class Argument(Option):
    """An option that is given on the command line by its place."""


class OptionError(UsageError):
    """A value of an option that does not fit, or options that do not fit each other.

    text: the message, with `{0}`, `{1}` for the options. names: their fields; `written_as` puts in
    their place how the user wrote them.
    """

    def __init__(self, text: str, *names: str) -> None:
        super().__init__(text.format(*names))
        self.text, self.names = text, names

    def written_as(self, written: Mapping[str, str]) -> "OptionError":
        return OptionError(self.text, *(written.get(name, name) for name in self.names))


@dataclass(frozen=True)
class Declared:
    """An option as its field declares it. hint: the field's type, bounds included."""

    name: str
    option: Option
    default: Any
    hint: Any

    @functools.cached_property
    def adapter(self) -> TypeAdapter[Any]:
        """Made where it is needed: a call needs its own command's, and there are a hundred."""
        return TypeAdapter(self.hint, config=STRICT)

    @functools.cached_property
    def schema(self) -> dict[str, Any]:
        """JSON Schema of a value that is given."""
        schema = self.adapter.json_schema()
        forms = [form for form in schema.get("anyOf", [schema]) if form.get("type") != "null"]
        return forms[0]

    @property
    def kind(self) -> str:
        """The JSON type of a value."""
        return str(self.schema["type"])

    @property
    def is_required(self) -> bool:
        return self.default is dataclasses.MISSING

    @property
    def flags(self) -> tuple[str, ...]:
        """Names on the command line, the long one first."""
        return self.option.flags or ("--" + self.name.replace("_", "-"),)

    @property
    def default_text(self) -> str:
        """What the option comes to where it is not given, in words; '' for nothing."""
        if self.option.default or self.is_required or self.default is None:
            return self.option.default
        if self.default is False:
            return ""
        if self.default is True:
            return self.flags[0].partition("/")[0].removeprefix("--")
        return str(self.default)

    def written(self, value: Any) -> str:
        """How the option is written on the command line."""
        if isinstance(self.option, Argument):
            return self.name.upper()
        on, _, off = self.flags[0].partition("/")
        return off if off and value is False else on

    def check(self, value: Any) -> Any:
        """The value in the field's own type. Raises OptionError where it does not fit."""
        try:
            return self.adapter.validate_python(self._plain(value))
        except ValidationError as error:
            raise OptionError(self._what_is_wrong(value, error), self.name) from None

    def parse(self, text: str) -> Any:
        """The value that a text of the command line stands for; the text where it stands for none.

        Raises OptionError for a list of numbers that is none.
        """
        try:
            if self.kind == "integer":
                return int(text)
            if self.kind == "number":
                return float(text)
            if self._is_numbers:
                number = int if self._item_kind == "integer" else float
                return tuple(number(part) for part in text.split(","))
        except ValueError:
            if self._is_numbers:
                said = f"{_literal(repr(text))} is not a list of numbers such as {self.option.example}."
                raise OptionError("{0} " + said, self.name) from None
        return text

    @property
    def _item_kind(self) -> str:
        """The JSON type of the members of a list; "" for anything else."""
        return str(self.schema["items"].get("type", "")) if self.kind == "array" else ""

    @property
    def _is_numbers(self) -> bool:
        return self._item_kind in ("integer", "number")

    def _plain(self, value: Any) -> Any:
        """Forms that mean the same: a path for its text, a list for a tuple, NumPy's numbers."""
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
        if self.schema.get("format") == "path":
            return Path(value) if isinstance(value, str) and value.strip() else value
        if self.kind == "array":
            if isinstance(value, str) and not self._is_numbers:
                value = [value] if self.option.repeats else [v.strip() for v in value.split(",")]
            return tuple(value) if isinstance(value, list) else value
        if isinstance(value, numbers.Integral) and not isinstance(value, bool):
            return int(value)
        if isinstance(value, numbers.Real) and not isinstance(value, bool | int):
            return float(value)
        return value

    def _what_is_wrong(self, value: Any, error: ValidationError) -> str:
        schema, first = self.schema, error.errors()[0]
        if first["loc"] and "enum" in schema["items"]:
            schema, value = schema["items"], first["input"]
        is_names = self.kind == "array" and not self._is_numbers
        said = f"{found(value, 'string' if is_names else self.kind)}; {wanted(schema)}"
        if isinstance(value, str) and self.kind in ("integer", "number", "boolean"):
            said += ", without quotes" if not isinstance(self._unquoted(value), str) else ""
        if isinstance(value, str) and self._is_numbers:
            said += f", as the list [{self.option.example}]"
        near = did_you_mean(str(value), schema["enum"]) if "enum" in schema else ""
        return "{0} is " + _literal(f"{said}.{near}")

    def _unquoted(self, text: str) -> Any:
        return text in ("true", "false") or text if self.kind == "boolean" else self.parse(text)


def _literal(text: str) -> str:
    """For a text that `str.format` gets: its braces stay."""
    return text.replace("{", "{{").replace("}", "}}")


@dataclass(frozen=True)
class Options:
    """Base of the classes of options: frozen dataclasses whose values are checked when made."""

    def __post_init__(self) -> None:
        for name, option in declared(type(self)).items():
            object.__setattr__(self, name, option.check(getattr(self, name)))
        self.check_together()

    def check_together(self) -> None:
        """Raises OptionError where options do not fit each other."""


def declared(cls: type[Options]) -> dict[str, Declared]:
    """The options of a class, by field, in their order."""
    key: Any = cls  # mypy holds a class of dataclasses for unhashable
    return _declared(key)


@functools.cache
def _declared(cls: Any) -> dict[str, Declared]:
    hints = get_type_hints(cls, include_extras=True)
    options = {}
    for each in dataclasses.fields(cls):
        hint = hints[each.name]
        option = next(data for data in hint.__metadata__ if isinstance(data, Option))
        options[each.name] = Declared(each.name, option, each.default, hint)
    return options


def make(cls: type[T], options: Mapping[str, Any], written: Mapping[str, str] | None = None) -> T:
    """An instance from options by name; those that are None are left at their defaults.

    written: how the user wrote each, for messages. Raises UsageError for a name that is not known,
    OptionError for a value that does not fit.
    """
    known = declared(cls)
    for name in options:
        if name not in known:
            raise UsageError(f"unknown option {name!r}." + did_you_mean(name, known))
    try:
        return cls(**{name: value for name, value in options.items() if value is not None})
    except OptionError as error:
        raise error.written_as(written or {}) from None


@dataclass(frozen=True)
class Given:
    """What a user gave: values by field, and how options are written, for messages.

    written: of every option that was given, and of others that could have been.
    """

    values: dict[str, Any] = field(default_factory=dict)
    written: dict[str, str] = field(default_factory=dict)

    def over(self, other: "Given") -> "Given":
        """Both; this one's where both have an option."""
        own = {name: self.written[name] for name in self.values}
        written = {**self.written, **other.written, **own}
        return Given({**other.values, **self.values}, written)

    def make(self, cls: type[T]) -> T:
        """An instance of one class of options from those that are its."""
        own = {name: value for name, value in self.values.items() if name in declared(cls)}
        return make(cls, own, self.written)

    def name(self, field_name: str) -> str:
        """An option as it was written."""
        return self.written.get(field_name, field_name)
