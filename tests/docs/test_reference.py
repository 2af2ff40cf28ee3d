"""The reference names all that there is, as it is: settings, options, schemas, codes, classes, limits and timers."""

import dataclasses
import importlib
import importlib.util
import inspect
import re
from enum import IntEnum
from pathlib import Path
from typing import Any

import pytest

import zmesh
from zmesh import config, errors
from zmesh.core import wire
from zmesh.core.limits import DEFAULT_LIMITS, Limits, Rate
from zmesh.core.message import RequestHeader

DOCS = Path(__file__).parents[2] / "docs"
ROW = re.compile(r"^\| (.+?) \|$", re.MULTILINE)
CONSTANT = re.compile(r"`([a-z_]+)\.([A-Z][A-Z_]+)`")


def rows_of(page: str) -> list[list[str]]:
    """The rows of all tables of a page, cell by cell."""
    return [re.split(r" *\| *", row) for row in ROW.findall((DOCS / page).read_text(encoding="utf-8"))]


def names_in(cell: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def number(text: str) -> float:
    """A number as the pages write it."""
    superscripts = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")
    if power := re.fullmatch(r"2([⁰¹²³⁴⁵⁶⁷⁸⁹]+)", text):
        return float(2 ** int(power[1].translate(superscripts)))
    return float(text)


# --- configuration ----------------------------------------------------------------------------------------------------


def test_every_setting_has_a_row_with_its_default() -> None:
    settings = [row for row in rows_of("reference/configuration.md") if len(row) == 5 and names_in(row[0])]
    rows = {names_in(row[0])[0]: row for row in settings}
    fields = {field.name: field for field in dataclasses.fields(zmesh.Config) if field.name in config.SETTINGS}
    assert rows.keys() == fields.keys()
    shown = {"false": False, "[]": (), "warning": "warning", "text": "text"}
    for name, row in rows.items():
        if names_in(row[2]):
            (default,) = names_in(row[2])
            assert (shown[default] if default in shown else number(default)) == fields[name].default, name


def test_every_limit_of_a_setting_is_as_it_is_enforced() -> None:
    limits = {}
    for row in rows_of("reference/configuration.md"):
        if len(row) == 5 and (bounds := re.fullmatch(r"([\d.]+) to ([\d.⁰¹²³⁴⁵⁶⁷⁸⁹]+)", row[3])):
            limits[names_in(row[0])[0]] = (number(bounds[1]), number(bounds[2]))
    assert limits == config.LIMITS


def test_every_variable_of_the_environment_is_there() -> None:
    pages = [(DOCS / page).read_text(encoding="utf-8") for page in ("reference/configuration.md", "reference/cli.md")]
    others = set(config.VARIABLES) - {f"ZMESH_{name.upper()}" for name in config.SETTINGS}  # those are named by a rule
    assert all(f"`{variable}`" in page for variable in others for page in pages)


# --- errors -----------------------------------------------------------------------------------------------------------


def test_every_error_has_a_row_with_its_code() -> None:
    codes = [row for row in rows_of("reference/errors.md") if len(row) == 3 and names_in(row[1])]
    rows = {names_in(row[0])[0]: names_in(row[1])[0] for row in codes}
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.MeshError)]
    assert {name: code for name, code in rows.items() if hasattr(errors, name)} == {
        kind.__name__: kind.code for kind in kinds
    }


# --- Python -----------------------------------------------------------------------------------------------------------


def test_every_public_name_is_documented() -> None:
    page = (DOCS / "reference/python.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\.\. (?:auto|py:)\w+:: (\w+)(?:\(|$)", page, re.MULTILINE)
    assert sorted(documented) == sorted(zmesh.__all__)


# --- command line -----------------------------------------------------------------------------------------------------


