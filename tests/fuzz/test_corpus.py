"""The fuzzer's targets, without the fuzzer: their seeds, its corpus, and the seeds with some bytes changed."""

import random
from pathlib import Path

import pytest

from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_lets_nothing_pass_but_the_errors_of_its_decoder(name):
    for path in sorted((CORPUS / name).glob("*")):
        TARGETS[name](path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_changed_seeds_raise_the_errors_of_their_decoder_alone(name):
    draw = random.Random(name)
    for seed in seeds()[name]:
        TARGETS[name](seed)
        for _ in range(40):
            changed = bytearray(seed)
            for _ in range(draw.randint(1, 4)):
                at = draw.randrange(len(changed))
                match draw.randrange(3):
                    case 0:
                        changed[at] = draw.randrange(256)
                    case 1:
                        del changed[at:]
                    case _:
                        changed[at:at] = draw.randbytes(draw.randint(1, 8))
                changed = changed or bytearray(1)
            TARGETS[name](bytes(changed))


def test_every_target_has_seeds_and_no_folder_of_the_corpus_is_without_a_target():
    assert seeds().keys() == TARGETS.keys()
    assert {path.name for path in CORPUS.iterdir()} <= TARGETS.keys()
