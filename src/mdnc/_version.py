"""The version, once: for the metadata, for users, and for the files that mdnc writes."""

__version__ = '0.3.0'
