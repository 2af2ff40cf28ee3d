import functools

import pytest

from zmesh.core.message import MAX_DIRECTIVE
from zmesh.errors import NotAllowed, UnknownDirective
from zmesh.serving.directives import Directives, Shape, directive


async def coroutine(work):
    pass


def function(work):
    pass


async def async_generator(work):
    yield


def generator(work):
    yield


class Callable:
    async def __call__(self, work):
        pass

    def method(self, work):
        yield

    @staticmethod
    async def static(work):
        yield


@pytest.fixture
def directives():
    return Directives()


@pytest.mark.parametrize(
    ("target", "shape"),
    [
        (coroutine, Shape.COROUTINE),
        (function, Shape.FUNCTION),
        (async_generator, Shape.ASYNC_GENERATOR),
        (generator, Shape.GENERATOR),
        (lambda work: None, Shape.FUNCTION),
        (len, Shape.FUNCTION),
        (functools.partial(functools.partial(coroutine)), Shape.COROUTINE),
        (functools.partial(Callable()), Shape.COROUTINE),
        (Callable(), Shape.COROUTINE),
        (Callable().method, Shape.GENERATOR),
        (Callable.static, Shape.ASYNC_GENERATOR),
    ],
)
def test_each_kind_of_function_is_called_as_what_it_is(directives, target, shape):
    directives.register("test:it", target)
    entry = directives.find("test:it")
    assert (entry.name, entry.run, entry.shape, entry.stream) == ("test:it", target, shape, False)


@pytest.mark.parametrize("name", ["", "a", "a:", ":a", "a:b:c", "a b:c", "a:b\n", "a:" + "b" * (MAX_DIRECTIVE - 1)])
def test_a_name_that_is_no_directive_is_refused(directives, name):
    with pytest.raises(ValueError, match="namespace:action"):
        directives.register(name, function)
    assert directives.capabilities() == []


def test_the_longest_name_is_taken(directives):
    name = "a:" + "b" * (MAX_DIRECTIVE - 2)
    directives.register(name, function)
    assert directives.find(name).run is function


def test_what_is_no_function_and_what_is_there_already_is_refused(directives):
    with pytest.raises(TypeError, match="str"):
        directives.register("test:it", "function")
    directives.register("test:it", function)
    with pytest.raises(ValueError, match="already"):
        directives.register("test:it", coroutine)
    assert directives.find("test:it").run is function


def test_a_marked_function_keeps_its_mark_when_it_is_registered_in_code(directives):
    @directive(stream=True)
    async def streams(work):
        pass

    @directive
    def whole(work):
        pass

    directives.register("test:streams", streams)
    directives.register("test:whole", whole)
    assert directives.find("test:streams").stream
    assert not directives.find("test:whole").stream


def test_an_unknown_directive_tells_what_there_is(directives):
    with pytest.raises(UnknownDirective, match=r"^no directive 'x:y' here$"):
        directives.find("x:y")
    for number in range(10):
        directives.register(f"test:{number}", function)
    with pytest.raises(UnknownDirective, match=r"^no directive 'nonsense' here; there are test:0, .*test:7, \.\.\.$"):
        directives.find("nonsense")
    with pytest.raises(UnknownDirective, match=r"did you mean 'test:1'"):
        directives.find("tset:1")


PLUGIN = """
from zmesh.serving.directives import directive

@directive
async def one(work):
    return "one"

@directive(name="second", stream=True)
def two(work):
    return "two"

def helper(work):
    return "not for the mesh"

async def _private(work):
    return "not for the mesh either"

class Three:
    made = 0

    def __init__(self):
        Three.made += 1

    @directive
    async def method(self, work):
        return "method"

    @staticmethod
    @directive
    def static(work):
        return "static"

    @property
    def trap(self):
        raise AssertionError("properties are not looked at")

three = Three()

def plain(work):
    return "plain"

@directive(name="marked")
def single(work):
    return "single"

def __getattr__(name):
    raise AssertionError("nor are modules asked for what they don't have")
"""
POINTS = [
    "mod = plugin",
    "cls = plugin:Three",
    "obj = plugin:three",
    "plain = plugin:plain",
    "single = plugin:single",
]


def of(directives, *namespaces):
    return [name for name in directives.capabilities() if name.split(":")[0] in namespaces]


