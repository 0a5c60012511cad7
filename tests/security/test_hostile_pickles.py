"""Pickles in the place of CIFAR's batches: none is run, none takes more memory than it has bytes."""

import pickle
import pickletools
import struct

import numpy as np
import pytest
from canary import PAYLOADS, at_most, flipped, outcome, refused, works
from hypothesis import example, given, settings
from hypothesis import strategies as st

from amtml_pl.data.datasets.pickled_arrays import INSTRUCTIONS, read_pickled_arrays
from amtml_pl.errors import UserError

BATCH = {"data": np.arange(30 * 3, dtype=np.uint8).reshape(30, 3), "labels": list(range(30)), "name": "batch"}
FUZZ = settings(deadline=None, max_examples=300, database=None, derandomize=True)


def read(content):
    return read_pickled_arrays(content, "the batch")


def build(name, state):
    """A pickle that sets a state on one of the names that are known."""
    return b"c" + name + b"\n" + state + b"b."


@pytest.mark.parametrize("protocol", range(2, 5))
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["u1", "<i8", ">i4", "f4", "?"])
def test_arrays_of_numbers_come_back_as_they_were(protocol, order, dtype):
    array = np.array(np.arange(24).reshape(4, 6), dtype, order=order)
    found = read(
        pickle.dumps({"data": array, b"labels": [1, 2], "name": "x", "few": (1, 2.5, None, True)}, protocol)
    )
    assert found["data"].dtype == array.dtype
    assert (found["data"] == array).all()
    assert {name: found[name] for name in ("labels", "name", "few")} == {
        "labels": [1, 2], "name": "x", "few": (1, 2.5, None, True),
    }  # fmt: skip


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_payload_is_refused_and_never_run(canary, payload, protocol):
    assert works(payload(canary))
    for content in (payload(canary), {"data": payload(canary)}, {"data": [1, {"x": payload(canary)}]}):
        with refused():
            read(pickle.dumps(content, protocol))


@pytest.mark.parametrize(
    "content",
    [
        b"cos\nsystem\n(S'touch canary'\ntR.",
        b"(S'touch canary'\nios\nsystem\n.",
        b"(cos\nsystem\nS'touch canary'\no.",
        b"\x80\x02cos\nsystem\nU\x0ctouch canary\x85\x81.",
        b"\x80\x02\x82\x01.",
        b"\x80\x02Pname\n.",
        b"\x80\x02U\x04nameQ.",
        b"cnumpy.core.multiarray\n_reconstruct.__globals__\n.",
        b"cnumpy\ndtype.__class__\n.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cnumpy\nload\n(S'x'\ntR.",
    ],
)
def test_every_way_to_ask_for_code_is_refused(content, tmp_path):
    with refused():
        read(content)
    assert not (tmp_path / "here" / "canary").exists()


@pytest.mark.parametrize("name", [b"numpy\nndarray", b"numpy\ndtype", b"_codecs\nencode",
                                  b"numpy.core.multiarray\n_reconstruct"])  # fmt: skip
@pytest.mark.parametrize("state", [b"(dS'__code__'\nNs", b"(N(dS'__call__'\nNst", b"(dS'checked'\nNs"])
def test_what_a_pickle_may_call_cannot_be_changed_by_it(name, state):
    with refused():
        read(build(name, state))
    assert (read(pickle.dumps(BATCH, 2))["data"] == BATCH["data"]).all()


def claiming(shape, content, dtype=b"u1"):
    """A pickle of an array by hand: its shape and its bytes need not agree."""
    numbers = b"".join(b"\x8a\x08" + struct.pack("<q", n) for n in shape)
    return (
        b"\x80\x02}U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01(" + numbers + b"tcnumpy\ndtype\nU" + bytes([len(dtype)]) + dtype
        + b"K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U" + bytes([len(content)]) + content + b"tbs."
    )  # fmt: skip


def test_the_array_made_by_hand_is_sound_where_its_claims_are():
    assert read(claiming([2, 3], b"abcdef"))["data"].tobytes() == b"abcdef"


@pytest.mark.parametrize(
    "shape", [[1 << 50], [1 << 40, 3072], [2**62, 2**62, 0], [-2, -3], [-1], [7], [1 << 62, 4]]
)
@pytest.mark.parametrize("dtype", [b"u1", b"f8"])
def test_an_array_that_claims_more_than_it_has_is_refused(shape, dtype):
    if shape[-1] == 0:
        assert outcome(read, claiming(shape, b"", dtype)) is not None
        return
    with (
        at_most(megabytes=5),
        pytest.raises(UserError, match="is damaged, or no pickle of arrays: an array of"),
    ):
        read(claiming(shape, b"abcdef", dtype))


