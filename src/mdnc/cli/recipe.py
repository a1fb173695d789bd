"""Arguments of a training command: its configuration, its run folder, and the rest."""

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
from mdnc.training.checkpoint import numbered

CONFIG = 'config.yaml'
_OWN = ('config', 'continue', 'ckpt_path', 'output', 'format', 'spread')
_TOPMOST = ('seed_everything', 'trainer', 'model', 'data', 'keeper', 'guard', 'help', 'print_config')
_LARGEST = 100_000  # values of a recipe


class Request(NamedTuple):
    """A training command's own options, and the rest, which belong to the configuration."""

    configs: list[Path]
    run_dir: Path | None  # of --continue
    named: Path | None  # the run that --config names: the folder of the file, whatever is written in it
    checkpoint: Path | None
    output: Path | None
    format: str | None
    rest: list[str]
    spread: bool = False  # whether what averaged networks differ by is written too
    others: tuple[Path, ...] = ()  # checkpoints of further networks, that prediction averages

    @property
    def words(self) -> list[str]:
        """The arguments for the configuration's parser."""
        words = [word for config in self.configs for word in ('--config', str(config))]
        run_dir = self.run_dir or self.named
        place = [] if run_dir is None else ['--trainer.default_root_dir', str(run_dir)]
        return [*words, *place, *self.rest]