def test_plugins_are_found_as_modules_classes_objects_and_functions(directives, install):
    install("plugin-package", {"plugin.py": PLUGIN}, {"zmesh.plugins": POINTS})
    directives.discover()
    directives.discover()
    assert of(directives, "mod") == ["mod:marked", "mod:one", "mod:second"]
    assert of(directives, "cls", "obj") == ["cls:method", "cls:static", "obj:method", "obj:static"]
    assert of(directives, "plain", "single") == ["plain:plain", "single:marked"]
    assert directives.find("mod:second").stream
    assert directives.find("cls:method").shape is Shape.COROUTINE
    assert directives.find("cls:static").shape is Shape.FUNCTION
    assert directives.find("plain:plain").run(None) == "plain"


def test_a_class_has_an_instance_of_its_own_for_each_node(install):
    install("plugin-package", {"plugin.py": PLUGIN}, {"zmesh.plugins": ["cls = plugin:Three"]})
    nodes = Directives(), Directives()
    for node in nodes:
        node.discover()
    first, second = (node.find("cls:method").run.__self__ for node in nodes)
    assert first is not second


def test_functions_that_are_not_marked_are_not_allowed(directives, install):
    install("plugin-package", {"plugin.py": PLUGIN}, {"zmesh.plugins": ["mod = plugin"]})
    directives.discover()
    with pytest.raises(NotAllowed, match="'mod:helper' is no directive"):
        directives.find("mod:helper")
    for name in ("mod:_private", "mod:missing", "mod:__name__", "mod:", "mod"):
        with pytest.raises(UnknownDirective):
            directives.find(name)


@pytest.mark.parametrize(
    ("source", "point", "error"),
    [
        ("import nothing_of_this_name", "broken = broken_plugin", "ModuleNotFoundError"),
        ("raise ValueError('at import')", "broken = broken_plugin", "ValueError"),
        ("raise SystemExit(1)", "broken = broken_plugin", "SystemExit"),
        ("def", "broken = broken_plugin", "SyntaxError"),
        ("", "broken = broken_plugin:missing", "AttributeError"),
        ("", "broken = broken_plugin", "LookupError"),
        ("class Broken:\n    def __init__(self): 1 / 0", "broken = broken_plugin:Broken", "ZeroDivisionError"),
    ],
)
@pytest.mark.parametrize("group", ["zmesh.plugins", "receptor.worker"])
def test_a_plugin_that_fails_disables_only_itself(directives, install, caplog, source, point, error, group):
    install("broken", {"broken_plugin.py": source}, {group: [point]})
    install("plugin-package", {"plugin.py": PLUGIN}, {"zmesh.plugins": ["mod = plugin"]})
    directives.discover()
    assert of(directives, "broken") == [f"broken:!{error}"]
    assert of(directives, "mod") == ["mod:marked", "mod:one", "mod:second"]
    assert "the plugin broken (broken_plugin" in caplog.text
    with pytest.raises(UnknownDirective, match=f"'broken' could not be loaded here \\({error}\\)"):
        directives.find("broken:execute")


def test_an_action_with_an_impossible_name_disables_its_plugin(directives, install):
    source = "from zmesh.serving.directives import directive\n@directive(name='two words')\ndef it(work): pass"
    install(
        "broken", {"broken_plugin.py": source}, {"zmesh.plugins": ["broken = broken_plugin", "a b = broken_plugin"]}
    )
    directives.discover()
    assert of(directives, "broken", "a b") == ["broken:!ValueError"]


def test_the_first_of_two_plugins_of_one_name_stays_and_the_other_is_reported(directives, install, caplog):
    old = "def execute(message, config, result_queue): pass\nexecute.receptor_export = True"
    install("old", {"old_plugin.py": old}, {"receptor.worker": ["mod = old_plugin", "old = old_plugin"]})
    install("plugin-package", {"plugin.py": PLUGIN}, {"zmesh.plugins": ["mod = plugin"]})
    install("plugin-again", {}, {"zmesh.plugins": ["mod = plugin"]})
    directives.discover()
    assert of(directives, "mod", "old") == ["mod:marked", "mod:one", "mod:second", "old:execute"]
    assert caplog.text.count("its namespace is taken") == 1
    assert "(old_plugin) is left out" in caplog.text


def test_what_a_program_registers_takes_the_place_of_a_plugins(install):
    install("plugin-package", {"plugin.py": PLUGIN}, {"zmesh.plugins": ["mod = plugin"]})
    before, after = Directives(), Directives()
    before.register("mod:one", function)
    before.discover()
    after.discover()
    after.register("mod:one", function)
    for directives in (before, after):
        assert directives.find("mod:one").run is function
        assert of(directives, "mod") == ["mod:marked", "mod:one", "mod:second"]
