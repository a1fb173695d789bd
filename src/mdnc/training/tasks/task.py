"""Base of all tasks: network, normalisation, optimizer, schedule, losses and metrics."""

import functools
import math
import os
import warnings
from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import lightning as L
import torch
from lightning.pytorch.plugins.precision import HalfPrecision
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric, Metric

from mdnc._archive import load_archive
from mdnc._bundle import BEST, of_training, unwrapped
from mdnc._plain import plain
from mdnc.checkpoints.loading import revived
from mdnc.modules import decaying_names
from mdnc.modules._checks import integer
from mdnc.modules._ensemble import Averaged, Ensemble
from mdnc.modules._inference import Answer, Steps
from mdnc.modules._standardization import normalised_by, reads_amplitude
from mdnc.training.augmentation import mixed_losses
from mdnc.training.checkpoint import check_fits
from mdnc.training.data.stored_tensor import StoredTensor
from mdnc.training.evaluation import Evaluation, SampleResults, Table
from mdnc.training.pictures import Example, Panel, Style, curves_panel, is_share, save_page
from mdnc.training.plateau import Plateau, refuse_unseen
from mdnc.training.resume_settings import catch_up
from mdnc.training.tasks.arguments import number, own_parts, path
from mdnc.training.tasks.batch import Batch, as_batch, chosen, cropped, real_rows
from mdnc.training.tasks.deep_supervision import level_losses
from mdnc.training.tasks.loss import OwnLoss
from mdnc.training.tasks.metrics import widened
from mdnc.training.tasks.network import Network, as_network, build_network, describe_network, output_channels
from mdnc.training.tasks.precision import NetworkHalf
from mdnc.training.tasks.slabs import held
from mdnc.training.tasks.warm_start import hold, layered_groups, scale_rates, take_weights, words
from mdnc.training.tile_batches import size_tiles
from mdnc.training.weight_averaging import averaging

Made = TypeVar('Made', bound='Task')
_SCHEDULES = ('cosine', 'constant', 'plateau')
_PLATEAU = 'mdnc_plateau'  # under which a checkpoint keeps the place of such a schedule
_LOSS = 'mdnc_loss'  # key in checkpoints for the name of a user's loss


def parameter_groups(network: nn.Module, decaying: frozenset[str], weight_decay: float) -> list[dict[str, Any]]:
    """Parameters in two groups, with and without weight decay.

    FSDP flattens parameters, so weights cannot be distinguished from vectors by their shape: hence the names, taken
    before. FSDP, `torch.compile` and activation checkpointing add prefixes to them.
    """
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in network.named_parameters():
        groups[unwrapped(name) in decaying].append(parameter)
    return [
        {'params': groups[True], 'weight_decay': weight_decay},
        {'params': groups[False], 'weight_decay': 0.0},
    ]


