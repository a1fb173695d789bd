"""Losses with one value a sample, so that each sample counts once however batches are cut."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
        if type(self._module).__module__.startswith('monai.') and target.ndim == output.ndim - 1:
            target = target[
                :, None
            ]  # MONAI wants the channel of class numbers, and turns them into maps by to_onehot_y
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


@dataclass(frozen=True)
class Overlap:
    """How truth and prediction are compared as areas.

    Args:
        background: Whether the first class counts too.
        pooled: Whether the samples of a batch are taken together, so that a class that most of them lack counts once.
        false_positives: What a false positive counts, beside 1 for a position that is met; ½ in Dice.
        false_negatives: What a false negative counts.
    """

    background: bool = True
    pooled: bool = False
    false_positives: float = 0.5
    false_negatives: float = 0.5


def dice_losses(logits: Tensor, target: Tensor, known: Tensor, words: Overlap = Overlap()) -> Tensor:
    """1 − soft Dice (Milletari et al., V-Net, 2016), or the Tversky index (Salehi et al., 2017), averaged over classes.

    Args:
        logits: ``(B, K, L1, ...)``.
        target: Class numbers ``(B, L1, ...)``.
        known: Which voxels count ``(B, L1, ...)``.
        words: What is compared with what.

    Returns:
        One value a sample; the same for all where they are pooled.
    """
    share = (logits.softmax(1) * known[:, None]).flatten(2)  # (B, K, voxels)
    truth = functional.one_hot(target * known, logits.shape[1]).movedim(-1, 1)
    truth = (truth * known[:, None]).flatten(2).to(share.dtype)
    met, given, there = (share * truth).sum(2), share.sum(2), truth.sum(2)
    if words.pooled:
        met, given, there = (each.sum(0, keepdim=True).expand_as(each) for each in (met, given, there))
    wrong = 2 * words.false_positives * (given - met) + 2 * words.false_negatives * (there - met)
    # A class that is in neither counts as met, and its gradient is bounded.
    index = (2 * met + 1) / (2 * met + wrong + 1)
    return 1 - index[:, 0 if words.background else 1 :].mean(1)


@dataclass(frozen=True)
class Entropy:
    """How class numbers are compared by cross-entropy.

    Args:
        smoothing: Share of each target that is spread over all classes.
        focal: γ: what is told rightly with probability p counts (1 − p)^γ (Lin et al., Focal loss, 2017).
        ignore: Number that stands for "not known".
    """

    smoothing: float
    focal: float
    ignore: int


def class_losses(logits: Tensor, target: Tensor, weight: Tensor | None, words: Entropy) -> Tensor:
    """Cross-entropy of ``(B, K, ...)`` against class numbers ``(B, ...)``, one value a sample."""
    values = functional.cross_entropy(
        logits, target, weight, ignore_index=words.ignore, label_smoothing=words.smoothing, reduction='none'
    )
    known = target != words.ignore
    if words.focal:
        right = logits.softmax(1).gather(1, torch.where(known, target, 0)[:, None])[:, 0]
        values = values * (1 - right).clamp(min=1e-8) ** words.focal
    return sample_means(values, known) if values.ndim > 1 else values


def balanced_weights(counts: Sequence[int]) -> list[float]:
    """Weights by which each class counts as much as any other, of mean 1 over the samples; 0 for absent ones."""
    there = [count for count in counts if count]
    return [sum(there) / (len(there) * count) if count else 0.0 for count in counts]
