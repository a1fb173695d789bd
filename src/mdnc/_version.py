"""The version, once: for the metadata, for users, and for the files that mdnc writes."""

__version__ = '0.2.0'
