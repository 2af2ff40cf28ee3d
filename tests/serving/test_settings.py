"""Tables of settings as dataclasses: what is taken, what is refused, and in which words."""

import datetime
import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NewType

import pytest

from zmesh.errors import ConfigError
from zmesh.serving.settings import Place, read_settings

PLACE = Place("plugins.shop", "node.toml")
Name = NewType("Name", str)


class Level(enum.Enum):
    LOW = "low"
    HIGH = "high"


@dataclass
class Proxy:
    host: str
    port: int = 80


@dataclass(frozen=True)
class Settings:
    name: str = "shop"
    count: int = 1
    share: float = 0.5
    on: bool = False
    since: datetime.date | None = None
    mode: Literal["fast", "safe", 3] = "fast"
    level: Level = Level.LOW
    folder: Path = Path("/")
    tags: list[str] = field(default_factory=list)
    ports: tuple[int, ...] = ()
    pair: tuple[str, int] = ("a", 1)
    words: Sequence[str] = ()
    odd: frozenset[int] = frozenset()
    limits: Mapping[str, int] = field(default_factory=dict)
    proxy: Proxy | None = None
    proxies: dict[str, Proxy] = field(default_factory=dict)
    backups: list[Proxy] = field(default_factory=list)
    either: int | str = 0
    alias: Name = Name("x")
    anything: Any = None
    plain: list = field(default_factory=list)
    inner: int = field(default=7, init=False)


def test_an_empty_table_gives_the_defaults():
    assert read_settings(Settings, {}, PLACE) == Settings()


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("name", "x", "x"),
        ("count", -3, -3),
        ("share", 0.25, 0.25),
        ("share", 2, 2.0),
        ("on", True, True),
        ("since", datetime.date(2026, 1, 2), datetime.date(2026, 1, 2)),
        ("mode", "safe", "safe"),
        ("mode", 3, 3),
        ("level", "high", Level.HIGH),
        ("folder", "/tmp", Path("/tmp")),
        ("tags", ["a", "b"], ["a", "b"]),
        ("ports", [1, 2], (1, 2)),
        ("pair", ["b", 2], ("b", 2)),
        ("words", ["a"], ("a",)),
        ("odd", [1, 3, 3], frozenset({1, 3})),
        ("limits", {"a": 1}, {"a": 1}),
        ("proxy", {"host": "h"}, Proxy("h", 80)),
        ("proxies", {"a": {"host": "h", "port": 1}}, {"a": Proxy("h", 1)}),
        ("backups", [{"host": "h"}], [Proxy("h")]),
        ("either", "x", "x"),
        ("alias", "y", "y"),
        ("anything", {"x": [1]}, {"x": [1]}),
        ("plain", [1, "x"], [1, "x"]),
    ],
)
def test_a_value_of_the_right_type_is_taken(key, value, expected):
    found = getattr(read_settings(Settings, {key: value}, PLACE), key)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("name", 3, "name must be a string, not a whole number"),
        ("count", 1.5, "count must be a whole number, not a number"),
        ("count", True, "count must be a whole number, not true or false"),
        ("count", "1", "count must be a whole number, not a string"),
        ("share", True, "share must be a number, not true or false"),
        ("on", 1, "on must be true or false, not a whole number"),
        ("since", "monday", "since must be a date, not a string"),
        ("mode", "saef", "mode must be 'fast' or 'safe' or 3 (did you mean 'safe'?)"),
        ("level", "lwo", "level must be 'low' or 'high', not a string"),
        ("folder", 1, "folder must be a path, not a whole number"),
        ("tags", "a", "tags must be a list, each of it a string, not a string"),
        ("tags", ["a", 1], "tags[1] must be a string, not a whole number"),
        ("ports", [1, "x"], "ports[1] must be a whole number, not a string"),
        ("pair", ["a"], "pair must be a list of 2: a string, a whole number, not a list"),
        ("pair", ["a", "b"], "pair[1] must be a whole number, not a string"),
        ("limits", [1], "limits must be a table, not a list"),
        ("proxy", "h", "proxy must be a table, not a string"),
        ("either", 1.5, "either must be a whole number or a string, not a number"),
        ("alias", 1, "alias must be a string, not a whole number"),
        ("inner", 1, "no setting is called 'inner'"),
        ("zzz", 1, "no setting is called 'zzz'; there are name, count, "),
        ("naem", "x", "no setting is called 'naem' (did you mean 'name'?)"),
    ],
)
def test_a_value_of_another_type_is_refused_by_file_table_key_and_type(key, value, text):
    with pytest.raises(ConfigError) as caught:
        read_settings(Settings, {key: value}, PLACE)
    assert str(caught.value).startswith(f"node.toml: [plugins.shop]: {text}")


@pytest.mark.parametrize(
    ("table", "text"),
    [
        (
            {"proxy": {"host": "h", "prot": 1}},
            "[plugins.shop.proxy]: no setting is called 'prot' (did you mean 'port'?)",
        ),
        ({"proxy": {"port": 1}}, "[plugins.shop.proxy]: host is missing; it must be a string"),
        ({"proxies": {"a": {"host": 1}}}, "[plugins.shop.proxies.a]: host must be a string, not a whole number"),
        ({"backups": [{"host": "h"}, {}]}, "[plugins.shop.backups[1]]: host is missing; it must be a string"),
        ({"limits": {"a": "x"}}, "[plugins.shop.limits]: a must be a whole number, not a string"),
    ],
)
def test_tables_within_the_table_are_held_to_what_they_declare_at_any_depth(table, text):
    with pytest.raises(ConfigError) as caught:
        read_settings(Settings, table, Place("plugins.shop"))
    assert str(caught.value) == text


def test_a_value_is_not_quoted_because_it_may_be_secret():
    with pytest.raises(ConfigError) as caught:
        read_settings(Settings, {"count": "hunter2", "name": "x"}, PLACE)
    assert "hunter2" not in str(caught.value)


def test_what_the_dataclass_refuses_itself_is_reported_under_the_same_name():
    @dataclass
    class Picky:
        port: int = 1

        def __post_init__(self):
            if self.port > 65535:
                raise ValueError("port must be 65535 at most")

    with pytest.raises(ConfigError, match=r"^node.toml: \[plugins.shop\]: port must be 65535 at most$"):
        read_settings(Picky, {"port": 70000}, PLACE)


def test_a_dataclass_without_fields_takes_nothing():
    @dataclass
    class Nothing:
        pass

    assert read_settings(Nothing, {}, PLACE) == Nothing()
    with pytest.raises(ConfigError, match="no setting is called 'x'$"):
        read_settings(Nothing, {"x": 1}, PLACE)


def test_a_type_that_no_setting_can_have_is_the_plugins_fault():
    @dataclass
    class Odd:
        x: Literal["a"] | type[int] = "a"

    with pytest.raises(TypeError, match="'x' can't be read from TOML"):
        read_settings(Odd, {"x": 1}, PLACE)
