"""Which configuration and which folder a training command means."""

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import yaml

import mdnc
from mdnc._bundle import BEST
from mdnc._files import whole_file
from mdnc.cli import UsageError
from mdnc.cli.networks import near

CONFIG = 'config.yaml'
_OWN = ('config', 'continue', 'ckpt_path', 'output', 'format')
_TOPMOST = ('seed_everything', 'trainer', 'model', 'data', 'keeper', 'guard', 'help', 'print_config')
_LARGEST = 100_000  # values of a recipe


class Request(NamedTuple):
    """A training command's own options, and the rest, which belong to the configuration."""

    configs: list[Path]
    run_dir: Path | None  # of --continue
    named: Path | None  # the run that --config names: it is the folder it lies in, whatever is written there
    checkpoint: Path | None
    output: Path | None
    format: str | None
    rest: list[str]

    @property
    def words(self) -> list[str]:
        """The arguments for the configuration's parser."""
        words = [word for config in self.configs for word in ('--config', str(config))]
        run_dir = self.run_dir or self.named
        place = [] if run_dir is None else ['--trainer.default_root_dir', str(run_dir)]
        return [*words, *place, *self.rest]


def read_request(argv: list[str]) -> Request:
    """Split a training command into its parts and find the files that it means.

    Raises:
        UsageError: A configuration is not there.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument('-c', '--config', action='append', default=[])
    parser.add_argument('--continue', dest='run_dir', type=Path)
    parser.add_argument('--ckpt_path', type=Path)
    parser.add_argument('--output', type=Path)
    parser.add_argument('--format')
    own, rest = parser.parse_known_args(argv)
    _refuse_unknown(rest)
    configs = [find_config(name) for name in own.config]
    if own.run_dir is not None and not configs:
        configs = [_saved_config(own.run_dir)]
    shown_only = [word for word in rest if word == '-h' or word.split('=')[0].endswith(('help', '--print_config'))]
    if not configs and not shown_only:
        raise UsageError(f'--config is missing: a recipe file, a run folder, or one of {", ".join(recipe_names())}')
    for path in configs:
        _refuse_bomb(path)
    return Request(configs, own.run_dir, _named_run(own.config), own.ckpt_path, own.output, own.format, rest)


def _refuse_unknown(words: list[str]) -> None:
    # What has a dot is looked up when the configuration is known.
    for word in words:
        option = word.partition('=')[0].rstrip('+')
        if option.startswith('--') and '.' not in option and option[2:] not in (*_OWN, *_TOPMOST, ''):
            known = [f'--{name}' for name in (*_OWN, *_TOPMOST)]
            raise UsageError(f'unrecognized arguments: {option}: {near(option, known)}')


def _refuse_bomb(path: Path) -> None:
    """Refuse a YAML file that grows without bounds when its aliases are followed, as the reader of options does.

    Raises:
        UsageError: It does, or is no YAML at all.
    """
    try:
        root = yaml.compose(path.read_text(), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f'--config {path} is no YAML: {" ".join(str(error).split())}') from error
    sizes: dict[int, int] = {}
    if root is not None and _size(root, sizes) > _LARGEST:
        raise UsageError(f'--config {path}: its aliases stand for more than {_LARGEST:,} values, or for themselves')


def _size(node: yaml.Node, sizes: dict[int, int]) -> int:
    if id(node) not in sizes:
        sizes[id(node)] = _LARGEST + 1  # as long as it is not known: a node within itself is endless
        inner = node.value if isinstance(node, yaml.SequenceNode) else []
        inner = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else inner
        sizes[id(node)] = 1 + sum(_size(part, sizes) for part in inner)
    return sizes[id(node)]


def _named_run(names: list[str]) -> Path | None:
    paths = {find_config(name).parent for name in names if _is_run(Path(name))}
    runs = {path.resolve(): path for path in sorted(paths)}
    if len(runs) > 1:
        raise UsageError(f'--config names several runs: {", ".join(str(path) for path in runs.values())}; name one')
    return next(iter(runs.values()), None)


def _is_run(path: Path) -> bool:
    # A recipe may be called config.yaml too; beside the file of a run there are its checkpoints.
    return (path / CONFIG).is_file() or (path.name == CONFIG and (path.parent / BEST.parent).is_dir())


def _saved_config(run_dir: Path) -> Path:
    path = run_dir / CONFIG
    if not path.is_file():
        raise UsageError(f'{run_dir} holds no run ({path} is missing); with --config too, one is started there')
    return path


def recipe_folder() -> Path:
    """The folder of the recipes that come with mdnc: in the wheel, or in the source tree."""
    package = Path(mdnc.__file__).parent
    installed = package / 'recipes'
    return installed if installed.is_dir() else package.parents[1] / 'recipes'


def recipe_names() -> list[str]:
    """Names of the recipes that come with mdnc."""
    return sorted(path.stem for path in recipe_folder().glob('*.yaml'))


def find_config(name: str) -> Path:
    """A configuration by path, by the folder of its run, or by the name of a recipe.

    Raises:
        UsageError: There is none.
    """
    path = Path(name)
    if path.is_dir() and (path / CONFIG).is_file():
        return path / CONFIG
    if path.is_file():
        return path
    if name in recipe_names():
        return recipe_folder() / f'{name}.yaml'
    raise UsageError(
        f'--config {name}: there is no such file, no run in such a folder, and no such recipe; '
        f'recipes: {", ".join(recipe_names()) or "none"}'
    )


def keep_plan(recipe: Path, run_dir: Path) -> None:
    """Keep the plan that stands beside its recipe, what was read of the data among it, with the run: ``plan.json``."""
    path = recipe.with_suffix('.json')
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError):  # the recipe was not planned
        return
    if not isinstance(known, dict) or not {'choices', 'fingerprint'} <= set(known):
        return
    with whole_file(run_dir / 'plan.json') as file:
        file.write(path.read_bytes())
