"""The file formats: how a graph is written, opened and run. A file carries its facts as JSON."""

import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor
from torch.export import ExportedProgram

from mdnc._extras import require
from mdnc._torch import misses, needed
from mdnc.export.graph import quiet

KEY = 'mdnc'  # under which a file's metadata holds the facts
ONE_FILE = 2**31 - 2**20  # bytes; protobuf, in which ONNX is written, counts with 31 bits


@dataclass(frozen=True)
class Opened:
    """An exported file, ready to run.

    Args:
        run: Gives the answer to an input.
        facts: What the file says of itself.
        device: Where it runs.
    """

    run: Callable[[Tensor], Any]
    facts: dict[str, Any]
    device: str = 'cpu'


class Format(Protocol):
    """A kind of file; torch opens its own by their suffix only."""

    suffix: ClassVar[str]
    dtypes: ClassVar[tuple[torch.dtype, ...]]

    def prepare(self) -> None:
        """Raise now what would fail after minutes: a missing package or compiler."""

    def write(self, program: ExportedProgram, names: tuple[str, ...], facts: dict[str, Any], path: Path) -> None:
        """Write a graph whose free axes have these names."""

    def open(self, path: Path) -> Opened:
        """Open what `write` wrote."""


@dataclass(frozen=True)
class Onnx:
    """ONNX, with the weights inside, run by onnxruntime.

    Args:
        opset: Version of the operator set; ``None`` for the exporter's own.
    """

    suffix: ClassVar[str] = '.onnx'
    dtypes: ClassVar[tuple[torch.dtype, ...]] = (torch.float32,)  # onnxruntime convolves no float64
    opset: int | None = None

    def prepare(self) -> None:
        for module in ('onnx', 'onnxscript', 'onnxruntime'):
            require(module, 'export')

    def write(self, program: ExportedProgram, names: tuple[str, ...], facts: dict[str, Any], path: Path) -> None:
        size = sum(value.nbytes for value in program.state_dict.values())
        if size > ONE_FILE:
            raise ValueError(f'the weights take {size} bytes, and an ONNX file holds at most 2 GiB.')
        count = len(program.graph_signature.user_outputs)
        outputs = ['y'] if count == 1 else [f'y{i + 1}' for i in range(count)]
        with quiet():
            made = torch.onnx.export(
                program, dynamo=True, opset_version=self.opset, input_names=['x'], output_names=outputs, verbose=False
            )
        assert made is not None
        opset = made.model.opset_imports['']
        if self.opset not in (None, opset):
            raise ValueError(f'opset={self.opset} cannot be had: the exporter gives {opset}.')
        shape = made.model.graph.inputs[0].shape
        assert shape is not None
        free = [length for length in shape if not isinstance(length, int)]
        _name_axes(made, dict(zip(free, names, strict=True)))
        made.model.metadata_props[KEY] = json.dumps(facts)
        made.save(path, external_data=False)

    def open(self, path: Path) -> Opened:
        runtime = require('onnxruntime', 'export')
        session = runtime.InferenceSession(path.read_bytes(), providers=['CPUExecutionProvider'])

        def run(x: Tensor) -> Any:
            given = tuple(map(torch.from_numpy, session.run(None, {'x': x.numpy()})))
            return given if len(given) > 1 else given[0]

        return Opened(run, _facts(session.get_modelmeta().custom_metadata_map.get(KEY), path))


def _name_axes(made: Any, names: dict[Any, str]) -> None:
    if hasattr(made, 'rename_axes'):  # from torch 2.9 or later on
        made.rename_axes(names)
        return
    rename = needed('torch.onnx._internal.exporter._ir_passes.rename_axis', 'name the free axes of ONNX files')
    rename(made.model, {axis.value: name for axis, name in names.items()})


@dataclass(frozen=True)
class TorchExport:
    """``torch.export``, for any device that torch has."""

    suffix: ClassVar[str] = '.pt2'
    dtypes: ClassVar[tuple[torch.dtype, ...]] = (torch.float32, torch.float64)

    def prepare(self) -> None:
        pass

    def write(self, program: ExportedProgram, names: tuple[str, ...], facts: dict[str, Any], path: Path) -> None:
        torch.export.save(program, path, extra_files={KEY: json.dumps(facts)})

    def open(self, path: Path) -> Opened:
        extra = {KEY: ''}
        with quiet():
            module = torch.export.load(path, extra_files=extra).module()
        return Opened(module, _facts(extra[KEY], path))


_COMPILE, _OPEN = 'compile networks ahead of time', 'open what to_aotinductor wrote'
_COMPILE_TO, _LOAD = 'torch._inductor.aoti_compile_and_package', 'torch._inductor.aoti_load_package'


@dataclass(frozen=True)
class AotInductor:
    """Code compiled ahead of time for the device of the network, run without tracing or compiling anything."""

    suffix: ClassVar[str] = '.pt2'
    dtypes: ClassVar[tuple[torch.dtype, ...]] = (torch.float32, torch.float64)

    def prepare(self) -> None:
        path = 'torch._inductor.exc.InvalidCxxCompiler'
        missing = needed(path, _COMPILE, lambda found: issubclass(found, Exception))
        try:
            needed('torch._inductor.cpp_builder.get_cpp_compiler', _COMPILE)()
        except missing as error:
            raise RuntimeError(
                'to_aotinductor needs a C++ compiler and found none: install g++ or clang++, or set the variable CXX.'
            ) from error

    def write(self, program: ExportedProgram, names: tuple[str, ...], facts: dict[str, Any], path: Path) -> None:
        configs = {'aot_inductor.metadata': {KEY: json.dumps(facts)}}
        with quiet():
            compile_to = needed(_COMPILE_TO, _COMPILE)
            compile_to(program, package_path=str(path), inductor_configs=configs)
        if not path.is_file():
            raise misses(_COMPILE_TO, _COMPILE, compile_to)

    def open(self, path: Path) -> Opened:
        load = needed(_LOAD, _OPEN)
        module = load(str(path))
        if not hasattr(module, 'get_metadata'):
            raise misses(_LOAD, _OPEN, load)
        said = module.get_metadata()
        return Opened(module, _facts(said.get(KEY), path), said['AOTI_DEVICE_KEY'])


def opened(path: Path) -> Opened:
    """Open an exported file, whichever format it has.

    Raises:
        ValueError: It is no file of these.
    """
    kind: Format = Onnx()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            compiled = any('/aotinductor/' in name for name in archive.namelist())
        kind = AotInductor() if compiled else TorchExport()
    try:
        return kind.open(path)
    except ImportError:
        raise
    except Exception as error:  # each of the three libraries has its own kinds
        raise ValueError(f'{path} cannot be opened as an export of mdnc: {error}') from error


def _facts(text: str | None, path: Path) -> dict[str, Any]:
    if not text:
        raise ValueError(f'{path} does not say which network of mdnc it is.')
    facts = json.loads(text)
    network = facts.get('network') if isinstance(facts, dict) else None
    if not isinstance(network, dict) or not {'normalisation', 'target_normalisation'} <= facts.keys():
        raise ValueError(f'{path} does not say which network of mdnc it is.')
    return dict(facts)
