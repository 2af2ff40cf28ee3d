"""What is said of an exception that user code has raised, whatever that does when it is asked."""

import io
import logging

import pytest

import zmesh
from tests.odd_errors import ODD_ERRORS, Unusual
from zmesh.runtime.exceptions import (
    class_name_of,
    code_of,
    describe,
    is_a,
    limit_of,
    log_exception,
    log_line,
    text_of,
    traceback_of,
)

EACH = pytest.mark.parametrize("make", ODD_ERRORS.values(), ids=ODD_ERRORS)


def caught(error):
    """The error with a traceback, as `except` would have it."""
    try:
        raise error
    except BaseException as raised:
        return raised


@EACH
def test_any_error_can_be_described_in_text_that_can_be_sent(make):
    error = caught(make())
    for said, limit in [
        (describe(error), 1000),
        (text_of(error), 1000),
        (class_name_of(error), 100),
        (traceback_of(error), 16000),
    ]:
        assert type(said) is str
        assert len(said.encode()) <= 12 * limit
        assert len(said) <= limit
    assert describe(error).startswith(class_name_of(error)[:90])


def test_an_ordinary_error_is_described_by_its_class_and_its_text():
    assert describe(ValueError("bad")) == "ValueError: bad"
    assert describe(ValueError()) == "ValueError"
    assert describe(ValueError("x" * 2000)) == f"ValueError: {'x' * 985}..."
    assert "in caught\n    raise error\nValueError: bad" in traceback_of(caught(ValueError("bad")))


def test_an_error_whose_text_fails_says_with_what():
    assert describe(ODD_ERRORS["its text raises"]()) == "TextRaises: <its text can't be shown: ValueError>"
    assert describe(ODD_ERRORS["its text exits"]()) == "TextExits: <its text can't be shown: SystemExit>"


def test_a_text_of_a_class_with_methods_of_its_own_becomes_plain():
    class Text(str):
        def __len__(self):
            raise Unusual

        encode = __getitem__ = __str__ = __format__ = __len__

    error = type("Odd", (Exception,), {"__str__": lambda self: Text("fine")})()
    assert describe(error) == "Odd: fine"


@pytest.mark.parametrize("function", [describe, text_of, traceback_of])
def test_ctrl_c_while_an_error_is_asked_for_its_text_is_not_swallowed(function):
    def interrupted(self):
        raise KeyboardInterrupt

    error = type("Interrupted", (Exception,), {"__str__": interrupted, "__notes__": property(interrupted)})()
    with pytest.raises(KeyboardInterrupt):
        function(error)


def test_kinds_are_recognised_without_asking_the_error():
    liar = ODD_ERRORS["its __class__ raises"]()
    assert is_a(liar, Exception)
    assert is_a(liar, KeyError, Exception)
    assert not is_a(liar, ValueError)


def test_a_code_is_that_of_the_error_or_of_the_class_that_it_derives_from():
    assert code_of(zmesh.NotAllowed("no")) == "not_allowed"
    assert code_of(type("Mine", (zmesh.NotAllowed,), {"code": "mine"})("no")) == "mine"
    for odd in [None, 7, "", "x" * 65, "a b", "\ud800", type("Text", (str,), {})("mine")]:
        assert code_of(type("Mine", (zmesh.NotAllowed,), {"code": odd})("no")) == "not_allowed"
    assert code_of(ODD_ERRORS["its code raises"]()) == "remote"


def test_a_limit_is_one_of_an_overloaded_or_none():
    assert limit_of(zmesh.Overloaded("full", limit="max_work")) == "max_work"
    assert limit_of(zmesh.NodeOverloaded("full")) == ""
    for odd in [None, 7, "x" * 65, "a b", "\ud800", type("Text", (str,), {})("mine")]:
        assert limit_of(zmesh.NodeOverloaded("full", limit=odd)) == ""
    unlimited = type("Mine", (ValueError,), {"limit": "max_work"})
    assert limit_of(unlimited()) == limit_of(ODD_ERRORS["its limit raises"]()) == ""


@EACH
def test_any_error_can_be_logged_and_logging_does_not_complain(make, monkeypatch, capsys):
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    logger = logging.getLogger("zmesh.test_failures")
    logger.addHandler(handler)
    monkeypatch.setattr(logger, "propagate", False)
    try:
        log_exception(logger, "%s failed", "work", error=caught(make()))
    finally:
        logger.removeHandler(handler)
    lines = written.getvalue().encode().decode().splitlines()
    assert lines[0] == "work failed"
    assert len(lines) > 1
    assert capsys.readouterr().err == "", "logging prints its own tracebacks there"


def test_an_error_that_nobody_wants_logged_is_not_formatted():
    asked = []
    error = type("Asked", (Exception,), {"__str__": lambda self: asked.append(1) or "text"})()
    logger = logging.getLogger("zmesh.test_failures")
    log_exception(logger, "no", error=error, level=logging.DEBUG)
    assert not asked


@pytest.mark.parametrize("told", [True, False])
def test_what_a_filter_or_handler_of_the_log_raises_is_printed_or_dropped_as_logging_does(told, monkeypatch, capsys):
    def refuse(record):
        raise Unusual("no")

    logger = logging.getLogger("zmesh.test_failures")
    monkeypatch.setattr(logging, "raiseExceptions", told)
    monkeypatch.setattr(logger, "filters", [refuse])
    log_line(logger, logging.ERROR, "%s", "a line")
    log_exception(logger, "%s", "a line", error=ValueError("bad"))
    assert capsys.readouterr().err.count("--- Logging error ---") == 2 * told
    monkeypatch.setattr(logger, "filters", [lambda record: 1 / 0])
    monkeypatch.setattr("sys.stderr", None)
    log_line(logger, logging.ERROR, "nobody hears of it")


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_ctrl_c_in_a_handler_of_the_log_is_not_swallowed(kind, monkeypatch):
    def interrupted(record):
        raise kind

    logger = logging.getLogger("zmesh.test_failures")
    monkeypatch.setattr(logger, "filters", [interrupted])
    with pytest.raises(kind):
        log_line(logger, logging.ERROR, "a line")
