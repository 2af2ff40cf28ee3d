"""How a Controller is made, how directives are offered at it, and what replies and pongs say as attributes."""

import dataclasses

import pytest

import zmesh
import zmesh.sync
from zmesh.config import SETTINGS
from zmesh.testing import Mesh, eventually

KINDS = [zmesh.Controller, zmesh.sync.Controller]


@pytest.mark.parametrize("kind", KINDS)
def test_settings_are_given_by_name_or_as_a_config(kind):
    settings = {"node_id": "edge", "peers": ["tcp://hub:7323"], "heartbeat": 2.0, "identity": None}
    assert kind(**settings).config == kind(zmesh.Config(**settings)).config == zmesh.Config(**settings)


def test_every_setting_is_a_keyword():
    config = zmesh.Config()
    for field in dataclasses.fields(zmesh.Config):
        if field.name in SETTINGS:
            assert zmesh.Controller(**{field.name: getattr(config, field.name)}) is not None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("arguments", "settings", "error", "text"),
    [
        ((zmesh.Config(),), {"node_id": "a"}, TypeError, "either a Config or settings such as node_id=..., not both"),
        ((), {"nod_id": "a"}, TypeError, r"no setting is called 'nod_id' \(did you mean 'node_id'\?\)"),
        ((), {"file": "a"}, TypeError, "no setting is called 'file'"),
        ((), {"node_id": "b c"}, zmesh.ConfigError, "node_id 'b c' is not 1 to 64 characters"),
        ((), {"heartbeat": "1"}, ValueError, "heartbeat = '1' is not a number from 0.05 to 3600"),
        (("edge",), {}, TypeError, "a Controller takes a Config, not str"),
    ],
)
def test_wrong_settings_are_refused_with_what_is_right(kind, arguments, settings, error, text):
    with pytest.raises(error, match=text):
        kind(*arguments, **settings)


async def test_a_decorator_offers_a_function_and_leaves_it_as_it_is():
    async with Mesh("a") as mesh:

        @mesh["a"].directive("text:shout")
        def shout(work):
            return work.payload.text().upper()

        @mesh["a"].directive("text:size", stream=True)
        async def size(work):
            return sum([len(chunk) async for chunk in work.payload])

        assert shout.__name__ == "shout"
        assert (await mesh["a"].request("a", "text:shout", "hello")).text() == "HELLO"
        assert (await mesh["a"].request("a", "text:size", bytes(200_000))).json() == 200_000
        for wrong, error in ((shout, TypeError), ("shout", zmesh.ConfigError), ("text:shout", ValueError)):
            with pytest.raises(error):
                mesh["a"].directive(wrong)(shout)


def test_the_decorator_is_there_without_asyncio_too():
    mesh = zmesh.sync.Controller(node_id="a")

    @mesh.directive("text:shout")
    def shout(work):
        return work.payload.text().upper()

    with mesh:
        assert mesh.request("a", "text:shout", "hello").text() == "HELLO"


async def test_replies_have_attributes_beside_the_header():
    async with Mesh.chain("near", "far") as mesh:
        async with mesh["near"].stream("far", "echo:echo", "x") as replies:
            (reply,) = [reply async for reply in replies]
        with pytest.raises(zmesh.RemoteError):
            async with mesh["near"].stream("far", "sleep:execute", "no number") as failed:
                await anext(failed)
        for each in (reply, replies.final, failed.final):
            assert {name: getattr(each, name) for name in each.header} == each.header
        assert (reply.sender, reply.recipient, reply.serial, reply.code, reply.eof) == ("far", "near", 1, 0, False)
        assert (reply.error, reply.reason, reply.in_response_to) == (None, None, replies.message_id)
        assert (replies.final.code, replies.final.eof) == (0, True)
        assert (failed.final.code, failed.final.reason) == (1, "remote")
        assert "ValueError" in failed.final.error


async def test_a_pong_lists_active_work_as_typed_values():
    async with Mesh.chain("near", "far") as mesh:
        sent = mesh["near"].send(b"60", "far", "sleep:execute")
        pong = await mesh["near"].ping_once("far")
        (work,) = pong.active_work
        assert work == zmesh.ActiveWork(sent.message_id, "sleep:execute", "near")
        assert work.id == int(sent.message_id, 16)
        assert await mesh["far"].cancel_at("far", work.message_id)


async def test_pongs_that_make_no_sense_list_what_they_do_say():
    async with Mesh.chain("near", "far") as mesh:
        answers = {"active_work": [{"id": 1, "directive": 5}, {"message_id": "zz"}, 7, None]}
        mesh["far"].node.serving.add_builtin("zmesh:ping", lambda work: answers)
        pong = await mesh["near"].ping_once("far")
        assert pong.active_work == (zmesh.ActiveWork("0" * 31 + "1", "5", None), zmesh.ActiveWork(None, None, None))
        assert pong.active_work[1].id is None


@pytest.mark.parametrize("wrong", ["zz", "f" * 33, "", -1, 1 << 128])
async def test_a_message_id_that_is_none_is_a_usage_error(wrong):
    async with Mesh("a") as mesh:
        with pytest.raises(zmesh.ConfigError, match="is no message id: 32 hex digits, or the number that a ping lists"):
            mesh["a"].cancel(wrong)
        with pytest.raises(zmesh.ConfigError, match="is no message id"):
            await mesh["a"].cancel_at("a", wrong)
        for kind in (None, 1.5, b"0" * 32, True):
            with pytest.raises(TypeError, match="a message id is a str of 32 hex digits, not"):
                mesh["a"].cancel(kind)
        await eventually(lambda: mesh["a"].stats().requests == 0)