@pytest.mark.parametrize("dtype", [b"O", b"V8", b"V999999999", b"M8", b"S5", b"u1,O", b"", b"object"])
def test_an_array_of_anything_but_numbers_is_refused(dtype):
    with pytest.raises(UserError, match="of another type than plain numbers"):
        read(claiming([1], b"abcdefgh", dtype))


def test_an_array_cannot_be_made_by_calling_its_class():
    """Else it could have steps of 0, and so any size, above one byte."""
    with refused():
        read(b"\x80\x02}U\x04datacnumpy\nndarray\n\x8a\x06\0\0\0\0\0\x10\x85\x85Rs.")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x80\x02}r\xff\xff\xff\x7f.", "claims to hold 2,147,483,647 values"),
        (b"}p999999999999\n.", "claims to hold 999,999,999,999 values"),
        (b"\x80\x05\x96\x00\x00\x00\x00\xff\x00\x00\x00.", "no pickle of arrays"),
        (b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x00x.", "no pickle of arrays"),
        (b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x00}.", "no pickle of arrays"),
        (b"\x80\x02X\xff\xff\xff\x7fx.", "no pickle of arrays"),
        (b"\x80\x02\x8b\xff\xff\xff\x7fx.", "no pickle of arrays"),
        (b"L" + b"9" * 10_000 + b"L\n.", "no pickle of arrays"),
    ],
)
def test_a_pickle_that_claims_more_than_it_has_is_refused_without_reserving_it(content, reason):
    with at_most(megabytes=5), pytest.raises(UserError, match=reason):
        read(content)


def test_tuples_that_hold_one_another_are_refused_before_they_are_hashed():
    """Forty levels are two hundred bytes, and a number of 2⁴⁰ steps to hash."""
    levels = b"".join(b"q" + bytes([n]) + b"h" + bytes([n]) + b"\x86" for n in range(40))
    with pytest.raises(UserError, match="uses one tuple several times"):
        read(b"\x80\x02}K\x01\x85" + levels + b"K\x01s.")


def test_tuples_nested_too_deeply_to_be_hashed_are_refused():
    with refused():
        read(b"\x80\x02}" + b"N" * 2 + b"\x85" * 200_000 + b"K\x01s.")


@pytest.mark.parametrize("depth", [1_000, 100_000])
def test_lists_nested_deeply_are_data_like_any_other(depth):
    found = read(b"\x80\x02}U\x01x" + b"]" * depth + b"a" * (depth - 1) + b"s.")
    assert isinstance(found["x"], list)


@pytest.mark.parametrize(
    "content", [b"", b".", b"N.", b"].", b"K\x01.", b"}K\x01K\x02s.", b"}NNs.", b"}(K\x01tNs."]
)
def test_what_is_no_dictionary_with_text_keys_is_refused(content):
    with refused():
        read(content)


@FUZZ
@given(content=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(content):
    outcome(read, content)


@FUZZ
@given(protocol=st.integers(2, 4), bits=st.lists(st.integers(0, 2**30), min_size=1, max_size=4))
@example(protocol=2, bits=[0])
def test_changed_bits_in_a_batch_are_read_or_refused(protocol, bits):
    content = pickle.dumps(BATCH, protocol)
    for bit in bits:
        content = flipped(content, bit)
    found = outcome(read, content)
    assert isinstance(found, dict | UserError)


CODES = {code.name: code.code.encode("latin1") for code in pickletools.opcodes}
WORDS = st.sampled_from([
    b"cnumpy\ndtype\n", b"cnumpy\nndarray\n", b"c_codecs\nencode\n", b"cos\nsystem\n",
    b"cnumpy.core.multiarray\n_reconstruct\n", b"U\x02u1", b"U\x01|", b"K\x01", b"K\x03",
    b"J\xff\xff\xff\xff", b"q\x00", b"h\x00", b"q\x01", b"h\x01", b"0", b"2",
    *(CODES[name] for name in sorted(INSTRUCTIONS)),
])  # fmt: skip


@FUZZ
@given(words=st.lists(WORDS, max_size=40))
def test_any_order_of_instructions_is_read_or_refused(words):
    outcome(read, b"\x80\x04" + b"".join(words) + b".")
