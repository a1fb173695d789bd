"""Losses with one value a sample, so that each sample counts once however batches are cut."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

QUANTITY_LOSSES: dict[str, Callable[..., Tensor]] = {
    'mse': functional.mse_loss,
    'mae': functional.l1_loss,
    'huber': functional.huber_loss,
}


def sample_means(values: Tensor, known: Tensor | None = None) -> Tensor:
    """Mean of ``(B, ...)`` over everything but the batch, where ``known`` (all, by default): ``(B,)``."""
    values = values.flatten(1) if values.ndim > 1 else values[:, None]
    if known is None:
        return values.mean(1)
    known = known.flatten(1)
    # Where nothing is known a value may be anything, NaN too, which times 0 would still be NaN.
    return torch.where(known, values, 0).sum(1) / known.sum(1).clamp(min=1)


class OwnLoss:
    """A user's loss module: kept in single precision, out of the checkpoints, and reduced to one value a sample.

    It is no part of the task's modules: what is given with a task need not fit what was given with another one whose
    weights are loaded.

    Args:
        module: Made with ``reduction='none'``.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    @property
    def name(self) -> str:
        """The module's class."""
        return type(self._module).__name__

    def __call__(self, output: Tensor, target: Tensor, known: Tensor | None) -> Tensor:
        """Values ``(B,)``.

        Raises:
            ValueError: The module reduces over the batch by itself.
        """
        values = self._module.to(output)(output, target)
        if values.ndim == 0 or len(values) != len(output):
            raise ValueError(f"loss: {self.name} must give one value a sample or element: make it reduction='none'")
        if known is None or known.shape == values.shape:
            return sample_means(values, known)
        if known.all():
            return sample_means(values)
        raise ValueError(
            f'loss: {self.name} gives values {tuple(values.shape)}, so it cannot leave out what is not known, which is '
            f'said for each of {tuple(known.shape)}'
        )


def dice_losses(logits: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """1 − soft Dice, averaged over the classes, of each sample (Milletari et al., V-Net, 2016).

    Args:
        logits: ``(B, K, L1, ...)``.
        target: Class numbers ``(B, L1, ...)``.
        known: Which voxels count ``(B, L1, ...)``.
    """
    share = (logits.softmax(1) * known[:, None]).flatten(2)  # (B, K, voxels)
    truth = functional.one_hot(target * known, logits.shape[1]).movedim(-1, 1)
    truth = (truth * known[:, None]).flatten(2).to(share.dtype)
    overlap, total = (share * truth).sum(2), (share + truth).sum(2)
    # A class that is in neither counts as met, and its gradient is bounded.
    return 1 - ((2 * overlap + 1) / (total + 1)).mean(1)


def class_losses(logits: Tensor, target: Tensor, weight: Tensor | None, smoothing: float, ignore: int) -> Tensor:
    """Cross-entropy of ``(B, K, ...)`` against class numbers ``(B, ...)``, one value a sample."""
    values = functional.cross_entropy(
        logits, target, weight, ignore_index=ignore, label_smoothing=smoothing, reduction='none'
    )
    return sample_means(values, target != ignore) if values.ndim > 1 else values
