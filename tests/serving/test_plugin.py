"""What a plugin may have beside its directives: declared settings, a start, and an end."""

import asyncio

import pytest

from zmesh.errors import ConfigError, UnknownDirective

PLUGIN = """
import asyncio
from dataclasses import dataclass
import zmesh

log = []

@dataclass(frozen=True)
class Settings:
    path: str = "/"
    size: int = 1

class Store:
    settings = Settings

    async def start(self, settings):
        log.append(("start", settings))
        self.path = settings.path

    async def close(self):
        log.append(("close", self.path))

    @zmesh.directive
    async def where(self, work):
        return self.path

    @zmesh.directive(isolate=True)
    def plain(self, work):
        return self.path + "!"

    @zmesh.directive(isolate=True)
    async def asynchronous(self, work):
        return self.path + "?"

class Undeclared(Store):
    settings = {"not": "a dataclass"}

    async def start(self, table):
        log.append(("start", dict(table)))
        self.path = table["path"]

class Failing(Store):
    async def start(self, settings):
        raise BaseException("no")

class Stuck(Store):
    async def start(self, settings):
        await asyncio.Event().wait()

class Refusing(Store):
    async def start(self, settings):
        raise zmesh.ConfigError("the folder is not there")

class Plain(Store):
    def start(self, settings):
        pass

class Unreadable(Store):
    @dataclass
    class settings:
        x: "NoSuchType" = 1

def give_up():
    raise SystemExit("the settings are wrong")

class Exiting(Store):
    @dataclass(frozen=True)
    class settings:
        path: str = "/"
        size: int = 1

        def __post_init__(self):
            if self.size > 9:
                give_up()

class ExitingLater(Store):
    async def start(self, settings):
        self.path = settings.path

    def reload(self, settings):
        give_up()

class Named:
    async def close(self, work=None):
        return "a directive of this name is no hook"
    start = zmesh.directive(close)
    close = start
"""


@pytest.fixture
def plugin(install, bench):
    """Makes a plugin of that class one of the bench; the log of what it does."""

    def make(name, point="store"):
        install("a-store", {"a_store.py": PLUGIN}, {"zmesh.plugins": [f"{point} = a_store:{name}"]})
        bench.directives.discover()
        import a_store

        return a_store

    return make


async def test_a_plugin_gets_its_settings_at_its_start_and_is_closed(plugin, bench):
    module = plugin("Store")
    bench.directives.configure({"store": {"path": "/data"}})
    await bench.directives.start(5.0)
    assert (await bench.call("store:where")).replies == [b"/data"]
    await bench.runner.close()
    assert module.log == [("start", module.Settings("/data", 1)), ("close", "/data")]


async def test_without_a_table_the_defaults_are_its_settings(plugin, bench):
    module = plugin("Store")
    bench.directives.configure({})
    await bench.directives.start(5.0)
    assert module.log == [("start", module.Settings())]


async def test_a_plugin_that_declares_nothing_gets_the_table_itself(plugin, bench):
    module = plugin("Undeclared")
    bench.directives.configure({"store": {"path": "/data", "more": 1}})
    await bench.directives.start(5.0)
    assert module.log == [("start", {"path": "/data", "more": 1})]


@pytest.mark.parametrize("directive", ["store:plain", "store:asynchronous"])
async def test_in_a_process_of_its_own_it_is_started_before_the_directive(plugin, bench, directive):
    plugin("Store")
    exchange = await bench.call(directive, config={"path": "/data"})
    assert exchange.error is None
    assert exchange.replies[0].startswith(b"/data")


async def test_a_table_that_holds_something_else_is_refused_by_name(plugin, bench):
    plugin("Store")
    with pytest.raises(ConfigError, match=r"^node.toml: \[plugins.store\]: size must be a whole number, not a string$"):
        bench.directives.configure({"store": {"size": "large"}}, file="node.toml")
    with pytest.raises(ConfigError, match=r"^\[plugins.store\]: no setting is called 'pat' \(did you mean 'path'\?\)$"):
        bench.directives.configure({"store": {"pat": "/"}})


@pytest.mark.parametrize(
    ("name", "stage", "error"),
    [
        ("Failing", "started", "BaseException"),
        ("Stuck", "started", "TimeoutError"),
        ("Plain", "configured", "TypeError"),
        ("Unreadable", "configured", "NameError"),
    ],
)
async def test_a_plugin_that_fails_to_start_disables_only_itself(plugin, bench, caplog, name, stage, error):
    module = plugin(name)
    bench.directives.register("store:other", lambda work: None)
    bench.directives.configure({})
    await bench.directives.start(0.01)
    assert [name for name in bench.directives.capabilities() if name.startswith("store:")] == [
        f"store:!{error}",
        "store:other",
    ]
    assert f"the plugin store (a_store:{name}) can't be {stage}" in caplog.text
    with pytest.raises(UnknownDirective, match=rf"'store' could not be {stage} here \({error}\)"):
        bench.directives.find("store:where")
    await bench.runner.close()
    assert module.log == [], "what has not started is not closed"


