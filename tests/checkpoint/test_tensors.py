"""State dicts as bytes: what torch may read of a stranger's file."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from hypothesis import given
from hypothesis import strategies as st
from stable_baselines3 import PPO

from helpers import Payload
from sb3_vgs_ppo.checkpoint import dump_tensors, load_tensors, tensors
from sb3_vgs_ppo.errors import CheckpointError

DTYPES = [
    *(th.float64, th.float32, th.float16, th.bfloat16, th.complex128, th.complex64),
    *(th.int64, th.int32, th.int16, th.int8, th.uint8, th.bool),
]


def load(content: bytes) -> Any:
    return load_tensors(content, "model.zip", "policy.pth")


def refusal(content: bytes) -> str:
    with pytest.raises(CheckpointError) as caught:
        load(content)
    assert str(caught.value).startswith("model.zip: policy.pth: ")
    return str(caught.value).removeprefix("model.zip: policy.pth: ")


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**128), 2**128), st.floats(allow_nan=False), st.text(max_size=8)
)
plain = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(scalars, inner, max_size=3),
        st.dictionaries(st.text(max_size=3), inner, max_size=3).map(OrderedDict),
    ),
    max_leaves=8,
)


@given(plain)
def test_plain_values_come_back(value: Any) -> None:
    loaded = load(dump_tensors(value))
    assert type(loaded) is type(value)
    assert loaded == value


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3)], ids=str)
def test_tensors_come_back_bit_for_bit(dtype: th.dtype, shape: tuple[int, ...]) -> None:
    tensor = th.randn(shape, generator=th.Generator().manual_seed(0)).mul(50).to(dtype)
    loaded = load(dump_tensors({"a": tensor}))["a"]
    assert (loaded.dtype, loaded.shape) == (dtype, tensor.shape)
    assert th.equal(loaded, tensor)


def test_views_parameters_and_shared_tensors_come_back() -> None:
    flat = th.arange(6.0)
    values = {"view": flat[2:].view(2, 2).t(), "parameter": th.nn.Parameter(flat), "few": th.zeros(1).expand(5)}
    loaded = load(dump_tensors(values))
    assert loaded["view"].tolist() == [[2.0, 4.0], [3.0, 5.0]]
    assert type(loaded["parameter"]) is th.nn.Parameter
    assert loaded["few"].tolist() == [0.0] * 5


def test_a_models_state_dicts_come_back() -> None:
    model = PPO("MlpPolicy", "CartPole-v1", n_steps=32, batch_size=32, n_epochs=1).learn(32)
    for name, state in model.get_parameters().items():
        loaded = load(dump_tensors(state))
        assert str(loaded) == str(state), name
    assert all(th.equal(a, b) for a, b in zip(loaded["state"][0].values(), state["state"][0].values(), strict=True))


def test_a_large_state_is_not_taken_for_a_deep_one() -> None:
    values = {"entries": dict.fromkeys(range(20_000)), "items": list(range(20_000))}
    assert load(dump_tensors(values)) == values
    state = {str(index): th.full((2,), float(index)) for index in range(600)}
    assert [tensor.tolist() for tensor in load(dump_tensors(state)).values()] == [[index] * 2 for index in range(600)]


@pytest.mark.parametrize(
    "value",
    [
        *(np.float64(1), np.ones(2), b"bytes", {1, 2}, 1j, Counter("ab"), th.Size([1]), th.float32, print, object()),
        *(2**2033, th.ones(2).to_sparse(), th.ones(2, device="meta"), th.ones(2, dtype=th.uint16)),
        {"deep": [(np.float32(1),)]},
        {np.int64(1): 1},
        {(1, 2): 1},
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_could_not_be_read_back_is_not_written(value: Any) -> None:
    with pytest.raises(CheckpointError, match=r"^not storable: "):
        dump_tensors({"state": [value]})


def test_the_message_says_where() -> None:
    with pytest.raises(CheckpointError, match=r"value\['a'\]\[1\]\[0\]: numpy.float64 is neither a tensor nor a plain"):
        dump_tensors({"a": [1, (np.float64(2),)]})


def test_a_list_that_contains_itself_is_not_written() -> None:
    values: list[Any] = []
    values.append(values)
    with pytest.raises(CheckpointError, match="more than 64 levels"):
        dump_tensors(values)


def test_the_largest_integer_comes_back() -> None:
    assert load(dump_tensors([2**2032 - 1, -(2**2031)])) == [2**2032 - 1, -(2**2031)]


# Files of a stranger


@pytest.mark.parametrize(
    "content", [b"", b"PK", os.urandom(2000), pickle.dumps({"a": 1}), pickle.dumps({}, protocol=2)]
)
def test_something_else_than_a_torch_file_is_refused(content: bytes) -> None:
    assert refusal(content).startswith("not a torch file")


def test_the_format_before_torch_1_6_is_refused() -> None:
    buffer = io.BytesIO()
    th.save({"a": th.ones(2)}, buffer, _use_new_zipfile_serialization=False)
    assert "one of torch < 1.6 (save it again)" in refusal(buffer.getvalue())


@pytest.mark.parametrize("kept", [0.05, 0.5, 0.95])
def test_a_truncated_file_is_refused(kept: float) -> None:
    content = dump_tensors({"a": th.ones(1000)})
    assert "truncated" in refusal(content[: int(len(content) * kept)])


def test_a_missing_record_is_refused() -> None:
    with zipfile.ZipFile(io.BytesIO(dump_tensors({"a": th.ones(2)}))) as archive:
        kept = {name: archive.read(name) for name in archive.namelist() if not name.endswith("data/0")}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in kept.items():
            archive.writestr(name, content)
    assert "data/0" in refusal(buffer.getvalue())


def test_a_payload_does_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    buffer = io.BytesIO()
    th.save({"a": th.ones(2), "b": Payload(marker)}, buffer)
    message = refusal(buffer.getvalue())
    assert message == f"refers to '{os.mkdir.__module__}.mkdir', which no state dict needs; nothing of it was executed"
    assert not marker.exists()
    th.load(io.BytesIO(buffer.getvalue()), weights_only=False)  # the payload is live
    assert marker.exists()


def test_names_that_a_program_allowed_are_still_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    th.save(Payload(tmp_path / "marker"), buffer)
    with th.serialization.safe_globals([os.mkdir]):
        assert "refers to" in refusal(buffer.getvalue())
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        *(("os", "system"), ("builtins", "eval"), ("torch", "load"), ("collections", "Counter"), ("torch", "Tensor")),
        *(
            ("builtins", "bytearray"),
            ("_codecs", "encode"),
            ("torch.nn.parameter", "Parameter"),
            ("torch.storage", "os"),
        ),
        *(("torch._utils", "_rebuild_meta_tensor_no_storage"), ("torch._tensor", "_rebuild_from_type_v2"), ("", "")),
    ],
)
def test_only_the_names_of_a_state_dict_are_allowed(
    torch_file: Callable[..., bytes], pickle_code: Any, module: str, name: str
) -> None:
    for call in (b"", pickle_code.mark + pickle_code.integer(10**9) + b"tR"):
        code = pickle_code.start + pickle_code.name(module, name) + call + pickle_code.stop
        assert refusal(torch_file(code)).startswith(f"refers to '{module}.{name}'")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (b"\x8c\x02os\x8c\x06system\x93.", "not of pickle protocol 2"),  # STACK_GLOBAL
        (b"(ios\nsystem\n.", "refers to 'os.system'"),  # INST
        (b"\x82\x01.", "not a state dict of tensors and plain values"),  # EXT1
    ],
)
def test_other_ways_to_a_name_are_refused(torch_file: Callable[..., bytes], code: bytes, message: str) -> None:
    assert message in refusal(torch_file(b"\x80\x02" + code))


def test_another_pickle_protocol_is_refused() -> None:
    buffer = io.BytesIO()
    th.save({"a": 1}, buffer, pickle_protocol=4)
    assert refusal(buffer.getvalue()) == "not of pickle protocol 2, the one that torch writes"


@pytest.mark.parametrize("code", [b"", b"\x80\x02", b".", b"R.", b"h\x00.", b"t.", b"\xff."])
def test_a_damaged_pickle_is_refused(torch_file: Callable[..., bytes], code: bytes) -> None:
    assert refusal(torch_file(code))


def test_a_hostile_tensor_of_the_builder_loads_when_it_is_honest(
    torch_file: Callable[..., bytes], pickle_code: Any
) -> None:
    code = pickle_code.start + pickle_code.tensor(stored=2, size=2, stride=1) + pickle_code.stop
    assert load(torch_file(code, {"0": np.array([1.5, -2], np.float32).tobytes()})).tolist() == [1.5, -2.0]


@pytest.mark.parametrize(("stored", "size", "stride"), [(1, 10**10, 0), (1, 10**10, 1), (10**10, 10**10, 1)])
def test_a_tensor_larger_than_its_file_is_refused(
    torch_file: Callable[..., bytes], pickle_code: Any, stored: int, size: int, stride: int
) -> None:
    code = pickle_code.start + pickle_code.tensor(stored, size, stride) + pickle_code.stop
    assert refusal(torch_file(code, {"0": bytes(4)}))


def test_nested_tuples_do_not_overflow_the_stack(torch_file: Callable[..., bytes], pickle_code: Any) -> None:
    # {((((…)))): None}: hashing the key recurses in C without a limit.
    code = pickle_code.start + b"})" + b"\x85" * 1_000_000 + b"Ns" + pickle_code.stop
    assert refusal(torch_file(code)) == "nested more than 1000 deep"


def test_tuples_nested_by_reference_do_not_overflow_the_stack(
    torch_file: Callable[..., bytes], pickle_code: Any
) -> None:
    code = pickle_code.start + b")q\x00" + b"(h\x00tq\x00" * 2000 + pickle_code.stop
    assert refusal(torch_file(code)) == "nested more than 1000 deep"


def test_many_marks_over_a_high_stack_take_no_quadratic_time(
    torch_file: Callable[..., bytes], pickle_code: Any
) -> None:
    code = pickle_code.start + b"N" * 200_000 + b"(l" * 200_000 + pickle_code.stop
    assert refusal(torch_file(code))


def test_a_huge_structure_is_refused(torch_file: Callable[..., bytes], pickle_code: Any) -> None:
    code = pickle_code.start + b"N" * 16_000_000 + pickle_code.stop
    assert refusal(torch_file(code)) == "a structure of 16000003 bytes besides the tensors' content"


def test_lists_that_contain_each_other_many_times_are_refused(
    torch_file: Callable[..., bytes], pickle_code: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensors, "_MAX_VALUES", 10_000)
    code = (
        pickle_code.start + b"]q\x00" + b"".join(b"](h\x00h\x00h\x00h\x00eq\x00" for _ in range(30)) + pickle_code.stop
    )
    assert "more than 64 levels or 10000 values" in refusal(torch_file(code))


def test_a_list_that_contains_itself_is_refused(torch_file: Callable[..., bytes], pickle_code: Any) -> None:
    assert "more than 64 levels" in refusal(torch_file(pickle_code.start + b"]q\x00h\x00a" + pickle_code.stop))


def test_compressed_records_are_refused(torch_file: Callable[..., bytes], pickle_code: Any) -> None:
    code = pickle_code.start + pickle_code.tensor(2, 2, 1) + pickle_code.stop
    message = refusal(torch_file(code, {"0": bytes(2**21)}, zipfile.ZIP_DEFLATED))
    assert "expands to" in message
    assert "compressed records" in refusal(torch_file(code, {"0": os.urandom(8)}, zipfile.ZIP_DEFLATED))


def test_a_second_pickle_is_refused(torch_file: Callable[..., bytes]) -> None:
    assert refusal(torch_file(b"\x80\x02N.", {"../data.pkl": b"\x80\x02N."})).endswith("not a plain relative name")
    assert refusal(torch_file(b"\x80\x02N.", {"x/data.pkl": b"\x80\x02N."})) == "2 pickles instead of one"


def test_it_loads_what_was_written_without_checksums() -> None:
    before = th.serialization.get_crc32_options()
    try:
        th.serialization.set_crc32_options(False)
        assert load(dump_tensors({"a": th.ones(300)}))["a"].sum() == 300
    finally:
        th.serialization.set_crc32_options(before)


def test_it_loads_when_the_program_maps_files_by_default() -> None:
    content = dump_tensors({"a": 1})
    config = th.utils.serialization.config.load
    before = config.mmap
    try:
        config.mmap = True
        assert load(content) == {"a": 1}
    finally:
        config.mmap = before