def cosine_factor(step: int, warmup: int, total: int) -> float:
    """Factor of the learning rate: linear warm-up from 0 over ``warmup`` steps, then a half cosine down to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 + 0.5 * math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup)))


class Task(L.LightningModule):
    """Base of all tasks: trains, tests and applies one network; subclasses define the meaning of its output.

    Args:
        network: ``{'name': …, 'arguments': {…}}``: a network or preset of `mdnc.modules.resnet`, or the full name of
            any class of ``nn.Module``; from Python also the module itself.
        lr: Maximum learning rate, above 0.
        weight_decay: Weight decay, at least 0, of convolutions and linear layers; norms, slopes and biases have
            none.
        warmup: Fraction of the steps, in [0, 1), in which the learning rate rises.
        schedule: What the learning rate does after the warm-up: ``'cosine'`` (a half cosine down to 0), ``'constant'``,
            or ``'plateau'`` (down by a factor wherever the figure that makes a checkpoint the best gets no better).
        plateau_patience: Epochs without a better figure, at least 0, that a plateau waits for.
        plateau_factor: What is left of the rate after a plateau, in (0, 1).
        optimizer: Function that makes an optimizer from parameter groups; None: AdamW.
        loss: Replaces the loss of the task: a module with ``reduction='none'`` and without parameters.
        metrics: Additional metrics of torchmetrics by name.
        data: Facts about the training data, from a checkpoint; None: from the data module.
        ema: Decay in (0, 1), for example 0.999, of an exponential moving average of the weights, which is then
            validated, tested, used for predictions, saved and exported. None: no average.
        weights: Folder of a run, or a checkpoint, with initial weights for a new training, as far as they fit.
        freeze: Parts of the network that are not trained: paths or prefixes of paths, see `mdnc.modules.freeze`.
        layer_decay: Factor, in (0, 1], of the learning rate from a part of the network to the part before.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: The network cannot be built, or an argument is out of range.

    Example:
        >>> import mdnc
        >>> from mdnc.training import Classification, Task
        >>> task = Classification(mdnc.modules.resnet.encnet12(order=1, out_length=3), lr=0.01)
        >>> isinstance(task, Task), task.network.nlayers
        (True, 12)
    """

    monitor: ClassVar[tuple[str, str]] = ('val/loss', 'min')
    labels: ClassVar[dict[str, str]] = {'loss': 'loss'}  # metrics drawn as curves, with their titles
    dense: ClassVar[bool] = False  # whether the output is a map of the input's size

    def __init__(
        self,
        network: Network | dict[str, Any] | nn.Module,
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        warmup: float = 0.05,
        schedule: Literal['cosine', 'constant', 'plateau'] = 'cosine',
        optimizer: Callable[[Any], Optimizer] | None = None,
        loss: nn.Module | None = None,
        metrics: dict[str, Metric] | None = None,
        data: dict[str, Any] | None = None,
        ema: float | None = None,
        weights: str | None = None,
        freeze: list[str] | None = None,
        layer_decay: float = 1.0,
        plateau_patience: int = 10,
        plateau_factor: float = 0.1,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        if schedule not in _SCHEDULES:
            raise ValueError(f'{owner}: schedule={schedule!r} must be one of {", ".join(_SCHEDULES)}')
        settings = {
            'lr': number(owner, 'lr', lr, '> 0', math.ulp(0.0)),
            'weight_decay': number(owner, 'weight_decay', weight_decay, '≥ 0', 0.0),
            'warmup': number(owner, 'warmup', warmup, 'in [0, 1)', 0.0, 1.0),
            'schedule': schedule,
            'ema': None if ema is None else number(owner, 'ema', ema, 'in (0, 1)', math.ulp(0.0), 1.0),
            'weights': None if weights is None else path(owner, 'weights', weights),
            'freeze': words(owner, freeze),
            'layer_decay': number(owner, 'layer_decay', layer_decay, 'in (0, 1]', math.ulp(0.0), math.nextafter(1, 2)),
            'plateau_patience': integer(owner, 'plateau_patience', plateau_patience, minimum=0),
            'plateau_factor': number(owner, 'plateau_factor', plateau_factor, 'in (0, 1)', math.ulp(0.0), 1.0),
        }
        metrics = own_parts(owner, optimizer, loss, metrics)
        given = None if isinstance(network, nn.Module) else as_network(network)
        self.network = network if isinstance(network, nn.Module) else build_network(network)
        hold(owner, self.network, settings['freeze'])  # type: ignore[arg-type]
        described = describe_network(self.network, given)
        self.save_hyperparameters({'network': plain(described, owner), **settings, 'data': None}, logger=False)
        self._optimizer, self._loss = optimizer, None if loss is None else OwnLoss(loss)
        self._decaying = decaying_names(self.network)
        self._plateau = Plateau(settings['plateau_factor'], settings['plateau_patience'])  # type: ignore[arg-type]
        self._validated = False
        self._source: object = None
        self.slabs: Callable[..., None] | None = None
        self.spread = False  # whether prediction says how far the networks are apart that it averages
        # Not modules of its own: a checkpoint holds one network.
        self._others: tuple[tuple[str, ...], tuple[Answer, ...]] = (), ()
        self._ensemble: tuple[Ensemble, ...] = ()
        self._tiling: dict[str, Any] = {}  # what of the tiling is another than the checkpoint says
        self._begun: str | ValueError | None = None  # report about the loaded initial weights
        self._evidence = SampleResults()
        self._table: Table | None = None
        self._steps = Steps({'answer': self.answer})
        self._make_metrics(metrics)
        if data is not None:
            self.learn(data)

    def _make_metrics(self, more: dict[str, Metric]) -> None:
        named = {**self.own_metrics(), **more}
        for stage in ('train', 'val', 'test'):
            made = {'loss': MeanMetric(), **{name: metric.clone() for name, metric in named.items()}}
            self.add_module(f'{stage}_metrics', nn.ModuleDict({name: widened(each) for name, each in made.items()}))

    @cached_property
    def outputs(self) -> int:
        """Number of outputs or output channels of the network."""
        return output_channels(self.network)

    # Defined by subclasses.

    @property
    def answer(self) -> dict[str, Any]:
        """How predictions are made from the network's output; see `mdnc.modules._inference.Steps`."""
        return {'output': 'values', 'residual': False, 'dense': self.dense}

    def own_metrics(self) -> dict[str, Metric]:
        """The metrics of the task by name; called when ``self.network`` exists."""
        return {}

    def losses(self, output: Tensor, batch: Batch) -> Tensor:
        """One loss per sample, ``(B,)``."""
        raise NotImplementedError

    def compared(self, output: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Prediction and target for metrics, in the units of the data."""
        raise NotImplementedError

    def measure(self, metric: Metric, output: Tensor, batch: Batch) -> None:
        """Update one of the metrics with a batch."""
        metric.update(*self.compared(output, batch))

    def known(self, batch: Batch) -> Tensor | None:
        """Which parts of the targets are known, ``(B, …)``; None: all of them."""
        return None

    def check(self, batch: Batch) -> None:
        """Refuse a batch with targets that do not fit the task."""

    def describe(self, batch: Batch) -> list[str]:
        """Lines about a batch that a user can check before training."""
        return []

    def collect(self, output: Tensor, batch: Batch) -> None:
        """Store what the pictures of a test need; ``batch`` has no fillers."""

    def evidence(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Values that a test stores for each sample for `judged`, ``(B, …)`` each; ``batch`` has no fillers."""
        return {}

    def in_slabs(self, batch: Batch, stage: str) -> bool:
        """Whether a sample is judged slab by slab in ``'val'`` or ``'test'``, since all its scores are too large."""
        return False

    def judge_slabs(self, batch: Batch, stage: str) -> None:
        """Count a sample in loss and metrics, and in the results of a test, slab by slab."""
        raise NotImplementedError

    def judged(self, table: Table) -> Evaluation | None:
        """Results of a test: metrics with confidence intervals, and values for each sample."""
        return None

    def shown(self, output: Tensor, batch: Batch) -> list[Example]:
        """Panel for the only sample of a batch."""
        return [Example(str(batch['name'][0]), cropped(batch['input'], batch)[0].detach().cpu().numpy())]

    @property
    def style(self) -> Style:
        """How maps are drawn."""
        return Style()

    def panels(self) -> list[Panel]:
        """Panels beside the curves in the picture of a run, from the test."""
        return []

    def pictures(self, folder: Path, history: list[dict[str, float]]) -> list[Path]:
        """Draw the pictures of a run.

        Args:
            folder: Folder for the PNG files.
            history: One row per epoch: ``epoch``, ``train/loss``, ….

        Returns:
            The files: ``results.png``, if there is anything to show.
        """
        panels = curves_panel(history, self.labels) + self.panels()
        return [save_page(Path(folder) / 'results.png', self.title(), panels)] if panels else []

    def title(self) -> str:
        """Title of the picture: the network and its main metric in the test."""
        name = next(name for name in self.labels if name != 'loss')
        value = self.trainer.callback_metrics.get(f'test/{name}')
        if value is None:
            return f'{self.hparams["network"]["name"]}'
        shown = f'{float(value):.2%}' if is_share(name) else f'{float(value):.4g}'
        return f'{self.hparams["network"]["name"]}: test {self.labels[name]} {shown}'

    # Facts about the data.

    @property
    def facts(self) -> dict[str, Any]:
        """Facts about the data: from the checkpoint, or else from the data module of the run; empty before."""
        return self.hparams['data'] or {}

    def learn(self, data: dict[str, Any]) -> None:
        """Set the facts about the data: ``normalisation``, ``classes``, …, as plain values.

        Raises:
            ValueError: Their checkpoint was trained with another ``residual``.
        """
        if not isinstance(data, dict):
            raise TypeError(f'{type(self).__name__}: data={data!r:.80} must be a dictionary as in a checkpoint')
        theirs, ours = (bool(answer.get('residual')) for answer in (data.get('answer') or self.answer, self.answer))
        if theirs != ours:
            raise ValueError(
                f'{type(self).__name__}: residual={str(ours).lower()}, but the network of the checkpoint was trained '
                f'with residual={str(theirs).lower()}: its output means something else'
            )
        self.hparams['data'] = plain({**data, 'answer': self.answer}, f'{type(self).__name__}.data')
        self._steps = Steps(self.hparams['data'])

    def ask(self, source: Any) -> dict[str, Any]:
        """The facts of a data module that this task needs; for some of them it reads the whole training part."""
        shape = getattr(getattr(source, 'train', None), 'shape', None)
        return {**source.facts, **({} if shape is None else {'input': [int(length) for length in shape]})}

    def meet(self, source: Any) -> None:
        """Update the facts from a data module, or compare them, once in a run and never in a step.

        A new training takes the facts from the data module; a continued one from the checkpoint. Otherwise the data
        are compared with those of the training.

        Raises:
            ValueError: They contradict each other, or the data have baselines of a metric that this task has not.
        """
        self._check_baselines(source)
        if self.hparams['data'] is None or (source is not self._source and self._trains_anew):
            self.learn(self.joined(self._asked(source)))
            self._warn_of_lost_amplitude()
        else:
            self.compare(source)
        if hasattr(source, 'normalise_as'):
            source.normalise_as(normalised_by(self.facts.get('normalisation')))
        self._source = source

    def _warn_of_lost_amplitude(self) -> None:
        if normalised_by(self.facts.get('normalisation')) == 'sample' and reads_amplitude(self.network):
            warnings.warn(
                f'{type(self).__name__}: the network has amplitude=True, but with normalise=sample all samples have '
                'the same amplitude: leave out one of the two',
                stacklevel=2,
            )

    def _check_baselines(self, source: Any) -> None:
        known = [name for name, _ in self.get_submodule('test_metrics').named_children()]
        for metric in getattr(source, 'baselines', {}):
            if metric not in known:
                owner, metrics = type(self).__name__, ', '.join(known)
                raise ValueError(f'{owner}: baselines of {metric!r}, but the metrics of the test are {metrics}')

    @property
    def _trains_anew(self) -> bool:
        return self.trainer.state.fn == 'fit'

    def _asked(self, source: Any) -> dict[str, Any]:
        # Only one of several processes reads.
        said = self.ask(source) if self.trainer.is_global_zero else {}
        asked: dict[str, Any] = self.trainer.strategy.broadcast(said)
        return asked

    def joined(self, said: dict[str, Any]) -> dict[str, Any]:
        """The facts after an update from a data module."""
        return said

    def compare(self, source: Any) -> None:
        """Compare the facts with a data module, and take from it what may differ: the size of tiles.

        Raises:
            ValueError: They contradict each other.
        """
        said = getattr(source, 'normalise', None)
        if said in ('sample', 'percentiles') and said != normalised_by(self.facts.get('normalisation')):
            raise ValueError(
                f'{type(self).__name__}: the data say normalise={said}, but the network was trained with '
                f'normalise={normalised_by(self.facts.get("normalisation"))}: leave normalise out'
            )
        if said is False and self.facts.get('normalisation'):
            raise ValueError(
                f'{type(self).__name__}: the data have normalise=false, but the network was trained on '
                f'normalised samples '
                'and normalises its inputs: remove normalise, and give samples in their original units'
            )
        self.tile_as(source)

    def tile_as(self, source: Any) -> None:
        """Take the settings of tiles and mirroring in predictions from a data module, if it has any."""
        names = ('blend', 'tiles', 'mirror', *(('patch', 'overlap') if getattr(source, 'patch', None) else ()))
        said = {name: getattr(source, name, None) for name in names}
        changed = {name: value for name, value in said.items() if value is not None and value != self.facts.get(name)}
        if changed:
            self._tiling |= changed
            self.learn({**self.facts, **changed})

    # Hooks of Lightning other than steps.

    def setup(self, stage: str) -> None:
        """Load initial weights, and restrict half precision to the network.

        Raises:
            ValueError: AdamW would be used in float16.
        """
        source = self.hparams['weights']
        if stage == 'fit' and source is not None and self.hparams['data'] is None:
            try:
                self._begun = take_weights(type(self).__name__, self.network, source)
            except ValueError as error:  # not needed if a run is continued: its checkpoint is read after this
                self._begun = error
        if self.hparams['freeze']:  # parts are in eval mode on purpose
            warnings.filterwarnings('ignore', message=r'Found \d+ module\(s\) in eval mode at the start of training')
        strategy = self.trainer.strategy
        plugin = strategy.precision_plugin
        if type(plugin) is not HalfPrecision:
            return
        if plugin.precision == '16-true' and stage == 'fit' and self._optimizer is None:
            raise ValueError(
                "trainer.precision=16-true: AdamW's squares of small gradients are 0 in float16, so nothing "
                "is learned; "
                'train with --trainer.precision bf16-mixed or bf16-true, or with another optimizer (model.optimizer)'
            )
        strategy.precision_plugin = NetworkHalf(plugin.precision)

    def configure_optimizers(self) -> Any:
        # Of Lightning's hooks before training this is the first that knows whether a checkpoint was loaded.
        begun, self._begun = self._begun, None
        if self.hparams['data'] is None and isinstance(begun, ValueError):
            raise begun
        if self.hparams['data'] is None and begun is not None and self.trainer.is_global_zero:
            print(begun, flush=True)
        self._meet_data()
        decay, layer_decay = self.hparams['weight_decay'], self.hparams['layer_decay']
        if layer_decay < 1:
            groups = layered_groups(self.network, decay, layer_decay)
        else:
            groups = parameter_groups(self.network, self._decaying, decay)
        if self._optimizer is None:
            optimizer: Optimizer = torch.optim.AdamW(groups, lr=self.hparams['lr'])
        else:
            optimizer = self._optimizer(groups)
        scale_rates(optimizer)
        return {'optimizer': optimizer, 'lr_scheduler': {'scheduler': self._schedule(optimizer), 'interval': 'step'}}

    def _schedule(self, optimizer: Optimizer) -> LambdaLR:
        kind, share = self.hparams['schedule'], self.hparams['warmup']
        total = self.trainer.estimated_stepping_batches
        if (kind == 'cosine' or share) and not 0 < total < math.inf:  # -1 for loaders without a length
            unknown = 'the number of batches of the data is unknown: set max_steps of the trainer'
            raise ValueError(
                'the schedule needs an end: set max_epochs or max_steps of the trainer'
                if self.trainer.max_epochs in (None, -1)
                else f'the schedule needs an end, but {unknown}'
            )
        warmup = round(share * total) if share else 0

        def factor(step: int) -> float:
            high = 1.0 if kind != 'cosine' and step >= warmup else cosine_factor(step, warmup, int(total))
            return high * self._plateau.factor

        return LambdaLR(optimizer, factor)

    def configure_callbacks(self) -> list[L.Callback]:
        callbacks: list[L.Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        return averaging(type(self).__name__, self.hparams['ema'], callbacks)

    def on_validation_start(self) -> None:
        if self.trainer.state.fn == 'validate':
            self._meet_data()

    def on_test_start(self) -> None:
        self._meet_data()

    def on_predict_start(self) -> None:
        self._meet_data()
        self._ensemble = (self._joined_ensemble(),) if self._others[1] else ()

    def _joined_ensemble(self) -> Ensemble:
        names, others = self._others
        own = Answer(self.network, {**self.facts, 'answer': self.answer})
        weight = next(self.network.parameters(), torch.empty(0))
        kept = [Answer(each.network.to(weight.device, weight.dtype), {**each.data, **self._tiling}) for each in others]
        ensemble = Ensemble([own, *kept], names)
        return ensemble.eval()

    def average_with(self, others: Mapping[str, Answer], spread: bool = False, called: str = 'this network') -> None:
        """Predict by the mean of several networks from now on, see `mdnc.checkpoints.Ensemble`.

        Args:
            others: The answers of the other networks, by what errors call them.
            spread: Whether a prediction also says how far the networks are apart.
            called: What errors call the task's own network.
        """
        self._others = (called, *others), tuple(others.values())
        self.spread = spread

    def _meet_data(self) -> None:
        source = getattr(self.trainer, 'datamodule', None)
        # Checked on the class: reading the attribute of the object would read the data.
        if hasattr(type(source), 'facts'):
            self.meet(source)
        elif self.hparams['data'] is None:  # for loaders only the meaning of the output is known
            self.learn({})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.hparams['schedule'] == 'plateau':
            checkpoint[_PLATEAU] = self._plateau.state()
        if self._loss is not None:
            checkpoint[_LOSS] = self._loss.name

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        own = {unwrapped(key): key for key in self.state_dict()}
        state = checkpoint['state_dict'].items()
        checkpoint['state_dict'] = {own.get(unwrapped(key), key): value for key, value in state}
        check_fits(self, checkpoint)
        if self.hparams['schedule'] == 'plateau' and _PLATEAU in checkpoint:
            self._plateau.take_up(checkpoint[_PLATEAU])
        lost = checkpoint.get(_LOSS)
        if lost is not None and self._loss is None:
            warnings.warn(
                f"trained with the loss {lost}, which a checkpoint does not contain: metrics called loss are now the "
                "task's own; give loss= to use the same",
                stacklevel=2,
            )
        data = checkpoint.get('hyper_parameters', {}).get('data')
        if data is not None:
            self.learn(data)
        if self._trainer is not None:
            self._source = getattr(self._trainer, 'datamodule', None)  # met, whatever comes
            self._meet_data()

    @classmethod
    def load_from_checkpoint(  # type: ignore[override] # of Lightning's arguments those that make sense for plain values
        cls: type[Made],
        checkpoint_path: str | os.PathLike[str],
        map_location: Any = None,
        *,
        allow: Collection[str] = (),
        **changes: Any,
    ) -> Made:
        """Rebuild a task from a checkpoint, or from the best one of a run folder. No code in the file is run.

        Args:
            checkpoint_path: The checkpoint, or the folder of a run.
            map_location: Device of the weights, as in `torch.load`; by default the CPU.
            allow: Full names of network classes outside mdnc that may be imported and built because you trust them.
            **changes: Arguments of the task to change, also ``network``, a module, and ``loss``.

        Raises:
            FileNotFoundError: The file does not exist.
            ValueError: It is damaged, of another task or network, or names a class that is not allowed.

        Example:
            >>> import tempfile
            >>> import numpy as np
            >>> from mdnc.training import Regression, train
            >>> x = np.random.default_rng(0).normal(size=(60, 1, 32)).astype('f4')
            >>> run = tempfile.mkdtemp()
            >>> predictor = train('EncoderNet', (x, x.std(axis=2)), epochs=1, channel=4, layers=[1, 1], run=run)
            >>> task = Regression.load_from_checkpoint(run)
            >>> task.predict(x[:5]).shape
            (5, 1)
        """
        path = Path(checkpoint_path)
        path = path / BEST if path.is_dir() else path
        checkpoint = load_archive(path, map_location or 'cpu')
        bundle = None if 'network' in changes else of_training(checkpoint, path)
        kept = {} if bundle is None else {'network': revived(bundle, path, allow).train()}
        settings = checkpoint.get('hyper_parameters', {}).items()
        try:
            task = cls(**{**{key: value for key, value in settings if key[0] != '_'}, **kept, **changes})
        except TypeError as error:
            raise ValueError(f'{path} is not a checkpoint of a {cls.__name__}: {error}') from error
        if bundle is not None:  # a class from elsewhere may not keep its arguments
            task.hparams['network'] = {'name': bundle.name, 'arguments': bundle.arguments}
        task.on_load_checkpoint(checkpoint)
        task.load_state_dict(checkpoint['state_dict'])
        return task.to(next((value.device for value in checkpoint['state_dict'].values()), 'cpu'))

    # The steps.

    def forward(self, x: Tensor, lengths: Any = None, figures: Tensor | None = None) -> Any:
        """The network's output for inputs in the units of the data: logits, or standard units, in single precision.

        In eval mode as in `whole`; in training mode the network gets its input as it is, and with
        ``deep_supervision`` a tuple of outputs is returned.

        Args:
            x: Inputs ``(B, C, L1, ...)``.
            lengths: Size of each sample of a padded batch, as from `mdnc.modules.pad_batch`.
            figures: In training mode, mean and standard deviation ``(B, C, 2)`` of the samples that ``x`` is made of,
                where samples are normalised by themselves.
        """
        return self._steps.levels(self.network, x, lengths, figures) if self.training else self.whole(x, lengths)

    def whole(self, x: Tensor, lengths: Any = None) -> Tensor:
        """The output, in overlapping tiles if the network was trained on patches of such samples."""
        size_tiles(self.network, self._steps, x.shape)
        return self._steps.whole(self.network, x, lengths)

    def predicted(self, output: Tensor) -> Tensor:
        """Predictions from an output: probabilities, classes, or values in the units of the data."""
        return self._steps.last(output)

    def predict(self, x: Any) -> Any:
        """Predict for samples as ``mdnc predict`` does; see `mdnc.checkpoints.Answer.predict`."""
        return Answer(self.network, {**self.facts, 'answer': self.answer}).predict(x)

    def _taken(self, given: Any) -> Batch:
        """A batch in the form that steps need, checked; of data modules not in training on a GPU, which would wait."""
        batch = as_batch(type(self).__name__, given)
        waits = 'weight' in batch and self.training and batch['input'].is_cuda
        if not waits and not isinstance(batch.get('target'), StoredTensor):
            self.check(batch)
        return batch

    def _held(self, batch: Batch) -> Batch:
        """The batch with its targets in memory, checked."""
        found = held(batch)
        if found is not batch:
            self.check(found)
        return found

    def trained(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Output in training mode, the finest if there are several, and the training losses ``(B,)``."""
        given = self(batch['input'], batch.get('lengths'), batch.get('figures'))
        losses = functools.partial(mixed_losses, self.losses)
        if isinstance(given, Tensor):
            return given, losses(given, batch)
        return given[0], level_losses(losses, given, batch, type(self).__name__)

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        batch = self._taken(batch)
        output, losses = self.trained(batch)
        self._count('train', output.detach(), losses.detach(), batch)
        weight = batch['weight'] if 'weight' in batch else torch.full_like(losses, 1 / len(losses))
        return {'loss': (losses * weight).sum(), 'losses': losses.detach()}  # for the messages of `Guard`

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        batch = self._taken(batch)
        if self.in_slabs(batch, 'val'):
            self.judge_slabs(batch, 'val')
            return
        batch = self._held(batch)
        output = self.whole(batch['input'], batch.get('lengths'))
        self._count('val', output, self.losses(output, batch), batch)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        batch = self._taken(batch)
        if self.in_slabs(batch, 'test'):
            self.judge_slabs(batch, 'test')
            return
        batch = self._held(batch)
        output = self.whole(batch['input'], batch.get('lengths'))
        losses = self.losses(output, batch)
        self._count('test', output, losses, batch)
        if len(real := real_rows(batch)):
            output, batch = output[real], chosen(batch, real)
            self.collect(output, batch)
            self._keep(output, losses[real], batch)

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        """Predictions; for a padded batch a list of maps of the size of their samples.

        If there are ``slabs``, predictions in tiles are passed to them, and nothing is returned.
        """
        batch = as_batch(type(self).__name__, batch)
        if self._ensemble:
            return self._averaged(self._ensemble[0], batch)
        if self.slabs is not None and self._steps.patch is not None and 'lengths' not in batch:
            size_tiles(self.network, self._steps, batch['input'].shape)
            for start, part in self._steps.slabs(self.network, batch['input']):
                self.slabs(batch, start, part)
            return []
        answer = self.predicted(self.whole(batch['input'], batch.get('lengths')))
        return cropped(answer, batch) if self.dense else answer

    def _averaged(self, ensemble: Ensemble, batch: Batch) -> Any:
        for each in ensemble.members:
            size_tiles(each.network, each.steps, batch['input'].shape)
        if self.slabs is not None and self._steps.patch is not None and 'lengths' not in batch:
            for start, *parts in ensemble.slabs(batch['input'], self.spread):
                self.slabs(batch, start, *parts)
            return []
        found = ensemble.agreement(batch['input'], batch.get('lengths'), self.spread)
        parts = [found.answer(), *([found.spread()] if self.spread else [])]
        rows = [cropped(part, batch) for part in parts] if self.dense else parts
        return Averaged(*rows) if self.spread else rows[0]

    def _keep(self, output: Tensor, losses: Tensor, batch: Batch) -> None:
        known = self.known(batch)
        if known is not None:
            losses = losses.masked_fill(~known.flatten(1).any(1), torch.nan)

        def show(place: int) -> list[Example]:
            row = torch.tensor([place], device=output.device)
            return self.shown(output[row], chosen(batch, row))

        self._evidence.add(batch, losses, self.evidence(output, batch), show)

    def evaluation(self) -> tuple[Table, Evaluation] | None:
        """The samples of the last test of all processes, and its results; None if there are none."""
        found = None if self._table is None or not len(self._table) else self.judged(self._table)
        return None if found is None or self._table is None else (self._table, found)

    def _count(self, stage: str, output: Tensor, losses: Tensor, batch: Batch) -> None:
        real = real_rows(batch, self.known(batch))
        if not len(real):
            return
        metrics = getattr(self, f'{stage}_metrics')
        metrics['loss'].update(losses[real])
        output, batch = output[real], chosen(batch, real)
        for name, metric in metrics.items():
            if name != 'loss':
                self.measure(metric, output, batch)

    def on_validation_epoch_start(self) -> None:
        self._restart('val')

    def on_test_epoch_start(self) -> None:
        self._restart('test')
        self._evidence, self._table = SampleResults(), None

    def on_train_start(self) -> None:
        if self.hparams['schedule'] == 'plateau':
            refuse_unseen('model.schedule=plateau', self._followed[0], self.trainer)

    def on_train_epoch_end(self) -> None:
        self._log('train')
        self._slow_down()

    @property
    def _followed(self) -> tuple[str, str]:
        keepers = (getattr(each, 'followed', None) for each in self.trainer.checkpoint_callbacks)
        return next((figure for figure in keepers if figure is not None), self.monitor)

    def _slow_down(self) -> None:
        figure, fresh, self._validated = self._followed, self._validated, False
        value = self.trainer.callback_metrics.get(figure[0])
        if self.hparams['schedule'] != 'plateau' or value is None or not (fresh or figure[0].startswith('train/')):
            return
        before = self._plateau.factor
        self._plateau.step(figure, float(value))
        if self._plateau.factor != before:
            catch_up(self.trainer)

    def on_validation_epoch_end(self) -> None:
        self._log('val')
        self._validated = not self.trainer.sanity_checking

    def on_test_epoch_end(self) -> None:
        self._log('test')
        self._evidence, self._table = SampleResults(), self._evidence.gather()

    def _restart(self, stage: str) -> None:
        # An interrupted evaluation has left incomplete metrics.
        for metric in getattr(self, f'{stage}_metrics').values():
            reset(metric)

    def _log(self, stage: str) -> None:
        for name, metric in getattr(self, f'{stage}_metrics').items():
            for key, value in self.rows(name, metric.compute()).items():
                # `compute` has synchronised the processes: all log the same value, and its mean is the same.
                self.log(f'{stage}/{key}', value, prog_bar=name == 'loss', sync_dist=True)
            reset(metric)

    def rows(self, name: str, value: Tensor) -> dict[str, Tensor]:
        """The values of a metric by name: separately if it has several (``…_each``)."""
        if value.ndim == 0:
            return {name: value}
        return {f'{name.removesuffix("_each")}_{word}': part for word, part in zip(self.names(), value, strict=True)}

    def figures(self) -> dict[str, str | None]:
        """Names of logged metrics, and whether ``'min'`` or ``'max'`` is better; None if unknown."""
        found: dict[str, str | None] = {}
        for stage in ('val', 'train'):
            for name, metric in getattr(self, f'{stage}_metrics').items():
                better = {True: 'max', False: 'min', None: None}[metric.higher_is_better]
                each = name.endswith('_each')
                names = [f'{name.removesuffix("_each")}_{word}' for word in self.names()] if each else [name]
                found |= dict.fromkeys((f'{stage}/{key}' for key in names), 'min' if name == 'loss' else better)
        return found

    def names(self) -> list[str]:
        """Names of the network's outputs, numbers if there are none."""
        return [str(number) for number in range(self.outputs)]


def reset(metric: Metric) -> None:
    """Reset a metric, with tensors that can also be updated outside Lightning's inference mode."""
    with torch.inference_mode(False):
        metric.reset()
