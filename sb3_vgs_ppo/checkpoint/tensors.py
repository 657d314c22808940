"""
State dicts as bytes: tensors and plain Python values, written and read by torch without running anything.

``torch.load(weights_only=True)`` executes only a short list of calls, but that list is longer than a state dict needs
(``bytearray`` and ``torch.Tensor`` allocate whatever a file asks for, and a program can extend it). So the pickle's
instructions are checked against a shorter list before torch sees them, and what torch returns is checked once more.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from typing import Any

import torch as th

from sb3_vgs_ppo.checkpoint.archive import Limits, check_entries
from sb3_vgs_ppo.checkpoint.faults import as_checkpoint_error
from sb3_vgs_ppo.errors import CheckpointError

_STORAGES = (
    *("DoubleStorage", "FloatStorage", "HalfStorage", "BFloat16Storage", "ComplexDoubleStorage", "ComplexFloatStorage"),
    *("LongStorage", "IntStorage", "ShortStorage", "CharStorage", "ByteStorage", "BoolStorage"),
)
_GLOBALS = frozenset(
    {
        "collections OrderedDict",
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_parameter",
        *(f"torch {storage}" for storage in _STORAGES),
    }
)
"""Every name that the pickle of a state dict mentions; the storages decide the dtypes in :data:`_DTYPES`."""
_DTYPES = frozenset(
    {
        *(th.float64, th.float32, th.float16, th.bfloat16, th.complex128, th.complex64),
        *(th.int64, th.int32, th.int16, th.int8, th.uint8, th.bool),
    }
)
_SCALARS = frozenset({type(None), bool, int, float, str})
_PROTOCOL = 2
_MAX_INT_BITS = 2032  # torch reads integers of up to 255 bytes
_MAX_DEPTH = 64
_MAX_VALUES = 1_000_000
_MAX_PICKLE_BYTES = 16 * _MAX_VALUES  # read at about a megabyte per second
# Each batch of 1,000 entries counts as a level, so this admits a million entries; hashing a tuple that is nested
# 100,000 deep overflows the C stack.
_MAX_PICKLE_DEPTH = 1_000


def dump_tensors(values: Any) -> bytes:
    """
    Serialize a state dict.

    :param values: dicts (with keys of the scalar types), lists and tuples of tensors, None, bool, int, float and str
    :return: what ``torch.save`` writes
    :raises CheckpointError: something else is among the values, so that :func:`load_tensors` could not read it back
    """
    _Check("not storable").visit(values, "value")
    buffer = io.BytesIO()
    th.save(values, buffer)
    return buffer.getvalue()


def load_tensors(content: bytes, file: str, member: str) -> Any:
    """
    Read a state dict onto the CPU.

    :param content: what ``torch.save`` wrote
    :param file: checkpoint, for messages
    :param member: member, for messages
    :return: what :func:`dump_tensors` accepts; nothing else
    :raises CheckpointError: damaged, written by torch < 1.6, or with anything that is not a tensor or plain value
    """
    where = f"{file}: {member}"
    with as_checkpoint_error(where):
        _check_pickle(_read_pickle(content, where), where)
        try:
            # mmap is off by default, but a program can change that default, and bytes cannot be mapped.
            values = th.load(io.BytesIO(content), map_location="cpu", weights_only=True, mmap=False)
        except pickle.UnpicklingError as error:  # its message advises to unpickle without restriction
            raise CheckpointError(f"{where}: not a state dict of tensors and plain values, or damaged") from error
        _Check(where, max_bytes=len(content)).visit(values, "value")
    return values


def is_torch_file(names: list[str]) -> bool:
    """
    :param names: names in a zip file's table of contents
    :return: whether ``torch.save`` wrote the file
    """
    return any(name.endswith("/data.pkl") for name in names)


def _read_pickle(content: bytes, where: str) -> bytes:
    """The one pickle of a torch file: the structure, which refers to the tensors' bytes in the other records."""
    if not zipfile.is_zipfile(io.BytesIO(content)):
        raise CheckpointError(f"{where}: not a torch file, a truncated one, or one of torch < 1.6 (save it again)")
    with zipfile.ZipFile(io.BytesIO(content)) as records:
        entries = records.infolist()
        limits = Limits(max_total_bytes=len(content), max_ratio=1, max_members=_MAX_VALUES)
        check_entries(entries, file_size=len(content), limits=limits, file=where)
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise CheckpointError(f"{where}: compressed records, which torch never writes")
        pickles = [entry for entry in entries if entry.filename.endswith(".pkl")]
        if len(pickles) != 1:
            raise CheckpointError(f"{where}: {len(pickles)} pickles instead of one")
        if pickles[0].file_size > _MAX_PICKLE_BYTES:
            raise CheckpointError(f"{where}: a structure of {pickles[0].file_size} bytes besides the tensors' content")
    # By torch's own reader, so that what is checked is what torch.load will execute. Unlike zipfile it does not insist
    # on checksums, which th.serialization.set_crc32_options can switch off.
    return th._C.PyTorchFileReader(io.BytesIO(content)).get_record("data.pkl")


