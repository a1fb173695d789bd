"""One class for each position."""

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from mdnc._plain import plain
from mdnc.modules._checks import integer
from mdnc.training.data.stored_tensor import large
from mdnc.training.evaluation import Evaluation, Table, evaluate_overlaps
from mdnc.training.pictures import Example, Panel, Style, maps_panel
from mdnc.training.tasks.arguments import flag, weights
from mdnc.training.tasks.batch import Batch, inside, real_rows
from mdnc.training.tasks.classes import ClassTask, plain_weights
from mdnc.training.tasks.examples import keep_examples
from mdnc.training.tasks.loss import Overlap, dice_losses, overlap_losses, overlap_sums
from mdnc.training.tasks.metrics import WIDE, CaseDice, adds_up
from mdnc.training.tasks.network import Network
from mdnc.training.tasks.slabs import Thinned, added, pieces, slab_of
from mdnc.training.tile_batches import size_tiles

_CRITERIA = ('cross_entropy', 'dice', 'both')


class Segmentation(ClassTask):
    """Segmentation: a class for each position; the network returns ``(B, K, L1, ...)``, the target is a map of classes.

    A target ``(1, L1, ...)`` counts as ``(L1, ...)``. The Dice score is that of all voxels together, class by class,
    and its mean over the classes; ``dice_case`` is that of each sample by itself, without the first class.

    Args:
        network: See `Task`; K is at least 2.
        criterion: ``'cross_entropy'``, ``'dice'`` (1 − soft Dice), or ``'both'``, their sum.
        ignore: Label value of unknown positions: ignored in loss, metrics and pictures.
        probabilities: Whether predictions are probabilities ``(K, L1, ...)`` instead of class numbers ``(L1, ...)``.
        background: Whether the first class counts in the Dice part of the loss.
        batch_dice: Whether the Dice part is computed over all samples of a batch (of one process) together.
        tversky: Weights of false positives and false negatives in the Dice part, two numbers of at least 0, not both
            0; None for ½ and ½, which is Dice.
        **options: Those of `ClassTask` (``smoothing``, ``class_weights``, ``focal``, of the cross-entropy) and `Task`.

    Raises:
        ValueError: ``criterion`` is unknown, another argument is out of range, or see `Task`.

    Example:
        >>> import torch
        >>> from mdnc.training import Segmentation
        >>> task = Segmentation({'name': 'unet16', 'arguments': {'order': 2, 'out_planes': 3}}, criterion='dice').eval()
        >>> task(torch.zeros(2, 1, 40, 40)).shape, task.monitor
        (torch.Size([2, 3, 40, 40]), ('val/dice', 'max'))
    """

    monitor: ClassVar[tuple[str, str]] = ('val/dice', 'max')
    labels: ClassVar[dict[str, str]] = {'loss': 'loss', 'dice': 'mean Dice score'}
    dense: ClassVar[bool] = True

    def __init__(
        self,
        network: Network | dict[str, Any] | nn.Module,
        criterion: Literal['cross_entropy', 'dice', 'both'] = 'both',
        ignore: int = -100,
        probabilities: bool = False,
        background: bool = True,
        batch_dice: bool = False,
        tversky: list[float] | None = None,
        **options: Any,
    ) -> None:
        if criterion not in _CRITERIA:
            raise ValueError(f'Segmentation: criterion must be one of {_CRITERIA}, not {criterion!r}')
        # Needed by the base class for metrics and predictions.
        self.ignore = integer('Segmentation', 'ignore', ignore, minimum=-(2**31))
        self.probabilities = flag('Segmentation', 'probabilities', probabilities)
        background = flag('Segmentation', 'background', background)
        batch_dice = flag('Segmentation', 'batch_dice', batch_dice)
        if tversky is not None:
            tversky = weights('Segmentation', 'tversky', plain(tversky, 'Segmentation.tversky'), 2, 'kind of error')
        self._overlap = Overlap(background, batch_dice, *(tversky or (0.5, 0.5)))
        options = plain_weights('Segmentation', options)
        super().__init__(network, **options)
        self.hparams.update(criterion=criterion, ignore=self.ignore, probabilities=self.probabilities)
        self.hparams.update(background=background, batch_dice=batch_dice, tversky=tversky)
        self._kept: list[Example] = []

    @property
    def answer(self) -> dict[str, Any]:
        return {**super().answer, 'output': 'probabilities' if self.probabilities else 'classes'}

    def own_metrics(self) -> dict[str, Metric]:
        self._refuse_one_class()
        return {
            'dice': MulticlassF1Score(self.outputs, average='macro', ignore_index=self.ignore),
            'dice_each': MulticlassF1Score(self.outputs, average='none', ignore_index=self.ignore),
            'dice_case': CaseDice(self.outputs, self.ignore),
            'accuracy': MulticlassAccuracy(self.outputs, average='micro', ignore_index=self.ignore),
        }

    def target(self, batch: Batch) -> Tensor:
        """Class numbers ``(B, L1, ...)``; a single channel is removed."""
        return self.class_numbers(_lone(batch, self.ignore), self.ignore)

    def known(self, batch: Batch) -> Tensor:
        return _lone(batch, self.ignore) != self.ignore

    def check(self, batch: Batch) -> None:
        shape = (len(batch['input']), *batch['input'].shape[2:])
        checked = {**batch, 'target': _lone(batch, self.ignore)} if isinstance(batch.get('target'), Tensor) else batch
        self.check_classes(checked, shape, self.ignore)

    def describe(self, batch: Batch) -> list[str]:
        names, target = self.names(), self.target(batch)
        shares = [float((target == number).float().mean()) for number in range(len(names))]
        present = [f'{name} {share:.1%}' for name, share in zip(names, shares, strict=True) if share]
        return [f'classes in the batch: {", ".join(present)} of the positions']

    def _refuse_other_size(self, output: Tensor, target: Tensor) -> None:
        if output.ndim < 3 or output.shape[2:] != target.shape[1:]:
            raise ValueError(
                f'Segmentation: the network returns {tuple(output.shape[1:])} per sample, but the targets are '
                f'{tuple(target.shape[1:])}: it must return maps of the size of its input, as a U-Net does'
            )

    def losses(self, output: Tensor, batch: Batch) -> Tensor:
        target, known = self.target(batch), self.known(batch)
        self._refuse_other_size(output, target)
        if self._loss is not None:
            return self._loss(output, torch.where(known, target, 0), known)
        criterion = self.hparams['criterion']
        total = output.new_zeros(len(output))
        if criterion != 'dice':
            total = total + self.entropy(output, target, self.ignore)
        if criterion != 'cross_entropy':
            total = total + dice_losses(output, target, self._pooled(known, batch), self._overlap)
        return total

    def _pooled(self, known: Tensor, batch: Batch) -> Tensor:
        # With pooled samples, those of weight 0 must not be in the sums.
        if not self._overlap.pooled or 'weight' not in batch:
            return known
        real: Tensor = (batch['weight'] > 0).view(-1, *(1,) * (known.ndim - 1))
        return known & real

    def compared(self, output: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        return output.argmax(1), self.target(batch)

    def title(self) -> str:
        figures = self.trainer.callback_metrics
        each = [
            f'{name} {float(figures[f"test/dice_{name}"]):.1%}'
            for name in self.names()
            if f'test/dice_{name}' in figures
        ]
        return super().title() + (f' ({", ".join(each)})' if each else '')

    def on_test_epoch_start(self) -> None:
        super().on_test_epoch_start()
        self._kept = []

    @property
    def style(self) -> Style:
        return Style(classes=self.names())

    def _show(self, kept: list[Example], answer: Tensor, batch: Batch) -> list[Example]:
        target = self.target(batch)
        shown = target.float().masked_fill(target == self.ignore, torch.nan)
        keep_examples(kept, batch, shown, answer, self.style)
        return kept

    def collect(self, output: Tensor, batch: Batch) -> None:
        self._show(self._kept, output.argmax(1), batch)

    def shown(self, output: Tensor, batch: Batch) -> list[Example]:
        return self._show([], output.argmax(1), batch)

    def evidence(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        answer, target = self.compared(output, batch)
        count, cells = self.outputs, self.outputs**2
        first = torch.arange(0, len(target) * cells, cells, device=target.device)
        places = first.view(-1, *(1,) * (target.ndim - 1)) + target * count + answer
        return {
            'confusion': torch.bincount(places[self.known(batch)], minlength=len(target) * cells).view(-1, count, count)
        }

    def in_slabs(self, batch: Batch, stage: str) -> bool:
        x, metrics = batch['input'], getattr(self, f'{stage}_metrics').values()
        whole = self._loss is not None or self._steps.patch is None or 'lengths' in batch or len(x) > 1
        return not whole and large((self.outputs, *x.shape[2:])) and all(map(adds_up, metrics))

    def judge_slabs(self, batch: Batch, stage: str) -> None:
        if not len(real_rows(batch)):
            return
        x, sums, thinned = batch['input'], dict[str, Tensor](), Thinned(batch['input'].shape[2:])
        size_tiles(self.network, self._steps, x.shape)
        for start, output in pieces(self._steps.scored(self.network, x)):
            part = slab_of(batch, start, output.shape[2])
            self.check(part)
            sums = added(sums, self._sums(output, part))
            for metric in self._slab_metrics(stage):
                self.measure(metric, output, part)
            if stage == 'test':
                thinned.add(start, part['input'], self.target(part), output.argmax(1))
        losses = self._losses_of(sums)
        self._count_sums(stage, losses, sums)
        if stage == 'test':
            self._keep_thinned(batch, losses, sums, thinned)

    def _slab_metrics(self, stage: str) -> list[Metric]:
        metrics = getattr(self, f'{stage}_metrics').items()
        return [metric for name, metric in metrics if name != 'loss' and not isinstance(metric, CaseDice)]

    def _sums(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        """What `_losses_of` needs of a slab, and the evidence of a test."""
        self._refuse_other_size(output, target := self.target(batch))
        known, criterion = self.known(batch), self.hparams['criterion']
        found = {'known': known.flatten(1).sum(1), **self.evidence(output, batch)}
        if criterion != 'dice':
            found['entropy'] = self.entropy(output, target, self.ignore).to(WIDE) * found['known']
        if criterion != 'cross_entropy':
            found['overlaps'] = overlap_sums(output, target, known).to(WIDE)
        return found

    def _losses_of(self, sums: dict[str, Tensor]) -> Tensor:
        """`losses` of sums over all slabs."""
        total = sums['known'].new_zeros(len(sums['known']), dtype=WIDE)
        if 'entropy' in sums:
            total = total + sums['entropy'] / sums['known'].clamp(min=1)
        if 'overlaps' in sums:
            total = total + overlap_losses(sums['overlaps'], self._overlap)
        return total.float()

    def _count_sums(self, stage: str, losses: Tensor, sums: dict[str, Tensor]) -> None:
        for name, metric in getattr(self, f'{stage}_metrics').items():
            if name == 'loss' and bool(sums['known'].any()):
                metric.update(losses)
            elif isinstance(metric, CaseDice):
                metric.update(sums['confusion'])

    def _keep_thinned(self, batch: Batch, losses: Tensor, sums: dict[str, Tensor], thinned: Thinned) -> None:
        given, target, answer = thinned.maps()
        shown = {'input': given, 'target': target, 'name': batch['name'], 'step': thinned.step}
        self._show(self._kept, answer, shown)
        losses = losses.masked_fill(sums['known'] == 0, torch.nan)
        self._evidence.add(batch, losses, {'confusion': sums['confusion']}, lambda place: self._show([], answer, shown))

    def judged(self, table: Table) -> Evaluation:
        return evaluate_overlaps(table, self.names())

    def panels(self) -> list[Panel]:
        return [maps_panel(self._kept, self.style)] if self._kept else []


def _lone(batch: Batch, ignore: int) -> Tensor:
    """Targets without their single channel, and with ``ignore`` in the padding of a batch."""
    target: Tensor = batch['target']
    target = target[:, 0] if target.ndim == batch['input'].ndim and target.shape[1] == 1 else target
    real = inside(batch) if target.shape[1:] == batch['input'].shape[2:] else None
    return target if real is None else target.masked_fill(~real, ignore)
