"""The published text: facts of a run → table."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from mdnc.contribs.torchsummary.record import Call, Record, record
from mdnc.contribs.torchsummary.request import Request, request

WIDTH = 64
MEBI = 2**20
VALUE_BYTES = 4  # the published formula takes every value for a float32
NAME_LENGTH, NAME_HEAD, NAME_TAIL = 20, 8, 9
NO_TENSOR = '-'


def _rows(number: int, call: Call) -> Iterator[str]:
    first, *others = [str(list(shape)) for shape in call.shapes] or [NO_TENSOR]
    yield _row(_label(f'{call.name}-{number}'), first, f'{call.parameters:,}')
    for shape in others:
        yield _row('', shape, '').rstrip()


def _row(name: str, shape: str, parameters: str) -> str:
    return f'{name:>20}  {shape:>25} {parameters:>15}'


def _label(name: str) -> str:
    return name if len(name) <= NAME_LENGTH else f'{name[:NAME_HEAD]}...{name[-NAME_TAIL:]}'


def _counts(record: Record) -> list[str]:
    return [
        f'Total params: {record.parameters:,}',
        f'Trainable params: {record.trainable:,}',
        f'Non-trainable params: {record.parameters - record.trainable:,}',
    ]


def _memory(record: Record, request: Request) -> list[str]:
    inputs = _megabytes(sum(map(math.prod, request.sizes)) * abs(request.batch_size))
    # Twice, for values and gradients; an open batch of -1 counts as one.
    outputs = _megabytes(2 * sum(abs(math.prod(shape)) for call in record.calls for shape in call.shapes))
    parameters = _megabytes(record.parameters)
    return [
        f'Input size (MB): {inputs:.2f}',
        f'Forward/backward pass size (MB): {outputs:.2f}',
        f'Params size (MB): {parameters:.2f}',
        f'Estimated Total Size (MB): {inputs + outputs + parameters:.2f}',
    ]


def _megabytes(values: int) -> float:
    return values * VALUE_BYTES / MEBI


def _table(record: Record, request: Request) -> str:
    """The table of a run, without a closing newline."""
    lines = ['-' * WIDTH, _row('Layer (type)', 'Output Shape', 'Param #'), '=' * WIDTH]
    for number, call in enumerate(record.calls, start=1):
        lines.extend(_rows(number, call))
    lines += ['=' * WIDTH, *_counts(record), '-' * WIDTH, *_memory(record, request), '-' * WIDTH]
    return '\n'.join(lines)


def summary_string(
    model: nn.Module,
    input_size: Sequence[int] | Sequence[Sequence[int]],
    batch_size: int = -1,
    device: str | int | torch.device | None = None,
    dtypes: Sequence[torch.dtype | type] | None = None,
) -> tuple[str, tuple[int, int]]:
    """Run a model once on random inputs and describe each call in a table; nothing is changed by it.

    Modes, buffers, gradients, hooks, random state and device stay as they are, also when the model raises, and no
    autograd graph is built. Every call of a module takes a row, in the order the calls end; ``nn.Sequential`` and
    ``nn.ModuleList`` take none. A row counts the module's own parameters that no row above has counted, so that a
    shared module or a tied weight is counted once. Parameters of modules that are never called (a weight that is
    read by another module, say) are in the totals only. A call that gives several tensors takes a line for each;
    one that gives none shows ``-``.

    Args:
        model: Any module. It runs in the mode it is in.
        input_size: Size of the input without the batch, or a sequence of sizes, one for each positional input.
        batch_size: Size of the batch, or -1 to leave it open: then 2 are run, and -1 stands for the batch.
        device: Where the inputs are made; it must be where the model is, which is what ``None`` means. With
            ``'meta'`` nothing is computed or allocated, wherever the model is.
        dtypes: Type of each input, as ``torch.float32`` or as ``torch.FloatTensor``; ``None`` for that of the model's
            parameters. Integers are 0.

    Returns:
        The table without a closing newline, and the numbers of all and of the trainable parameters.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument has a value that is not legal, or the model holds parameters without a shape yet.

    Example:
        >>> from torch import nn
        >>> text, (total, trainable) = summary_string(nn.Linear(3, 2), (3,))
        >>> total, trainable
        (8, 8)
        >>> print(text.splitlines()[3])
                    Linear-1                    [-1, 2]               8
    """
    asked = request(model, input_size, batch_size, device, dtypes)
    facts = record(model, asked)
    return _table(facts, asked), (facts.parameters, facts.trainable)


def summary(
    model: nn.Module,
    input_size: Sequence[int] | Sequence[Sequence[int]],
    batch_size: int = -1,
    device: str | int | torch.device | None = None,
    dtypes: Sequence[torch.dtype | type] | None = None,
) -> tuple[int, int]:
    """Print the table of `summary_string`, whose arguments it takes, and return the numbers of parameters.

    Returns:
        The number of all and of the trainable parameters.

    Example:
        >>> from torch import nn
        >>> total, trainable = summary(nn.Linear(3, 2), (3,), batch_size=4)  # doctest: +ELLIPSIS
        ----------------------------------------------------------------
        ...
    """
    text, counts = summary_string(model, input_size, batch_size, device, dtypes)
    print(text)
    return counts