def _check_pickle(code: bytes, where: str) -> None:
    """
    Follow a pickle's instructions without executing them.

    ``pickletools`` knows what each instruction takes from the stack and puts there.

    :param code: the pickle
    :param where: file and member, for messages
    :raises CheckpointError: it names something else than :data:`_GLOBALS`, or is nested too deeply
    """
    depths: list[int] = []  # of the values on the unpickler's stack
    marks: list[int] = []  # where MARK was executed, as lengths of that stack
    memo: dict[Any, int] = {}
    for instruction, argument, _ in pickletools.genops(code):
        if instruction.name in ("GLOBAL", "INST") and argument not in _GLOBALS:
            name = str(argument).replace(" ", ".")
            raise CheckpointError(f"{where}: refers to {name!r}, which no state dict needs; nothing of it was executed")
        if instruction.proto > _PROTOCOL or (instruction.name == "PROTO" and argument != _PROTOCOL):
            raise CheckpointError(f"{where}: not of pickle protocol {_PROTOCOL}, the one that torch writes")
        if "PUT" in instruction.name:
            memo[argument] = depths[-1]
        elif "GET" in instruction.name:
            depths.append(memo[argument])
        elif instruction.name == "MARK":
            marks.append(len(depths))
        else:
            depth = 1 + max(_pop(depths, marks, instruction.stack_before), default=0)
            if depth > _MAX_PICKLE_DEPTH:
                raise CheckpointError(f"{where}: nested more than {_MAX_PICKLE_DEPTH} deep")
            depths.extend([depth] * len(instruction.stack_after))


def _pop(depths: list[int], marks: list[int], operands: list[pickletools.StackObject]) -> list[int]:
    """
    :param depths: stack, from which the operands are removed
    :param marks: positions in it, of which the topmost is removed if the instruction takes a mark
    :param operands: what an instruction takes; a mark stands for everything above the topmost one
    :return: depths of the operands
    """
    start, count = len(depths), len(operands)
    if pickletools.markobject in operands:
        start, count = marks.pop(), operands.index(pickletools.markobject)
    taken = depths[start - count :]
    del depths[start - count :]
    return taken


class _Check:
    """
    Walks over values and refuses what is not plain.

    Types are compared exactly: ``numpy.float64`` is a ``float``, yet its pickle needs NumPy.

    :param where: start of the messages
    :param max_bytes: size that no tensor may exceed. A tensor that is expanded from one element costs a file nothing,
        and whoever copies it everything
    """

    def __init__(self, where: str, max_bytes: int | None = None) -> None:
        self.where = where
        self.max_bytes = max_bytes
        self.n_values = 0

    def visit(self, value: Any, path: str, depth: int = 0) -> None:
        """
        :param value: value to check, with everything in it
        :param path: how to reach it from the outermost value, for messages
        :param depth: number of containers around it
        :raises CheckpointError: it, or something in it, is not plain
        """
        # Counted per visit, so that a few lists which contain each other many times end here as well.
        self.n_values += 1
        if depth > _MAX_DEPTH or self.n_values > _MAX_VALUES:
            raise CheckpointError(f"{self.where}: {path}: more than {_MAX_DEPTH} levels or {_MAX_VALUES} values")
        kind = type(value)
        if kind in (th.Tensor, th.nn.Parameter):
            self._visit_tensor(value, path)
        elif kind in (dict, OrderedDict):
            for key, item in value.items():
                self._visit_scalar(key, f"key of {path}")
                self.visit(item, f"{path}[{key!r:.60}]", depth + 1)
        elif kind in (list, tuple):
            for index, item in enumerate(value):
                self.visit(item, f"{path}[{index}]", depth + 1)
        else:
            self._visit_scalar(value, path)

    def _visit_scalar(self, value: Any, path: str) -> None:
        kind = type(value)
        if kind not in _SCALARS:
            raise CheckpointError(
                f"{self.where}: {path}: {kind.__module__}.{kind.__qualname__} is neither a tensor nor a plain value"
            )
        if kind is int and value.bit_length() > _MAX_INT_BITS:
            raise CheckpointError(f"{self.where}: {path}: an integer of {value.bit_length()} bits")

    def _visit_tensor(self, tensor: th.Tensor, path: str) -> None:
        if tensor.layout != th.strided or tensor.is_meta or tensor.is_quantized or tensor.dtype not in _DTYPES:
            raise CheckpointError(
                f"{self.where}: {path}: a {tensor.layout} tensor of {tensor.dtype} on {tensor.device}"
            )
        size = tensor.numel() * tensor.element_size()
        if self.max_bytes is not None and size > self.max_bytes:
            raise CheckpointError(f"{self.where}: {path}: a tensor of {size} bytes in {self.max_bytes} bytes")