async def test_settings_that_end_the_program_as_they_are_read_disable_their_plugin_only(plugin, bench):
    plugin("Exiting")
    bench.directives.configure({"store": {"size": 10}})
    with pytest.raises(UnknownDirective, match=r"'store' could not be configured here \(SystemExit\)"):
        bench.directives.find("store:where")


@pytest.mark.parametrize(("name", "table"), [("Exiting", {"size": 10}), ("ExitingLater", {"size": 2})])
async def test_other_settings_that_end_the_program_as_they_are_taken_wait_for_a_restart(
    plugin, bench, caplog, name, table
):
    plugin(name)
    bench.directives.configure({})
    await bench.directives.start(5.0)
    bench.directives.check("store", table)
    assert bench.directives.reconfigure({"store": table}) == ["store"]
    assert "the plugin store takes no other settings" in caplog.text
    assert bench.directives.find("store:where")


async def test_a_plugin_may_refuse_its_settings_when_it_starts(plugin, bench):
    plugin("Refusing")
    bench.directives.configure({})
    with pytest.raises(ConfigError, match="the folder is not there"):
        await bench.directives.start(5.0)


async def test_a_node_that_closes_meanwhile_does_not_wait_for_a_start(plugin, bench):
    plugin("Stuck")
    bench.directives.configure({})
    starting = asyncio.ensure_future(bench.directives.start(600.0))
    await asyncio.sleep(0)
    bench.directives.hurry()
    await starting
    assert "store:!TimeoutError" in bench.directives.capabilities()


async def test_a_directive_may_be_called_start_or_close(plugin, bench):
    plugin("Named")
    bench.directives.configure({})
    await bench.directives.start(5.0)
    assert (await bench.call("store:close")).replies == [b"a directive of this name is no hook"]
    assert "a_store" not in {closer.__module__ for closer in bench.directives.closers()}


# --- tables that nothing reads ------------------------------------------------------------------------------------


def logged(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "zmesh.serving.directives"]


async def test_a_table_for_no_plugin_is_reported_with_the_likely_name(plugin, bench, caplog):
    plugin("Store")
    bench.directives.register("own:it", lambda work: None)
    tables = {"stroe": {}, "store": {}, "own": {"x": 1}, "qqqqq": {}}
    bench.directives.configure(tables, file="node.toml")
    bench.directives.configure({"stroe": {}})
    assert logged(caplog) == [
        "node.toml: [plugins.stroe] is for no plugin that is installed here (did you mean 'store'?)",
        "node.toml: [plugins.qqqqq] is for no plugin that is installed here",
        "[plugins.stroe] is for no plugin that is installed here (did you mean 'store'?)",
    ]


async def test_limits_for_no_isolated_directive_are_reported(plugin, bench, caplog):
    plugin("Store")
    isolation = {"*": {}, "store:plain": {}, "store:plian": {}, "store:where": {}}
    bench.directives.configure({}, isolation, "node.toml")
    assert logged(caplog) == [
        "node.toml: [isolation.\"store:plian\"] is for no directive that is here (did you mean 'store:plain'?)",
        'node.toml: [isolation."store:where"] limits nothing, as that directive is not isolated',
    ]


async def test_a_permission_that_looks_misspelt_is_reported_with_the_likely_directive(plugin, bench, caplog):
    """It would neither allow what it was meant to allow, nor forbid what it was meant to forbid."""
    plugin("Store")
    bench.directives.register("own:it", lambda work: None)
    right = [
        "*",
        "store:*",
        "store:where",
        "own:it",
        "tcp:web",
        "job:*",
        "job-admin:read",
        "zmesh:settings",
        "later:it",
    ]
    slips = ["stroe:*", "store:wehre", "stroe:where", "jbo:*", "job-admn:read"]
    bench.directives.configure({}, {}, "node.toml", [*right, *slips])
    assert logged(caplog) == [
        "[allow] \"stroe:*\" is for no directive that is here (did you mean 'store:*'?)",
        "[allow] \"store:wehre\" is for no directive that is here (did you mean 'store:where'?)",
        "[allow] \"stroe:where\" is for no directive that is here (did you mean 'store'?)",
        "[allow] \"jbo:*\" is for no directive that is here (did you mean 'job:*'?)",
        "[allow] \"job-admn:read\" is for no directive that is here (did you mean 'job-admin'?)",
    ]


async def test_the_table_of_a_plugin_that_does_not_load_is_not_taken_for_a_slip(install, bench, caplog):
    install("broken", {}, {"zmesh.plugins": ["broken = no_such_module"]})
    bench.directives.discover()
    caplog.clear()
    bench.directives.configure({"broken": {"x": 1}}, {"broken:it": {}})
    assert logged(caplog) == []