def sections_of(page: str) -> dict[str, str]:
    """The text below each heading of the second level."""
    parts = re.split(r"^## (.+)$", (DOCS / page).read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def commands() -> dict[str, Any]:
    from typer.main import get_command

    from zmesh_cli.commands import app

    group: Any = get_command(app)
    return dict(group.commands)


def test_every_command_has_a_section_with_its_options_and_no_others() -> None:
    sections = sections_of("reference/cli.md")
    for name, command in commands().items():
        section = sections[f"zmesh {name}"]
        below = getattr(command, "commands", {}).values()  # those of a group, which share its section
        options = {
            option
            for parameter in (*command.params, *(each for part in below for each in part.params))
            if not getattr(parameter, "hidden", False)
            for option in parameter.opts
            if option.startswith("-")
        } - {"-h", "--help"}
        listed = {word.split()[0] for row in re.findall(r"^\| (`-.+?) \|", section, re.M) for word in names_in(row)}
        assert listed == options, name


def test_every_exit_code_is_there() -> None:
    from zmesh_cli import exit_codes

    codes = {value for name, value in vars(exit_codes).items() if name.isupper() and isinstance(value, int)}
    rows = rows_of("reference/cli.md")
    assert {int(row[0]) for row in rows if row[0].isdigit()} == codes


def test_every_schema_of_the_command_line_is_there() -> None:
    page = (DOCS / "reference/cli.md").read_text(encoding="utf-8")
    folder = DOCS.parent / "cli"
    schemas = {name for file in folder.glob("*.py") for name in re.findall(r'"(zmesh\.[\w-]+/\d+)"', file.read_text())}
    assert schemas
    assert {schema for schema in schemas if f"`{schema}`" not in page} == set()


# --- protocol ---------------------------------------------------------------------------------------------------------


SOURCES = DOCS.parent / "zmesh"
MODULES = {path.stem: path for folder in ("core", "transport") for path in (SOURCES / folder).rglob("[a-z]*.py")}
MODULES["wire"] = SOURCES / "core/wire"
MODULES["grant"] = SOURCES / "identity/grant.py"


def constant(module: str, name: str) -> float:
    path = MODULES[module].relative_to(SOURCES.parent).with_suffix("")
    return float(getattr(importlib.import_module(".".join(path.parts)), name))


CONSTANTS = [row for row in rows_of("protocol.md") if CONSTANT.search(row[0])]


@pytest.mark.parametrize("row", CONSTANTS, ids=lambda row: row[0])
def test_every_constant_in_a_table_has_the_value_that_is_shown(row: list[str]) -> None:
    shown = [number(value) for value in re.findall(r"[\d.]+", row[1])]
    assert shown == [constant(*found) for found in CONSTANT.findall(row[0])]


def test_every_constant_in_running_text_has_the_value_that_is_shown() -> None:
    text = (DOCS / "protocol.md").read_text(encoding="utf-8")
    prose = "\n".join(line for line in text.splitlines() if not line.startswith("| `"))
    after = re.findall(r"`([a-z_]+)\.([A-Z][A-Z_]+)`\s\((\d+)\)", prose)
    before = re.findall(r"\b(\d+(?: KiB| MiB)?)\s\(`([a-z_]+)\.([A-Z][A-Z_]+)`\)", prose)
    assert len(after) + len(before) == len(CONSTANT.findall(prose))
    units = {"": 1, "KiB": 1024, "MiB": 1024 * 1024}
    found = [(module, name, value) for module, name, value in after] + [(m, n, value) for value, m, n in before]
    for module, name, value in found:
        amount, _, unit = value.partition(" ")
        assert constant(module, name) == int(amount) * units[unit], name


def test_every_limit_on_members_has_the_value_that_is_shown() -> None:
    shown = {}
    for row in rows_of("protocol.md"):
        if found := re.fullmatch(r"`limits\.([a-z_]+)`", row[0]):
            values = [number(cell) for cell in row[1:-1]]
            shown[found[1]] = Rate(*values) if len(values) == 2 else values[0]
    rates = {name for name, default in Limits._field_defaults.items() if isinstance(default, Rate)}
    kept = re.compile("services|kept_bytes|peers|request_numbers|spooled|destinations|nodes$|contested_names")
    counts = {name for name in Limits._fields if kept.match(name)}
    assert rates | counts <= shown.keys()
    assert shown == {name: getattr(DEFAULT_LIMITS, name) for name in shown}


@pytest.mark.parametrize("kind", wire.Kind, ids=lambda kind: kind.name)
def test_every_kind_has_a_row_with_its_number_and_as_many_fields(kind: IntEnum) -> None:
    rows = [row for row in rows_of("protocol.md") if row[0] == kind.name]
    assert [int(row[1]) for row in rows] == [kind.value]
    lists: dict[str, Any] = {"SEQNO_REQUEST": wire.SeqnoRequest, "RECORD": None, "CHUNK": None, "ASK": None}
    lists |= dict.fromkeys(("CERTIFICATE_REQUEST", "CERTIFICATE", "STATEMENT", "BATCH"))
    fields = len(rows[0][2].split(", "))
    if kind is wire.Kind.UPDATE:  # the entries are columns of their own
        assert fields == len(wire.Update._fields) - 1 + len(wire.Entry._fields)
    elif kind.name not in lists:
        assert fields == len(getattr(wire, kind.name.title().replace("_", ""))._fields)
    elif lists[kind.name] is not None:
        assert len(rows[0][3].partition(" of: ")[2].split(", ")) == len(lists[kind.name]._fields)


def test_the_fields_of_a_chunk_a_record_and_an_entry_are_all_there() -> None:
    sections = sections_of("protocol.md")
    chunk = [row for row in ROW.findall(sections["Streams"]) if re.match(r"[a-z ]+ \| (16|flag|int|array|map)", row)]
    assert len(chunk) == len(wire.Chunk._fields)
    for section, thing in (("Records", wire.Record), ("Routes", wire.Entry)):
        listed = re.search(r"(?:record is|entry is) `([^`]+)`", sections[section])
        assert listed is not None
        assert [name.strip().replace(" ", "_") for name in listed[1].split(",")] == list(thing._fields)


def test_every_packet_on_the_page_is_what_it_says() -> None:
    blocks = re.findall(r"```text\n((?:[0-9a-f]{2}[ \n])+)```", (DOCS / "protocol.md").read_text(encoding="utf-8"))
    packets = [wire.read_packet((bytes.fromhex(block),)) for block in blocks]
    assert [packet.kind for packet in packets] == [wire.Kind.PROBE, wire.Kind.CHUNK, wire.Kind.ACK, wire.Kind.BATCH]
    probe, request, ack, batch = packets
    assert wire.decode_probe(probe.head) == wire.Probe(1.5, 0, 0, 0.0)
    chunk = wire.decode_chunk(request.head)
    assert (request.destination, request.source, request.body) == ("edge-7", "hub", b"hello")
    assert (chunk.request, chunk.sequence, chunk.flags, chunk.header) == (True, 0, 3, RequestHeader("echo:echo", 1.5))
    assert (chunk.request_number, chunk.incarnation, chunk.target) == (7, 1, 2)
    assert wire.decode_ack(ack.head).acks == (wire.AckItem(chunk.message_id, True, 1, 1_638_400),)
    expired = [wire.read_packet(frames) for frames in wire.decode_batch(batch.body)]
    assert [(each.kind, each.destination) for each in expired] == [(wire.Kind.EXPIRED, "a"), (wire.Kind.EXPIRED, "c")]
    assert [wire.decode_expired(each.head) for each in expired] == [(wire.Kind.CHUNK, "b", "d")] * 2


# --- routing ----------------------------------------------------------------------------------------------------------


def test_the_numbers_on_the_page_about_routing_are_those_of_its_data() -> None:
    where = DOCS.parent / "benchmarks/convergence_plot.py"
    spec = importlib.util.spec_from_file_location("convergence_plot", where)
    assert spec is not None
    assert spec.loader is not None
    plot = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(plot)
    page = (DOCS / "routing.md").read_text(encoding="utf-8")
    by_quantity = [plot.series(plot.DATA, quantity) for quantity in plot.QUANTITIES]
    for shape in plot.SHAPES:
        for event in plot.EVENTS:
            found = " | ".join(f"{plot.exponent(each[shape, event]):.2f}" for each in by_quantity)
            assert f"| {plot.NAMES[event]}, {shape} | {found} |" in page
            seconds, entries, _ = (dict(each[shape, event])[1000] for each in by_quantity)
            assert f"| {seconds:.2f} | {entries:,} |" in page
