"""Which cipher suits the processor."""

import pytest

from zmesh.identity.processor import is_slow_at_aes, measured_slow, read_cpuinfo

X86 = "processor\t: 0\nflags\t\t: fpu vme de pse aes avx\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd evtstrm {}crc32\nCPU implementer\t: 0x41\n"


@pytest.mark.parametrize(
    ("text", "has_aes"),
    [
        (X86, True),
        (X86.replace("aes ", ""), False),
        (X86.replace("aes", "vaes"), False),
        (ARM.format("aes "), True),
        (ARM.format(""), False),
        ("cpu : POWER9\n", None),
        ("", None),
    ],
    ids=["x86", "x86 without", "x86 with vaes alone", "arm64", "a Raspberry Pi 4", "another", "nothing"],
)
def test_what_linux_says_of_a_processor_is_read(text, has_aes):
    assert read_cpuinfo(text) is has_aes


def test_the_choice_is_made_once_and_measuring_it_needs_no_file():
    assert is_slow_at_aes() in (True, False)
    assert is_slow_at_aes() is is_slow_at_aes()
    assert measured_slow() in (True, False)