def read_request(argv: list[str], several: bool = False) -> Request:
    """Split the arguments of a training command and find the files that they name.

    Args:
        argv: What follows the verb.
        several: Whether several runs, or checkpoints, may be named, which prediction averages.

    Raises:
        UsageError: A configuration does not exist.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument('-c', '--config', action='append', nargs='+', default=[])
    parser.add_argument('--continue', dest='run_dir', type=Path)
    parser.add_argument('--ckpt_path', type=Path, nargs='+', default=[])
    parser.add_argument('--output', type=Path)
    parser.add_argument('--format')
    parser.add_argument('--spread', action='store_true')
    own, rest = parser.parse_known_args(argv)
    _refuse_unknown(rest)
    names, others = _networks(own.config, own.ckpt_path, several)
    configs = [find_config(name) for name in names]
    if own.run_dir is not None and not configs:
        configs = [_saved_config(own.run_dir)]
    shown_only = [word for word in rest if word == '-h' or word.split('=')[0].endswith(('help', '--print_config'))]
    if not configs and not shown_only:
        raise UsageError(
            f'--config is missing: give a recipe file, a run folder, or one of {", ".join(recipe_names())}'
        )
    for path in configs:
        _refuse_bomb(path)
    if own.spread and not others:
        raise UsageError('--spread is how far networks are apart: name several runs, as in --config runs/a runs/b')
    checkpoint = own.ckpt_path[0] if own.ckpt_path else _checkpoint(names[0]) if len(names) == 1 else None
    named = _named_run(names)
    return Request(configs, own.run_dir, named, checkpoint, own.output, own.format, rest, own.spread, others)


def _networks(groups: list[list[str]], checkpoints: list[Path], several: bool) -> tuple[list[str], tuple[Path, ...]]:
    """The names of configurations that are laid over each other, and the checkpoints of further networks."""
    runs = max(groups, key=len, default=[])
    if len(runs) < 2 and len(checkpoints) < 2:
        return [name for group in groups for name in group], ()
    option = '--config' if len(runs) > 1 else '--ckpt_path'
    if not several:
        raise UsageError(f'{option} names several networks, and only mdnc predict averages these; name one')
    if len(runs) > 1 and (len(groups) > 1 or checkpoints):
        raise UsageError(
            '--config names several runs, which are averaged, so it stands once and without --ckpt_path; a run of '
            'several files is named by its folder'
        )
    if len(runs) > 1:
        return runs[:1], tuple(map(find_network, runs[1:]))
    for path in checkpoints:
        if not path.is_file():
            raise UsageError(f'--ckpt_path: there is no checkpoint {path}')
    return [name for group in groups for name in group], tuple(checkpoints[1:])


def _checkpoint(name: str) -> Path | None:
    path = Path(name)
    return path if path.suffix == '.ckpt' and path.is_file() else None


def find_network(name: str) -> Path:
    """The checkpoint that is meant by a run's folder, its configuration, a recipe that was run, or the file itself.

    Raises:
        UsageError: It does not exist.
    """
    if (path := _checkpoint(name)) is not None:
        return path
    config = find_config(name)
    if not _is_run(Path(name)):
        given = (yaml.safe_load(config.read_text()) or {}).get('trainer', {}).get('default_root_dir')
        place = Path(given) if given else latest_run(Path('runs'), config.stem)
    else:
        place = config.parent
    best = place / BEST
    if not best.is_file():
        raise UsageError(f'--config {name}: {place} holds no checkpoint {BEST}')
    return best


def run_places(parent: Path, name: str) -> list[Path]:
    """runs/digits, runs/digits-2, …: those that hold checkpoints, and the first that does not."""
    places = [parent / name]
    while numbered(places[-1] / BEST.parent):
        places.append(parent / f'{name}-{len(places) + 1}')
    return places


def latest_run(parent: Path, name: str) -> Path:
    """The last run of a recipe that is called so."""
    places = run_places(parent, name)
    return places[-2] if len(places) > 1 else places[0]


def _refuse_unknown(words: list[str]) -> None:
    # Names with a dot are checked when the configuration is known.
    for word in words:
        option = word.partition('=')[0].rstrip('+')
        if option.startswith('--') and '.' not in option and option[2:] not in (*_OWN, *_TOPMOST, ''):
            known = [f'--{name}' for name in (*_OWN, *_TOPMOST)]
            raise UsageError(f'unrecognized arguments: {option}: {near(option, known)}')


def _refuse_bomb(path: Path) -> None:
    """Refuse a YAML file whose aliases expand without bounds.

    Raises:
        UsageError: They do, or the file is no YAML.
    """
    try:
        root = yaml.compose(path.read_text(), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f'--config {path} is not valid YAML: {" ".join(str(error).split())}') from error
    sizes: dict[int, int] = {}
    if root is not None and _size(root, sizes) > _LARGEST:
        raise UsageError(
            f'--config {path}: its aliases expand to more than {_LARGEST:,} values, or refer to themselves'
        )


def _size(node: yaml.Node, sizes: dict[int, int]) -> int:
    if id(node) not in sizes:
        sizes[id(node)] = _LARGEST + 1  # until it is known: a node that contains itself has no end
        inner = node.value if isinstance(node, yaml.SequenceNode) else []
        inner = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else inner
        sizes[id(node)] = 1 + sum(_size(part, sizes) for part in inner)
    return sizes[id(node)]


def _named_run(names: list[str]) -> Path | None:
    paths = {find_config(name).parent for name in names if _is_run(Path(name))}
    runs = {path.resolve(): path for path in sorted(paths)}
    if len(runs) > 1:
        listed = [str(path) for path in runs.values()]
        raise UsageError(
            f'--config names several runs, {", ".join(listed)}; name one, or let mdnc predict average them: '
            f'--config {" ".join(listed)}'
        )
    return next(iter(runs.values()), None)


def _is_run(path: Path) -> bool:
    # A recipe may also be called config.yaml; the file of a run has a folder of checkpoints beside it.
    if path.suffix == '.ckpt':
        return (path.resolve().parents[1] / CONFIG).is_file()
    return (path / CONFIG).is_file() or (path.name == CONFIG and (path.parent / BEST.parent).is_dir())


def _saved_config(run_dir: Path) -> Path:
    path = run_dir / CONFIG
    if not path.is_file():
        raise UsageError(f'{run_dir} contains no run ({path} is missing); add --config to start one there')
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
        UsageError: It does not exist.
    """
    path = Path(name)
    if path.is_dir() and (path / CONFIG).is_file():
        return path / CONFIG
    if (checkpoint := _checkpoint(name)) is not None:
        config = checkpoint.resolve().parents[1] / CONFIG
        if not config.is_file():
            raise UsageError(
                f'--config {name}: the checkpoint lies in no run, so that its data are not known: --config names a '
                f'recipe or a run, and --ckpt_path {name} the checkpoint'
            )
        return config
    if path.is_file():
        return path
    if name in recipe_names():
        return recipe_folder() / f'{name}.yaml'
    raise UsageError(
        f'--config {name}: no file, run folder or recipe has this name; recipes: {", ".join(recipe_names()) or "none"}'
    )


def keep_plan(recipe: Path, run_dir: Path) -> None:
    """Copy the plan that lies beside its recipe, with the fingerprint of the data, to the run folder: ``plan.json``."""
    path = recipe.with_suffix('.json')
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError):  # the recipe was not made by a plan
        return
    if not isinstance(known, dict) or not {'choices', 'fingerprint'} <= set(known):
        return
    with whole_file(run_dir / 'plan.json') as file:
        file.write(path.read_bytes())
