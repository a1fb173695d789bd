"""Sliding-window inference on large images or volumes, see `mdnc.modules._tiling`."""

from mdnc.modules._tiling import run_tiled, tile_starts

__all__ = ['run_tiled', 'tile_starts']
