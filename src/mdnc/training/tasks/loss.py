"""Losses with one value per sample, so that results do not depend on the division into batches."""

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
    # Unknown values may be anything, even NaN, and 0 times NaN would be NaN.
    return torch.where(known, values, 0).sum(1) / known.sum(1).clamp(min=1)


class OwnLoss:
    """A user's loss module: in single precision, not in checkpoints, and reduced to one value per sample.

    It is not a submodule of the task, so that weights of a task with another loss can be loaded.

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
            ValueError: The module itself reduces over the batch.
        """
        if type(self._module).__module__.startswith('monai.') and target.ndim == output.ndim - 1:
            target = target[:, None]  # MONAI needs a channel axis of class numbers, and converts them with to_onehot_y
        values = self._module.to(output)(output, target)
        if values.ndim == 0 or len(values) != len(output):
            raise ValueError(f"loss: {self.name} must return one value per sample or element: use reduction='none'")
        if known is None or known.shape == values.shape:
            return sample_means(values, known)
        if known.all():
            return sample_means(values)
        raise ValueError(
            f'loss: {self.name} returns values {tuple(values.shape)}, so it cannot ignore unknown targets, which are '
            f'marked for each of {tuple(known.shape)}'
        )


@dataclass(frozen=True)
class Overlap:
    """Options of losses of overlaps.

    Args:
        background: Whether the first class counts.
        pooled: Whether overlaps are computed over all samples of a batch together, which helps with rare classes.
        false_positives: Weight of a false positive, relative to 1 for a true positive; ½ in Dice.
        false_negatives: Weight of a false negative.
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
        words: The options.

    Returns:
        One value per sample; the same for all if they are pooled.
    """
    return overlap_losses(overlap_sums(logits, target, known), words)


def overlap_sums(logits: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """What `overlap_losses` are made of, for arguments of `dice_losses`: sums over positions ``(B, 3, K)`` of the
    probabilities of what is true, of all probabilities, and of what is true."""
    share = (logits.softmax(1) * known[:, None]).flatten(2)  # (B, K, voxels)
    truth = functional.one_hot(target * known, logits.shape[1]).movedim(-1, 1)
    truth = (truth * known[:, None]).flatten(2).to(share.dtype)
    return torch.stack([(share * truth).sum(2), share.sum(2), truth.sum(2)], 1)


def overlap_losses(sums: Tensor, words: Overlap) -> Tensor:
    """`dice_losses` of sums ``(B, 3, K)``."""
    met, given, there = (sums.sum(0, keepdim=True).expand_as(sums) if words.pooled else sums).unbind(1)
    wrong = 2 * words.false_positives * (given - met) + 2 * words.false_negatives * (there - met)
    # A class in neither counts as a perfect overlap, and its gradient is bounded.
    index = (2 * met + 1) / (2 * met + wrong + 1)
    return 1 - index[:, 0 if words.background else 1 :].mean(1)


@dataclass(frozen=True)
class Entropy:
    """Options of the cross-entropy.

    Args:
        smoothing: Fraction of each target that is spread over all classes.
        focal: γ: a target predicted with probability p has the weight (1 − p)^γ (Lin et al., Focal loss, 2017).
        ignore: Label value of unknown targets.
    """

    smoothing: float
    focal: float
    ignore: int


def class_losses(logits: Tensor, target: Tensor, weight: Tensor | None, words: Entropy) -> Tensor:
    """Cross-entropy of ``(B, K, ...)`` against class numbers ``(B, ...)``, one value per sample."""
    values = functional.cross_entropy(
        logits, target, weight, ignore_index=words.ignore, label_smoothing=words.smoothing, reduction='none'
    )
    known = target != words.ignore
    if words.focal:
        right = logits.softmax(1).gather(1, torch.where(known, target, 0)[:, None])[:, 0]
        values = values * (1 - right).clamp(min=1e-8) ** words.focal
    return sample_means(values, known) if values.ndim > 1 else values


def balanced_weights(counts: Sequence[int]) -> list[float]:
    """Class weights inversely proportional to the class counts, with mean 1 over the samples; 0 for missing classes."""
    there = [count for count in counts if count]
    return [sum(there) / (len(there) * count) if count else 0.0 for count in counts]
