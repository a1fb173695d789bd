"""A network run over a large image or volume in overlapping tiles, blended to one whole."""

from mdnc.modules._tiling import run_tiled, tile_starts

__all__ = ['run_tiled', 'tile_starts']
