"""Which configuration and which folder a training command means."""

import argparse
from pathlib import Path
from typing import NamedTuple

import mdnc
from mdnc._bundle import BEST
from mdnc.cli import UsageError

CONFIG = 'config.yaml'


class Request(NamedTuple):
    """A training command's own options, and the rest, which belong to the configuration."""

    configs: list[Path]
    run_dir: Path | None  # of --continue
    named: Path | None  # the run that --config names: it is the folder it lies in, whatever is written there
    checkpoint: Path | None
    output: Path | None
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
    own, rest = parser.parse_known_args(argv)
    configs = [find_config(name) for name in own.config]
    if own.run_dir is not None and not configs:
        configs = [_saved_config(own.run_dir)]
    shown_only = [word for word in rest if word == '-h' or word.split('=')[0].endswith(('help', '--print_config'))]
    if not configs and not shown_only:
        raise UsageError(f'--config is missing: a recipe file, a run folder, or one of {", ".join(recipe_names())}')
    return Request(configs, own.run_dir, _named_run(own.config), own.ckpt_path, own.output, rest)


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
